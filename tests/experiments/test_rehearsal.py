"""What is rehearsed: each condition has its own prompts, and differs from the others in nothing else."""

import json
from dataclasses import replace

import pytest
import torch

from experiments.commands.train import TrainCommand
from experiments.training.recipe import Recipe, parts
from experiments.training.rehearsal import (
    ORDERED,
    SHUFFLED,
    Condition,
    orders,
    parse_condition,
    rehearse,
    rehearsed_text,
)
from experiments.training.state import check_batches
from interp.models import ModelConfig
from interp.tasks import Role, default_vocabulary, parse_format

VOCABULARY = default_vocabulary()
MODEL = ModelConfig("alibi", n_layers=1, d_model=16, n_heads=2)
USUAL = Recipe("parity-aligned", MODEL, seed=0)
STEPS = (0, 7, 1601)


def recipe_of(name: str, seed: int = 3) -> Recipe:
    return TrainCommand(name, seed).recipe()


def posed(condition: str, fmt: str = "parity-aligned", order: str = ORDERED, n: int = 12):
    return rehearse(condition, parse_format(fmt), order, 50, n, 0, VOCABULARY)


def labels_of(batch, role=Role.INPUT_LABEL) -> set[str]:
    return {VOCABULARY.symbol(int(t)) for t in batch.tokens[:, batch.at(role)].unique()}


def test_a_recipe_without_a_condition_is_as_before():
    """Its record has no new entry, and its data are those of lookup to 60 pairs by name."""
    assert "condition" not in USUAL.to_json()
    assert USUAL.name == "parity-aligned-alibi_1x16x2-seed0"
    named = replace(USUAL, condition="lookup60")
    assert Recipe.from_json(json.loads(json.dumps(named.to_json()))) == named
    for step in STEPS:
        for one, other in zip(parts(USUAL, step), parts(named, step), strict=True):
            assert torch.equal(one.batch.tokens, other.batch.tokens)


@pytest.mark.parametrize("condition", ["lookup20", "copying60", "disjoint60"])
def test_the_condition_is_in_the_name_and_changes_rehearsal_only(condition):
    recipe, usual = recipe_of(f"parity-aligned-alibi+{condition}"), recipe_of("parity-aligned-alibi")
    assert recipe.name == f"parity-aligned-alibi+{condition}-seed3"
    assert (recipe.rehearsal, recipe.rehearsal_longest) == (0.5, int(condition[-2:]))
    for step in STEPS:
        (task, own), (task_then, then) = parts(recipe, step), parts(usual, step)
        assert torch.equal(task.batch.tokens, task_then.batch.tokens)
    assert own.batch.tokens.shape != then.batch.tokens.shape or not torch.equal(own.batch.tokens, then.batch.tokens)


def test_without_rehearsal_a_step_has_the_task_only():
    recipe = recipe_of("parity-scratchpad-alibi+none")
    assert [part.name for part in parts(recipe, 1600)] == ["task"]
    assert list(check_batches(recipe, VOCABULARY)) == ["task"]


def test_copying_writes_the_same_letters_twice_and_has_no_labels():
    batch = posed("copying60")
    inputs, outputs = (batch.tokens[:, batch.at(role)] for role in (Role.INPUT, Role.OUTPUT))
    assert torch.equal(inputs, outputs)
    assert batch.n_pos == 2 + 2 * 12
    assert Role.INPUT_LABEL not in batch.role
    assert set(batch.symbols(0)) <= {"???", "===", *parse_format(ORDERED).inputs}
    assert batch.predicted(forced=False).tolist() == list(range(14, 26))


def test_disjoint_labels_are_never_those_of_parity():
    every = labels_of(posed("disjoint60", n=60))
    assert every
    assert not every & set(VOCABULARY.labels)
    assert labels_of(posed("lookup60", n=60)) & set(VOCABULARY.labels)


@pytest.mark.parametrize(
    ("fmt", "labels", "order"),
    [("parity-numeric", [str(i) for i in range(1, 13)], SHUFFLED), ("parity-cyclic", ["c1", "c2"], ORDERED)],
)
def test_own_labels_are_the_formats_own(fmt, labels, order):
    assert orders("own60", parse_format(fmt))[0] == order
    batch = posed("own60", fmt, order)
    first = [VOCABULARY.symbol(int(t)) for t in batch.tokens[0, batch.at(Role.INPUT_LABEL)]]
    assert first[: len(labels)] == labels
    answers = _looked_up(batch) if order == SHUFFLED else batch.tokens[:, batch.at(Role.INPUT)]
    assert torch.equal(batch.tokens[:, batch.at(Role.OUTPUT)], answers)


def _looked_up(batch):
    """Return the values of the queried labels, from the labels alone."""
    keys, values, asked = (batch.tokens[:, batch.at(r)] for r in (Role.INPUT_LABEL, Role.INPUT, Role.OUTPUT_LABEL))
    assert not torch.equal(keys, asked)
    return values.gather(1, (asked[:, :, None] == keys[:, None, :]).long().argmax(2))


def test_checks_are_on_the_longest_list_of_the_condition():
    lengths = {}
    for condition in ("lookup20", "copying60", "disjoint60"):
        checks = check_batches(recipe_of(f"parity-aligned-alibi+{condition}"), VOCABULARY)
        lengths[condition] = {name: batch.length for name, batch in checks.items()}
    assert lengths["lookup20"] == {"task": 20, "rehearsal": 20, "rehearsal_ordered": 20}
    assert lengths["copying60"] == {"task": 20, "rehearsal_ordered": 60}
    assert lengths["disjoint60"] == {"task": 20, "rehearsal": 60, "rehearsal_ordered": 60}


def test_the_parsed_condition_is_the_name():
    assert parse_condition("own60") == Condition("own", 60)
    assert [str(parse_condition(name)) for name in ("none", "lookup20")] == ["none", "lookup20"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("parity-aligned-alibi+copying", {}, "conditions are none, lookupN, disjointN, ownN, copyingN"),
        ("parity-aligned-alibi+none20", {}, "unknown condition"),
        ("parity-aligned-alibi+own60", {}, "no fixed labels to rehearse"),
        ("parity-aligned-alibi+none", {"rehearsal": 0.5}, "leave it out"),
        ("parity-aligned-alibi+lookup20", {"rehearsal": 0.0}, "leave one of them out"),
        ("parity-aligned-alibi+disjoint70", {}, "70 different labels"),
        ("parity-numeric-alibi+own200", {}, "needs the label '129'"),
    ],
)
def test_a_condition_that_cannot_be_trained_is_an_error(name, options, words):
    with pytest.raises(ValueError, match=words):
        TrainCommand(name, **options).recipe()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("parity-aligned-alibi", "in-context recall of up to 60 pairs"),
        ("parity-aligned-alibi+copying60", "copying of up to 60 letters without labels"),
        ("parity-numeric-alibi+own60", "in-context recall of up to 60 pairs, with the format's own labels"),
    ],
)
def test_reports_say_what_was_rehearsed(name, words):
    assert rehearsed_text(recipe_of(name).to_json()) == words
