"""A verdict of many prompts stays within its memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks.memory import BUDGET, RUN, MemoryCase, run_case

MANY = 2000
# Prompts of the command line's verdict, and the fewest that a verdict takes.
MOST, FEWEST = 5000, 24


@pytest.mark.slow
def test_a_verdict_of_many_prompts_stays_within_its_budget():
    """On a shipped run that does the task: of an untrained model the arms are not measured."""
    case = MemoryCase("verdict", MANY)
    assert run_case(case)["peak_mib"] <= case.budget


@pytest.mark.slow
def test_the_verb_stays_within_its_budget(tmp_path):
    """The whole command, from the command line to its files, against the same command with the fewest prompts."""
    few, many = (peak_of_verdict(prompts, tmp_path / str(prompts)) for prompts in (FEWEST, MOST))
    print(f"peaks: {few:.0f} MiB for {FEWEST} prompts, {many:.0f} MiB for {MOST}")
    assert many - few <= BUDGET


def peak_of_verdict(prompts: int, out: Path) -> float:
    """Return the peak of a verdict's resident memory, in MiB."""
    argv = ["verdict", RUN, "--lengths", "5", "--prompts", str(prompts), "--memory", str(BUDGET), "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "experiments.cli", *argv, "--out", str(out)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # the process has been waited for
    assert process.returncode == 0
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
