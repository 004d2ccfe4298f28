"""The engine against the literal loop, for every site, architecture and type."""

import re

import pytest
import torch

from interp.models import boot_bridge, raw_of
from interp.models.anatomy import anatomy_of
from interp.patching import PATCH_SITES as SITES
from interp.patching import Joint, Metric, engine, logit_diff, memory, patch, plan, units
from interp.patching import sweep as sweep_module
from interp.patching.cells import Cell
from interp.patching.cost import engine_flops, sizes_of
from interp.patching.own_layer import OwnLayer
from interp.patching.reference import literal, record
from interp.support.flops import flop_counter
from interp.tasks import Role, counterfactual, sample
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
# Parallel blocks have no resid_mid.
PAIRS = [(a, s) for a in ARCHITECTURES for s in SITES if (a, s) != ("parallel", "resid_mid")]


def both(step: int = 2, size: int = 3):
    clean = prompts(size)
    return clean, counterfactual.flip_input(clean, step)


def by_the_loop(model, clean, corrupted, site, metric, effect):
    """Every cell of an effect, by one whole forward pass of the raw model each."""
    anatomy = anatomy_of(model)
    base, source = (corrupted, clean) if effect.direction == "denoise" else (clean, corrupted)
    n_pos = range(clean.n_pos)
    rows = torch.arange(len(clean))
    values = []
    for layer in effect.labels["layer"]:
        given = record(anatomy, source.tokens, site, layer)
        for head in effect.labels.get("head", (None,)):
            for pos in n_pos:
                values.append(literal(anatomy, base.tokens, site, Cell(layer, (pos,), head), given, metric, rows))
    return torch.stack(values).reshape(effect.values.shape)


# In float64 every pair, in float32 those of one family; the others in the slow tests.
CELLS = [(a, s, torch.float64) for a, s in PAIRS] + [
    pytest.param(a, s, torch.float32, marks=[] if a == "alibi" else [pytest.mark.slow]) for a, s in PAIRS
]


@pytest.mark.parametrize(("architecture", "site", "dtype"), CELLS)
def test_every_cell_equals_the_literal_loop(architecture, site, dtype):
    model = tiny(architecture, dtype)
    clean, corrupted = both()
    metric = logit_diff(clean, step=3)
    effect = patch(model, clean, corrupted, site, metric, spot_cells=0)
    expected = by_the_loop(model, clean, corrupted, site, metric, effect)
    scale = max(1.0, float(expected.abs().max()))
    assert float((effect.values - expected).abs().max()) <= TOLERANCE[dtype] * scale
    assert effect.change.abs().max() > 1e-3  # the sweep does something


@pytest.mark.parametrize("architecture", ["alibi", "rotary", "absolute"])
@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern"])
def test_the_engine_equals_a_loop_on_the_bridge(architecture, site):
    """A second, independent reference: TransformerLens's hooks, each asserted to fire once."""
    bridge = boot_bridge(
        tiny(architecture).__class__.from_pretrained(
            None,
            config=tiny(architecture).config,
            state_dict=tiny(architecture).state_dict(),
            attn_implementation="eager",
        )
    )
    clean, corrupted = both()
    metric = logit_diff(clean, step=3)
    layer = 1
    effect = patch(bridge, clean, corrupted, site, metric, layers=layer, spot_cells=0)
    head_site = site in ("q", "k", "v", "z", "pattern")
    name = f"blocks.{layer}." + (f"attn.hook_{site}" if head_site else f"hook_{site}")
    _, cache = bridge.run_with_cache(clean.tokens, names_filter=name)
    given = cache[name].clone()
    for head in range(len(effect.labels.get("head", (0,)))):
        for pos in range(clean.n_pos):
            fired = []

            def edit(x, hook, head=head, pos=pos, fired=fired):
                fired.append(hook.name)
                x = x.clone()
                if site == "pattern":
                    x[:, head, pos] = given[:, head, pos]
                elif head_site:
                    x[:, pos, head] = given[:, pos, head]
                else:
                    x[:, pos] = given[:, pos]
                return x

            with torch.no_grad():
                logits = bridge.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, edit)])
            assert len(fired) == 1
            expected = metric.compute(logits[:, metric.positions], torch.arange(3))
            found = effect.values.flatten(0, -2)[head * clean.n_pos + pos]
            assert float((found - expected).abs().max()) <= 2e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_layer_zero_patch_is_another_prompt(architecture):
    """An oracle without hooks: resid_pre of layer 0 at a position *is* the token there."""
    model = tiny(architecture)
    clean = prompts()
    corrupted = sample("parity-aligned", 3, 3, seed=1)
    metric = logit_diff(clean, step=3)
    effect = patch(model, clean, corrupted, "resid_pre", metric, layers=0)
    for pos in range(clean.n_pos):
        if architecture != "absolute" or pos:  # a token's position embedding is the same in both prompts
            tokens = corrupted.tokens.clone()
            tokens[:, pos] = clean.tokens[:, pos]
            with torch.no_grad():
                logits = model(tokens).logits[:, metric.positions]
            expected = metric.compute(logits, torch.arange(3))
            assert torch.allclose(effect.values[0, pos].float(), expected, atol=2e-5)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
@pytest.mark.parametrize("architecture", ["alibi", "rotary", "none", "absolute", "grouped"])
def test_swapping_the_whole_residual_gives_the_clean_run(architecture, site):
    """TransformerLens's own resid_mid edits fail this on every sequential architecture (lore)."""
    clean, corrupted = both()
    everything = Joint(*range(clean.n_pos))
    effect = patch(tiny(architecture), clean, corrupted, site, logit_diff(clean), positions=everything)
    assert torch.allclose(effect.values, effect.source.expand_as(effect.values), atol=2e-5)


def test_what_is_skipped_equals_the_base_in_the_literal_loop():
    model = tiny("alibi")
    clean, corrupted = both()
    metric = logit_diff(clean, step=2)
    for site in ("resid_pre", "z", "mlp_out"):
        plan_ = plan(model, clean, corrupted, site, metric)
        assert 0 < sum(plan_.alive) < len(plan_.alive)
        effect = patch(model, clean, corrupted, site, metric)
        expected = by_the_loop(model, clean, corrupted, site, metric, effect).flatten(0, -2)
        dead = ~torch.tensor(plan_.alive)
        assert torch.allclose(expected[dead], effect.base.expand(int(dead.sum()), -1), atol=1e-6)
        # Before the first token that differs, after the last position read, and at layer 0 where tokens agree.
        first = int((clean.tokens != corrupted.tokens).any(0).nonzero()[0])
        for cell, alive in zip(plan_.cells, plan_.alive, strict=True):
            if cell.positions[0] < first or cell.positions[0] > int(metric.positions.max()):
                assert not alive


@pytest.mark.parametrize("site", ["resid_pre", "k", "z"])
def test_results_do_not_depend_on_chunks_prompts_at_once_or_gradients(site, monkeypatch):
    model = tiny("rotary")
    clean, corrupted = both(size=5)
    metric = logit_diff(clean, step=3)
    expected = patch(model, clean, corrupted, site, metric).values
    with torch.enable_grad():
        assert torch.allclose(patch(model, clean, corrupted, site, metric).values, expected, atol=1e-5)
    monkeypatch.setattr(memory, "PROMPTS", 2)
    monkeypatch.setattr(units, "BUCKET", 3)
    assert torch.allclose(patch(model, clean, corrupted, site, metric).values, expected, atol=1e-5)
    monkeypatch.setattr(sweep_module.Chunks, "size", lambda self: 1)
    assert torch.allclose(patch(model, clean, corrupted, site, metric).values, expected, atol=1e-5)


def test_both_directions_swap_base_and_source():
    clean, corrupted = both()
    metric = logit_diff(clean, step=3)
    denoise = patch(tiny("alibi"), clean, corrupted, "resid_pre", metric)
    noise = patch(tiny("alibi"), clean, corrupted, "resid_pre", metric, direction="noise")
    assert torch.allclose(denoise.base, noise.source)
    assert torch.allclose(denoise.source, noise.base)
    swapped = patch(tiny("alibi"), corrupted, clean, "resid_pre", metric)
    assert torch.allclose(noise.values, swapped.values)


def test_places_are_positions_roles_steps_and_joint_sets():
    clean, corrupted = both()
    metric = logit_diff(clean)
    whole = patch(tiny("alibi"), clean, corrupted, "z", metric)
    some = patch(
        tiny("alibi"),
        clean,
        corrupted,
        "z",
        metric,
        layers=[1],
        heads=2,
        positions=[Role.OUTPUT_LABEL, (Role.INPUT, 2), 0],
    )
    at = [*clean.at(Role.OUTPUT_LABEL).tolist(), int(clean.at(Role.INPUT, 2)[0]), 0]
    assert torch.allclose(some.values[0, 0], whole.values[1, 2][at])
    assert some.labels["pos"][0] == f"{at[0]}: output label 1"
    joint = patch(
        tiny("alibi"),
        clean,
        corrupted,
        "resid_post",
        metric,
        layers=0,
        positions=[Joint(Role.OUTPUT_LABEL), Joint((Role.INPUT, 2), Role.SEPARATOR)],
    )
    assert joint.labels["pos"] == ("all output labels", "input 2 + all separators")
    anatomy = anatomy_of(tiny("alibi"))
    given = record(anatomy, clean.tokens, "resid_post", 0)
    cell = Cell(0, tuple(clean.at(Role.OUTPUT_LABEL).tolist()))
    expected = literal(anatomy, corrupted.tokens, "resid_post", cell, given, metric, torch.arange(3))
    assert torch.allclose(joint.values[0, 0], expected, atol=1e-5)


def test_values_of_a_prompt_do_not_depend_on_its_neighbours():
    clean, corrupted = both(size=4)
    together = patch(tiny("absolute"), clean, corrupted, "resid_pre", logit_diff(clean, 3))
    for row in range(4):
        one, other = (b.rows(slice(row, row + 1)) for b in (clean, corrupted))
        alone = patch(tiny("absolute"), one, other, "resid_pre", logit_diff(one, 3))
        assert torch.allclose(alone.values[..., 0], together.values[..., row], atol=1e-5)


def test_the_result_records_controls_a_spot_check_and_the_cost():
    clean, corrupted = both()
    effect = patch(tiny("rotary"), clean, corrupted, "k", logit_diff(clean, 3), spot_cells=6)
    checks, cost = effect.checks, effect.cost
    assert checks is not None
    assert cost is not None
    assert checks.spot_cells == 6
    assert max(checks.positive, checks.negative, checks.spot_difference) <= checks.tolerance
    assert cost.patches == 3 * 4 * clean.n_pos
    assert 0 < cost.skipped < cost.patches
    assert cost.lower_bound_flops <= cost.flops < cost.loop_flops


@pytest.mark.parametrize(("where", "broken"), [(engine, "after_attention"), (OwnLayer, "_head_output")])
def test_a_wrong_engine_is_caught_as_it_runs(where, broken, monkeypatch):
    correct = getattr(where, broken)
    monkeypatch.setattr(where, broken, lambda *args: correct(*args) * 1.01)
    clean, corrupted = both()
    with pytest.raises(RuntimeError, match="check failed"):
        patch(tiny("alibi"), clean, corrupted, "q", logit_diff(clean, 3), spot_cells=60)


def test_the_plan_counts_what_the_engine_does():
    """FLOPs counted by torch while the units run, against the plan."""
    clean, corrupted = (sample("parity-aligned", 4, 12, seed=s) for s in (0, 1))
    for site in ("resid_pre", "mlp_out", "z"):
        sweep = plan(tiny("absolute"), clean, corrupted, site, logit_diff(clean, 12))
        assert sweep.units
        forward = sweep.cost.flops - sum(
            len(u.prompts)
            * engine_flops(sizes_of(sweep.anatomy, clean.n_pos, 1), [sweep.cells[i] for i in u.cells], site, u.start)
            for u in sweep.units
        )
        sweep.baselines  # noqa: B018  (computed before counting)
        with flop_counter() as counter:
            for unit in sweep.units:
                sweep.compute(unit)
        assert counter.get_total_flops() == pytest.approx(sweep.cost.flops - forward, rel=0.25)


def peak_of(call) -> int:
    """The peak memory of tensors in bytes, counted by torch's own allocator events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    total = peak = 0
    for event in found.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            total += event.nbytes()  # type: ignore[attr-defined]
            peak = max(peak, total)
    return peak


@pytest.mark.slow
def test_a_small_memory_budget_holds():
    clean, corrupted = (sample("parity-aligned", 64, 16, seed=s) for s in (0, 1))
    metric = logit_diff(clean, 16)
    peaks = {
        budget: peak_of(
            lambda budget=budget: patch(
                tiny("alibi"), clean, corrupted, "resid_pre", metric, memory=budget, spot_cells=0
            )
        )
        for budget in (2**23, 2**28)
    }
    assert peaks[2**23] <= 2**23
    assert peaks[2**28] <= 2**28
    assert peaks[2**23] < peaks[2**28]


@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "pattern"])
def test_the_minimum_of_memory_is_enough_and_one_byte_less_is_refused(site):
    clean, corrupted = (sample("parity-aligned", 2, 16, seed=s) for s in (0, 1))
    arguments = (tiny("grouped"), clean, corrupted, site, logit_diff(clean, 16), 1, [2, 40])
    least = plan(*arguments).minimum_bytes
    expected = patch(*arguments).values
    patched = []
    peak = peak_of(lambda: patched.append(patch(*arguments, memory=least, spot_cells=0)))
    assert peak <= least
    assert torch.allclose(patched[0].values, expected, atol=1e-5)
    for too_little in (least - 1, 2000):
        with pytest.raises(ValueError, match="this sweep takes at least") as refused:
            plan(*arguments, memory=too_little)
        taken, given = (float(number) for number in re.findall(r"([\d.]+) MiB", str(refused.value)))
        assert given <= too_little / 2**20 < least / 2**20 <= taken
        assert 0 < given < taken


def test_bridge_and_raw_model_give_the_same():
    bridge = boot_bridge(tiny("none", torch.float32).__class__(tiny("none").config).eval())
    assert raw_of(bridge) is not None
    clean, corrupted = both()
    metric = logit_diff(clean, 3)
    a, b = (patch(m, clean, corrupted, "z", metric) for m in (bridge, raw_of(bridge)))
    assert torch.equal(a.values, b.values)
    with pytest.raises(ValueError, match="model must be a run"):
        patch(object(), clean, corrupted, "z", metric)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "resid"}, "unknown site 'resid'; sites are resid_pre"),
        ({"site": "attn_scores"}, "unknown site 'attn_scores': capture takes it, patch does not; sites are resid_pre"),
        ({"layers": 7}, "there is no layer 7; layers run from 0 to 2"),
        ({"layers": [1.0]}, "a layer is a whole number; got [1.0]"),
        ({"site": "z", "heads": [9]}, "there is no head 9; heads run from 0 to 3"),
        ({"heads": 1}, "resid_pre has no heads"),
        ({"positions": 99}, "position 99 is outside 0 to 13"),
        ({"positions": [Role.ANSWER]}, "no answer in parity-aligned"),
        ({"positions": [(Role.INPUT, 9)]}, "no input with step 9"),
        ({"positions": [3, (Role.INPUT_LABEL, 2)]}, "given twice"),
        ({"positions": ["label"]}, "no span 'label'; there are no spans"),
        ({"positions": [1.5]}, "a place is a Role"),
        ({"positions": []}, "no position was given"),
        ({"metric": "logit_diff"}, "metric must be a Metric"),
        ({"metric": lambda logits: logits.mean()}, "a plain function; declare your own as Metric(name, positions"),
        ({"direction": "up"}, "'denoise' or 'noise'"),
        ({"corrupted": prompts(2)}, "same number of prompts"),
        ({"metric": Metric("far", torch.tensor([77]), lambda x, r: x[..., 0, 0])}, "reads position 77"),
    ],
)
def test_bad_requests_name_the_choices(change, words):
    clean, corrupted = both()
    asked = {"clean": clean, "corrupted": corrupted, "site": "resid_pre", "metric": logit_diff(clean, 3), **change}
    with pytest.raises(ValueError, match=re.escape(words)):
        patch(tiny("alibi"), **asked)


def test_architectures_that_cannot_be_served_say_why():
    from transformers import OPTConfig, OPTForCausalLM

    opt = OPTForCausalLM(
        OPTConfig(
            vocab_size=500,
            hidden_size=16,
            num_hidden_layers=1,
            ffn_dim=16,
            num_attention_heads=2,
            word_embed_proj_dim=16,
            do_layer_norm_before=False,
        )
    ).eval()
    clean, corrupted = both()
    with pytest.raises(ValueError, match="has the sites resid_pre, resid_post, attn_out; got 'pattern'"):
        patch(opt, clean, corrupted, "pattern", logit_diff(clean, 3))
    with pytest.raises(ValueError, match="parallel blocks have no resid_mid"):
        patch(tiny("parallel"), clean, corrupted, "resid_mid", logit_diff(clean, 3))
    with pytest.raises(ValueError, match="training mode"):
        patch(tiny("alibi").__class__(tiny("alibi").config).train(), clean, corrupted, "z", logit_diff(clean, 3))


def test_nan_is_an_error_that_names_the_prompt():
    clean, corrupted = both()

    def compute(logits, rows):
        values = logits[..., 0, 0].clone()
        values[..., 1] = float("nan")
        return values

    with pytest.raises(ValueError, match="NaN or infinite, first in prompt 1"):
        patch(tiny("alibi"), clean, corrupted, "z", Metric("odd", torch.tensor([9]), compute))
