"""The declared truth of each planted model holds under intervention."""

from functools import cache

import pytest
import torch

from interp.models.anatomy import anatomy_of
from interp.patching.editing import forward_with_edits
from interp.tasks import Role, counterfactual, parity, sample
from probes.planted import ARCHITECTURES_OF, MECHANISMS, Dirt, Plan, Planted, plant
from tests.probes.planted.interventions import Effects, effects, margin, margin_of

SHARE = 0.35
TWO_ROUTES = ("mixture", "A1 + unused", "placeholder + unused")
QUICK_IN_LLAMA = ("A1",)
CASES = [
    pytest.param(
        name,
        architecture,
        marks=[] if architecture != "llama" or name in QUICK_IN_LLAMA else pytest.mark.slow,
    )
    for name in MECHANISMS
    for architecture in ARCHITECTURES_OF[name]
]


@cache
def planted_as(mechanism: str, architecture: str = "gpt2") -> Planted:
    return plant(Plan(mechanism, architecture, 8, SHARE if mechanism in TWO_ROUTES else 1.0))


@cache
def effects_in(mechanism: str, architecture: str = "gpt2") -> Effects:
    return effects(planted_as(mechanism, architecture))


@pytest.mark.parametrize(("mechanism", "architecture"), CASES)
def test_interventions_find_what_the_truth_says(mechanism, architecture):
    truth, found = planted_as(mechanism, architecture).truth, effects_in(mechanism, architecture)
    assert found.accuracy == 1
    assert found.rename == pytest.approx(0, abs=0.01)
    assert found.rename_held_out == pytest.approx(0, abs=0.01)
    if truth.shares:
        assert found.swap_inputs == pytest.approx(truth.shares["address"], abs=0.01)
        assert found.swap_outputs == pytest.approx(truth.shares["address"], abs=0.01)
        assert found.history == pytest.approx(truth.shares["content"], abs=0.01)
    elif truth.roles["sink"]:  # identity decides the whole answer, and the sink whether it is heard
        assert truth.roles == {"anchor": True, "placeholder": False, "sink": True}
        assert found.swap_inputs == pytest.approx(1, abs=0.01)
        assert found.swap_outputs == pytest.approx(1, abs=0.01)
        assert found.history == pytest.approx(0, abs=0.01)
    else:  # identity decides which state is read, and the state decides the answer
        assert truth.roles == {"anchor": True, "placeholder": True, "sink": False}
        assert found.follows_state == 1
        assert found.history == pytest.approx(1, abs=0.01)
        assert 0.3 < found.swap_inputs < 0.7
    # The history reaches the answer through the values of input labels, and by no other way.
    assert found.history_at_labels == pytest.approx(found.history, abs=0.01)
    assert truth.roles["anchor"] == (found.swap_inputs > 0.1)
    assert truth.roles["placeholder"] == (found.history_at_labels > 0.1)
    if truth.label == "unused":
        assert found.removed == {"renormalise": 1, "null": 1, "mean": 1}
    if truth.roles["sink"]:
        assert found.removed["renormalise"] < 0.7
        assert found.removed["mean"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_sinks_differ_in_the_null_arm(architecture):
    """A sink of value 0 is only a denominator; a bias sink is a constant that must arrive."""
    assert effects_in("sink", architecture).removed["null"] == 1
    assert effects_in("bias sink", architecture).removed["null"] < 0.7


@pytest.mark.parametrize(("mechanism", "label_is_the_key"), [("A1", False), ("A2", True)])
def test_an_anchor_may_hide_from_removal(mechanism, label_is_the_key):
    """A1's key is on the bit, so that late removal of labels does nothing."""
    removed = effects_in(mechanism).removed
    for accuracy in removed.values():
        assert accuracy < 0.75 if label_is_the_key else accuracy == 1


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_the_backup_answers_only_where_no_label_matches(architecture):
    planted, alone = (planted_as(name, architecture) for name in ("A1-backup", "A1"))
    unmatched = sample("parity-nonaligned", 64, 8, seed=1, vocabulary=planted.vocabulary)
    step = torch.randint(3, 9, (64,), generator=torch.Generator().manual_seed(0))
    assert (margin(planted, unmatched, unmatched, step) > 0).all()
    assert (margin(alone, unmatched, unmatched, step) > 0).float().mean() < 0.8


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_the_dormant_direction_makes_an_illusion(architecture):
    """Neither the state nor the direction that is read has an effect; the direction across both does."""
    planted = planted_as("unused, dormant direction", architecture)
    batch = sample("parity-aligned", 64, 8, seed=1, vocabulary=planted.vocabulary)
    step = torch.full((64,), 6)
    source = counterfactual.flip_input(batch, 1)
    anatomy, at = anatomy_of(planted.model), batch.at(Role.INPUT_LABEL)
    place = ("resid_pre", planted.model.config.num_hidden_layers - 1)
    _, kept = forward_with_edits(anatomy, anatomy.embed(source.tokens), keep=[place])

    def share_flipped(direction):
        def patched(resid, _):
            along = (kept[place] - resid)[:, at] @ direction
            return resid.index_add(1, at, along.unsqueeze(-1) * direction)

        final, _ = forward_with_edits(anatomy, anatomy.embed(batch.tokens), edits={place: patched})
        return float((margin_of(planted, final, batch, step) < 0).float().mean())

    state, dormant = (planted.directions[name][0] for name in ("state", "dormant"))
    assert share_flipped(state) == 0
    assert share_flipped(dormant) == 0
    assert share_flipped((state + dormant) / 2**0.5) > 0.3


def test_decodable_state_is_where_it_is_said_to_be():
    planted = planted_as("unused, decodable")
    batch = sample("parity-aligned", 16, 8, seed=1, vocabulary=planted.vocabulary)
    anatomy = anatomy_of(planted.model)
    _, kept = forward_with_edits(anatomy, anatomy.embed(batch.tokens), keep=[("resid_pre", 1)])
    state = kept["resid_pre", 1][:, batch.at(Role.INPUT_LABEL)] @ planted.directions["state"][0]
    before = torch.cat([torch.zeros(16, 1), parity.read(batch).parities[:, :-1]], dim=1)
    assert torch.allclose(state, before - 0.5, atol=0.02)


@pytest.mark.parametrize("mechanism", ["unused, massive attention", "sink"])
def test_massive_attention_rests_on_input_labels(mechanism):
    planted = planted_as(mechanism)
    batch = sample("parity-aligned", 8, 8, seed=1, vocabulary=planted.vocabulary)
    anatomy, last = anatomy_of(planted.model), planted.model.config.num_hidden_layers - 1
    _, kept = forward_with_edits(anatomy, anatomy.embed(batch.tokens), keep=[("pattern", last)])
    mass = kept["pattern", last][:, :, batch.at(Role.OUTPUT_LABEL)][..., batch.at(Role.INPUT_LABEL)].sum(dim=-1)
    assert (mass.amin(dim=(0, 2)) > 0.99).any()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize(
    "dirt",
    [
        Dirt(rotation=True),
        Dirt(noise=0.02),
        Dirt(superposition=True),
        Dirt(layernorm=True),
        Dirt(True, 0.02, True, True),
    ],
    ids=["rotation", "noise", "superposition", "layernorm", "all"],
)
def test_dirt_leaves_the_truth_true(architecture, dirt):
    """Shares are within .1, the target for verdicts on non-linear models."""
    planted = plant(Plan("mixture", architecture, 8, 0.5, dirt))
    found = effects(planted)
    assert found.accuracy >= 0.95
    assert found.swap_inputs == pytest.approx(0.5, abs=0.1)
    assert found.history_at_labels == pytest.approx(0.5, abs=0.1)
