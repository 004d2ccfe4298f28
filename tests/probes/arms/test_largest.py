"""The largest interventions: zero in models that do not use the variable, and large in every model that does."""

import pytest
import torch

from interp import load
from interp.patching import interchange
from interp.patching.metrics import margin
from interp.tasks import LABEL_ROLES, Role, parity, sample
from probes import keys
from probes.arms import addresses, largest_content, largest_identity
from probes.arms.addresses import measure_addresses, measure_others, reassigned_but
from probes.arms.largest_content import interventions, later_redrawn, measure_content
from probes.arms.largest_identity import (
    BOTH,
    CONTROLS,
    INPUTS,
    OTHER_LABELS,
    OUTPUTS,
    every_second_moved,
    is_unexplained,
    lead_to_same,
    measure_identity,
    reassign,
)
from probes.arms.m01_identity import full_effect
from probes.arms.readings import Readings, halves, margins_after, readings_of, strongest
from probes.evidence import ORDER_BROKEN, ORDER_KEPT
from probes.planted import Plan, plant
from probes.trials.addition import choose_sums
from probes.trials.parity import choose, labels_to_patch
from tests.probes.adding_oracles import AddingOracle
from tests.probes.oracle_models import MatchingOracle, OracleModel, planted


def read(fmt: str = "parity-aligned", size: int = 48, length: int = 10, vocabulary=None, seed: int = 1) -> Readings:
    batch = sample(fmt, size, length, seed, vocabulary)
    trials = choose_sums(batch, seed) if batch.format.task == "addition" else None
    return readings_of(trials, batch, seed)  # type: ignore[arg-type]


def identity(model, r: Readings) -> dict:
    return {e.key: e for e in measure_identity(model, r, 1)}


def content(mechanism: str, architecture: str = "gpt2") -> dict:
    model = planted(mechanism, architecture)
    return {e.key: e for e in measure_content(model.model, read(vocabulary=model.vocabulary), 1)}


# What is read --------------------------------------------------------------------------------------------


def test_parity_reads_every_step_about_equally_often():
    r = read(size=50, length=10)
    assert r.step.bincount().tolist() == [0, *[5] * 10]
    assert torch.equal(r.answer, parity.read(r.batch).parities)
    assert torch.equal(r.other, 1 - r.answer)
    assert (r.edited.tokens != r.batch.tokens).sum() == 50


def test_addition_reads_the_places_of_the_trials():
    batch = sample("addition-aligned", 24, 6, 1)
    trials = choose_sums(batch, 1)
    r = readings_of(trials, batch, 1)
    answer, other = r.tokens_at_step()
    assert torch.equal(answer, trials.answer)
    assert torch.equal(other, trials.other)


def test_choosing_the_strongest_member_does_not_inflate_it():
    """The mean of 40 null members is zero on prompts that did not choose; the largest of their means is not."""
    noise = torch.randn(40, 200, generator=torch.Generator().manual_seed(0))
    half = halves(200, 0)
    assert int(half.sum()) == 100
    chosen = strongest(noise, half)
    assert noise.mean(dim=1).max() > 0.13
    assert abs(noise.gather(0, chosen.unsqueeze(0)).mean()) < 0.1
    for mask in (half, ~half):
        assert chosen[mask].unique().tolist() == [int(noise[:, ~mask].mean(dim=1).argmax())]


# Identity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shift by 1", "shift by -1", "shift by 2", "reversal", "permutation"])
@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-suffix", "parity-nonaligned", "addition-nonaligned"])
def test_a_reassignment_permutes_the_labels_of_its_side_only(name, fmt):
    batch = sample(fmt, 8, 7, 0)
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    for roles in (INPUTS, OUTPUTS, BOTH):
        edited = reassign(batch, roles, name, 0)
        side = torch.isin(batch.role, torch.tensor(roles))
        assert torch.equal(edited.tokens[:, ~side], batch.tokens[:, ~side])
        assert not torch.equal(edited.tokens[:, side], batch.tokens[:, side])
        if "parity" in fmt:  # in addition a label of the output may stand once, and in the input twice
            assert torch.equal(edited.tokens[:, side].sort(dim=1)[0], batch.tokens[:, side].sort(dim=1)[0])
    # On both sides it is a renaming: equal labels stay equal, different ones different.
    both = reassign(batch, BOTH, name, 0).tokens[:, labels]
    equal = batch.tokens[:, labels].unsqueeze(1) == batch.tokens[:, labels].unsqueeze(2)
    assert torch.equal(both.unsqueeze(1) == both.unsqueeze(2), equal)


@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-nonaligned", "addition-nonaligned"])
def test_other_labels_are_none_of_the_prompt(fmt):
    batch = sample(fmt, 8, 7, 0)
    for roles in (INPUTS, OUTPUTS):
        edited = reassign(batch, roles, OTHER_LABELS, 0)
        side = torch.isin(batch.role, torch.tensor(roles))
        assert torch.equal(edited.tokens[:, ~side], batch.tokens[:, ~side])
        assert torch.isin(edited.tokens[:, side], batch.vocabulary.pool).all()
        assert not (edited.tokens[:, side].unsqueeze(2) == batch.tokens.unsqueeze(1)).any()
        first = {name: reassign(batch, roles, name, 0).tokens[:, side] for name in ("permutation", OTHER_LABELS)}
        equal = [tokens.unsqueeze(1) == tokens.unsqueeze(2) for tokens in first.values()]
        assert torch.equal(*equal)  # labels that were different stay different


def test_labels_that_the_prompt_lacks_are_the_strongest_where_only_their_set_matters():
    model = plant(Plan("known labels", "gpt2", 8))
    batch = sample(model.format, 48, 8, 1, model.vocabulary)
    found = identity(model.model, readings_of(None, batch, 1))  # type: ignore[arg-type]
    effect = found[keys.LARGEST_IDENTITY]
    assert effect.value.value == pytest.approx(0.5, abs=0.1)  # half of the answers are 1 anyway
    family = effect.details["family"]
    assert {name for name, value in family.items() if value > 0.1} == {
        f"{OTHER_LABELS}, inputs",
        f"{OTHER_LABELS}, outputs",
    }


def test_a_shift_gives_each_bit_the_label_of_the_next():
    batch = sample("parity-numeric", 1, 4, 0)
    assert reassign(batch, INPUTS, "shift by 1", 0).text().split(" === ")[0].split()[1::2] == ["2", "3", "4", "1"]


@pytest.mark.parametrize(("share", "effect"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5)])
def test_an_oracle_moves_half_of_its_address_share(share, effect):
    """A shifted label leads to a different bit at half of the steps."""
    r = read(size=96)
    measured = identity(OracleModel(r.batch, share), r)
    largest, rest = measured[keys.LARGEST_IDENTITY], measured[keys.IDENTITY_REST]
    assert largest.value.value == pytest.approx(effect, abs=0.06)
    assert largest.details["answers changed"] == pytest.approx(effect if share != 0.5 else 0.25, abs=0.3)
    for e in (largest, rest):
        assert e.control is not None
        assert e.control.value == pytest.approx(0, abs=1e-6)
    assert rest.value.value == pytest.approx(0, abs=1e-6)
    assert (largest.value.value == pytest.approx(0, abs=1e-6)) == (share == 0)


def test_an_address_at_one_step_shows_there_and_hardly_on_average(monkeypatch: pytest.MonkeyPatch):
    r, real = read(size=192), largest_identity.margins_after
    with_labels, without = OracleModel(r.batch, 1.0), OracleModel(r.batch, 0.0)

    def at_step_4(_, readings, edited):
        (base, after), (plain, unmoved) = (real(model, readings, edited) for model in (with_labels, without))

        def joined(some, others):
            return tuple(torch.where(torch.arange(x.shape[1]) == 3, x, y) for x, y in zip(some, others, strict=True))

        return joined(base, plain), {name: joined(after[name], unmoved[name]) for name in after}

    monkeypatch.setattr(largest_identity, "margins_after", at_step_4)
    measured = identity(with_labels, r)
    at_step = measured[keys.IDENTITY_STEP]
    assert at_step.details["steps"] == [4]
    assert at_step.value.low > 0.1
    assert at_step.control is not None
    assert at_step.control.value == pytest.approx(0, abs=1e-6)
    steps = r.answer.shape[1]
    assert measured[keys.LARGEST_IDENTITY].value.value == pytest.approx(at_step.value.value / steps, abs=0.03)


@pytest.mark.parametrize(("share", "used"), [(0.0, False), (1.0, True)])
def test_identity_of_labels_in_addition(share, used):
    r = read("addition-aligned", 48, 7)
    measured = identity(AddingOracle(r.batch, share), r)
    assert (measured[keys.LARGEST_IDENTITY].value.low > 0.2) == used
    assert (measured[keys.LARGEST_IDENTITY].value.value == pytest.approx(0, abs=1e-6)) == (not used)
    assert measured[keys.LARGEST_IDENTITY].control.value == pytest.approx(0, abs=1e-6)
    assert keys.IDENTITY_REST not in measured


@pytest.mark.parametrize(
    ("mechanism", "effect"),
    [("A1", 0.5), ("A2", 0.5), ("mixture", 0.25), ("placeholder", 0), ("sink", 0), ("unused", 0), ("bias sink", 0)],
)
def test_identity_in_planted_models(mechanism, effect):
    model = planted(mechanism)
    measured = identity(model.model, read(vocabulary=model.vocabulary))
    assert measured[keys.LARGEST_IDENTITY].value.value == pytest.approx(effect, abs=0.08 if effect else 1e-3)
    assert measured[keys.LARGEST_IDENTITY].control.value == pytest.approx(0, abs=0.01)
    assert measured[keys.IDENTITY_REST].value.value == pytest.approx(0, abs=0.01)


def test_an_address_by_the_label_before_is_found_and_named():
    model = plant(Plan("anchor by the label before", "gpt2", 10))
    measured = identity(model.model, read(vocabulary=model.vocabulary))
    # M1 reads zero here. Identity moves margins, and not where the step's own label predicts it.
    assert measured[keys.LARGEST_IDENTITY].value.low > 0.3
    assert measured[keys.IDENTITY_REST].value.low > 0.2
    assert measured[keys.IDENTITY_REST].control.value == pytest.approx(0, abs=0.01)
    found = by_address("anchor by the label before")
    for address in keys.ADDRESSES.values():
        for key in (address.inputs, address.outputs, address.attention):
            expected = float(-1 in address.offsets)
            assert found[key].value.value == pytest.approx(expected, abs=0.01), key.name
            assert found[key].control.value == pytest.approx(0, abs=0.01), key.name
    # Where the label before leads to the same answer nothing moves; the label after explains nothing.
    assert measured[keys.ADDRESSES[-1,].rest].value.value == pytest.approx(0, abs=0.01)
    assert measured[keys.ADDRESSES[-1, 0].rest].value.value == pytest.approx(0, abs=0.01)
    assert measured[keys.ADDRESSES[1,].rest].value.low > 0.2


def test_what_is_left_is_told_apart_by_whether_labels_keep_their_order():
    # A shift moves the label before as it moves the own label, so that both lead to one place: nothing is left there.
    model = plant(Plan("anchor by the label before", "gpt2", 10))
    details = identity(model.model, read(vocabulary=model.vocabulary))[keys.IDENTITY_REST].details
    kept, broken = details[ORDER_KEPT], details[ORDER_BROKEN]
    assert set(kept) == {"shift by 1, inputs", "shift by -1, inputs", "shift by 2, inputs", "shift by 1, outputs"}
    assert set(broken) == {"reversal, inputs", "permutation, inputs", "permutation, outputs"}
    # But for the ends, where the label before of one step is the last label of all.
    assert all(x["value"] < 0.1 for x in kept.values())
    assert all(x["low"] > 0.1 for x in broken.values())


def test_an_address_by_the_own_label_leaves_nothing_in_any_order():
    model = planted("A1")
    details = identity(model.model, read(vocabulary=model.vocabulary))[keys.IDENTITY_REST].details
    assert len(details[ORDER_KEPT]) == 4
    assert len(details[ORDER_BROKEN]) == 3
    assert all(abs(x["value"]) < 0.01 for order in details.values() for x in order.values())


def by_address(mechanism: str, share: float = 1.0) -> dict:
    model = plant(Plan(mechanism, "gpt2", 10, share))
    trials = choose(sample("parity-aligned", 600, 10, 2, model.vocabulary), 2)
    return {e.key: e for e in measure_addresses(model.model, trials, 48)}


@pytest.mark.parametrize(
    ("mechanism", "share", "effects"),
    [
        ("A1", 1.0, {(0,): 1, (-1,): 0, (1,): 0, (-1, 0): 1, (0, 1): 1}),
        ("unused", 1.0, {(0,): 0, (-1,): 0, (1,): 0, (-1, 0): 0, (0, 1): 0}),
        ("anchor by two labels, backup", 1.0, {(0,): 0, (-1,): 0, (1,): 0, (-1, 0): 1, (0, 1): 0}),
        ("A1 + label before", 0.3, {(0,): 0.3, (-1,): 0.7, (1,): 0, (-1, 0): 1, (0, 1): 0.3}),
    ],
)
def test_trades_move_the_answer_where_the_labels_are_its_address(mechanism, share, effects):
    found = by_address(mechanism, share)
    joint = [keys.ADDRESSES[o].others for o in effects if len(o) > 1 and keys.ADDRESSES[o].others in found]
    assert len(found) == 3 * len(effects) + len(joint)
    # Where two labels act as neither does alone, or each does, no other label acts beside them.
    assert joint == ([keys.ADDRESSES[-1, 0].others] if effects[-1, 0] > effects[0,] else [])
    for key in joint:
        assert found[key].value.value == pytest.approx(0, abs=0.01)
        assert found[key].control.value == pytest.approx(0, abs=0.01)
    for offsets, effect in effects.items():
        address = keys.ADDRESSES[offsets]
        for e in (found[key] for key in (address.inputs, address.outputs, address.attention)):
            assert e.value.value == pytest.approx(effect, abs=0.01), e.name
            assert e.control is not None
            assert e.control.value == pytest.approx(0, abs=0.01), e.name


@pytest.mark.parametrize("offsets", keys.ADDRESSES)
def test_bystanders_are_no_neighbours_of_the_step_or_its_partner(offsets):
    trials = choose(sample("parity-aligned", 600, 10, 2), 2)
    others, found = addresses._bystanders(trials, 10, 0)
    index = addresses._possible(trials, offsets, found, 48)
    possible, (first, second) = trials.rows(index), (side[index] for side in others)
    assert len(possible) == 48
    assert possible.cell.bincount().tolist() == [12] * 4
    bits, rows = parity.read(possible.batch).bits, torch.arange(len(possible))
    assert (bits[rows, first - 1] != bits[rows, second - 1]).all()
    for other in (first, second):
        assert ((other - possible.step).abs() > 1).all()
        assert ((other - possible.partner).abs() > 1).all()
    for offset in offsets:
        assert ((possible.partner + offset - possible.step).abs() > 1).all()


def test_addresses_share_controls_but_no_numbers(monkeypatch):
    run = load("parity-aligned-alibi", device="cpu")  # its margins differ between prompts
    trials = choose(run.sample(600, 10, 2), 2)
    together = {e.key: e for e in measure_addresses(run.raw, trials, 48)}
    addresses_of = dict(keys.ADDRESSES)
    for offsets in addresses_of:
        some = {others: address for others, address in addresses_of.items() if set(others) <= set(offsets)}
        with monkeypatch.context() as patched:
            patched.setattr(keys, "ADDRESSES", some)
            alone = {e.key: e for e in measure_addresses(run.raw, trials, 48)}
        assert len(alone) >= 3 * len(some)
        for key, e in alone.items():
            assert together[key].n == e.n
            for one, other in ((together[key].value, e.value), (together[key].control, e.control)):
                assert one is not None
                assert other is not None
                assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-5)


@pytest.mark.parametrize(("many", "own_rest", "others"), [(1, False, 0.0), (2, True, 0.0), (3, True, 0.25)])
def test_two_labels_leave_nothing_unless_a_third_one_is_matched(many, own_rest, others):
    """Where the two labels lead to two places, no bit has both: that is no effect of other labels."""
    address = keys.ADDRESSES[-1, 0]
    r = read(size=192)
    oracle = MatchingOracle(r.batch, many)
    found = identity(oracle, r)
    assert (found[keys.IDENTITY_REST].value.low > 0.1) == own_rest
    if many == 2:
        assert found[address.rest].value.value == pytest.approx(0, abs=1e-6)
    trials = choose(sample("parity-aligned", 600, 10, 2), 2)
    e = measure_others(MatchingOracle(trials.batch, many), trials, address, full_effect(oracle, trials), 0)
    assert e.key == address.others
    assert e.value.value == pytest.approx(others, abs=0.05 if others else 1e-6)
    assert e.control is not None
    assert e.control.value == pytest.approx(0, abs=1e-6)
    assert len(e.details["family"]) == 4


def test_what_other_labels_move_up_and_down_does_not_cancel(monkeypatch):
    trials = choose(sample("parity-aligned", 600, 10, 2), 2)
    signs = torch.arange(len(trials)) % 2 * 2.0 - 1

    def effects(model, trials, edited):
        return {name: (0.0 * signs if name == "control" else 0.5 * signs, signs > 0) for name in edited}

    monkeypatch.setattr(addresses, "effects_of_edits", effects)
    e = measure_others(None, trials, keys.ADDRESSES[-1, 0], torch.ones(len(trials)), 0)  # type: ignore[arg-type]
    assert e.value.value == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("own", "before", "both", "tested"),
    [
        (0.6, 0.1, 0.9, True),  # jointly more than each
        (0.4, 0.3, 0.1, True),  # each, and trades of both cancel
        (0.6, 0.0, 0.6, False),  # the own label alone
        (0.0, 0.0, 0.0, False),
    ],
)
def test_other_labels_are_tested_where_two_may_be_the_address(own, before, both, tested):
    pair = keys.ADDRESSES[-1, 0]
    moved = {keys.OWN.inputs: own, keys.ADDRESSES[-1,].inputs: before, pair.inputs: both}
    assert addresses._may_be_joint(pair, moved) == tested


def test_two_labels_lead_to_the_same_answer_only_at_one_place():
    batch = sample("parity-aligned", 64, 8, 0)
    labels, at = batch.at(Role.INPUT_LABEL), batch.at(Role.INPUT)
    plain = batch.with_tokens(batch.tokens.index_copy(1, at, batch.tokens[:, at[:1]].expand(-1, 8)))  # equal bits

    def traded(first: int, second: int) -> torch.Tensor:
        tokens = plain.tokens.clone()
        tokens[:, labels[[first, second]]] = plain.tokens[:, labels[[second, first]]]
        return lead_to_same(plain.with_tokens(tokens), (-1, 0))

    # Two labels trade places: they, and those that follow them, lead to a place of which the label before is another's.
    apart = traded(3, 5).all(dim=0)
    assert [k for k in range(8) if not apart[k]] == [3, 4, 5, 6]
    # The first step has no label before it: its label leads to another place, which has one.
    apart = traded(0, 7).all(dim=0)
    assert [k for k in range(8) if not apart[k]] == [0, 1, 7]
    assert lead_to_same(plain, (-1, 0)).all()
    # A shift keeps neighbours: all lead to one place two steps away, but for the first step, and the one led there.
    shifted = lead_to_same(reassign(plain, INPUTS, "shift by 2", 0), (-1, 0))
    assert torch.equal(shifted, torch.tensor([k not in (0, 2) for k in range(8)]).expand_as(shifted))


@pytest.mark.parametrize("role", [Role.INPUT_LABEL, Role.OUTPUT_LABEL])
@pytest.mark.parametrize("offsets", [(-1, 0), (0, 1)])
def test_all_labels_but_those_of_the_address_are_reassigned(role, offsets):
    trials = choose(sample("parity-aligned", 400, 10, 2), 2)
    batch, at = trials.batch, trials.batch.at(role)
    other = torch.ones_like(batch.tokens, dtype=torch.bool)
    other[:, at] = False
    stays = torch.stack([torch.arange(1, 11) == (trials.step + k).unsqueeze(1) for k in offsets]).any(dim=0)
    permuted, renamed = reassigned_but(trials, offsets, role, 0).values()
    for edited in (permuted, renamed):
        assert torch.equal(edited.tokens[other], batch.tokens[other])
        own, after = batch.tokens[:, at], edited.tokens[:, at]
        assert torch.equal(after[stays], own[stays])
        assert (after != own)[~stays].double().mean() > 0.8
        assert all(len(row.unique()) == 10 for row in after)
    assert torch.equal(permuted.tokens.sort(dim=1).values, batch.tokens.sort(dim=1).values)
    fresh = (renamed.tokens[:, at].unsqueeze(2) == batch.tokens.unsqueeze(1)).any(dim=2)
    assert torch.equal(fresh, stays)  # no other new label stands in the prompt


def test_own_labels_get_no_rest_of_neighbours():
    model = planted("A1")
    measured = set(identity(model.model, read(vocabulary=model.vocabulary)))
    assert measured == {keys.LARGEST_IDENTITY, keys.IDENTITY_STEP, keys.IDENTITY_REST, keys.IDENTITY_NEIGHBOURS}


@pytest.mark.parametrize(
    ("mechanism", "share", "effect"),
    [
        ("A1", 1.0, 0),
        ("anchor at odd steps", 1.0, 0),
        ("anchor by two labels, backup", 1.0, 0.5),
        ("two labels + unused", 0.3, 0.075),
    ],
)
def test_neighbours_matter_where_two_labels_are_the_address(mechanism, share, effect):
    model = plant(Plan(mechanism, "gpt2", 9, share))
    measured = identity(model.model, read(length=9, vocabulary=model.vocabulary))
    neighbours = measured[keys.IDENTITY_NEIGHBOURS]
    assert neighbours.value.value == pytest.approx(effect, rel=0.25, abs=0.01)
    assert neighbours.control.value == pytest.approx(0, abs=0.01)
    # Where they matter, what the addresses leave is measured too; trades of these then name the address.
    assert (keys.ADDRESSES[-1, 0].rest in measured) == is_unexplained(list(measured.values())) == bool(effect)


@pytest.mark.parametrize("length", [8, 9])
def test_every_second_label_moves_to_where_a_shift_moves_it(length):
    batch = sample("parity-aligned", 16, length, 0)
    at = batch.at(Role.INPUT_LABEL)
    own = batch.tokens[:, at]
    moved, alike = every_second_moved(batch, 3)
    shifted = reassign(batch, INPUTS, "shift by 2", 3)
    places = [(x.tokens[:, at].unsqueeze(2) == own.unsqueeze(1)).long().argmax(dim=1) for x in (moved, shifted)]
    assert (places[0] == places[1])[alike].all()
    odd = (places[0] != torch.arange(length)).long()
    stays = torch.stack([torch.arange(length) % 2 == start for start in (0, 1)])
    assert all((row == stays.long()).all(dim=1).any() for row in odd)
    assert 4 <= sum(int(row[0]) for row in odd) <= 12
    assert alike.sum(dim=1).min() >= length // 2 - 1
    kept = torch.ones(batch.n_pos, dtype=torch.bool)
    kept[at] = False
    assert torch.equal(moved.tokens[:, kept], batch.tokens[:, kept])


def test_identity_takes_a_fixed_number_of_passes(monkeypatch: pytest.MonkeyPatch):
    passes = []

    def counted(model, readings, edited):
        passes.extend(len(batch) for batch in (readings.batch, *edited.values()))
        return margins_after(model, readings, edited)

    monkeypatch.setattr(largest_identity, "margins_after", counted)
    r = read(size=24)
    identity(OracleModel(r.batch, 1.0), r)
    # Clean and edited, nine reassignments, two controls, and every second label.
    assert passes == [24] * (3 + sum(map(len, largest_identity.FAMILY.values())) + len(CONTROLS)) == [24] * 14


# Content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mechanism", "architecture", "used"),
    [
        ("placeholder", "gpt2", True),
        ("placeholder", "gpt_neox", True),
        ("mixture", "gpt2", True),
        ("A1", "gpt2", False),
        ("A2", "gpt_neox", False),
        ("sink", "gpt2", False),
        ("unused, decodable", "gpt2", False),
    ],
)
def test_content_in_planted_models(mechanism, architecture, used):
    measured = content(mechanism, architecture)
    largest = measured[keys.LARGEST_CONTENT]
    if used:
        assert largest.value.low > 0.05
        assert {name.split(", ")[0] for name in largest.details["strongest"]} <= {"inputs", "both"}
    else:
        assert largest.value.value == pytest.approx(0, abs=0.01)
    assert largest.control.value == pytest.approx(0, abs=0.01)
    assert measured[keys.CONTENT_REST].value.value == pytest.approx(0, abs=0.01)


def test_a_copy_of_the_steps_own_bit_is_content():
    model = plant(Plan("copied bit with backup", "gpt_neox", 10))
    measured = {e.key: e for e in measure_content(model.model, read(vocabulary=model.vocabulary), 1)}
    assert measured[keys.LARGEST_CONTENT].value.low > 0.2


def test_the_reader_keeps_its_own_values():
    """An output label holds the bit that it has just read, which is not stored content."""
    r = read()
    for roles in largest_content.SIDES.values():
        mask = labels_to_patch(r.batch, r.step, roles)
        reader = r.batch.at(Role.OUTPUT)[r.step - 1] - 1
        assert not mask[torch.arange(len(r)), reader].any()
        assert mask.any(dim=1).all()
    suffix = read("parity-suffix")
    # Here the answer is predicted at the label of the step before; the own output label comes after it.
    mask = labels_to_patch(suffix.batch, suffix.step)
    assert not mask[torch.arange(len(suffix)), suffix.batch.at(Role.OUTPUT)[suffix.step - 1] - 1].any()


def test_a_source_with_the_same_bits_changes_nothing():
    model = planted("placeholder")
    r = read(vocabulary=model.vocabulary)
    metric = margin(r.batch, r.step, *r.tokens_at_step())
    change = interchange(model.model, r.batch, interventions(r, r.batch), metric).change
    assert change.abs().max() < 1e-3


def test_the_control_redraws_later_bits_only():
    r = read()
    source = later_redrawn(r, 0)
    ours, theirs = parity.read(r.batch), parity.read(source)
    later = torch.arange(1, 11) > r.step.unsqueeze(1)
    assert torch.equal(ours.bits[~later], theirs.bits[~later])
    assert not torch.equal(ours.bits, theirs.bits)
    labels = torch.isin(r.batch.role, torch.tensor(LABEL_ROLES))
    assert torch.equal(r.batch.tokens[:, labels], source.tokens[:, labels])


def test_content_takes_one_batched_run(monkeypatch: pytest.MonkeyPatch):
    entries = []

    def watched(model, base, by_name, metric):
        entries.append(list(by_name))
        return interchange(model, base, by_name, metric)

    monkeypatch.setattr(largest_content, "interchange", watched)
    content("A1")
    (names,) = entries
    assert names[6:] == ["control: both, frozen", "control: both, free", "edited"]
    assert not any(name.startswith("control") for name in names[:6])
