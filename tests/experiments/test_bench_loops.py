"""The loop written by hand patches the same cells as the engine does, on each architecture of the benchmark."""

from dataclasses import replace

import pytest
import torch

from experiments.benchmarks.loops import DEFAULT, LoopCase, loop_by_hand, model_of, prompt_of, run_case, tail_of
from interp.patching import logit_diff, patch

TINY = LoopCase("tiny", "bloom", 2, 16, 4, 40, 6)


@pytest.mark.parametrize("model_type", sorted({case.model_type for case in DEFAULT}))
def test_the_loop_by_hand_gives_the_sweep(model_type: str):
    case = replace(TINY, model_type=model_type, n_kv_heads=2 if model_type in ("llama", "qwen2") else None)
    model, clean, corrupted = model_of(case), prompt_of(case, 0), prompt_of(case, 1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(10)  # else every value is nearly zero
    effect = patch(model, clean, corrupted, "resid_pre", metric=logit_diff(3, 4))
    found = loop_by_hand(model, [tail_of(model, layer) for layer in (0, 1)], clean, corrupted, batch=4)
    assert torch.allclose(found.double(), effect.values[..., 0], rtol=0, atol=1e-4)
    assert (found[:, -1] - found[:, 0]).abs().max() > 1e-2
    assert model(clean).logits.shape == (1, 6, 40)  # the model itself is as before


def test_a_row_compares_equal_numbers():
    row = run_case(TINY, rounds=1)
    assert row["difference"] < 1e-5
    assert row["ratio"] == row["ms"]["hand"] / row["ms"]["ours"]
