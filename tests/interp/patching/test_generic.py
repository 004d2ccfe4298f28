"""Models that are run layer by layer: the same results as those of models that are taken apart."""

import pytest
import torch

from interp.models.architectures.discovery import generic_of
from interp.patching import logit_diff, patch, sweeping
from interp.tasks import counterfactual
from tests.interp.patching.models import prompts, tiny


@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn_out", "mlp_out"])
def test_the_generic_engine_equals_the_exact_one(site, monkeypatch):
    clean = prompts(3)
    corrupted, metric = counterfactual.flip_input(clean, 2), logit_diff(clean, step=3)
    expected = patch(tiny("rotary"), clean, corrupted, site, metric)
    monkeypatch.setattr(sweeping, "anatomy_or_generic", lambda raw, test: generic_of(raw))
    effect = patch(tiny("rotary"), clean, corrupted, site, metric, spot_cells=6)
    assert effect.details == {"anatomy": "generic"}
    assert expected.details == {}
    assert torch.allclose(effect.values, expected.values, atol=1e-5)


def test_sites_that_only_an_anatomy_has_are_refused(monkeypatch):
    monkeypatch.setattr(sweeping, "anatomy_or_generic", lambda raw, test: generic_of(raw))
    clean = prompts(2)
    with pytest.raises(ValueError, match="is run layer by layer and has the sites resid_pre, resid_post"):
        patch(tiny("rotary"), clean, counterfactual.flip_input(clean, 2), "z", logit_diff(clean, step=2))
