"""The model taken apart is compared with the raw model on the very prompts, not only on random ones."""

import copy

import pytest
import torch

from interp.capturing import capture
from interp.models import load
from interp.patching import (
    Interchange,
    Knockout,
    Receiver,
    Sender,
    interchange,
    knock_out,
    logit_diff,
    patch,
    path_patch,
)
from tests.interp.patching.own_text import CLEAN, CORRUPTED, model, tokenizer

DIFF = logit_diff("Mary", "John")
# The random prompts of a model's self-test are shorter than this, so that it misses the hook.
LATE = 9

CALLS = {
    "patch": lambda run: patch(run, CLEAN, CORRUPTED, "resid_pre", DIFF),
    "knock_out": lambda run: knock_out(run, CLEAN, Knockout(1, 13), DIFF),
    "path_patch": lambda run: path_patch(run, CLEAN, CORRUPTED, Sender("head", 0, 1), Receiver("logits"), DIFF),
    "interchange": lambda run: interchange(run, CLEAN, {"v": [Interchange("v", CORRUPTED)]}, DIFF),
}


def hooked():
    """A copy of the model whose first layer's output has a ramp added from position 9 on."""
    raw = copy.deepcopy(model())
    raw.transformer.h[0].register_forward_hook(  # type: ignore[union-attr]
        lambda module, args, out: torch.cat([out[:, :LATE], out[:, LATE:] + torch.arange(16.0)], dim=1)
    )
    return load(raw, tokenizer=tokenizer())


@pytest.mark.parametrize("name", CALLS)
def test_a_hook_that_acts_from_position_9_on_is_refused(name):
    CALLS[name](load(copy.deepcopy(model()), tokenizer=tokenizer()))
    with pytest.raises(RuntimeError, match="differs from the raw model"):
        CALLS[name](hooked())


def test_capture_sees_the_hook():
    run = hooked()
    with torch.no_grad():
        expected = run.raw(torch.tensor([tokenizer().encode(CLEAN)]), output_hidden_states=True)
    kept = capture(run, CLEAN, logits=True, resid_pre=[1])
    assert kept.logits is not None
    assert torch.allclose(kept.logits, expected.logits, atol=1e-5)
    assert torch.allclose(kept.resid_pre[1], expected.hidden_states[1], atol=1e-5)
