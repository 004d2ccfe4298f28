"""Models whose blocks accelerate loads from a disk as they are called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

from interp.patching import logit_diff, patch
from interp.tasks import counterfactual
from tests.interp.patching.models import prompts, tiny


def on_disk(model: Any, folder: Path, number: int) -> Any:
    """A copy of a model of which one block lies on the disk and everything else in memory."""
    split = copy.deepcopy(model)
    body = split.base_model
    blocks = next(name for name, child in body.named_children() if isinstance(child, torch.nn.ModuleList))
    prefix = split.base_model_prefix
    places: dict[str, str | int | torch.device] = {
        f"{prefix}.{name}": "cpu" for name, _ in body.named_children() if name != blocks
    }
    places |= {f"{prefix}.{blocks}.{i}": "cpu" for i in range(len(getattr(body, blocks)))}
    places |= {name: "cpu" for name, _ in split.named_children() if name != prefix}
    places[f"{prefix}.{blocks}.{number}"] = "disk"
    # accelerate compares main_device with "cpu"; a torch.device would leave everything on the meta device.
    return dispatch_model(split, device_map=places, main_device="cpu", offload_dir=str(folder))  # type: ignore[arg-type]


@pytest.mark.parametrize("site", ["resid_pre", "z", "mlp_post"])
@pytest.mark.parametrize("architecture", ["alibi", "grouped", "absolute"])
def test_a_block_on_the_disk_changes_nothing(architecture: str, site: str, tmp_path: Path):
    clean = prompts(3)
    corrupted, metric = counterfactual.flip_input(clean, 2), logit_diff(clean, step=3)
    expected = patch(tiny(architecture), clean, corrupted, site, metric)
    split = on_disk(tiny(architecture), tmp_path, 1)
    assert any(p.device.type == "meta" for p in split.parameters())  # it is not in memory
    found = patch(split, clean, corrupted, site, metric)
    assert torch.allclose(found.values, expected.values, atol=1e-5)
