"""Run the five tasks here and in TransformerLens, in alternation: median seconds of each, and the largest difference.

python -m tests.interp.migration [--json experiments/results/migration.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from interp.models import Run
from interp.support.writing import write_whole
from tests.interp.migration.tasks import TASKS, small_run

ROUNDS = 25


def measured(run: Run, rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Return `here` and `there` in seconds, and `difference` as a share of the largest value, by task."""
    found = {}
    for name, task in TASKS.items():
        ways = {"here": task.here, "there": task.there}
        results = {way: function(run) for way, function in ways.items()}  # also loads code
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, function in ways.items():
                began = time.perf_counter()
                function(run)
                times[way].append(time.perf_counter() - began)
        ours, theirs = ({key: x.double() for key, x in results[way].items()} for way in ways)
        differences = [float((ours[key] - x).abs().max() / x.abs().max()) for key, x in theirs.items()]
        found[name] = {way: median(some) for way, some in times.items()} | {"difference": max(differences)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write; default: none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tasks = measured(small_run(Path(folder)))
    print(f"{'task':24}{'here, s':>10}{'there, s':>10}{'difference':>12}")
    for name, row in tasks.items():
        print(f"{name:24}{row['here']:>10.4f}{row['there']:>10.4f}{row['difference']:>12.0e}")
    if arguments.json:
        write_whole(arguments.json, json.dumps({"rounds": ROUNDS, "tasks": tasks}, indent=1) + "\n")


if __name__ == "__main__":
    main()
