"""Check the names, sizes and headers of a model folder, and its configuration, before memory is spent on it.

A folder is not trusted: a configuration may ask for a billion layers, an index may name files outside, an entry may be
an endless device, a weights file may be sparse. Transformers detects some of this, late, with many kinds of errors.
"""

from __future__ import annotations

import json
import math
import re
import stat
import textwrap
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

import interp.models.sink  # noqa: F401  # Hugging Face's loaders learn its type
from interp.support.budget import free_memory
from interp.support.printable import is_utf8
from interp.tasks.limits import shown

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
# Bytes. Configurations have thousands, the largest tokenizers 40 million, headers of weights a hundred per tensor.
LARGEST_CONFIG = 2**24
LARGEST_TEXT = 2**28
LARGEST_HEADER = 2**26
# Layers, heads, experts and labels are built in loops, one by one.
MOST_REPEATS = 4096
# Any other integer; token ids, positions and the base of rotary angles are far below.
LARGEST_NUMBER = 2**53
# Weights that a configuration may ask for, per weight in the file. The loader names the ones that are missing.
ROOM = 4
# Numbers in tables that are not in the file, such as sines of positions: a GiB in float32.
LARGEST_TABLES = 2**28
# A file of more than `SPARSE_FROM` bytes with fewer than one in `SPARSE_SHARE` on the disk has holes.
SPARSE_FROM, SPARSE_SHARE = 2**26, 8
TEXTS = (".json", ".jinja", ".txt", ".model")
# Bytes of a number, by the name of its type in safetensors.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}

_REPEATED = re.compile(r"(^|_)(layer|head|expert|label)s?(_|$)")
_COUNTED = re.compile(r"^(n|num)_")


@dataclass(frozen=True)
class Held:
    """The header of a tensor in a weights file: its dtype as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """The tensor's size in bytes; types that are no floats count 8 per number."""
        return math.prod(self.shape) * FLOATS.get(self.dtype, 8)


def read_json(path: Path, largest: int = LARGEST_TEXT) -> Any:
    """Return the contents of a JSON file. Raises `ValueError`, in one line that names it, when it cannot be read."""
    if why := _unreadable(path, largest):
        raise ValueError(f"{path} {why}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    except (OSError, ValueError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path} is not JSON: {error}") from error


def check_folder(folder: Path, is_adapter: bool = False) -> None:
    """Raise `ValueError` for a folder whose entries cannot be read safely.

    These are devices, pipes, dead or endless links, huge texts, sparse weights, an index that names files elsewhere,
    and, unless `is_adapter`, an adapter that names another model. A path that is not UTF-8 text is refused, because the
    libraries of weights and tokenizers cannot open it.
    """
    if not is_utf8(str(folder)):
        raise ValueError(f"the path of {shown(folder.name)} is not UTF-8 text, so its files cannot be read; rename it")
    for path in sorted(folder.iterdir()):
        if path.suffix in TEXTS and (why := _unreadable(path, LARGEST_TEXT)):
            raise ValueError(f"{path} {why}")
        if path.suffix == ".safetensors" and (why := _unreadable(path, None) or _sparse(path)):
            raise ValueError(f"{path} is not a whole safetensors file: it {why}")
    if not is_adapter and (folder / ADAPTER_CONFIG).exists():
        raise ValueError(f"{folder} holds an adapter, which names another model to load; merge the two and save that")
    if (folder / INDEX).exists():
        _check_index(folder / INDEX)


def check_config(folder: Path) -> None:
    """Raise `ValueError` for a `config.json` with numbers that no model has, or that names other files."""
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
    """Return the names, types and shapes of all tensors in a folder's safetensors files; no tensor is read.

    Raises `ValueError` for a file that is truncated or whose header does not describe it, and for weights that need
    more memory than this machine has available.
    """
    tensors: dict[str, Held] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
            if LARGEST_HEADER < size <= path.stat().st_size:
                raise ValueError(f"its header has {size} bytes; at most {LARGEST_HEADER} are read")
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    part = weights.get_slice(name)
                    tensors[name] = Held(part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError, ValueError, MemoryError) as error:
            raise ValueError(f"{path} is not a whole safetensors file: {one_line(error)}") from error
    needed, free = sum(tensor.n_bytes for tensor in tensors.values()), free_memory()
    if free is not None and needed > free:
        sizes = f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are available"
        raise ValueError(f"the weights in {folder} need more memory than there is: {sizes}")
    return tensors


def check_sizes(config: PretrainedConfig, tensors: dict[str, Held]) -> None:
    """Raise `ValueError` when the architecture asks for far more than the weights hold, or when they are no floats.

    The model is built without memory, and only up to the first weight too many.
    """
    numbers = sum(math.prod(held.shape) for held in tensors.values())
    try:
        with _at_most(ROOM * len(tensors), ROOM * numbers), torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False, attn_implementation="eager")
    except NotImplementedError:  # its constructor reads values of tensors, so it cannot be built without memory
        return
    tables = sum(b.numel() for b in empty.buffers())
    if tables > LARGEST_TABLES:
        raise ValueError(f"{CONFIG} asks for tables of {tables} numbers beside the weights; at most {LARGEST_TABLES}")
    for name, _ in empty.named_parameters():
        if name in tensors and tensors[name].dtype not in FLOATS:
            raise ValueError(f"{name} holds {tensors[name].dtype}; weights are floating-point numbers")


@contextmanager
def _at_most(tensors: int, numbers: int) -> Iterator[None]:
    """Inside the block, a model that registers more parameters than this raises `ValueError` at once."""
    count = total = 0

    def add(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal count, total
        if parameter is not None:
            count, total = count + 1, total + parameter.numel()
        if count > tensors or total > numbers:
            held = f"{tensors // ROOM} tensors with {numbers // ROOM} numbers"
            raise ValueError(f"{CONFIG} asks for more than {ROOM} times what the weights hold, {held}")

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
    """Return why a file must not be opened, or "". Links are followed: the hub's cache consists of them."""
    try:
        status = path.stat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a plain file"
    if largest is not None and status.st_size > largest:
        return f"has {status.st_size} bytes; at most {largest} are read"
    return ""


def _sparse(path: Path) -> str:
    """Return the sizes of a file with holes, or ""."""
    status = path.stat()
    allocated = getattr(status, "st_blocks", status.st_size) * 512
    if status.st_size < SPARSE_FROM or allocated * SPARSE_SHARE >= status.st_size:
        return ""
    return f"is sparse: {allocated} of its {status.st_size} bytes are on the disk"


def one_line(error: BaseException) -> str:
    """Return an error's message in one line of at most 300 characters."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, ZeroDivisionError):
        return "a size in its configuration is 0"
    if isinstance(error, KeyError):
        return f"unknown or missing key {error}"
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__


def _numbers(config: dict) -> Iterator[tuple[str, int | float]]:
    """Yield every number in nested objects and lists, with its name, such as `text_config.n_layer`."""
    rest: list[tuple[str, Any]] = [("", config)]
    while rest:
        name, value = rest.pop()
        match value:
            case bool():
                pass
            case int() | float():
                yield name, value
            case dict():
                rest += [(f"{name}.{key}".lstrip("."), inner) for key, inner in value.items()]
            case list():
                rest += [(name, inner) for inner in value]
