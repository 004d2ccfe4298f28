"""Devices and data types: choose them by name, and check that the machine has them."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return a device of this machine; "auto" is CUDA, then MPS, then the CPU.

    Raises `ValueError` for a name that is no device, and for a device that this machine does not have.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {device!r}; devices are auto, cpu, cuda, cuda:N and mps") from error
    present = devices()
    if chosen.type not in ("cpu", "cuda", "mps") or str(chosen) not in present:
        raise ValueError(f"there is no device {str(chosen)!r} here; devices are {', '.join(present)}")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """Return the data type of a name such as "bfloat16"; None stays None, the type in which the weights were saved.

    Raises `ValueError` for another name, and for a type in which the device cannot compute.
    """
    if dtype is None:
        return None
    chosen = DTYPES.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ValueError(f"unknown dtype {str(dtype)!r}; dtypes are {', '.join(DTYPES)}")
    try:
        ones = torch.ones(2, 2, dtype=chosen, device=device)
        torch.matmul(ones, ones)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the device {device} cannot compute in {name_of(chosen)}") from error
    return chosen


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a data type without its module.

    >>> name_of(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")


def devices() -> list[str]:
    """Return the names of this machine's devices; "cuda" stands for the current one."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *(["cuda", *cuda] if cuda else []), *(["mps"] if _has_mps() else [])]


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
