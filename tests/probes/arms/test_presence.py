"""Presence by cell: zero where nothing needs labels that carry nothing, and seen in a head that also matches labels."""

from functools import cache

import pytest
import torch

from experiments import load
from interp.models import run_in_memory
from interp.patching import Metric, knock_out_for
from interp.tasks import Role, sample
from probes import keys
from probes.arms import presence_interchanges, presence_number, presence_runs, presence_search
from probes.arms.idle_heads import all_heads
from probes.arms.m06_heads import find_idle_heads
from probes.arms.presence import measure_presence, removals
from probes.arms.presence_cells import KINDS, Cells
from probes.arms.presence_interchanges import (
    Interchanges,
    grafted,
    idle_steps,
    masks_of_cells,
    measure_all,
    measure_edited,
)
from probes.arms.presence_metrics import answer_accuracy, leads, leads_of
from probes.arms.presence_number import lost_when_twice
from probes.arms.presence_removals import removed
from probes.arms.presence_search import find_cells
from probes.arms.presence_sharing import ChangesBy
from probes.batteries import battery
from probes.decision import verdict
from probes.findings import Status
from probes.planted import Plan, plant
from probes.planted.parts import Head, Match, Mechanism, Move, Offset, any_key, xor
from probes.planted.pieces import Setting, after, shared
from tests.probes.oracle_models import planted
from tests.probes.planted.by_hand import planted_by_hand


def cells_of(model, size: int = 16) -> Cells:
    return find_cells(model.model, sample("parity-aligned", size, 6, 7, model.vocabulary), 3)


def carriers(model, cells: Cells) -> set:
    batch = sample("parity-aligned", 2, 6, 7, model.vocabulary)
    every = {(k, h) for k, role in KINDS.items() if (batch.role == role).any() for h in all_heads(model.model)}
    return every - set(cells.members)


def presence(model, cells: Cells, size: int = 32) -> dict:
    batch = sample("parity-aligned", size, 6, 8, model.vocabulary)
    return {e.key: e for e in measure_presence(model.model, batch, cells, 3)}


@cache
def found_in(mechanism: str) -> tuple[set, dict]:
    """Return the carriers and the evidence in a planted model."""
    model = planted(mechanism)
    cells = cells_of(model)
    return carriers(model, cells), presence(model, cells)


# A head that matches labels for output labels, and rests on them for written answers ----------------------


def anchor_and_sink_in_one_head(s: Setting) -> Mechanism:
    """A2, whose matching head attends to labels at written answers too. Without labels it would copy bits there.

    The next output label reads that noise from the answer before it.
    """
    rest = any_key({"is label": 30.0, "is value": 8.0, "is start": -15.0, "is separator": -15.0, "after": -60.0})
    both = Head(1, (Match("label", "label", 2 * s.sharpness), rest), (Move("place", "pointer"), Move("bit", "rested")))
    read = Head(
        2,
        (Match("pointer", "place", s.place_sharpness, turn=1), any_key({"is value": s.sharpness})),
        (Move("bit", "retrieved"),),
    )
    noise = Head(2, (Offset(1, s.offset_sharpness),), (Move("rested", "flood"),))
    parts = (*shared(s), after(0), both, read, noise, *xor(2, "before", "retrieved", "answer"))
    return Mechanism(parts, {"answer": 1.0, "flood": 20.0})


@pytest.fixture
def one_head(monkeypatch: pytest.MonkeyPatch):
    name = "anchor and sink in one head, for this test"
    return planted_by_hand(monkeypatch, name, anchor_and_sink_in_one_head, 8)


@pytest.mark.slow
def test_a_head_that_matches_for_one_query_and_rests_for_another(one_head):
    cells = cells_of(one_head)
    ((kind, head),) = carriers(one_head, cells)
    assert kind == "output labels"
    assert head in cells.heads("answers")
    # M6 sorts whole heads after `===`, so this one is no idle head there, and its sink is invisible.
    batch = sample("parity-aligned", 24, 8, 7, one_head.vocabulary)
    assert head not in find_idle_heads(one_head.model, batch).output_side
    measured = presence(one_head, cells)
    largest = measured[keys.LARGEST_PRESENCE]
    assert largest.value.low > 0.2
    assert largest.control.value == pytest.approx(0, abs=0.01)
    lost = largest.details["answers lost"]
    assert lost["renormalise, answers"] > 0.2
    # `===` rests on labels as written answers do. No other query does.
    assert [name for name, share in lost.items() if share > 0 and name.startswith("renormalise, ")] == [
        *("renormalise, separators", "renormalise, answers")
    ]
    assert measured[keys.PRESENCE_REPAIRED].value.low > 0.2
    assert measured[keys.PRESENCE_NUMBER].value.value == pytest.approx(0, abs=0.01)


@pytest.mark.slow
def test_the_verdict_on_a_head_that_matches_and_rests(one_head):
    run = run_in_memory("model", one_head.model, "parity-aligned", one_head.vocabulary)
    found = verdict(battery(run, (8,), seed=1, prompts=75))
    assert found.roles["anchor"].status is Status.PRESENT
    assert found.roles["sink"].status is Status.PRESENT
    assert "from answers" in found.roles["sink"].reason
    assert found.label == "mixed(anchor, sink)"


# Known answers, and known zeros --------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["sink", "bias sink", "A1 with sink"])
def test_a_sink_needs_labels_that_carry_nothing(mechanism):
    _, measured = found_in(mechanism)
    for key in (keys.LARGEST_PRESENCE, keys.PRESENCE_REPAIRED):
        assert measured[key].value.low > 0.5, key
        assert measured[key].control.value == pytest.approx(0, abs=0.01)
    assert measured[keys.PRESENCE_MARGIN].value.low > 0.5
    for key in (keys.PRESENCE_NUMBER, keys.PRESENCE_TWICE):
        assert measured[key].value.value == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("mechanism", ["A1", "A1-backup", "placeholder", "unused", "unused, massive attention"])
def test_presence_does_nothing_in_models_without_a_sink(mechanism):
    for key, e in found_in(mechanism)[1].items():
        assert e.value.value == pytest.approx(0, abs=0.01), key
        assert e.control.value == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("mechanism", "kinds"),
    [
        ("A1", {"inputs", "answers"}),
        ("A1-backup", {"inputs", "answers"}),  # whose backup hides the carrier from ablation
        ("A2", {"output labels"}),
        ("placeholder", {"output labels"}),
        ("sink", set()),
        ("unused", set()),
    ],
)
def test_the_cells_that_carry_are_those_of_the_mechanism(mechanism, kinds):
    found, _ = found_in(mechanism)
    assert {kind for kind, _ in found} == kinds
    assert len({head for _, head in found}) == (1 if kinds else 0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_head_that_asks_which_labels_there_are_carries_something(architecture):
    """Labels that trade places inside a prompt are known as before; those of unrelated prompts are not."""
    model = plant(Plan("known labels", architecture, 6))
    missing = carriers(model, cells_of(model))
    assert {kind for kind, _ in missing} == {"output labels"}
    measured = presence(model, cells_of(model))
    assert measured[keys.LARGEST_PRESENCE].value.value == pytest.approx(0, abs=0.01)
    assert measured[keys.LARGEST_PRESENCE].control.value == pytest.approx(0, abs=0.01)


def test_ablation_would_miss_the_carrier_with_a_backup():
    model = planted("A1-backup")
    batch = sample("parity-aligned", 16, 6, 7, model.vocabulary)
    assert set(find_idle_heads(model.model, batch).input_side) == set(all_heads(model.model))
    assert {head for kind, head in found_in("A1-backup")[0] if kind == "inputs"}


# A head that counts labels -------------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "counts"), [(("half", "other half"), True), (("half",), False)])
def test_counting_shows_as_an_effect_of_the_number(lost, counts, monkeypatch: pytest.MonkeyPatch):
    """Half of the labels removed loses as much as all: stands in for a head whose denominator counts them.

    Where only one half does, a query has no other label to rest on, and nothing is counted.
    """
    from probes.arms import presence as arm

    def counted(work, entries):
        effects = original(work, entries)
        return effects | {f"{name}, renormalise": effects["renormalise"] for name in lost}

    original = arm.removed
    monkeypatch.setattr(arm, "removed", counted)
    model = planted("sink")
    measured = presence(model, Cells(tuple(("output labels", head) for head in all_heads(model.model))))
    assert (measured[keys.PRESENCE_NUMBER].value.low > 0.5) == counts


def counted_labels() -> tuple:
    model = plant(Plan("counted labels", "gpt2", 6))
    return model, presence(model, cells_of(model))


def test_a_head_that_counts_labels_gives_another_number_when_they_count_twice():
    _, measured = counted_labels()
    assert measured[keys.PRESENCE_REPAIRED].value.low > 0.2
    twice = measured[keys.PRESENCE_TWICE]
    assert twice.value.low > 0.5
    assert twice.control.value == pytest.approx(0, abs=0.01)
    # All counts together double on both sides of the comparison, which hides some.
    lost = measured[keys.LARGEST_PRESENCE].details["lost when twice"]
    assert lost["inputs"] > lost["all"]


def test_runs_that_are_not_kept_are_computed_again(monkeypatch: pytest.MonkeyPatch):
    model = planted("A1 with sink")
    batch = sample("parity-aligned", 12, 8, 0, model.vocabulary)
    every = Cells(tuple((kind, head) for kind in KINDS for head in all_heads(model.model)))

    def moved(kept: int):
        monkeypatch.setattr(presence_runs, "numbers", lambda share, device, itemsize: kept)
        work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
        found = torch.stack([m.margin for _ in range(2) for m in work.effects(every)])
        assert (work._size > 0) == bool(work._kept)
        return found, work._size

    (with_all, held), (with_none, nothing) = moved(10**9), moved(0)
    assert with_all.min() > 0
    assert held > 0
    assert nothing == 0
    assert moved(held - 1)[1] < held
    torch.testing.assert_close(with_all, with_none, rtol=0, atol=0)


def test_queries_that_are_not_kept_are_computed_again(monkeypatch: pytest.MonkeyPatch):
    """Runs of deep models keep no q. The model is a trained one: in planted ones attention saturates."""
    run = load("parity-aligned-alibi", device="cpu")
    batch = run.sample(4, 8, seed=0)
    cells = Cells(tuple(("output labels", head) for head in all_heads(run.raw)))

    def moved() -> tuple[torch.Tensor, int]:
        work = Interchanges(run.raw, batch, 0, answer_accuracy(batch))
        return torch.stack([m.margin for m in work.effects(cells)]), work._size

    kept, size = moved()
    monkeypatch.setattr(presence_runs, "FEW_LAYERS", 0)
    computed, less = moved()
    assert less < size
    assert kept.min() > 0
    torch.testing.assert_close(computed, kept)


def test_the_second_search_of_a_small_model_takes_cells_in_their_order(monkeypatch: pytest.MonkeyPatch):
    """Which cells are joined depends on how groups are halved."""
    given, search = [], presence_search.largest_harmless
    monkeypatch.setattr(presence_search, "largest_harmless", lambda u, harms: given.append(u) or search(u, harms)[::-1])
    cells_of(planted("A1 with sink"))
    _, units = given
    assert list(units) == sorted(units)


def test_runs_that_do_not_fit_serve_all_interventions_on_the_same_prompts(monkeypatch: pytest.MonkeyPatch):
    model = planted("A1 with sink")
    batch = sample("parity-aligned", 12, 8, 0, model.vocabulary)
    monkeypatch.setattr(presence_runs, "numbers", lambda share, device, itemsize: 0)
    monkeypatch.setattr(presence_runs, "chunks", lambda *_, **__: torch.arange(12).split(4))
    work, computed, run = Interchanges(model.model, batch, 0, answer_accuracy(batch)), [], presence_runs.run_unpatched
    monkeypatch.setattr(presence_runs, "run_unpatched", lambda *args: computed.append(args[1]) or run(*args))
    cells = [Cells((("output labels", head),)) for head in all_heads(model.model)]
    changes = {str(c): ChangesBy(masks_of_cells(work, c), grafted(work, 0, work.labels)) for c in cells}
    found = measure_all(work, changes)
    assert [rows.tolist() for rows in computed] == [list(range(k, k + 4)) for k in (0, 4, 8)]
    for c, (score, lead) in zip(cells, found.values(), strict=True):
        alone = list(measure_edited(work, c, grafted(work, 0, work.labels)))
        assert torch.equal(score, torch.cat([x for x, _ in alone]))
        assert torch.equal(lead, torch.cat([x for _, x in alone]))


def test_chunks_of_another_size_do_not_take_the_runs_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch):
    """Metrics of fewer positions run in larger chunks; in a small budget the verdict ended in a RuntimeError."""
    model = planted("A1 with sink")
    batch = sample("parity-aligned", 12, 8, 0, model.vocabulary)
    every = Cells(tuple((kind, head) for kind in KINDS for head in all_heads(model.model)))
    work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
    expected = work.by_step(every, 0)
    monkeypatch.setattr(presence_runs, "chunks", lambda *_, **__: torch.arange(12).split(5))
    work.effects(every)
    monkeypatch.setattr(presence_runs, "chunks", lambda *_, **__: torch.arange(12).split(4))
    torch.testing.assert_close(work.by_step(every, 0), expected)


def test_a_search_ends_at_the_prompt_that_decides(monkeypatch: pytest.MonkeyPatch):
    """Harm adds up over prompts: the cells found are those of whole batches, from fewer runs."""
    model = planted("A1 with sink")
    monkeypatch.setattr(presence_runs, "chunks", lambda _, batch, *__, **___: torch.arange(len(batch)).split(3))
    whole, runs = Interchanges.parts_of_effect, []

    def counted(self, cells, k):
        for part in whole(self, cells, k):
            runs.append(len(part.lost))
            yield part

    def at_once(self, cells, k):
        yield presence_interchanges.joined(counted(self, cells, k))

    found = []
    for parts in (counted, at_once):
        monkeypatch.setattr(Interchanges, "parts_of_effect", parts)
        found.append((cells_of(model, 12), sum(runs)))
        runs.clear()
    (fast, few), (slow, many) = found
    assert fast == slow
    assert fast.members
    assert few < 0.8 * many


@pytest.mark.parametrize("order", [(0.4, 3.0), (3.0, 0.4)])
def test_harm_in_some_prompts_is_harm(order: tuple[float, float], monkeypatch: pytest.MonkeyPatch):
    """Half of the prompts move less than is allowed, the others three times as much: the mean is too much."""

    def parts(self, cells, k):
        for share in order:
            allowed = presence_search.STILL * float(self.lead.abs().mean())
            yield presence_interchanges.Moved(torch.zeros(6), torch.full((6,), share * allowed))

    monkeypatch.setattr(Interchanges, "parts_of_effect", parts)
    assert cells_of(planted("A1 with sink"), 12) == Cells()


@pytest.mark.parametrize(("moved", "unrelated", "idle"), [(0.9, 1.8, True), (1.1, 0.0, False), (0.0, 2.1, False)])
def test_unrelated_prompts_may_move_margins_twice_as_much(moved, unrelated, idle, monkeypatch: pytest.MonkeyPatch):
    def parts(self, cells, k):
        size = float(self.lead.abs().mean()) * presence_search.STILL
        last = k == len(self.sources) - 1
        yield presence_interchanges.Moved(torch.zeros(16), torch.full((16,), size * (unrelated if last else moved)))

    monkeypatch.setattr(Interchanges, "parts_of_effect", parts)
    monkeypatch.setattr(Interchanges, "idle_steps", lambda *_: ())
    assert bool(cells_of(planted("A1")).members) == idle


def test_counting_nothing_twice_changes_nothing():
    model = planted("sink")
    batch = sample("parity-aligned", 12, 8, 0, model.vocabulary)
    work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
    assert set(lost_when_twice(work, Cells(()))) == {"all"}
    assert lost_when_twice(work, Cells(()))["all"].abs().max() == 0


def test_twice_is_one_more_key_of_the_same_score(monkeypatch: pytest.MonkeyPatch):
    """The attention on labels a becomes 2a / (1 + a)."""
    model = planted("unused")
    batch = sample("parity-aligned", 3, 6, 0, model.vocabulary)
    work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
    every = Cells(tuple((kind, head) for kind in KINDS for head in all_heads(model.model)))
    seen = {}

    def watched(work, changes):
        change = changes["all"](torch.arange(3))[0]
        queries = change.edges.any(dim=-1)
        assert change.edges[queries][:, work.labels].all()
        assert not change.edges[..., ~work.labels].any()
        own = torch.randn(3, work.anatomy.n_heads, batch.n_pos, batch.n_pos, generator=torch.Generator().manual_seed(0))
        seen["before"], seen["after"] = (
            x.softmax(-1)[..., work.labels].sum(-1)[:, queries] for x in (own, own + change.added * change.edges)
        )
        return dict.fromkeys(changes, (work.clean, work.lead))

    monkeypatch.setattr(presence_number, "measure_all", watched)
    lost_when_twice(work, every)
    before = seen["before"]
    assert torch.allclose(seen["after"], 2 * before / (1 + before), atol=1e-6)


# The parts -----------------------------------------------------------------------------------------------


def test_an_interchange_with_the_same_prompts_changes_nothing():
    model = planted("A1")
    batch = sample("parity-aligned", 12, 8, 0, model.vocabulary)
    every = Cells(tuple((kind, head) for kind in ("inputs", "output labels") for head in all_heads(model.model)))
    (moved, *_) = Interchanges(model.model, batch, 0, answer_accuracy(batch)).effects(every)
    assert moved.lost.mean() > 0.3
    for moved in Interchanges(model.model, batch, 0, answer_accuracy(batch), [batch]).effects(every):
        assert moved.lost.abs().max() == 0
        assert moved.margin.max() < 1e-3


def test_margins_that_move_up_and_down_do_not_cancel():
    model = planted("A1")
    batch = sample("parity-aligned", 6, 8, 0, model.vocabulary)
    work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
    torch.testing.assert_close(work.lead, leads(model.model, batch))
    up_and_down = 2 * (torch.arange(8) % 2) - 1.0
    (moved,) = work.parts_moved([(work.clean, work.lead + up_and_down)])
    torch.testing.assert_close(moved.margin, torch.ones(6).double())


def moved_margin(batch, clean: torch.Tensor) -> Metric:
    """Return the mean over steps of |margin - clean margin| as a metric, for knockouts."""
    symbols = batch.vocabulary.tokens(batch.format.outputs)

    def compute(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (leads_of(batch, logits[..., symbols], rows) - clean[rows]).abs().mean(dim=-1)

    return Metric("mean |change of the margin|", batch.at(Role.OUTPUT) - 1, compute)


@pytest.mark.parametrize("mechanism", ["A2", "A1 with sink"])
def test_removals_are_knockouts(mechanism: str, monkeypatch: pytest.MonkeyPatch):
    """The runs of the arm against `knock_out_for`, in all cells but a few, of which one is removed at some steps."""
    model = planted(mechanism)
    batch = sample("parity-aligned", 8, 8, 0, model.vocabulary)
    monkeypatch.setattr(presence_runs, "chunks", lambda *_, **__: torch.arange(8).split(3))
    some, *others = ((kind, head) for kind in ("output labels", "inputs", "answers") for head in all_heads(model.model))
    entries = removals(batch, Cells(tuple(others[1:]), ((some, (3, 6)),)))
    work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
    found = removed(work, entries)
    answers, margins = knock_out_for(
        model.model, batch, entries, [answer_accuracy(batch), moved_margin(batch, work.lead)]
    )
    for name, lost, moved in zip(entries, -answers.change.double(), margins.values.double(), strict=True):
        torch.testing.assert_close(found[name].lost, lost, rtol=0, atol=1e-6, msg=name)
        torch.testing.assert_close(found[name].margin, moved, rtol=1e-5, atol=1e-4, msg=name)
    assert max(float(x.lost.mean()) for x in found.values()) > 0.2
    assert len({round(float(x.margin.mean()), 3) for x in found.values()}) > 5


def test_removals_are_a_fixed_number_of_runs():
    batch = sample("parity-aligned", 2, 8, 0)
    cells = Cells((("inputs", (0, 0)), ("answers", (1, 0))))
    assert list(removals(batch, cells)) == [
        *("renormalise", "null", "mean", "renormalise, inputs", "renormalise, answers"),
        *("half, renormalise", "half, mean", "other half, renormalise", "other half, mean"),
    ]
    assert cells.kinds() == ("inputs", "answers")
    assert cells.heads("answers") == ((1, 0),)


def test_a_part_of_a_cell_is_interchanged_and_removed_at_its_steps_only():
    model = planted("A2")
    batch = sample("parity-aligned", 12, 8, 0, model.vocabulary)
    work = Interchanges(model.model, batch, 0, answer_accuracy(batch))
    every = tuple(("output labels", head) for head in all_heads(model.model))
    whole, part = work.by_step(Cells(every), 0), work.by_step(Cells(parts=tuple((cell, (3, 6)) for cell in every)), 0)
    assert torch.allclose(part[[2, 5]], whole[[2, 5]], atol=1e-4)
    assert part[[2, 5]].min() > 1
    assert part[[0, 1, 3, 4, 6, 7]].max() < 1e-3
    (removal,) = Cells(parts=((("output labels", (1, 0)), (3, 6)),)).knockouts("null")
    assert removal.dest == ((Role.OUTPUT_LABEL, 3), (Role.OUTPUT_LABEL, 6))
    assert removal.heads == ((1, 0),)


def test_steps_are_idle_where_no_source_moves_the_margin_but_the_first():
    batch = sample("parity-aligned", 2, 4, 0)
    moved = torch.tensor([[0.0, 0.0, 0.1, 0.0], [0.0, 0.1, 0.0, 0.0]])
    assert idle_steps(batch, moved, 0.05) == (4,)
    assert idle_steps(batch, moved, 0.2) == (2, 3, 4)


def test_a_head_that_carries_at_every_step_has_no_idle_one():
    assert cells_of(planted("A2")).parts == ()


def test_without_a_cell_there_is_no_evidence():
    model = planted("A1")
    assert measure_presence(model.model, sample("parity-aligned", 24, 8, 8, model.vocabulary), Cells(()), 0) == []
