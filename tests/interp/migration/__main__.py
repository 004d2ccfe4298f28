"""Run the five tasks here and in TransformerLens: seconds of each, and the largest difference.

python -m tests.interp.migration
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.interp.migration.tasks import TASKS, small_run


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder))
        print(f"{'task':24}{'here, s':>10}{'there, s':>10}{'difference':>12}")
        for name, task in TASKS.items():
            seconds, results = [], []
            for way in (task.here, task.there):
                way(run)  # once for imports and caches
                began = time.perf_counter()
                results.append(way(run))
                seconds.append(time.perf_counter() - began)
            ours, theirs = results
            difference = max(float((ours[key].double() - theirs[key].double()).abs().max()) for key in ours)
            print(f"{name:24}{seconds[0]:>10.3f}{seconds[1]:>10.3f}{difference:>12.0e}")


if __name__ == "__main__":
    main()
