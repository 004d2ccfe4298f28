"""Positions chosen by role, by span and by index."""

import re
from dataclasses import replace

import pytest
import torch

from interp.places import Joint, describe, patches_at, positions_at
from interp.tasks import Prompts, Role, sample, template
from interp.views.axes import axis_of_labels, token_axis
from tests.small_language_model import SENTENCES, word_tokenizer

BATCH = sample("parity-aligned", 2, 3, seed=0)
TEXT = Prompts(torch.arange(6).repeat(2, 1), spans={"name": (1, 4), "verb": (2,)})


def at(role, step):
    return int(((BATCH.role == role) & (BATCH.step == step)).nonzero())


@pytest.mark.parametrize(
    ("prompts", "place", "positions"),
    [
        (BATCH, None, list(range(BATCH.n_pos))),
        (BATCH, 3, [3]),
        (BATCH, (3, 1, 3), [1, 3]),
        (BATCH, -1, [BATCH.n_pos - 1]),
        (BATCH, (-1, -BATCH.n_pos, BATCH.n_pos - 1), [0, BATCH.n_pos - 1]),
        (BATCH, torch.tensor([5, 2]), [2, 5]),
        (BATCH, Role.OUTPUT, [at(Role.OUTPUT, i) for i in (1, 2, 3)]),
        (BATCH, (Role.OUTPUT, 2), [at(Role.OUTPUT, 2)]),
        (
            BATCH,
            [Role.INPUT, (Role.INPUT_LABEL, 2), 0],
            [0, at(Role.INPUT_LABEL, 2), *(at(Role.INPUT, i) for i in (1, 2, 3))],
        ),
        (BATCH, (Role.INPUT, (Role.OUTPUT, 1)), [*(at(Role.INPUT, i) for i in (1, 2, 3)), at(Role.OUTPUT, 1)]),
        (TEXT, "name", [1, 4]),
        (TEXT, ["verb", "name", 5], [1, 2, 4, 5]),
    ],
)
def test_a_place_is_positions_in_rising_order(prompts, place, positions):
    assert positions_at(prompts, place).tolist() == sorted(positions)


@pytest.mark.parametrize(
    ("prompts", "places", "positions"),
    [
        (TEXT, None, [(p,) for p in range(6)]),
        (TEXT, "name", [(1,), (4,)]),
        (TEXT, Joint("name"), [(1, 4)]),
        (TEXT, [Joint(0, -1), -2], [(0, 5), (4,)]),
        (TEXT, [3, Joint("verb", 0), "name"], [(3,), (0, 2), (1,), (4,)]),
        (BATCH, (Role.OUTPUT, 2), [(at(Role.OUTPUT, 2),)]),
        (BATCH, [Joint(Role.SEPARATOR, 1)], [(1, at(Role.SEPARATOR, -1))]),
        (BATCH, [Joint(Role.OUTPUT, (Role.INPUT, 1))], [(at(Role.INPUT, 1), *(at(Role.OUTPUT, i) for i in (1, 2, 3)))]),
    ],
)
def test_one_patch_per_position_and_one_per_joint(prompts, places, positions):
    assert [where for _, where in patches_at(prompts, places)] == positions


def test_positions_that_are_named_by_their_tokens_have_these_in_quotes():
    """The space with which a token begins is seen, and a name of another kind is told apart."""
    own = word_tokenizer()
    text = template("When {a} met John.\n", [{"a": "Mary"}, {"a": "Alice"}], own)
    names = [name for name, _ in patches_at(text, None)]
    assert names[:4] == ["0: 'When'", "1: a", names[2], names[3]]
    assert "' John'" in [name.partition(": ")[2] for name in names]
    assert names[-1].endswith(r"\n'")
    assert [name for name, _ in patches_at(replace(text, names=("x",) * text.n_pos), 0)] == ["0: x"]
    assert [name for name, _ in patches_at(TEXT, 5)] == ["5: pos 5"]
    span = template("{When} met John", [{"When": "When"}, {"When": "Mary"}], word_tokenizer((*SENTENCES, "\nMary")))
    assert [name for name, _ in patches_at(span, 0)] == ["0: When"]  # the span, which only the first prompt's token is


def test_axes_of_maps_have_the_names_of_token_axes():
    for token in (" John", "When", "\n", " ", "it's", '"', "\\", "' quoted'", "日本", "a: b", "\x1b"):
        own = Prompts(torch.zeros(1, 1).long(), tokenizer=word_tokenizer(), names=(token,))
        plain = [name.strip() for name in token_axis([token]).names]
        shown = f"7: {own.name(0)!r}"
        assert [name.strip() for name in axis_of_labels([shown]).names] == [plain[0].replace("(0)", "(7)")]
    for label, name in (("7: 'x' and 'y'", "'x' and 'y' (7)"), ("3: verb", "verb (3)"), ("all inputs", "all inputs")):
        assert axis_of_labels([label]).names == (name,)


def test_patches_are_named():
    assert [name for name, _ in patches_at(BATCH, [(Role.INPUT, 1), Joint(0, 7), Joint(Role.OUTPUT_LABEL)])] == [
        f"{at(Role.INPUT, 1)}: input 1",
        "0 + 7",
        "all output labels",
    ]
    assert [name for name, _ in patches_at(TEXT, ["verb", Joint("name")])] == ["2: verb", "name"]
    assert [describe(x) for x in (None, 4, (4, 7), Role.INPUT, (Role.OUTPUT, 3), "name", ("name", Role.INPUT))] == [
        "all positions",
        "position 4",
        "positions 4, 7",
        "input",
        "output 3",
        "name",
        "name and input",
    ]


@pytest.mark.parametrize(
    ("prompts", "place", "message"),
    [
        (BATCH, 99, f"position 99 is outside 0 to {BATCH.n_pos - 1}"),
        (BATCH, -1 - BATCH.n_pos, f"position {-1 - BATCH.n_pos} is outside 0 to {BATCH.n_pos - 1}"),
        (BATCH, Role.ANSWER, "no answer in parity-aligned; its roles are"),
        (BATCH, (Role.INPUT, 9), "no input with step 9; steps run from 1 to 3"),
        (BATCH, (Role.INPUT, 1, 2), "may be steps or positions; give positions in a list"),
        (BATCH, 1.5, "a place is a Role"),
        (BATCH, True, "a place is a Role"),
        (BATCH, (), "a place is a Role"),
        (TEXT, "noun", "no span 'noun'; spans are name, verb"),
        (TEXT, Role.INPUT, "these prompts have no roles; spans are name, verb"),
    ],
)
def test_a_place_without_a_position_names_the_choices(prompts, place, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        positions_at(prompts, place)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([], "no position was given"),
        (Joint(), "a Joint needs at least one place"),
        ([1, "name"], "the same position is given twice"),
        ([Joint("name"), Joint(4, 1)], "the same position is given twice"),
        (["noun"], "no span 'noun'"),
    ],
)
def test_patches_that_make_no_sense_are_refused(places, message):
    with pytest.raises(ValueError, match=message):
        patches_at(TEXT, places)
