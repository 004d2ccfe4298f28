"""What a verdict on a list has measured so far, in a work folder, with what it cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probes.binding.found import Group


class KeptGroups:
    """What was measured for one verdict, written to a work folder piece by piece, with what each cost.

    A piece that is in the folder is read, so that an interrupted verdict goes on. `cost` is that of all pieces.
    """

    def __init__(self, work: Path) -> None:
        self.work, self.began, self.earlier = work, time.perf_counter(), {path.name for path in work.glob("*")}
        self.costs: dict[str, dict[str, float | None]] = {}

    def __call__(self, name: str, measure: Callable[[], Group]) -> Group:
        """Return the piece of this name: read, or measured and written."""
        from experiments.support.results import load_or_make
        from probes.binding.found import Group

        def make() -> tuple[Group, dict]:
            began = time.perf_counter(), time.process_time()
            return measure(), cost_since(*began)

        group, cost = load_or_make(
            self.path(name),
            make,
            lambda made: {"group": made[0].to_json(), "cost": made[1]},
            lambda kept: (Group.from_json(kept["group"]), dict(kept["cost"])),
        )
        self.costs[self.path(name).name] = cost
        return group

    def path(self, name: str) -> Path:
        """Return the file of the piece of this name."""
        return self.work / f"{name}.json"

    @property
    def cost(self) -> dict[str, float | None]:
        """Seconds, CPU seconds and the largest peak memory of the pieces, by whichever processes measured them.

        Seconds are those since this was made, and the sum of those of the pieces that an earlier command measured.
        """
        costs = self.costs.values()
        seconds = time.perf_counter() - self.began
        seconds += sum(cost["seconds"] or 0 for name, cost in self.costs.items() if name in self.earlier)
        cpu_seconds = sum(cost["cpu_seconds"] or 0 for cost in costs)
        peaks = [peak for cost in costs if (peak := cost["peak_mib"]) is not None]
        found = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
        return {**found, "peak_mib": max(peaks, default=None)}


def cost_since(wall: float, cpu: float) -> dict[str, float | None]:
    """Return the seconds and CPU seconds since two readings of the clocks, and the peak memory of the process in MiB.

    The peak includes Python and the model; it is None where the system does not report it (Windows).
    """
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        peak = None
    else:
        # Kilobytes, but bytes on macOS.
        peak = round(getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "peak_mib": peak}
