"""Trials of addition: sums by hand, oracles of known mechanism, and the battery on this task."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from interp.forward import readout
from interp.models import ModelConfig, build_model
from interp.tasks import Role, default_vocabulary, parse_format, sample
from probes import batteries, decision, keys
from probes.arms import m01_identity, m05_history, shares
from probes.arms.idle_heads import LABELS, IdleHeads, sides_of
from probes.arms.m01_identity import MAPS, full_effect, margins, measure_swaps
from probes.arms.m05_history import measure_history
from probes.arms.m06_heads import SortedHeads
from probes.arms.m06_removal import measure_removal
from probes.arms.registry import ARMS, DECIDING, left_out_of
from probes.arms.shares import FACTORS
from probes.batteries import battery
from probes.limits import check_shortest
from probes.trials.addition import choose_sums
from probes.trials.parity import Trials, refuse, refuse_address
from tests.probes.adding_oracles import AddingOracle
from tests.probes.oracle_models import MemoryRun

FORMATS = ("addition-aligned", "addition-zeropad", "addition-nonaligned")
LENGTHS = (6, 9, (8, 6), (6, 11))
everywhere = pytest.mark.parametrize(("fmt", "length"), [(f, n) for f in FORMATS for n in LENGTHS])


def trials_of(fmt: str = "addition-aligned", length=7, size: int = 200, seed: int = 3) -> Trials:
    return choose_sums(sample(fmt, size, length, seed=1), seed)


def operands(batch, row: int) -> list[dict[str, int]]:
    """Return the digits by label in each operand, from the printed prompt."""
    text = batch.text(row).split(" === ")[0].removeprefix(">>> ")
    found = []
    for part in text.split(" + "):
        tokens = part.split()
        found.append({a: int(b) for a, b in pairwise(tokens) if b.isdigit()})
    return found


def labels_at(batch, row: int, place: int) -> list[str]:
    """Labels that the sum cites right before its digit of a place."""
    where = ((batch.role == Role.OUTPUT_LABEL) & (batch.step == place)).nonzero().flatten().tolist()
    return [batch.symbol(int(batch.tokens[row, p])) for p in where]


def numbers(batch, row: int) -> tuple[int, int]:
    parts = batch.text(row).split(" === ")[0].removeprefix(">>> ").split(" + ")
    first, second = (int("".join(w for w in part.split() if w.isdigit())) for part in parts)
    return first, second


def sum_digit(first: int, second: int, place: int) -> int:
    return (first + second) // 10 ** (place - 1) % 10


def carry_into(first: int, second: int, place: int) -> int:
    below = 10 ** (place - 1)
    return (first % below + second % below) // below


def under(batch, row: int, place: int) -> int:
    """The sum of the digits under the labels that the place cites."""
    first, second = operands(batch, row)
    cited = labels_at(batch, row, place)
    pair = (cited[1], cited[0]) if batch.format.name == "nonaligned" else (cited[0], cited[0])
    return first[pair[0]] + second[pair[1]]


def value(t: Trials, token: int) -> int:
    return int(t.batch.vocabulary.symbol(token))


@everywhere
def test_every_intervention_leads_to_the_one_other_answer(fmt, length):
    """Sums done by Python on the printed prompts, one after the other."""
    t = trials_of(fmt, length, 60)
    edited, history, future, swaps = t.edited, t.other_history, t.other_future, (t.swapped_inputs, t.swapped_outputs)
    controls = [t.swapped_bystanders(role) for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL)]
    for row in range(len(t)):
        i, answer, other = int(t.step[row]), value(t, int(t.answer[row])), value(t, int(t.other[row]))
        first, second = numbers(t.batch, row)
        carry = carry_into(first, second, i)
        assert sum_digit(first, second, i) == answer != other
        assert (under(t.batch, row, i) + carry) % 10 == answer
        assert sum_digit(*numbers(edited, row), i) == other
        assert carry_into(*numbers(edited, row), i) == carry
        for swapped in swaps:
            assert (under(swapped, row, i) + carry) % 10 == (other if t.cell[row] == 0 else answer)
        # Another history flips the carry, and nothing else about the place; another future does not.
        assert sum_digit(*numbers(history, row), i) == other
        assert carry_into(*numbers(history, row), i) == 1 - carry
        assert sum_digit(*numbers(future, row), i) == answer
        # Bystanders: the place itself finds what it found, and each of them finds other digits.
        for control in controls:
            assert under(control, row, i) == under(t.batch, row, i)
            for b in t.bystanders:
                assert (under(control, row, int(b[row])) - under(t.batch, row, int(b[row]))) % 10 != 0


@everywhere
def test_the_carry_does_not_depend_on_how_it_is_worked_out(fmt, length):
    """The carry from all lower digits equals that from the place below and its written digit, after every swap."""
    t = trials_of(fmt, length, 60)
    control = t.swapped_bystanders(Role.INPUT_LABEL)
    kept = [t.batch, t.edited, t.swapped_inputs, t.swapped_outputs, control, t.other_future]
    history = t.other_history
    for row in range(len(t)):
        i = int(t.step[row])
        carry = carry_into(*numbers(t.batch, row), i)
        for batch, expected in [(batch, carry) for batch in kept] + [(history, 1 - carry)]:
            written = int(batch.symbols(row)[int(batch.at(Role.OUTPUT, i - 1)[0])])
            below = under(batch, row, i - 1)
            assert (below >= 10 or (below == 9 and written == 0)) == bool(expected)
            chain = 0
            for place in range(1, i):
                chain = (under(batch, row, place) + chain) // 10
            assert chain == expected


@everywhere
def test_prompts_are_ordinary_ones(fmt, length):
    """The same layout and labels, correct sums, numbers that do not begin with a zero; steps are apart."""
    t = trials_of(fmt, length, 100)
    drawn, x = sample(fmt, 100, length, seed=1), t.batch
    assert torch.equal(x.role, drawn.role)
    labels = torch.isin(x.role, torch.tensor((Role.INPUT_LABEL, Role.OUTPUT_LABEL, Role.ANSWER_LABEL)))
    assert torch.equal(x.tokens[:, labels], drawn.tokens[:, labels])
    n, m = length if isinstance(length, tuple) else (length, length)
    for row in range(len(t)):
        first, second = numbers(x, row)
        assert (len(str(first)), len(str(second))) == (n, m)
        outputs = "".join(x.symbols(row)[p] for p in x.at(Role.OUTPUT).tolist())
        assert int(outputs[::-1]) == first + second
        i, j, lower, later = (int(getattr(t, k)[row]) for k in ("step", "partner", "earlier", "later"))
        u, v = (int(b[row]) for b in t.bystanders)
        assert 1 < lower < i < later <= min(n, m)
        assert later != j
        assert len({i, lower, i - 2, j, u, v}) == 6
    assert t.length == max(n, m)


def test_every_place_and_digit_is_reached_and_cells_do_not_differ_in_them():
    t = trials_of(length=8, size=4000)
    assert set(t.step.tolist()) == set(range(3, 8))
    assert set(t.partner.tolist()) == set(range(1, 9))
    assert t.cell.bincount(minlength=4).tolist() == [2000, 0, 0, 2000]
    assert t.strata.tolist() == [0 if c == 0 else 1 for c in t.cell.tolist()]
    for operand in (0, 1):
        where = [int(t.batch.at(Role.INPUT, s)[operand]) for s in t.step.tolist()]
        at_step = t.batch.tokens[torch.arange(len(t)), torch.tensor(where)]
        for cell in (0, 3):
            counts = Counter(at_step[t.cell == cell].tolist())
            assert len(counts) == 10
            assert min(counts.values()) > 140  # of 200 each
    for cell in (0, 3):
        assert (t.partner < t.step)[t.cell == cell].float().mean() == pytest.approx(0.5, abs=0.05)  # of 8 places


def test_some_cells_alone_a_size_and_a_seed():
    batch = sample("addition-aligned", 50, 6, seed=1)
    assert choose_sums(batch, 0, 21).cell.bincount().tolist() == [11, 0, 0, 11]
    alone = choose_sums(batch, 0, 20, cells=(0,))
    assert alone.cell.tolist() == [0] * 20
    assert alone.all_differ.all()
    first, again, other = (choose_sums(batch, seed) for seed in (0, 0, 1))
    assert torch.equal(first.batch.tokens, again.batch.tokens)
    assert not torch.equal(first.step, other.step)
    some = first.rows(first.cell == 3)
    assert torch.equal(some.batch.tokens, first.batch.tokens[first.cell == 3])


@pytest.mark.parametrize(
    ("fmt", "length", "options", "error"),
    [
        ("addition-none", 6, {}, "no labels"),
        ("recall-ordered", 6, {}, "neither parity nor addition"),
        ("parity-aligned", 6, {}, "is not addition"),
        ("addition-aligned", 5, {}, "at least 6 is needed .* got \\(5, 5\\)"),
        ("addition-zeropad", (9, 5), {}, "at least 6 is needed"),
        ("addition-aligned", 6, {"cells": (0, 1)}, "cells of addition are 0 and 3"),
        ("addition-aligned", 6, {"size": 1}, "ask for more prompts"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(fmt, length, options, error):
    with pytest.raises(ValueError, match=error):
        choose_sums(sample(fmt, 20, length, seed=0), 0, **options)


def test_labels_of_addition_can_be_tested_and_can_be_addresses():
    for fmt in FORMATS:
        batch = sample(fmt, 2, 6, seed=0)
        assert refuse(batch) is None
        assert refuse_address(batch) is None
    check_shortest(5)
    with pytest.raises(ValueError, match="at least 6"):
        check_shortest(5, "addition")


@pytest.mark.parametrize("share", [1.0, 0.0, 0.3])
@pytest.mark.parametrize("fmt", FORMATS)
def test_what_follows_the_label_is_the_address_routes_share(fmt, share):
    t = trials_of(fmt)
    model = AddingOracle(t.batch, share)
    found = {e.key: e for e in measure_swaps(model, t, 5)}  # type: ignore[arg-type]
    for key in (keys.SWAP_INPUTS, keys.SWAP_OUTPUTS, keys.EITHER_SIDE):
        e = found[key]
        assert e.value.value == pytest.approx(share, abs=1e-6)
        assert e.control is not None
        assert e.control.value == pytest.approx(0, abs=1e-6)
        assert e.length == 7
    for key in (keys.SAME_UNDER_BOTH, keys.RENAME, keys.RENAME_HELD_OUT):
        assert found[key].value.value == pytest.approx(0, abs=1e-6)
    swap = found[keys.SWAP_INPUTS].details
    assert swap["follows"]["value"] == (share > 0.5)
    assert swap["control follows"]["value"] == 0
    assert not set(swap) & {"maps", *MAPS}


@pytest.mark.parametrize("fmt", FORMATS)
def test_oracles_add_and_another_carry_turns_their_answer_over(fmt):
    t = trials_of(fmt)
    for share in (1.0, 0.0):
        model = AddingOracle(t.batch, share)
        margin, other = margins(model, t.batch, t)  # type: ignore[arg-type]
        assert margin.tolist() == [3.0] * len(t)
        assert not other.any()
        for do, expected in ((t.edited, -3.0), (t.other_history, -3.0), (t.other_future, 3.0)):
            assert set(margins(model, do, t)[0].tolist()) == {expected}  # type: ignore[arg-type]
        assert full_effect(model, t).tolist() == [6.0] * len(t)  # type: ignore[arg-type]


def test_a_model_that_breaks_where_labels_are_traded_follows_nothing():
    t = trials_of()

    class Checks(AddingOracle):
        def __call__(self, tokens, use_cache, logits_to_keep):
            out = super().__call__(tokens, use_cache, logits_to_keep)
            second = torch.tensor(self.inputs(Role.INPUT_LABEL, 1))
            second = second[t.batch.step[second].argsort()]
            differs = (tokens[:, second] != tokens[:, t.batch.at(Role.OUTPUT_LABEL)]).any(dim=1)
            out.logits[differs] *= 0.5
            return out

    found = {e.name: e.value.value for e in measure_swaps(Checks(t.batch, 0.0), t, 0)}  # type: ignore[arg-type]
    assert found["either side"] == pytest.approx(0, abs=1e-6)
    assert found["whatever is found"] == pytest.approx(0.25, abs=1e-6)


def small_run(fmt: str, family: str = "absolute") -> MemoryRun:
    model = build_model(ModelConfig(family, 2, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    return MemoryRun("random", "", parse_format(fmt), default_vocabulary(), made=[model])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode few prompts: a model that fails is decoded token by token."""
    monkeypatch.setattr(batteries, "GATE", 24)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("fmt", "family"),
    [("addition-aligned", "absolute"), ("addition-zeropad", "alibi"), ("addition-nonaligned", "alibi")],
)
def test_an_untrained_model_is_not_applicable(fmt, family):
    found = decision.verdict(battery(small_run(fmt, family), (6,), prompts=24, arms=ARMS))
    assert found.label == "not-applicable"
    json = found.to_json()["by_length"][0]
    assert set(json["left_out"]) == {"M8", "M9", "M10", "M11"}
    assert all("left out for addition" in why for why in json["left_out"].values())


def test_only_arms_that_were_asked_for_are_left_out():
    aligned = parse_format("addition-aligned")
    assert left_out_of(aligned, DECIDING) == {}
    assert set(left_out_of(aligned, ("M5", "M11"))) == {"M11"}
    assert left_out_of(parse_format("parity-aligned"), ARMS) == {}
    with pytest.raises(ValueError, match="at least 6"):
        battery(small_run("addition-aligned"), (5,), prompts=24)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("fmt", [*(pytest.param(f, marks=pytest.mark.slow) for f in FORMATS[:2]), FORMATS[2]])
def test_arms_of_addition_run_on_a_transformer(fmt, monkeypatch: pytest.MonkeyPatch):
    """The model is untrained: relative to a full effect of 1, its tiny weights have almost no effect."""
    for module in ("inputs", "m01_identity", "m05_history", "m04_routes"):
        monkeypatch.setattr(f"probes.arms.{module}.full_effect", lambda _, t: torch.ones(len(t)))
    measured = shares.interchange

    def with_full_effect(model, prompts, entries, metric):
        change = measured(model, prompts, entries, metric).change.clone()
        change[list(entries).index(shares.EDITED)] = -1.0
        return SimpleNamespace(change=change)

    monkeypatch.setattr(shares, "interchange", with_full_effect)
    chosen = ("M1", "M2", "M3", "M4", "M5", "M11", "M12", "shares")
    (found,) = battery(small_run(fmt), (6,), prompts=24, arms=chosen, competence=None).measured
    assert found.refusal is None
    assert {e.arm for e in found.evidence} == {*chosen} - {"M11"}
    assert set(found.left_out) == {"M11"}
    by_key = {e.key: e for e in found.evidence}
    for key in (keys.ATTENTION, keys.HISTORY_V, keys.HISTORY_K):
        assert abs(by_key[key].value.value) < 0.1
    assert {e.name for e in found.evidence if e.arm == "shares"} == {*FACTORS, "interaction", "remainder"}


@pytest.mark.parametrize("fmt", FORMATS)
def test_history_is_taken_from_the_run_with_another_carry_at_labels_alone(fmt, monkeypatch: pytest.MonkeyPatch):
    t = trials_of(fmt, size=12)
    seen = {}

    def watched(raw, base, entries, metric):
        seen.update(entries)
        return interchange(raw, base, entries, metric)

    interchange = m01_identity.interchange
    monkeypatch.setattr(m01_identity, "interchange", watched)
    monkeypatch.setattr(m05_history, "full_effect", lambda _, t: torch.ones(len(t)))
    measure_history(small_run(fmt).raw, t)
    frozen, taken = seen["history in V at labels"]
    assert frozen.source is t.batch
    assert torch.equal(taken.source.tokens, t.other_history.tokens)
    for row in range(len(t)):
        roles = {int(t.batch.role[p]) for p in taken.at[row].nonzero().flatten().tolist()}
        assert roles == {Role.INPUT_LABEL, Role.OUTPUT_LABEL, Role.ANSWER_LABEL}
        own = [p for p in t.batch.at(Role.OUTPUT_LABEL).tolist() if t.batch.step[p] == t.step[row]]
        assert own[-1] == int(t.batch.at(Role.OUTPUT, int(t.step[row]))[0]) - 1
        assert not taken.at[row, own].any()
        closing = int(t.batch.at(Role.INPUT_LABEL)[-1])
        assert taken.at[row, closing]


def test_removal_knows_where_the_sum_begins_and_keeps_margins():
    run = small_run("addition-aligned")
    batch = run.sample(24, 6, seed=0)
    first, second = sides_of(batch)
    assert batch.symbols()[second[0]] == "==="
    assert (*first, *second) == tuple(range(batch.n_pos))
    # An untrained model is at chance: prompts on which it happens to be right, so that there is something to lose.
    many = run.sample(400, 6, seed=1)
    at, symbols = many.at(Role.OUTPUT), many.vocabulary.tokens(many.format.outputs)
    right = (symbols[readout(run.raw, many, at).logits.argmax(dim=-1)] == many.tokens[:, at]).sum(dim=1)
    heads = ((0, 0), (0, 1), (1, 0), (1, 1))
    idle, none = IdleHeads(LABELS, heads, heads), IdleHeads(LABELS, (), ())
    sorted_heads = SortedHeads(idle=idle, counting=none, control=None)
    found = {e.name: e for e in measure_removal(run.raw, many.rows(right.topk(24).indices), sorted_heads)}
    assert {"margin held", "sink", "denominator, bias, value"} <= set(found)
    assert all(size < 0.2 for size in found["denominator, bias, value"].details["mean |change in margin|"].values())
