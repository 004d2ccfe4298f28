"""Planted models: dirt, proof, storage, and how a mechanism is added."""

import json

import pytest
import torch

from interp.forward import correct
from interp.models import load_run
from probes.planted import (
    ARCHITECTURES_OF,
    MECHANISMS,
    Dirt,
    Plan,
    Truth,
    draw_plan,
    plan,
    plant,
    planting,
    prove,
    save_planted,
)
from probes.planted.backends import norms_of
from probes.planted.codes import head_layout
from probes.planted.mechanisms import BUILDERS
from probes.planted.parts import Mechanism
from probes.planted.pieces import Setting, bit_by_index, shared

DIRTY = Dirt(rotation=True, noise=0.02, superposition=True, layernorm=True)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", pytest.param("llama", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mechanism", ["A2 written", "bias sink"])
def test_the_longest_prompts_are_solved(mechanism, architecture):
    planted = plant(Plan(mechanism, architecture, 40))
    assert set(prove(planted, prompts=8)) == {5, 22, 40}
    assert min(prove(planted, prompts=8).values()) == 1


def test_codes_in_llama_hardly_rotate():
    """Every pair of a Llama head rotates: those that hold codes by less than 2e-4 over the longest prompt."""
    planted = plant(Plan("A1", "llama", 8))
    config, layout = planted.model.config, head_layout("llama", 16)
    rotary = planted.model.model.rotary_emb.inv_freq
    assert len(rotary) == config.head_dim // 2 == layout.size // 2
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    assert torch.allclose(rotary[: len(layout.turning)].double(), layout.frequencies, rtol=1e-5)
    pairs = {i % (layout.size // 2) for i in layout.still}
    assert not pairs & {i for i, _ in layout.turning}
    assert max(float(rotary[i]) for i in pairs) * (4 * 40 + 2) < 2e-4
    with pytest.raises(AssertionError, match="do not fit"):
        head_layout("llama", 35)


@pytest.mark.parametrize("mechanism", ["A1-backup", "placeholder"])
def test_dirty_models_solve_the_task(mechanism):
    planted = plant(Plan(mechanism, "gpt2", 10, dirt=DIRTY))
    assert min(prove(planted, prompts=64, seed=5).values()) >= 0.975
    assert planted.applied["noise"] > 0
    assert planted.applied["constant"] < 30


def test_dirt_is_what_it_is_called():
    """The "before" half: a clean model has no dirt."""
    clean = plant(Plan("A1", "gpt2", 10))
    rotated, noisy, stored, normed = (
        plant(Plan("A1", "gpt2", 10, dirt=d))
        for d in (Dirt(rotation=True), Dirt(noise=0.02), Dirt(superposition=True), Dirt(layernorm=True))
    )

    def weight(planted):
        return planted.model.transformer.h[0].attn.c_attn.weight.detach()

    assert (weight(clean) == 0).float().mean() > 0.9
    # Rotated weights are dense in the heads that do anything.
    used = weight(rotated)[:, weight(rotated).abs().sum(dim=0) > 0]
    assert (used == 0).float().mean() < 0.05
    there = weight(clean) != 0
    off = (weight(noisy)[there] / weight(clean)[there] - 1).std()
    assert off == pytest.approx(0.02, rel=0.2)
    gains = [norms_of(planted.model)[0].get_parameter("weight") for planted in (normed, clean)]
    assert gains[0].max() < gains[1].min() / 2

    def overlap(planted):
        rows = torch.cat([d for name, d in planted.directions.items()])
        alike = rows @ rows.T
        return (alike - torch.diag(alike.diagonal())).abs().max()

    assert overlap(clean) < 1e-5
    assert overlap(rotated) < 1e-5
    assert overlap(stored) > 0.05


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_a_folder_is_an_ordinary_run(tmp_path, architecture):
    planted = plant(Plan("A1 written", architecture, 8))
    save_planted(planted, tmp_path / "x1")
    run = load_run(tmp_path / "x1")
    batch = run.sample(4, 8, seed=3)
    own, loaded = (model(batch.tokens).logits for model in (planted.model, run.raw))
    assert torch.equal(own, loaded)
    assert correct(run.raw, batch, batch.predicted(forced=False)).all()
    assert run.raw.dtype == torch.float32


def test_a_folder_does_not_say_what_it_is(tmp_path):
    for mechanism in ("A1-backup", "sink"):
        save_planted(plant(Plan(mechanism, "gpt2", 8)), tmp_path / "x")
        assert set(json.loads((tmp_path / "x/run.json").read_text())) == {"version", "format", "vocabulary"}
        for path in (tmp_path / "x").glob("*.json"):
            text = path.read_text().lower()
            for word in (mechanism.lower(), "backup", "sink", "mechanism", "planted", "truth"):
                assert word not in text, (path.name, word)


@pytest.mark.parametrize(
    "plan", [Plan("A1", "gpt2", 8, dirt=DIRTY, seed=4), Plan("mixture", "gpt_neox", 8, 0.35, seed=4)], ids=str
)
def test_the_same_plan_gives_the_same_weights(plan):
    first, second = (plant(plan).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights():
    first, second = (plant(Plan("A1", "gpt2", 8, seed=s)).model.state_dict() for s in (1, 2))
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    plant(Plan("A1", "gpt_neox", 8, dirt=DIRTY))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_draws_vary(mechanism):
    plans = [draw_plan(mechanism, seed) for seed in range(60)]
    assert plans == [draw_plan(mechanism, seed) for seed in range(60)]
    assert {p.architecture for p in plans} == {"gpt2", "gpt_neox"}
    assert 15 <= sum(p.dirt == Dirt() for p in plans) <= 45
    for kind in ("rotation", "noise", "superposition", "layernorm"):
        assert 5 <= sum(bool(getattr(p.dirt, kind)) for p in plans) <= 30
    assert len({p.longest for p in plans}) == 5
    shares = {p.share for p in plans}
    assert shares == ({0.2, 0.35, 0.5, 0.65, 0.8} if " + " in mechanism or mechanism == "mixture" else {1.0})


def test_plans_go_to_json():
    plan = Plan("mixture", "gpt2", 8, 0.5, DIRTY, 3)
    data = json.loads(json.dumps(plan.to_json()))
    assert Plan(**{**data, "dirt": Dirt(**data["dirt"])}) == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mechanism": "A3"}, "mechanisms are A1, A2"),
        ({"architecture": "bloom"}, "gpt2, gpt_neox"),
        ({"longest": 4}, "from 5 to 40"),
        ({"longest": 41}, "from 5 to 40"),
        ({"share": 0.5}, "one route"),
        ({"mechanism": "mixture", "share": 1.0}, "from 0.1 to 0.9"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_senseless_plan_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Plan(**{"mechanism": "A1", "architecture": "gpt2", "longest": 8, **change})


def test_senseless_dirt_and_names_are_refused():
    with pytest.raises(ValueError, match="noise must be"):
        Dirt(noise=-0.1)
    with pytest.raises(ValueError, match="mechanisms are"):
        draw_plan("A3", 0)


def test_a_toy_mechanism_takes_a_builder_and_its_truth(monkeypatch: pytest.MonkeyPatch):
    """The steps of "How to extend: a planted mechanism" in probes/README.md."""

    def toy(s: Setting) -> Mechanism:
        return Mechanism((*shared(s), *bit_by_index(s)))

    monkeypatch.setitem(BUILDERS, "toy", toy)
    monkeypatch.setattr(plan, "MECHANISMS", tuple(BUILDERS))
    monkeypatch.setitem(ARCHITECTURES_OF, "toy", ("gpt2",))
    truth = Truth(dict.fromkeys(("anchor", "placeholder", "sink"), False), {}, "unused")
    monkeypatch.setattr(planting, "truth_of", lambda plan: truth)
    planted = plant(Plan("toy", "gpt2", 6))
    assert planted.truth.label == "unused"
    assert min(prove(planted, prompts=16).values()) == 1


def test_a_model_that_answers_right_by_another_mechanism_is_not_the_family():
    """Dirt is tempered until margins after trades of labels are those of the clean model; answers alone say nothing."""
    by_label, by_index = (plant(Plan(name, "gpt2", 8)) for name in ("anchor by two labels", "unused, dormant anchor"))
    traded = planting._traded_prompts("parity-aligned", 8)
    margins = [planting.margins_traded(planted.model, traded) for planted in (by_label, by_index)]
    assert float((margins[0][0] - margins[1][0]).abs().mean()) < planting.OFF_TRADED  # ordinary prompts
    assert planting._solves(by_index, margins[1])
    assert not planting._solves(by_index, margins[0])
