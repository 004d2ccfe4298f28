"""Can a folder that someone sent be what it says? Asked of names, sizes and headers, before memory is spent on it.

A folder is not trusted: a configuration may ask for a billion layers, an index may name files outside, an entry may be
a device that never ends. Transformers finds some of this, late, and in many kinds of errors.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoModelForCausalLM, PretrainedConfig

from interp.tasks.limits import shown

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
# Bytes. Configurations have thousands, the largest tokenizers 40 million, headers of weights a hundred a tensor.
LARGEST_CONFIG = 2**24
LARGEST_TEXT = 2**28
LARGEST_HEADER = 2**26
# Layers, heads, experts and labels are made in loops, one by one.
MOST_REPEATS = 4096
# Any other integer; token ids, positions and the base of rotary angles are far below.
LARGEST_NUMBER = 2**53
# Weights that may be asked for, for each in the file. One too many is for the loader to name; this is about memory.
ROOM = 4
# Numbers in tables that are not in the file, such as sines of positions: a GiB in float32.
LARGEST_TABLES = 2**28
TEXTS = (".json", ".jinja", ".txt", ".model")
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")

_REPEATED = re.compile(r"(^|_)(layer|head|expert|label)s?(_|$)")
_COUNTED = re.compile(r"^(n|num)_")


@dataclass(frozen=True)
class Held:
    """What a tensor in a weights file is, by its header: a dtype as safetensors names it, and a shape."""

    dtype: str
    shape: tuple[int, ...]


def read_json(path: Path, largest: int = LARGEST_TEXT) -> Any:
    """What a JSON file holds. Raises `ValueError`, in one line that names it, when that cannot be told."""
    if why := _unreadable(path, largest):
        raise ValueError(f"{path} {why}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    except (OSError, ValueError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path} is not JSON: {error}") from error


def check_folder(folder: Path) -> None:
    """Raises `ValueError` for a folder whose entries cannot be read safely: devices, pipes, dead or endless links,
    huge texts, an index that names files elsewhere, an adapter that names another model."""
    for path in sorted(folder.iterdir()):
        if path.suffix in TEXTS and (why := _unreadable(path, LARGEST_TEXT)):
            raise ValueError(f"{path} {why}")
        if path.suffix == ".safetensors" and (why := _unreadable(path, None)):
            raise ValueError(f"{path} is not a whole safetensors file: it {why}")
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds an adapter, which names another model to load; merge the two and save that")
    if (folder / INDEX).exists():
        _check_index(folder / INDEX)


def check_config(folder: Path) -> None:
    """Raises `ValueError` for a `config.json` with numbers that no model has, or that names other files."""
    config = read_json(folder / CONFIG, LARGEST_CONFIG)
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} holds no object")
    if config.get("quantization_config"):
        raise ValueError(f"{CONFIG} says that the weights are quantised; save them in float32, float16 or bfloat16")
    if "transformers_weights" in config:
        raise ValueError(f"{CONFIG} names its own weights file; only model.safetensors and its shards are read")
    for name, value in _numbers(config):
        last = name.rsplit(".", 1)[-1]
        if not math.isfinite(value):
            raise ValueError(f"{CONFIG} says {name} {value}")
        if isinstance(value, float):
            continue
        limit = MOST_REPEATS if _REPEATED.search(last) else LARGEST_NUMBER
        if abs(value) > limit:
            raise ValueError(f"{CONFIG} says {name} {shown(value)}; at most {limit} are read")
        if value < 0 and _COUNTED.search(last):
            raise ValueError(f"{CONFIG} says {name} {shown(value)}, which cannot be a number of things")


def headers(folder: Path) -> dict[str, Held]:
    """The names, types and shapes of all tensors in a folder's safetensors files; no tensor is read.

    Raises `ValueError` for a file that is cut short, or whose header is not true of it.
    """
    found: dict[str, Held] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
            if LARGEST_HEADER < size <= path.stat().st_size:
                raise ValueError(f"its header has {size} bytes; at most {LARGEST_HEADER} are read")
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    part = weights.get_slice(name)
                    found[name] = Held(part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path} is not a whole safetensors file: {reason}") from error
    return found


def check_sizes(config: PretrainedConfig, there: dict[str, Held]) -> None:
    """Raises `ValueError` when the architecture asks for far more than the weights hold, or when they are no floats.

    It is built without memory, and no further than up to the first weight too many.
    """
    numbers = sum(math.prod(held.shape) for held in there.values())
    try:
        with _at_most(ROOM * len(there), ROOM * numbers), torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False, attn_implementation="eager")
    except NotImplementedError:  # it looks at numbers as it is built, so that it cannot be without memory
        return
    tables = sum(b.numel() for b in empty.buffers())
    if tables > LARGEST_TABLES:
        raise ValueError(f"{CONFIG} asks for tables of {tables} numbers beside the weights; at most {LARGEST_TABLES}")
    for name, _ in empty.named_parameters():
        if name in there and there[name].dtype not in FLOATS:
            raise ValueError(f"{name} holds {there[name].dtype}; weights are floating-point numbers")


@contextmanager
def _at_most(tensors: int, numbers: int) -> Iterator[None]:
    """Inside the block, models that register more parameters than this raise `ValueError` as they do."""
    count = total = 0

    def add(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal count, total
        if parameter is not None:
            count, total = count + 1, total + parameter.numel()
        if count > tensors or total > numbers:
            there = f"{tensors // ROOM} tensors with {numbers // ROOM} numbers"
            raise ValueError(f"{CONFIG} asks for more than {ROOM} times what the weights hold, {there}")

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _check_index(path: Path) -> None:
    index = read_json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not isinstance(index.get("metadata", {}), dict):
        raise ValueError(f"{path} is no index of weights: it has no weight_map")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{path} names {shown(name)}, which is no safetensors file of this folder")


def _unreadable(path: Path, largest: int | None) -> str:
    """Why a file must not be opened; "" where it may. Links are followed: the cache of the hub is made of them."""
    try:
        found = path.stat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return "is a folder" if stat.S_ISDIR(found.st_mode) else "is not a plain file"
    if largest is not None and found.st_size > largest:
        return f"has {found.st_size} bytes; at most {largest} are read"
    return ""


def _numbers(config: dict) -> Iterator[tuple[str, int | float]]:
    """Every number in nested objects and lists, with its name, such as `text_config.n_layer`."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        name, value = left.pop()
        match value:
            case bool():
                pass
            case int() | float():
                yield name, value
            case dict():
                left += [(f"{name}.{key}".lstrip("."), inner) for key, inner in value.items()]
            case list():
                left += [(name, inner) for inner in value]
