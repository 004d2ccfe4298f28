"""What is erased is what a hook on the raw model would erase, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.erasure import answers_without, residuals
from interp.forward import predict
from interp.patching import Metric, accuracy
from interp.tasks import Role
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny


def blocks(raw: Any) -> Any:
    body = getattr(raw, raw.base_model_prefix)
    return body.h if hasattr(body, "h") else body.layers


def everything(batch) -> Metric:
    """The sum of squares of all logits from the answers' positions, so that no change goes unseen."""
    at = batch.at(Role.OUTPUT) - 1
    return Metric("sum of squares", at, lambda logits, rows: logits.square().sum(dim=(-1, -2)))


def literal(raw: Any, batch, erasers: dict, places: Tensor) -> Tensor:
    """The slow reference: hooks on the raw model's blocks."""

    def hook(eraser):
        def erased(module, args, kwargs):
            hidden = args[0].clone()
            hidden[:, places] = eraser(hidden[:, places])
            return (hidden, *args[1:]), kwargs

        return erased

    handles = [blocks(raw)[layer].register_forward_pre_hook(hook(e), with_kwargs=True) for layer, e in erasers.items()]
    try:
        return predict(raw, batch, batch.at(Role.OUTPUT)).square().sum(dim=(-1, -2))
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_erasure_is_what_hooks_on_the_raw_model_do(architecture):
    raw, batch = tiny(architecture), prompts(size=4, length=4)
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) * 0.3

    def squash(x: Tensor) -> Tensor:
        return x @ matrix

    arms = {"first": {0: squash}, "last": {2: squash}, "both": {0: squash, 2: torch.zeros_like}}
    found = answers_without(raw, batch, Role.INPUT_LABEL, arms, [everything(batch), accuracy(batch)])
    places = batch.at(Role.INPUT_LABEL)
    intact = literal(raw, batch, {}, places)
    assert torch.allclose(found["intact"][0].float(), intact, rtol=1e-4)
    for name, arm in arms.items():
        expected = literal(raw, batch, arm, places)
        assert torch.allclose(found[name][0].float(), expected, rtol=1e-4)
        assert not torch.allclose(expected, intact, rtol=1e-4)


@pytest.mark.parametrize("layer", range(4))
def test_a_run_that_stops_early_reads_the_same(layer):
    """Later erasers do not act on earlier layers; the layer's own eraser does."""
    raw, batch = tiny("alibi"), prompts(size=4, length=4)
    erasers = {0: lambda x: x * 0.5, 2: torch.zeros_like}
    whole = residuals(raw, batch, Role.INPUT_LABEL, erasers=erasers)
    assert torch.allclose(residuals(raw, batch, Role.INPUT_LABEL, [layer], erasers)[layer], whole[layer], atol=1e-6)
    intact = residuals(raw, batch, Role.INPUT_LABEL, [layer])[layer]
    assert not torch.allclose(whole[layer], intact, atol=1e-3)


def test_an_eraser_that_erases_nothing_changes_nothing():
    raw, batch = tiny("alibi"), prompts()
    found = answers_without(raw, batch, Role.INPUT_LABEL, {"none": {1: torch.clone}}, [everything(batch)])
    assert torch.allclose(found["none"], found["intact"], rtol=1e-6, atol=0)  # run at other positions: rounding


def test_positions_after_the_answers_are_read_change_nothing():
    raw, batch = tiny("rotary"), prompts()
    last = (batch.n_pos - 1,)
    found = answers_without(raw, batch, last, {"late": {0: torch.zeros_like}}, [everything(batch)])
    assert torch.allclose(found["late"], found["intact"])


@pytest.mark.parametrize("architecture", ["alibi", "rotary", "absolute"])
def test_residuals_are_the_raw_models_hidden_states(architecture):
    raw, batch = tiny(architecture), prompts(length=4)
    found = residuals(raw, batch, Role.OUTPUT_LABEL)
    with torch.no_grad():
        hidden = raw(batch.tokens, output_hidden_states=True).hidden_states
    at = batch.at(Role.OUTPUT_LABEL)
    assert sorted(found) == [0, 1, 2, 3]
    for layer in range(3):  # of the last one Hugging Face gives the normalised form
        assert torch.allclose(found[layer], hidden[layer][:, at], atol=1e-5)


def test_residuals_show_erasures_of_their_own_and_earlier_layers():
    raw, batch = tiny("alibi"), prompts()
    found = residuals(raw, batch, Role.INPUT_LABEL, erasers={1: torch.zeros_like})
    intact = residuals(raw, batch, Role.INPUT_LABEL)
    assert torch.equal(found[0], intact[0])
    assert (found[1] == 0).all()
    assert not torch.allclose(found[2], intact[2])


def test_a_mask_is_as_good_as_a_role():
    raw, batch = tiny("alibi"), prompts()
    mask = batch.role == Role.INPUT
    assert torch.equal(residuals(raw, batch, mask, [1])[1], residuals(raw, batch, Role.INPUT, [1])[1])


def test_mistakes_are_named():
    raw, batch = tiny("alibi"), prompts()
    metrics = [everything(batch)]
    with pytest.raises(ValueError, match="layers 0 to 2"):
        answers_without(raw, batch, Role.INPUT, {"x": {3: torch.clone}}, metrics)
    with pytest.raises(ValueError, match="other than 'intact'"):
        answers_without(raw, batch, Role.INPUT, {"intact": {0: torch.clone}}, metrics)
    with pytest.raises(ValueError, match="an eraser each"):
        answers_without(raw, batch, Role.INPUT, {"x": {}}, metrics)
    with pytest.raises(ValueError, match="no metric"):
        answers_without(raw, batch, Role.INPUT, {}, [])
    with pytest.raises(ValueError, match="layers 0 to 3"):
        residuals(raw, batch, Role.INPUT, [4])
    with pytest.raises(ValueError, match="its roles are"):
        residuals(raw, batch, Role.ANSWER, [0])
    with pytest.raises(ValueError, match="mask of positions"):
        residuals(raw, batch, torch.zeros(batch.n_pos, dtype=torch.bool), [0])
