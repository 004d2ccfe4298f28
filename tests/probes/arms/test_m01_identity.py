"""M1 to M3 on oracles: each answer map of a label is found, and no other."""

import pytest
import torch

from interp.tasks import Role, parity, sample
from probes import keys
from probes.arms.m01_identity import MAPS, by_cell, full_effect, margins, measure_swaps
from probes.trials.parity import EACH_MAP_ONCE, Trials, choose
from tests.probes.oracle_models import OracleModel, planted


def trials_of(fmt: str = "parity-aligned", length: int = 12, size: int = 400) -> Trials:
    return choose(sample(fmt, size, length, seed=3), seed=5)


def arms(share: float, fmt: str = "parity-aligned", **options):
    trials = trials_of(fmt)
    return {e.key: e for e in measure_swaps(OracleModel(trials.batch, share, **options), trials, 5)}  # type: ignore[arg-type]


INPUTS, OUTPUTS, EITHER = keys.SWAP_INPUTS, keys.SWAP_OUTPUTS, keys.EITHER_SIDE
RENAME, HELD_OUT = keys.RENAME, keys.RENAME_HELD_OUT


@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-gap2", "parity-numeric"])
def test_an_address_follows_the_label_wholly(fmt):
    found = arms(share=1.0, fmt=fmt)
    for name in (INPUTS, OUTPUTS, EITHER):
        assert found[name].value.value == pytest.approx(1.0, abs=1e-6)
        control = found[name].control
        assert control is not None
        assert control.value == pytest.approx(0.0, abs=1e-6)
    for name in (INPUTS, OUTPUTS):
        assert found[name].details["follows"]["value"] == 1.0
        assert found[name].details["control follows"]["value"] == 0.0
    # Names that are the same in every prompt cannot be renamed from a pool.
    assert (RENAME in found) == (HELD_OUT in found) == (fmt != "parity-numeric")
    for name in {RENAME, HELD_OUT} & set(found):
        assert found[name].value.value == pytest.approx(0.0, abs=1e-6)


def test_an_index_solution_does_not_follow_at_all():
    for name, evidence in arms(share=0.0).items():
        assert evidence.value.value == pytest.approx(0.0, abs=1e-6)
        if name in (INPUTS, OUTPUTS):
            assert evidence.details["follows"]["value"] == 0.0
            assert all(abs(m["value"]) < 1e-6 for m in evidence.details["maps"].values())


def test_a_mixture_shows_its_share_and_the_interval_covers_it():
    for noise in (0.0, 0.5):
        found = arms(share=0.7, noise=noise)
        for name in (INPUTS, OUTPUTS, EITHER):
            value = found[name].value
            assert value.low <= 0.7 + 1e-6
            assert value.high >= 0.7 - 1e-6
            assert value.value == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("stored", MAPS)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_maps_say_what_is_stored_under_a_label(stored, share):
    """The answer map that is used gets the share, the others get 0; together they count once."""
    found = arms(share, stored=stored)
    for name in (INPUTS, OUTPUTS):
        maps = {m: x["value"] for m, x in found[name].details["maps"].items()}
        assert maps == {m: pytest.approx(share * (m == stored), abs=1e-6) for m in MAPS}
        assert found[name].value.value == pytest.approx(share, abs=1e-6)


def test_weights_undo_the_cells():
    """An effect in two cells of four is one map; the weights are the inverse of that table. What acts in all cells
    alike follows nothing."""
    cells = {"bit": (1, 0, 1, 0), "state": (0, 1, 1, 0), "state before": (1, 1, 0, 0)}
    for name, effects in cells.items():
        for other, weights in MAPS.items():
            assert sum(w * e for w, e in zip(weights, effects, strict=True)) == (name == other)
        assert sum(w * e for w, e in zip(EACH_MAP_ONCE, effects, strict=True)) == 1
    assert sum(EACH_MAP_ONCE) == 0
    assert all(sum(weights) == 0 for weights in MAPS.values())


def test_either_side_is_the_mean_of_both_sides():
    """Where labels are read on one side only, half of the margin follows: the verdict is unresolved."""
    trials = trials_of("parity-nonaligned")
    found = {e.key: e for e in measure_swaps(OracleModel(trials.batch, 0.3), trials, 0)}  # type: ignore[arg-type]
    m1, m2, both = (found[name].value.value for name in (INPUTS, OUTPUTS, EITHER))
    assert both == pytest.approx((m1 + m2) / 2, abs=1e-6)


@pytest.mark.parametrize("stored", MAPS)
def test_a_model_that_breaks_where_labels_disagree_follows_nothing(stored):
    """It reads by index, with a smaller margin where the labels of a step do not match."""
    trials = trials_of()

    class Checks(OracleModel):
        def __call__(self, tokens, use_cache, logits_to_keep):
            out = super().__call__(tokens, use_cache, logits_to_keep)
            sides = (tokens[:, trials.batch.at(role)] for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL))
            differs = torch.ne(*sides).any(dim=1)
            out.logits[differs] *= 0.5
            return out

    found = measure_swaps(Checks(trials.batch, 0.0, stored=stored), trials, 0)  # type: ignore[arg-type]
    values = {e.key: e for e in found}
    assert values[keys.SAME_UNDER_BOTH].value.value == pytest.approx(0.25, abs=1e-6)
    for name in (INPUTS, OUTPUTS, EITHER):
        assert values[name].value.value == pytest.approx(0.0, abs=1e-6)
    # The before half: nothing is moved where the label is followed and the same is found under both.
    for e in measure_swaps(OracleModel(trials.batch, 1.0, stored=stored), trials, 0):  # type: ignore[arg-type]
        if e.name == "whatever is found":
            assert e.value.value == pytest.approx(0.0, abs=1e-6)
            assert e.n == len(trials) // 4


def test_a_model_that_shies_at_new_names_fails_the_held_out_half_of_m3():
    trials = trials_of()

    class Shy(OracleModel):
        def __call__(self, tokens, use_cache, logits_to_keep):
            out = super().__call__(tokens, use_cache, logits_to_keep)
            strange = torch.isin(tokens, trials.batch.vocabulary.held_out_pool).any(dim=1)
            out.logits[strange] *= 0.5
            return out

    found = {e.name: e.value.value for e in measure_swaps(Shy(trials.batch, 1.0), trials, 0)}  # type: ignore[arg-type]
    # The margin of 3 becomes 1.5, of a full effect of 6.
    assert found["rename to held-out labels"] == pytest.approx(0.25, abs=1e-6)
    assert found["rename labels"] == pytest.approx(0.0, abs=1e-6)


def test_a_model_that_ignores_the_bits_gives_an_error_and_no_number():
    trials = trials_of()
    with pytest.raises(ValueError, match="too little to normalise"):
        measure_swaps(OracleModel(trials.batch, share=1.0, margin=0.0), trials, seed=0)  # type: ignore[arg-type]


def test_margins_are_of_the_step_and_signed_by_the_answer():
    trials = trials_of()
    model = OracleModel(trials.batch, 1.0)
    margin, other = margins(model, trials.batch, trials)  # type: ignore[arg-type]
    assert margin.tolist() == pytest.approx([3.0] * len(trials))
    assert not other.any()
    margin, other = margins(model, trials.edited, trials)  # type: ignore[arg-type]
    assert margin.tolist() == pytest.approx([-3.0] * len(trials))
    assert other.all()
    assert full_effect(model, trials).tolist() == pytest.approx([6.0] * len(trials))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mechanism", "maps"),
    [
        ("A1", {"bit": 1.0}),
        ("A2", {"bit": 1.0}),
        ("content-addressed placeholder", {"state": 1.0}),
        ("mixture", {"bit": 0.5}),
        ("placeholder", {}),
        ("unused, identity-matching attention", {}),
    ],
)
def test_maps_of_planted_models(mechanism, maps):
    model = planted(mechanism)
    trials = choose(sample("parity-aligned", 240, 10, 0, model.vocabulary), 0, 48)
    for e in measure_swaps(model.model, trials, 1)[:2]:
        found = {name: x["value"] for name, x in e.details["maps"].items()}
        assert found == {name: pytest.approx(maps.get(name, 0.0), abs=0.01) for name in MAPS}


def test_where_bits_differ_a_stored_state_shows_half():
    """Content-addressed placeholder: .49 by the bit's map, although all of it follows the label."""
    model = planted("content-addressed placeholder")
    trials = choose(sample("parity-aligned", 240, 10, 0, model.vocabulary), 0, 48)
    full = full_effect(model.model, trials)
    moved = margins(model.model, trials.batch, trials)[0] - margins(model.model, trials.swapped_inputs, trials)[0]
    assert by_cell(moved, full, trials, (0.5, 0.0, 0.5, 0.0)).value == pytest.approx(0.5, abs=0.01)
    assert by_cell(moved, full, trials).value == pytest.approx(1.0, abs=0.01)
    differs = parity.read(trials.batch).bits
    rows = torch.isin(trials.cell, torch.tensor((0, 2)))
    assert (differs.gather(1, trials.step[:, None] - 1) != differs.gather(1, trials.partner[:, None] - 1))[rows].all()
