"""Activations moved to another prompt, position and layer, against hooks written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp import Interchange, interchange, patched, patchscope
from interp.patching import Metric
from tests.interp.patching.models import prompts, tiny
from tests.interp.raw_hooks import FIVE, hooked, seen

SOURCE, TARGET = prompts(3, 4, seed=1).tokens, prompts(3, 2, seed=2).tokens
METRIC = Metric("logit 7", torch.tensor([TARGET.shape[1] - 1]), lambda logits, rows: logits[..., 0, 7])


def by_hand(model, first: int, last: int, taken: list[int], at: list[int]) -> Tensor:
    new = seen(model, SOURCE, "resid_pre", first)

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        for p, q in zip(at, taken, strict=True):
            x[:, p] = new[:, q]
        return x

    with torch.no_grad(), hooked(model, {("resid_pre", last): edit}):
        return model(TARGET, use_cache=False).logits[:, -1, 7]


@pytest.mark.parametrize("architecture", FIVE)
def test_every_pair_of_layers_is_the_loop_by_hand(architecture):
    model = tiny(architecture)
    effect = patchscope(model, SOURCE, TARGET, METRIC, source_at=-2, target_at=[5])
    assert effect.axes == ("source_layer", "target_layer")
    for first in range(3):
        for last in range(3):
            expected = by_hand(model, first, last, [SOURCE.shape[1] - 2], [5])
            assert torch.allclose(effect.values[first, last].float(), expected, atol=1e-5)
            with (
                torch.no_grad(),
                patched(model, ("resid_pre", last), SOURCE, [5], [SOURCE.shape[1] - 2], source_layer=first),
            ):
                assert torch.allclose(model(TARGET).logits[:, -1, 7], expected, atol=1e-5)
    assert effect.change.abs().max() > 1e-3
    several = patchscope(model, SOURCE, TARGET, METRIC, [2, 9], [3, 6], source_layers=2, target_layers=1)
    assert torch.allclose(several.values[0, 0].float(), by_hand(model, 2, 1, [2, 9], [3, 6]), atol=1e-5)


def test_a_prompt_may_be_its_own_source():
    model = tiny("rotary")
    part = Interchange("resid_pre", TARGET, at=[6], layers=(1,), source_at=[2])
    found = interchange(model, TARGET, {"moved": [part]}, METRIC)
    new = seen(model, TARGET, "resid_pre", 1)

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 6] = new[:, 2]
        return x

    with torch.no_grad(), hooked(model, {("resid_pre", 1): edit}):
        expected = model(TARGET).logits[:, -1, 7]
    assert torch.allclose(found.values[0].float(), expected, atol=1e-5)
    assert found.change.abs().max() > 1e-4


def test_mistakes_are_named():
    model = tiny("rotary")
    with pytest.raises(ValueError, match="`at` has 1 positions and `source_at` 2; they are pairs"):
        patchscope(model, SOURCE, TARGET, METRIC, [1, 2], [3])
    with pytest.raises(ValueError, match="there is no layer 3"):
        patchscope(model, SOURCE, TARGET, METRIC, source_layers=3)
    with pytest.raises(ValueError, match="the same number of prompts; got 3, 2"):
        patchscope(model, SOURCE[:2], TARGET, METRIC)
    with pytest.raises(ValueError, match="attn_scores cannot be taken from other positions"):
        Interchange("attn_scores", SOURCE, at=[1], source_at=[2])
    mask = torch.ones(1, TARGET.shape[1], dtype=torch.bool)
    with pytest.raises(ValueError, match="`at` must be positions; got a mask"):
        interchange(model, TARGET, {"x": [Interchange("z", SOURCE, at=mask, source_layer=1)]}, METRIC)
