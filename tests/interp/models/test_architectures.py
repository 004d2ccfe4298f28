"""Every architecture: its steps against the raw model's logits, and the engine against the literal loop."""

from __future__ import annotations

from itertools import cycle
from typing import cast

import pytest
import torch

from interp.capturing import capture
from interp.models import boot_bridge
from interp.models.anatomy import anatomy_of
from interp.models.architectures import BUILDERS
from interp.patching import kl, logit_diff, patch
from interp.patching.cells import Cell
from interp.patching.grids.caches import require_same_hooks
from interp.patching.reference import literal, record
from interp.patching.tracing import trace
from interp.sites import NEURON_SITES
from interp.steering import steered
from interp.tasks import counterfactual, sample
from tests.interp.models.architecture_cases import EXACT, LAYERS, NO_BRIDGE, NO_FLOAT64, VOCAB, build, tiny

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern")
# Of float64 models that round scores to float32.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
CLEAN = sample("parity-aligned", 2, 3, seed=0)
CORRUPTED = counterfactual.redraw(CLEAN, seed=1)
METRIC = logit_diff(CLEAN, step=3)
# The slow tier has all sites; here each architecture has one of them, in turn.
ONE_SITE = list(zip(EXACT, cycle(("q", "k", "pattern", "v", "attn_out", "mlp_out", "z"))))


def test_every_builder_has_a_case():
    tested = {model_type for model_type, _ in EXACT.values()}
    assert tested == set(BUILDERS) - {"bloom_key_sink", "native"}  # test_sink and test_native


@pytest.mark.parametrize("case", EXACT)
def test_the_steps_give_the_raw_logits(case):
    tokens = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    anatomy = anatomy_of(tiny(case))
    assert anatomy.raw(tokens).logits.std() > 0.1
    assert anatomy.check_on(tokens) <= 1e-5


@pytest.mark.parametrize(("case", "site"), ONE_SITE)
def test_some_cells_equal_the_literal_loop(case, site):
    assert difference_from_the_loop(case, site, torch.float32, layers=[1], positions=[10]) <= TOLERANCE[torch.float32]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", EXACT)
def test_every_site_equals_the_literal_loop(case, dtype):
    if dtype == torch.float64 and case in NO_FLOAT64:
        pytest.skip("the raw model has no float64")
    anatomy = anatomy_of(tiny(case, dtype))
    for site in SITES:
        if site == "resid_mid" and anatomy.blocks[0].parallel:
            continue
        difference = difference_from_the_loop(case, site, dtype, layers=range(LAYERS), positions=[3, 7, 10, 12])
        assert difference <= TOLERANCE[anatomy.arithmetic], site


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_neurons_equal_the_literal_loop_and_experts_have_none(case):
    anatomy = anatomy_of(tiny(case))
    layers = [layer for layer in range(LAYERS) if anatomy.blocks[layer].has_neurons]
    for site in NEURON_SITES:
        if layers:
            difference = difference_from_the_loop(case, site, torch.float32, layers, positions=[3, 10])
            assert difference <= TOLERANCE[torch.float32], site
        without = [layer for layer in range(LAYERS) if layer not in layers]
        for layer in without:
            assert anatomy.blocks[layer].mlp_module is not None
            with pytest.raises(ValueError, match="experts, whose neurons are not taken apart"):
                patch(tiny(case), CLEAN, CORRUPTED, site, METRIC, layers=layer)


def difference_from_the_loop(case, site, dtype, layers, positions) -> float:
    """Return the engine's largest difference from one forward pass per cell, relative to the largest metric."""
    model = tiny(case, dtype)
    anatomy = anatomy_of(model)
    effect = patch(model, CLEAN, CORRUPTED, site, METRIC, layers=list(layers), positions=list(positions), spot_cells=0)
    expected = []
    for layer in layers:
        source = record(anatomy, CLEAN.tokens, site, layer)
        for head in cast(tuple[int | None, ...], effect.labels.get("head", (None,))):
            for position in positions:
                cell = Cell(layer, (position,), head)
                expected.append(
                    literal(anatomy, CORRUPTED.tokens, site, cell, source, METRIC, torch.arange(len(CLEAN)))
                )
    values = torch.stack(expected).reshape(effect.values.shape)
    assert (values - effect.base).abs().max() > 1e-4  # the patches do something
    return float((effect.values - values).abs().max()) / max(1.0, float(values.abs().max()))


# TransformerLens takes q, k and v before the clip, and q and k before a norm over all heads.
TAKEN_ELSEWHERE = {
    "flex_olmo": {"q", "k"},
    "minimax_m2": {"q", "k"},
    "mpt, clip_qkv": {"q", "k", "v"},
    "olmo, clip_qkv": {"q", "k", "v"},
    "olmo2": {"q", "k"},
    "olmo3": {"q", "k"},
    "olmoe": {"q", "k"},
}
HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "pattern": "attn.hook_pattern",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(set(EXACT) - NO_BRIDGE))
def test_sites_are_those_of_transformerlens(case):
    _, cache = boot_bridge(build(case)).run_with_cache(CLEAN.tokens)
    anatomy = anatomy_of(tiny(case))
    for site, hook in HOOKS.items():
        if site == "resid_mid" and anatomy.blocks[1].parallel:
            continue
        expected = record(anatomy, CLEAN.tokens, site, 1)
        own = trace(anatomy, CLEAN.tokens).site(site, 1) if site != "pattern" else expected
        assert torch.allclose(own, expected, atol=1e-4) or site in TAKEN_ELSEWHERE.get(case, ()), site
        same = torch.allclose(cache[f"blocks.1.{hook}"].reshape(own.shape), own, atol=1e-4)
        assert same != (site in TAKEN_ELSEWHERE.get(case, ())), site


@pytest.mark.parametrize("case", ["cohere", "flex_olmo", "minimax_m2", "olmo2", "olmo3", "olmoe", "qwen3"])
def test_captured_q_and_k_are_those_that_patches_take(case):
    model = tiny(case)
    kept, other = (capture(model, prompts, q=True, k=True) for prompts in (CLEAN, CORRUPTED))
    for site, values in (("q", kept.q), ("k", kept.k)):
        for layer in range(LAYERS):
            expected = record(anatomy_of(model), CLEAN.tokens, site, layer)
            assert torch.allclose(values[layer], expected, atol=1e-5), (site, layer)
    # So a captured difference that is added in one head is a patch there, in the model and in its bridge.
    at = int(METRIC.positions[0])
    add = (kept.q[1] - other.q[1])[0, at, 2]
    expected = patch(model, CLEAN, CORRUPTED, "q", METRIC, layers=1, positions=[at])
    assert expected.change[0, 2, 0, 0].abs() > 1e-5
    for edited in (model, boot_bridge(build(case))):
        with steered(edited, ("q", 1), add, positions=[at], heads=2):
            out = edited(CORRUPTED.tokens)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        found = METRIC.measure(logits[:, METRIC.positions], torch.arange(len(CORRUPTED)))
        assert torch.allclose(found[0].double(), expected.values[0, 2, 0, 0].double(), atol=1e-5)


def test_a_cached_q_from_before_a_norm_over_all_heads_is_refused_with_the_reason():
    bridge = boot_bridge(build("olmo2"))
    _, cache = bridge.run_with_cache(CLEAN.tokens)
    anatomy = anatomy_of(tiny("olmo2"))
    with pytest.raises(ValueError, match="the engine's q, which is taken after the norm over all heads"):
        require_same_hooks(bridge, cache, anatomy, CLEAN, "q", [1])


def test_a_reference_of_another_vocabulary_is_refused():
    with pytest.raises(ValueError, match="reference has 3 logits, and the model"):
        patch(tiny("llama"), CLEAN, CORRUPTED, "resid_pre", kl(torch.zeros(len(CLEAN), 3)), layers=1)
