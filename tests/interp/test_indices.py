"""Layers and heads are integers: True, 1.0 and 0.5 name none and are refused, as is a tensor where it is a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp import capture, logit_diff, patch, steered
from interp.circuits.heads import describe_heads
from interp.models import ModelConfig, build_model
from interp.patching import Interchange, Knockout, Receiver, Sender, interchange, knock_out, path_patch
from interp.rowspace import read_directions
from interp.tasks import Prompts
from interp.views import attention

MODEL = build_model(ModelConfig("rotary", n_layers=2, d_model=16, n_heads=2), 12, seed=0).eval()
CLEAN, CORRUPTED = (Prompts(tokens=torch.tensor([[1, 2, x, 4, 5]])) for x in (3, 6))
METRIC = logit_diff(7, 8)


def steer(**options: Any) -> None:
    with steered(MODEL, ("z", options["layer"]), torch.zeros(8), heads=options["head"]):
        MODEL(CLEAN.tokens)


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "capture": lambda layer, head: capture(MODEL, CLEAN, resid_pre=[layer]),
    "patch": lambda layer, head: patch(MODEL, CLEAN, CORRUPTED, "z", METRIC, layers=[layer], heads=[head]),
    "knock_out": lambda layer, head: knock_out(MODEL, CLEAN, Knockout(0, 2, heads=[(layer, head)]), METRIC),
    "knock_out a layer": lambda layer, head: knock_out(MODEL, CLEAN, Knockout(0, 2, (layer,)), METRIC),
    "interchange": lambda layer, head: interchange(
        MODEL, CLEAN, {"one": [Interchange("z", CORRUPTED, layers=(layer,), heads=(head,))]}, METRIC
    ),
    "path_patch": lambda layer, head: path_patch(
        MODEL, CLEAN, CORRUPTED, Sender("head", layer, head), Receiver("logits"), METRIC
    ),
    "steered": lambda layer, head: steer(layer=layer, head=head),
    "read_directions": lambda layer, head: read_directions(MODEL, heads=[(layer, head)]),
    "describe_heads": lambda layer, head: describe_heads(MODEL, CLEAN).name(layer, head),
    "attention": lambda layer, head: attention(capture(MODEL, CLEAN, pattern=True), layer=1, heads=[head]),
}


@pytest.mark.parametrize("wrong", [True, 1.0, 0.5, torch.tensor(1), -1, 2], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_index_is_refused(call: str, wrong: object) -> None:
    if call == "patch" and isinstance(wrong, torch.Tensor):
        CALLS[call](wrong, wrong)  # it takes the tensor's number
        return
    for layer, head in ((wrong, 1), (1, wrong)):
        if (call in ("capture", "knock_out a layer") and layer == 1) or (call == "attention" and layer is wrong):
            continue
        with pytest.raises((ValueError, TypeError)):
            CALLS[call](layer, head)


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"describe_heads"}))
def test_an_index_is_taken(call: str) -> None:
    CALLS[call](1, 1)
