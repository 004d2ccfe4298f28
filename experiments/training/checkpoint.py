"""Checkpoints of training: weights, optimiser and step, in safetensors and JSON, written atomically."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from interp.models import read_json
from interp.support.writing import whole_folder

KEEP = 1
DIGEST = "digest"
# Checkpoints of large models are slow to write: saving takes at most one part in so many of the time.
SAVE_SHARE = 20


class Pace:
    """When checkpoints are written: at the first occasion, and then at most every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.saved: float | None = None
        self.took = 0.0

    def is_due(self) -> bool:
        """Return whether it is time for the next one."""
        return self.saved is None or time.monotonic() - self.saved >= max(self.seconds, SAVE_SHARE * self.took)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Time the block, which writes a checkpoint."""
        began = time.monotonic()
        yield
        self.saved = time.monotonic()
        self.took = self.saved - began


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: Optimizer, state: dict) -> None:
    """Write `folder/step-N`, then remove older ones, so that a complete one always exists."""
    with whole_folder(folder / f"step-{step:08d}") as fresh:
        weights = {name: p.detach().contiguous().clone() for name, p in _trained(model)}
        save_file(weights, fresh / "weights.safetensors")
        moments: dict[str, Tensor] = {}
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                moments[f"{index}.{key}"] = value.detach().contiguous().clone()
        save_file(moments, fresh / "optimizer.safetensors")
        (fresh / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
        (fresh / DIGEST).write_text(_digest(fresh), encoding="ascii")
    for old in _steps(folder)[:-KEEP]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer) -> dict | None:
    """Load the newest checkpoint's weights and moments in place; return its state, or None without a checkpoint.

    Raises `ValueError` for a checkpoint of another model, and for a damaged one.
    """
    if not (checkpoints := _steps(folder)):
        return None
    try:
        state = _load(checkpoints[-1], model, optimizer)
        if type(state["step"]) is not int or not isinstance(state["accuracy"], dict):
            raise ValueError("its state has no step or accuracy")
        return state
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{checkpoints[-1]} is not a checkpoint of this recipe: {error!r}; remove it") from error


def _load(newest: Path, model: nn.Module, optimizer: Optimizer) -> dict:
    if (newest / DIGEST).read_bytes() != _digest(newest).encode():
        raise ValueError("it is damaged: its digest is another")
    weights = load_file(newest / "weights.safetensors")
    for name, parameter in _trained(model):
        parameter.data.copy_(weights[name])
    own = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in load_file(newest / "optimizer.safetensors").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**own, "state": moments})
    return read_json(newest / "state.json")


def _digest(folder: Path) -> str:
    """Return a digest of a checkpoint: a changed bit in a weight would train on without a word."""
    digest = hashlib.sha256()
    for name in ("weights.safetensors", "optimizer.safetensors", "state.json"):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the weights that are trained, by name; frozen ones are as they were when the model was built."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
