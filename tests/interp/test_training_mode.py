"""A model with a part in training mode is refused; parts that compute the same there are none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from interp import capture, gradient_x_input, logit_lens, patch
from interp.patching import logit_diff
from tests.interp.patching.models import tiny

TOKENS = torch.randint(5, 20, (2, 8), generator=torch.Generator().manual_seed(0))
OTHER = TOKENS.flip(1)
METRIC = logit_diff(answer=7, other=9)
CALLS = {
    "patch": lambda model: patch(model, TOKENS, OTHER, "resid_pre", METRIC),
    "capture": lambda model: capture(model, TOKENS, resid_pre=True),
    "logit_lens": lambda model: logit_lens(model, TOKENS, 7, 9),
    "gradient_x_input": lambda model: gradient_x_input(model, TOKENS, metric=METRIC),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("part", "says"), [("", "the model is"), ("transformer.h.1", "a part of the model, transf")])
def test_training_mode_is_refused_by_name(call: Any, part: str, says: str) -> None:
    model: Any = copy.deepcopy(tiny("absolute"))
    call(model)
    model.get_submodule(part).train()
    with pytest.raises(ValueError, match=f"{says}.* in training mode; call model.eval\\(\\) first"):
        call(model)


def test_a_new_linear_map_computes_the_same_and_is_taken() -> None:
    model: Any = copy.deepcopy(tiny("absolute"))
    model.get_output_embeddings().train()
    model.get_input_embeddings().train()
    patch(model, TOKENS, OTHER, "resid_pre", METRIC)
