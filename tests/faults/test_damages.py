"""Damaged unfinished work is not used, and two processes at once give the result of one."""

import pytest

from tests.faults.damages import DAMAGES, attempt_damaged, attempt_together
from tests.faults.trials import Lab, lab
from tests.faults.work import ARGV


@pytest.fixture(scope="module")
def here():
    with lab() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("verb", ARGV)
def test_damaged_work_of_every_verb_is_seen(here: Lab, verb: str):
    tried = [attempt_damaged(here, verb, damage, seed) for damage in DAMAGES for seed in range(2)]
    assert not [wrong for wrong in tried if wrong]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ARGV)
def test_two_processes_on_one_folder(here: Lab, verb: str):
    assert attempt_together(here, verb, 0) == []
