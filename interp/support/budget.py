"""The memory that one pass may take, beyond the model and the result.

Passes run in chunks of prompts that fit the budget, so the peak does not grow with the number of prompts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The share of a device's free memory that one pass takes by default.
SHARE = 0.5
# Bytes: the most that a pass takes on a CPU by default, and the default where free memory is unknown.
DEFAULT = 2**30
# Free memory of this many times what `DEFAULT` asks for is not read again for this many seconds: it would have to be
# filled with 40 GB per second to fall below.
ENOUGH, RECENT = 2, 0.05
_MEMINFO = Path("/proc/meminfo")
# The limit of a container (control group, version 2), and what it uses.
_GROUP = Path("/sys/fs/cgroup")
_ALLOWED: ContextVar[int | None] = ContextVar("allowed", default=None)


class _Plenty:
    """When free memory was last `ENOUGH`: the kernel's files take as long as a few layers of a small model."""

    def __init__(self) -> None:
        self.seen = -math.inf

    def is_recent(self) -> bool:
        """Return whether it was less than `RECENT` seconds ago, in which it cannot have fallen below the least."""
        return time.monotonic() - self.seen < RECENT

    def note(self) -> None:
        """Record that it is now."""
        self.seen = time.monotonic()


_PLENTY = _Plenty()


def allowed(device: torch.device | None = None) -> int:
    """Return the bytes that one pass may take on a device; None is the CPU.

    Inside `within` it is that number. Else it is `SHARE` of the free memory, on a CPU at most `DEFAULT`: the order of
    operations, and with it the last digits of results, follows from the chunks.
    """
    if (stated := _ALLOWED.get()) is not None:
        return stated
    on_cpu = device is None or device.type == "cpu"
    if on_cpu and _PLENTY.is_recent():
        return DEFAULT
    free = free_memory(device)
    if free is None:
        return DEFAULT
    share = max(1, int(SHARE * free))
    if on_cpu and share >= ENOUGH * DEFAULT:
        _PLENTY.note()
    return min(DEFAULT, share) if on_cpu else share


def numbers(share: float, device: torch.device | None = None, itemsize: int = 4) -> int:
    """Return how many numbers of so many bytes, by default float32, fit into a share of what one pass may take."""
    return int(share * allowed(device) / itemsize)


def free_memory(device: torch.device | None = None) -> int | None:
    """Return the free bytes of a device, or None where they are unknown."""
    match "cpu" if device is None else device.type:
        case "cpu":
            return _available()
        case "cuda":
            import torch

            # Memory that torch keeps for later tensors is free, too.
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + kept
        case "mps":
            import torch

            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        case _:
            return None


def _available() -> int | None:
    """Return what Linux counts as available memory, in bytes, or less in a container; None on other systems."""
    try:
        available = _entry(_MEMINFO, "MemAvailable:") * 1024
    except (OSError, ValueError, StopIteration):
        return None
    try:
        limit = int(_text(_GROUP / "memory.max"))
        used = int(_text(_GROUP / "memory.current"))
        # Pages of files that were read long ago are dropped when memory is needed.
        return min(available, limit - used + _entry(_GROUP / "memory.stat", "inactive_file"))
    except (OSError, ValueError, StopIteration):  # no container, or one without a limit ("max")
        return available


def _entry(path: Path, name: str) -> int:
    """Return the number after a name in a file of the kernel."""
    text = "\n" + _text(path)
    return int(text[text.index(f"\n{name} ") :].split(maxsplit=2)[1])


def _text(path: Path) -> str:
    """Return the text of a file of the kernel, without the buffers of text files, which a small sweep notices."""
    with path.open("rb", buffering=0) as file:
        return file.readall().decode("ascii")


@contextmanager
def within(n_bytes: int) -> Iterator[None]:
    """Inside the block, passes take about `n_bytes`; the least is one prompt at a time.

    Raises `ValueError` for anything but a whole number from 1 on. A sweep (`patch`) needs more at least, and raises it
    where that is not given.

    >>> with within(2**28):
    ...     effects = knock_out(run.raw, batch, knockout, metric)
    """
    if isinstance(n_bytes, bool) or not isinstance(n_bytes, Integral):
        raise ValueError(f"memory is a whole number of bytes; got {n_bytes!r}")
    if n_bytes < 1:
        raise ValueError(f"memory must be at least 1 byte; got {n_bytes}")
    token = _ALLOWED.set(n_bytes)
    try:
        yield
    finally:
        _ALLOWED.reset(token)
