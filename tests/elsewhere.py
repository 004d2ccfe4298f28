"""A simulated CUDA device, for machines without one: it refuses operations on tensors of two devices.

    with second_device():
        model.to(SHOWN)  # parameters and buffers are `Elsewhere` tensors from here on
        effect = patch(model, clean, corrupted, "z", metric)  # raises RuntimeError where CUDA does

An `Elsewhere` tensor holds a CPU tensor, with which all operations compute, so values and gradients are those of the
CPU. Python sees the device cuda:0, and code that asks for CUDA takes its branches. The C++ code of torch sees meta:1,
because a build without CUDA refuses its devices. Not simulated: CUDA's kernels, rounding, autocast, streams, graphs and
generators, `non_blocking` copies that are read too early, and two GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

SHOWN, INSIDE, CPU = torch.device("cuda:0"), torch.device("meta:1"), torch.device("cpu")
NAMES = ("cuda", "cuda:0")
# Bytes of memory that the device has: free, and in total.
MEMORY = 2**33, 2**34

aten = torch.ops.aten
# Operations that copy between devices.
COPIES = {aten.copy_.default, aten._to_copy.default}
# Operations whose index tensors may be on the CPU where the indexed tensor is elsewhere; the opposite is refused.
INDEXED = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# Operations that refuse even a tensor without dimensions on the CPU; element-wise operations take it as a number.
STRICT = (
    *("index_select", "index_copy", "index_add", "index_fill", "gather", "scatter", "embedding", "take"),
    *("cat", "stack", "searchsorted", "bucketize"),
)


class Elsewhere(torch.Tensor):
    """A tensor on the simulated device. `held` is the CPU tensor with its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, dtype=held.dtype, device=INSIDE)  # type: ignore[attr-defined]
        made.held = held
        return made

    # With the default, results on the CPU would become `Elsewhere` tensors.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.held!r})"


@contextmanager
def second_device() -> Iterator[None]:
    """Inside the block the device cuda:0 exists. `torch.cuda` states its memory, but `is_available` stays false."""
    memory = {"mem_get_info": MEMORY, "memory_reserved": 0, "memory_allocated": 0}
    stated = {name: lambda *_, value=value: value for name, value in memory.items()}
    before = torch._C._only_lift_cpu_tensors()
    with mock.patch.multiple(torch.cuda, **stated):  # type: ignore[arg-type]
        # Else torch.tensor(..., device="cuda:0") copies its values before a dispatch mode sees it.
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _Shown(), _Factories():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(before)


class _Factories(TorchDispatchMode):
    """Computes operations without `Elsewhere` arguments: factories, and copies to the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Shown(TorchFunctionMode):
    """Shows the device cuda:0 to Python, and accepts it as an argument."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0].to(INSIDE)
        if args and isinstance(args[0], Elsewhere) and func in _ANSWERS:
            return _ANSWERS[func](*args, **kwargs)
        return func(*map(_inside, args), **{name: _inside(x) for name, x in kwargs.items()})


def _inside(x: Any) -> Any:
    """Return an argument with cuda:0 replaced by the device that C++ sees."""
    return INSIDE if (isinstance(x, str) and x in NAMES) or (isinstance(x, torch.device) and str(x) in NAMES) else x


def _no_numpy(*_: Any, **__: Any) -> Any:
    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")


def _new_tensor(x: Elsewhere, data: Any, dtype: torch.dtype | None = None, device: Any = INSIDE, **kwargs: Any) -> Any:
    return torch.tensor(data, dtype=dtype or x.dtype, device=_inside(device), **kwargs)


def _set_data(x: Elsewhere, new: Elsewhere) -> None:
    torch.Tensor.data.__set__(x, new)  # type: ignore[attr-defined]
    x.held = new.held


# What functions of torch that no dispatch sees give for an `Elsewhere` tensor.
_ANSWERS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.device.__get__: lambda x: SHOWN,  # type: ignore[attr-defined]
    torch.Tensor.is_cuda.__get__: lambda x: True,  # type: ignore[attr-defined]
    torch.Tensor.is_meta.__get__: lambda x: False,  # type: ignore[attr-defined]
    torch.Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
    torch.Tensor.get_device: lambda x: SHOWN.index,
    torch.Tensor.data_ptr: lambda x: x.held.data_ptr(),
    torch.Tensor.tolist: lambda x: x.held.tolist(),
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.__format__: lambda x, spec: format(x.held, spec),
    torch.Tensor.numpy: _no_numpy,
    torch.Tensor.__array__: _no_numpy,
}


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation with the CPU tensors that `Elsewhere` tensors hold; refuse what CUDA refuses."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    theirs = [x for x in tensors if isinstance(x, Elsewhere)]
    device, generator = kwargs.get("device"), kwargs.get("generator")
    if not theirs and device != INSIDE:
        return func(*args, **kwargs)
    if theirs and len(theirs) < len(tensors) and not _may_mix(func, args, tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})"
        )
    if generator is not None and device in (None, INSIDE):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found {generator.device.type!r}")
    held_args, held_kwargs = tree_map(lambda x: x.held if isinstance(x, Elsewhere) else x, (args, kwargs))
    shapes = [(x.held.shape, x.held.stride()) for x in theirs]
    found = func(*held_args, **held_kwargs | ({} if device is None else {"device": CPU}))
    assert [(x.held.shape, x.held.stride()) for x in theirs] == shapes, f"{func} changes a shape in place"
    if func._schema.is_mutable:  # it returns its arguments
        owners = {id(x.held): x for x in theirs}
        return tree_map(lambda x: owners.get(id(x), x), found)
    if device is not None and device != INSIDE:
        return found
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, found)


def _may_mix(func: Any, args: Any, tensors: list[Tensor]) -> bool:
    """Return whether CUDA takes the tensors of an operation that are on the CPU."""
    if func in COPIES:
        return True
    if func in INDEXED:
        values = [x for x in args[2:3] if isinstance(x, Tensor)]
        return isinstance(args[0], Elsewhere) and all(isinstance(x, Elsewhere) or not x.dim() for x in values)
    if func._schema.name.removeprefix("aten::").startswith(STRICT):
        return False
    return all(isinstance(x, Elsewhere) or not x.dim() for x in tensors)


def differences(expected: Any, found: Any, path: str = "", tolerance: float = 1e-7) -> Iterator[str]:
    """Yield where two results differ by more than the tolerance, relative to 1 and the value.

    A result on the simulated device is named too. Costs, such as seconds and the sizes of chunks, are not compared.
    """
    match expected:
        case Tensor():
            if not isinstance(found, Tensor) or isinstance(found, Elsewhere) or found.shape != expected.shape:
                shape = list(getattr(found, "shape", []))
                yield f"{path}: {type(found).__name__} of shape {shape}, not Tensor of {list(expected.shape)}"
            elif not torch.allclose(expected.double(), found.double(), tolerance, tolerance, equal_nan=True):
                yield f"{path}: differs by {float((expected.double() - found.double()).abs().max())}"
        case dict():
            if list(expected) != list(found):
                yield f"{path}: keys {list(found)}, not {list(expected)}"
            for key in expected:
                yield from differences(expected[key], found[key], f"{path}[{key}]", tolerance)
        case list() | tuple():
            if len(expected) != len(found):
                yield f"{path}: {len(found)} entries, not {len(expected)}"
            for i, (one, other) in enumerate(zip(expected, found, strict=False)):
                yield from differences(one, other, f"{path}[{i}]", tolerance)
        case float():
            if abs(expected - found) > tolerance * (1 + abs(expected)):
                yield f"{path}: {found}, not {expected}"
        case int() | str() | None:
            if expected != found:
                yield f"{path}: {found!r}, not {expected!r}"
        case _ if is_dataclass(expected):
            for field in fields(expected):
                if field.name != "cost":
                    one, other = getattr(expected, field.name), getattr(found, field.name)
                    yield from differences(one, other, f"{path}.{field.name}", tolerance)
