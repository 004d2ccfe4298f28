"""The vocabulary of sites: names, axes, heads and hooks."""

import pytest
import torch

from interp.capturing import capture
from interp.models import boot_bridge, build_model
from interp.models.families import ModelConfig
from interp.patching import cells, logit_diff, patch
from interp.sites import ATTENTION_SITES, AXES, HEAD_SITES, KV_SITES, RESID_SITES, SITES, head_count, hook_name
from interp.sites import require_site as require
from interp.tasks import counterfactual, default_vocabulary, sample

N_LAYERS, N_HEADS, D_MODEL = 2, 4, 16


@pytest.fixture(scope="module")
def bridge():
    config = ModelConfig("absolute", n_layers=N_LAYERS, d_model=D_MODEL, n_heads=N_HEADS)
    return boot_bridge(build_model(config, len(default_vocabulary().ids), seed=0).eval())


def test_every_site_has_axes_and_a_hook_of_its_own():
    assert set(AXES) == set(SITES)
    assert len({hook_name(site, 1) for site in SITES}) == len(SITES)
    for some in (HEAD_SITES, KV_SITES, RESID_SITES, ATTENTION_SITES):
        assert set(some) < set(SITES)
    assert {site for site in SITES if {"head", "kv_head"} & set(AXES[site])} == set(HEAD_SITES)
    assert {site for site in SITES if "kv_head" in AXES[site]} == set(KV_SITES)
    assert {site for site in SITES if "src_pos" in AXES[site]} == set(ATTENTION_SITES)
    assert all(AXES[site] == ("batch", "pos", "d_model") for site in RESID_SITES)


@pytest.mark.parametrize("site", [site for site in SITES if site != "mlp_in"])
def test_the_hook_gives_the_axes(site, bridge):
    batch = sample("parity-aligned", 2, 3, seed=0)
    sizes = {"batch": 2, "head": N_HEADS, "kv_head": N_HEADS, "d_model": D_MODEL, "d_head": D_MODEL // N_HEADS}
    sizes |= dict.fromkeys(("pos", "dest_pos", "src_pos"), batch.n_pos) | {"d_mlp": bridge.cfg.d_mlp}
    assert hook_name(site, 0) in bridge.hook_dict
    values = getattr(capture(bridge, batch, **{site: True}), site)
    assert len(values) == (1 if site == "embed" else N_LAYERS)
    assert tuple(values[0].shape) == tuple(sizes[axis] for axis in AXES[site])
    assert torch.isfinite(values[0][values[0] != -torch.inf]).all()


def test_head_counts_differ_with_grouped_queries():
    assert [head_count(site, 8, 2) for site in ("q", "z", "pattern", "k", "v", "resid_pre")] == [8, 8, 8, 2, 2, 0]


def test_an_unknown_site_names_the_choices():
    with pytest.raises(ValueError, match=r"unknown site 'scores'; sites are embed, resid_pre, .*, mlp_post"):
        require("scores")
    with pytest.raises(ValueError, match="unknown site 'q': capture takes it, this function does not; sites are k, v"):
        require("q", KV_SITES)


def test_a_site_that_the_engine_does_not_handle_is_an_error_and_no_other_site(monkeypatch):
    """The guide of interp/README.md, done with a toy site up to the point where the engine must handle it."""
    clean = sample("parity-aligned", 2, 4, seed=0)
    corrupted = counterfactual.redraw(clean, seed=1)
    config = ModelConfig("absolute", n_layers=N_LAYERS, d_model=D_MODEL, n_heads=N_HEADS)
    model = build_model(config, len(default_vocabulary().ids), seed=0).eval()
    with pytest.raises(ValueError, match="unknown site 'toy'; sites are"):
        patch(model, clean, corrupted, "toy", logit_diff(clean, step=3))
    monkeypatch.setattr(cells, "PATCH_SITES", (*cells.PATCH_SITES, "toy"))
    with pytest.raises((AssertionError, AttributeError, KeyError), match="toy"):
        patch(model, clean, corrupted, "toy", logit_diff(clean, step=3))
