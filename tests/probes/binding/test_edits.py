"""Every edit moves the answer of a function that reads by its address to the target, and no other answer."""

from __future__ import annotations

import pytest

from interp.tasks.lists import sample_lists
from probes.binding import Trial, trials_of
from probes.binding.edits import ARMS, NEXT, Absent, answer_traded, edit_of, next_of
from probes.binding.trials import DEEP_ARMS, DEEP_CHECKS
from tests.probes.binding.list_models import Answer, by_label, by_order, by_position, by_two_before, list_tokenizer

BEFORE = ("order, all before", "order, all before at list")
BOTH = ("label and order", "label and order at list")
LABELLED = ("label and position", "label and position, all before")
ORDERED = ("order and position", "order and position, all before")
MOVES: dict[Answer, set[str]] = {
    by_label: {"label at list", "label at query", *BOTH, *LABELLED, "joint", *DEEP_CHECKS},
    by_order: {"order, value", "order", "order at list", *BEFORE, *BOTH, *ORDERED, "joint", *DEEP_CHECKS[1:]},
    # What follows the last two values: the trade of two items each leads there too.
    by_two_before: {*BEFORE, "position", "label and position", *ORDERED, "joint", *DEEP_CHECKS[1:]},
    by_position: {"position", "position, all before", *LABELLED, *ORDERED, "joint", DEEP_CHECKS[2]},
}


def trials(task: str) -> list[Trial]:
    return trials_of(list_tokenizer(), task, 7, 16, seed=0)


@pytest.mark.parametrize("answer", MOVES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("arm", [*ARMS, *DEEP_CHECKS])
@pytest.mark.parametrize("task", ["list-letters", "list-random-numerals"])
def test_an_arm_moves_the_answer_by_its_own_address_only(answer: Answer, arm: str, task: str) -> None:
    for trial in trials(task):
        if trial.only_deep != (arm in (*DEEP_ARMS, *DEEP_CHECKS)) or (answer is by_two_before and trial.query < 3):
            continue
        edit, found = edit_of(trial, arm), trial.lookups
        expected = found.answer(trial.target if arm in MOVES[answer] else trial.query)
        assert answer(trial, edit.tokens).equal(expected)
        if answer is not by_two_before or arm in (
            *DEEP_ARMS,
            *DEEP_CHECKS,
        ):  # elsewhere the control trades items that it reads
            assert not (answer(trial, edit.control) == found.answer(trial.target)).any()


@pytest.mark.parametrize("answer", MOVES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("address", NEXT)
def test_the_item_after_is_reached_by_its_own_address_only(answer: Answer, address: str) -> None:
    own = {"own label": by_label, "position": by_position}[address]
    for trial in trials("list-letters"):
        if answer is by_two_before and trial.query < 4:  # the values that it reads are traded
            continue
        expected = trial.lookups.answer(trial.query + 1 if answer is own else trial.query)
        assert answer(trial, next_of(trial, address)).equal(expected)
        assert answer(trial, answer_traded(trial, trial.query + 1)).equal(trial.lookups.answer(trial.query + 1))


def test_no_item_comes_after_the_last_one() -> None:
    last = sample_lists(list_tokenizer(), "lookup-letters", 8, 6, query=6, seed=0)
    trial = Trial(last, target=2, third=4, bystanders=(3, 4))
    for address in NEXT:
        with pytest.raises(Absent, match="no item stands after"):
            next_of(trial, address)


@pytest.mark.parametrize("answer", MOVES, ids=lambda f: f.__name__)
def test_traded_values_are_the_full_effect_under_every_address(answer: Answer) -> None:
    for trial in trials("list-letters"):
        if answer is by_two_before and trial.query < 3:
            continue
        assert answer(trial, trial.lookups.prompts.tokens).equal(trial.lookups.answer(trial.query))
        assert answer(trial, answer_traded(trial)).equal(trial.lookups.answer(trial.target))


@pytest.mark.parametrize(
    ("task", "missing"),
    [
        ("list-bullets", {"label at list", "label at query", "label at both", "order, label", *BOTH, *LABELLED}),
        (
            "lookup-letters",
            {"order, value", "order, label", "order", "order at list", "order and position", *BOTH, *DEEP_ARMS},
        ),
    ],
)
def test_arms_without_their_address_do_not_apply(task: str, missing: set[str]) -> None:
    def is_absent(trial: Trial, arm: str) -> bool:
        try:
            edit_of(trial, arm)
        except Absent:
            return True
        return False

    assert {arm for arm in ARMS if all(is_absent(trial, arm) for trial in trials(task))} == missing
    for arm in DEEP_ARMS:
        assert is_absent(trials(task)[0], arm)  # it asks for the second item
