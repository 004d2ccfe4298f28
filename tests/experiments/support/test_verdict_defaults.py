"""The number of steps that the progress of a verdict counts is the number that a battery takes."""

import pytest

from experiments import load
from experiments.support.verdict_defaults import pieces_of
from probes import battery


@pytest.mark.parametrize("arms", [("M1", "M5"), ("M1", "M6"), ("M1", "presence"), ("M6", "presence", "shares", "M7")])
def test_progress_counts_each_step(arms):
    done: list[str] = []
    battery(load("parity-aligned-alibi"), (8,), 0, 24, True, arms, step=done.append)
    assert len(done) == pieces_of(arms), done
