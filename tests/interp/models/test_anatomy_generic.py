"""Generic anatomies against hooks on the raw model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from interp.models.anatomy import anatomy_of, anatomy_or_generic
from interp.models.architectures.discovery import generic_of
from interp.patching import patch
from tests.interp.models.architecture_cases import GENERIC, LAYERS, VOCAB, build, tiny
from tests.interp.models.test_architectures import CLEAN, CORRUPTED, METRIC

TOKENS = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))
OTHERS = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("case", GENERIC)
def test_layer_by_layer_it_gives_the_raw_logits(case):
    anatomy = anatomy_or_generic(tiny(case))
    assert anatomy.generic
    assert anatomy.check_on(TOKENS) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", GENERIC)
def test_patches_of_every_site_equal_hooks_on_the_raw_model(case, dtype):
    assert difference_from_hooks(case, dtype) <= (1e-5 if dtype == torch.float32 else 1e-9)


def difference_from_hooks(case: str, dtype: torch.dtype) -> float:
    """Return the largest difference of patched logits from hooks on the raw model, relative to the largest logit."""
    anatomy = generic_of(tiny(case, dtype))
    raw = anatomy.raw
    base, source = anatomy.trace(TOKENS), anatomy.trace(OTHERS)
    worst, unpatched = 0.0, raw(TOKENS, use_cache=False).logits.detach()
    for site in anatomy.sites:
        for layer in range(LAYERS):
            patched = base[site, layer].clone()
            patched[:, 6] = source[site, layer][:, 6]
            with anatomy.edited((site, layer), lambda _, new=patched: new), torch.no_grad():
                expected = raw(TOKENS, use_cache=False).logits
            assert (expected - unpatched).abs().max() > 1e-4  # the patch does something
            if site == "resid_pre":
                final = anatomy.run(patched, layer)
            elif site == "resid_post":
                final = anatomy.run(patched, layer + 1) if layer + 1 < LAYERS else patched
            else:
                final = anatomy.run(base["resid_pre", layer], layer, edits={(site, layer): lambda _, new=patched: new})
            worst = max(worst, float((anatomy.unembed(final) - expected).abs().max() / expected.abs().max()))
    return worst


def test_an_edit_of_the_first_layers_input_replaces_the_residual():
    anatomy = generic_of(tiny("jetmoe"))
    resid, other = anatomy.embed(TOKENS), anatomy.embed(OTHERS)
    edited = anatomy.run(resid, edits={("resid_pre", 0): lambda _: other})
    assert torch.equal(edited, anatomy.run(other))
    with pytest.raises(ValueError, match="an edit of layer 0 in a run of layers 1 to 2"):
        anatomy.run(resid, 1, edits={("resid_pre", 0): lambda _: other})


@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn_out", "mlp_out"])
def test_a_sweep_passes_its_controls_and_checks(site):
    effect = patch(tiny("jetmoe"), CLEAN, CORRUPTED, site, METRIC, spot_cells=6)
    assert effect.checks is not None
    assert effect.checks.spot_cells == 6


def test_some_positions_are_unembedded_as_all_are():
    anatomy = generic_of(tiny("jetmoe"))
    final = anatomy.run(anatomy.embed(TOKENS))
    assert (anatomy.unembed(final[:, [5, 9]]) - anatomy.unembed(final)[:, [5, 9]]).abs().max() <= 1e-5


def test_it_agrees_with_the_exact_anatomy():
    exact, generic = anatomy_of(tiny("gemma2")), generic_of(tiny("gemma2"))
    resid = exact.embed(TOKENS)
    assert torch.equal(generic.embed(TOKENS), resid)
    assert (exact.forward(TOKENS) - generic.unembed(generic.run(resid))).abs().max() <= 1e-5
    assert generic.sites == ("resid_pre", "resid_post", "attn_out", "mlp_out")


def test_rows_may_be_more_than_prompts():
    anatomy = generic_of(tiny("jetmoe"))
    resid = anatomy.embed(TOKENS)
    rows = torch.cat([resid, resid.flip(0), resid])
    assert (anatomy.run(rows)[2:4] - anatomy.run(resid).flip(0)).abs().max() <= 1e-5


def test_causality_is_measured():
    assert generic_of(tiny("mamba")).causal
    assert not generic_of(tiny("gemma3_text, use_bidirectional_attention")).causal


def test_the_model_is_left_as_it_was():
    model = build("jetmoe")
    before = model(TOKENS).logits
    anatomy = generic_of(model)

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise KeyError("an edit that fails")

    with pytest.raises(KeyError):
        anatomy.run(anatomy.embed(TOKENS), edits={("resid_post", 1): fails})
    assert torch.equal(model(TOKENS).logits, before)
    assert not any("forward" in vars(m) or m._forward_hooks or m._forward_pre_hooks for m in anatomy.layers)


def test_a_site_that_it_does_not_have_is_refused():
    anatomy = generic_of(tiny("mamba"))
    with pytest.raises(ValueError, match="resid_pre, resid_post; got 'z'"):
        anatomy.run(anatomy.embed(TOKENS), edits={("z", 1): lambda x: x})


def test_layers_that_share_more_than_a_residual_stream_are_refused_with_both_reasons():
    with pytest.raises(ValueError, match=r"'gemma3n_text' is not taken apart; .* once each, in order"):
        anatomy_or_generic(tiny("gemma3n_text"))


def test_layers_that_read_the_tokens_need_them():
    """Gemma 4 adds to each layer an embedding of the tokens; here a hook does."""
    model = build("jetmoe")
    seen: list[torch.Tensor] = []
    model.model.embed_tokens.register_forward_hook(lambda _, __, out: seen.append(out))
    model.model.layers[1].register_forward_hook(lambda _, __, out: out + seen[-1])
    anatomy = generic_of(model)
    assert anatomy.reads_tokens
    with pytest.raises(ValueError, match="read the tokens too"):
        anatomy.run(anatomy.embed(TOKENS))
    final = anatomy.run(anatomy.embed(TOKENS), tokens=TOKENS)
    assert (anatomy.unembed(final) - model(TOKENS).logits).abs().max() <= 1e-5


def test_functions_that_others_set_on_modules_are_put_back():
    model: Any = copy.deepcopy(tiny("mamba"))
    before = patch(model, CLEAN, CORRUPTED, "resid_pre", METRIC).change
    calls = []
    for layer in model.backbone.layers:
        own = layer.forward
        layer.forward = lambda *args, own=own, **kwargs: (calls.append(1), own(*args, **kwargs))[1]
    assert torch.equal(patch(model, CLEAN, CORRUPTED, "resid_pre", METRIC).change, before)
    calls.clear()
    model(TOKENS)
    assert len(calls) == LAYERS
