"""Intervals of the accuracy of `validity_of_values`, and what few prompts can show."""

import pytest
import torch

from interp.circuits.validity import Validity, validity_of_values
from probes.intervals import wilson

CHANCE = 0.5


def validity_of(right: list[float]) -> Validity:
    """Validity where clean and corrupted differ in every prompt."""
    one = torch.ones(len(right), dtype=torch.float64)
    return validity_of_values(one, -one, torch.tensor(right, dtype=torch.float64), CHANCE, separated="any")


@pytest.mark.parametrize(("right", "n"), [(2, 4), (4, 4), (0, 4), (1, 1), (0, 1), (15, 16), (29, 64)])
def test_the_accuracy_of_right_or_wrong_answers_has_wilsons_interval(right, n):
    found, expected = validity_of([1.0] * right + [0.0] * (n - right)), wilson(right, n)
    assert found.accuracy == pytest.approx((expected.value, expected.low, expected.high))
    assert found.valid is (expected.low > CHANCE)


def test_answers_that_are_right_in_part_have_an_interval_within_0_and_1():
    assert validity_of([1.0, 0.9, 0.2, 0.1]).accuracy == (0.55, 0.0, 1.0)
    mean, low, high = validity_of([0.7, 0.8, 0.6, 0.7]).accuracy or (0, 0, 0)
    half = 3.182446 * (0.02 / 3) ** 0.5 / 2  # t of 3 degrees of freedom
    assert (mean, low, high) == pytest.approx((0.7, 0.7 - half, 0.7 + half))


def test_too_few_prompts_are_told_from_a_model_that_cannot_do_the_task():
    assert "too few prompts to show that the model does the task" in str(validity_of([1.0] * 3).reason)
    assert str(validity_of([1.0, 1.0, 0.0]).reason).startswith("the model cannot do the task: accuracy 0.667 [0.2")
    assert validity_of([1.0] * 4).valid
