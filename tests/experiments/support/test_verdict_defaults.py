"""Defaults of a verdict: the steps that its progress counts are those of the battery; prompts follow from the model."""

import pytest

from experiments import load
from experiments.support.pieces import LARGE
from experiments.support.verdict_defaults import pieces_of, usual_prompts
from probes import battery
from tests.experiments.support.test_list_pieces import sized


@pytest.mark.parametrize("arms", [("M1", "M5"), ("M1", "M6"), ("M1", "presence"), ("M6", "presence", "shares", "M7")])
def test_progress_counts_each_step(arms):
    done: list[str] = []
    battery(load("parity-aligned-alibi"), (8,), 0, 24, True, arms, step=done.append)
    assert len(done) == pieces_of(arms), done


@pytest.mark.parametrize(
    ("size", "device", "prompts"), [(LARGE - 1, "cpu", 128), (LARGE, "cpu", 24), (LARGE, "cuda", 128)]
)
def test_a_large_model_on_a_cpu_is_judged_on_few_prompts(size, device, prompts):
    assert usual_prompts([sized(size, device)]) == prompts
    assert usual_prompts([sized(1, device), sized(size, device)]) == prompts
