"""Where sums go wrong: counted by the place of the first wrong digit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments import load, operands
from experiments.operands import PAIRS, first_wrong, operand_errors
from interp.tasks import Batch, Role, sample

ADDITION = "addition-aligned-alibi-seed2"


def same_sums(padded: Batch, plain: Batch) -> bool:
    """Return whether two batches have the same answers, whatever their operands look like."""
    digits = [batch.tokens[:, batch.at(Role.OUTPUT)] for batch in (padded, plain)]
    return digits[0].shape == digits[1].shape and torch.equal(*digits)


@pytest.fixture
def wrong_at(monkeypatch):
    """Return a function that says at which positions of each prompt the model is wrong."""

    def tell(*cells):
        def correct(model, batch, at):
            right = torch.ones(len(batch), batch.n_pos, dtype=torch.bool)
            for row, role, place in cells:
                right[row, batch.at(role, place)] = False
            return right[:, at]

        monkeypatch.setattr(operands, "correct", correct)

    return tell


def test_the_first_wrong_digit_is_first_in_the_order_of_writing(wrong_at):
    wrong_at(
        (0, Role.OUTPUT, 4),
        (0, Role.OUTPUT, 2),  # written before the place above
        (1, Role.ANSWER, 1),
        (1, Role.OUTPUT, 6),  # the overflow digit, written before any digit of the forward sum
        (2, Role.ANSWER, 3),
    )
    batch = sample("addition-aligned", 5, (5, 3), seed=0)
    run: Any = SimpleNamespace(raw=None)
    assert first_wrong(run, batch) == ({2: 1, 6: 1}, 1)


def test_exact_match_counts_prompts_without_a_wrong_digit(wrong_at):
    wrong_at((0, Role.OUTPUT, 2), (3, Role.ANSWER, 1))
    (row,) = operand_errors(load(ADDITION), prompts=8, pairs=((4, 2),))
    assert row == {"digits": [4, 2], "exact": 0.75, "first": {"2": 1}, "forwards": 1}


def test_padding_changes_the_prompt_and_not_the_sum():
    for pair in PAIRS:
        padded, plain = (sample(f"addition-{name}", 4, pair, seed=1) for name in ("zeropad", "aligned"))
        assert same_sums(padded, plain)
        assert (padded.n_pos == plain.n_pos) == (pair[0] == pair[1])
    assert not same_sums(padded, sample("addition-aligned", 4, pair, seed=2))


def test_a_run_of_another_task_is_an_error():
    with pytest.raises(ValueError, match="parity-aligned-alibi is no run of addition"):
        operand_errors(load("parity-aligned-alibi"))
