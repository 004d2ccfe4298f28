"""A verdict of many prompts stays within its memory."""

import pytest

from experiments.benchmarks.memory import MemoryCase, run_case

MANY = 2000


@pytest.mark.slow
def test_a_verdict_of_many_prompts_stays_within_its_budget():
    """On a shipped run that does the task: of an untrained model the arms are not measured."""
    case = MemoryCase("verdict", MANY)
    assert run_case(case)["peak_mib"] <= case.budget
