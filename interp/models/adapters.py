"""LoRA adapters (2106.09685): small runs that hold a low-rank change of another model's weights.

A run with an adapter is `adapter_model.safetensors` and `adapter_config.json`, as peft writes them, and `run.json`,
whose entry `adapter` holds the name of the base model and the digest of its weights. The adapter is added to the
weights of the base when the run is loaded, so everything that takes a model takes it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.models.checking import ADAPTER_CONFIG, check_folder, headers, read_json
from interp.models.hub import folder_of
from interp.models.names import source_of
from interp.models.record import RECORD, read_record, write_record
from interp.support.writing import whole_folder

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# What peft puts before the names of the base model's modules.
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
# Variants of LoRA whose weights are not `weight + lora_alpha / r * B A`.
OTHER_KINDS = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "modules_to_save")


def save_adapter_run(
    folder: Path, weights: Mapping[str, Tensor], settings: dict, record: dict, beside: Mapping[str, bytes]
) -> None:
    """Write a run with an adapter atomically.

    `weights` and `settings` are named as in peft's files; `record` is the contents of `run.json`, with the entry of
    `adapter_entry`; `beside` holds other files by name.
    """
    with whole_folder(folder) as fresh:
        save_file(dict(weights), fresh / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (fresh / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        write_record(fresh, record)
        for name, data in beside.items():
            (fresh / name).write_bytes(data)


def adapter_entry(name: str) -> dict[str, str]:
    """Return the entry `adapter` of `run.json` for a base model's name, folder or hub name."""
    return {"base": name, "sha256": weights_digest(folder_of(source_of(name), weights=True))}


def model_folder(folder: Path, weights: bool = False) -> Path:
    """Return the folder of a run's configuration and tokenizer: the base model's for an adapter, else the same folder.

    Raises `ValueError` for an adapter whose `run.json` names no base, and where the base is not on this machine; the
    message says how to get it. `weights` downloads the weights of a base that is a hub name, too.
    """
    if not (folder / ADAPTER_CONFIG).exists():
        return folder
    base = _base(folder)["base"]
    try:
        return folder_of(source_of(base), weights)
    except ValueError as error:
        raise ValueError(f"{folder.name} is an adapter on {base}, which it needs: {error}") from error


def check_base(folder: Path, base: Path) -> None:
    """Raise `ValueError` when the weights in the folder `base` are not those that an adapter was trained on."""
    wanted, found = _base(folder), weights_digest(base)
    if found != wanted["sha256"]:
        raise ValueError(
            f"{folder.name} is an adapter on {wanted['base']} with weights of sha256 {wanted['sha256'][:12]}; "
            f"those in {base} have {found[:12]}"
        )


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of all weights in a folder, in the order of names.

    Weights in several files have the digest of the same weights in one.
    """
    headers(folder)  # readable, and no larger than memory
    digest = hashlib.sha256()
    places: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    for name in sorted(places):
        with safe_open(places[name], framework="pt") as file:
            weight = file.get_tensor(name).contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def merge_adapter(model: nn.Module, folder: Path) -> None:
    """Add the adapter in a folder to a model's weights, in place: `weight + lora_alpha / r * B A`.

    Raises `ValueError` for an adapter of another kind, of other modules or shapes, and for numbers that are not finite.
    """
    headers(folder)
    scale, weights = _scale(folder), load_file(folder / ADAPTER_WEIGHTS)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    names = sorted({name.removesuffix(A).removesuffix(B) for name in weights})
    for name in names:
        down, up = weights.get(name + A), weights.get(name + B)
        module = modules.get(name.removeprefix(PREFIX))
        if down is None or up is None or module is None:
            raise ValueError(f"{folder / ADAPTER_WEIGHTS} is no LoRA of {type(model).__name__}: it has {name}")
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
            raise ValueError(f"{folder / ADAPTER_WEIGHTS} has a pair of other shapes than (n, r) and (r, m): {name}")
        change: Tensor = scale * (up.double() @ down.double())  # in float32 its last bit depends on the machine
        change = change.T if isinstance(module, Conv1D) else change
        if change.shape != module.weight.shape:
            raise ValueError(
                f"{folder / ADAPTER_WEIGHTS} changes a matrix of shape {tuple(change.shape)} in {name}; "
                f"the base has {tuple(module.weight.shape)}"
            )
        if not torch.isfinite(change).all():
            raise ValueError(f"{folder / ADAPTER_WEIGHTS} holds NaN or infinity, in {name}")
        module.weight.add_(change)


def _base(folder: Path) -> dict[str, str]:
    """Return the entry `adapter` of a folder's `run.json`."""
    check_folder(folder, is_adapter=True)
    record = read_record(folder) or {}
    if "adapter" not in record:
        check_folder(folder)  # refuses adapters
    entry = record["adapter"]
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("base", "sha256")):
        raise ValueError(f"{folder / RECORD} is not a run record: the adapter has no base and sha256")
    return entry


def _scale(folder: Path) -> float:
    """Return the factor of the change of weights."""
    settings: Any = read_json(folder / ADAPTER_CONFIG)
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ValueError(f"{folder / ADAPTER_CONFIG} is not of a LoRA adapter")
    if kinds := [kind for kind in OTHER_KINDS if settings.get(kind)]:
        raise ValueError(f"{folder / ADAPTER_CONFIG} has {', '.join(kinds)}; only plain LoRA is read")
    rank: Any = settings.get("r")
    alpha: Any = settings.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise ValueError(f"{folder / ADAPTER_CONFIG} has r {rank} and lora_alpha {alpha}, which give no scale")
    return alpha / rank
