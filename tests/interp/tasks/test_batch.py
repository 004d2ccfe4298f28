"""A batch gives the role, the step and the name of every position."""

import dataclasses

import pytest
import torch

from interp.tasks import ANSWER_ROLES, LABEL_ROLES, Role, sample
from tests.interp.tasks import oracle
from tests.interp.tasks.test_addition import LITERAL as ADDITION_LITERAL
from tests.interp.tasks.test_addition import literal as addition_literal
from tests.interp.tasks.test_formats import SHORT
from tests.interp.tasks.test_parity import LITERAL as PARITY_LITERAL
from tests.interp.tasks.test_parity import literal as parity_literal


@pytest.mark.parametrize(("name", "length"), SHORT)
def test_at_finds_exactly_the_positions_of_the_oracle(name, length):
    batch = sample(name, 2, length, seed=0)
    names = oracle.names(batch.text(), name)
    for what in set(names):
        where = [pos for pos, other in enumerate(names) if other == what]
        words, _, step = what.rpartition(" ")
        role = Role[(words or step).upper().replace(" ", "_")]
        assert batch.at(role, int(step) if words else None).tolist() == where
    for role in Role:
        of_role = [pos for pos, what in enumerate(names) if what.rstrip("0123456789 ") == role.words]
        if of_role:
            assert batch.at(role).tolist() == of_role
        else:
            with pytest.raises(ValueError, match=f"no {role.words} in {name}; its roles are START, "):
                batch.at(role)


def symbols_at(batch, role, step=None):
    return [batch.symbols()[pos] for pos in batch.at(role, step).tolist()]


def test_the_symbols_of_a_role_are_those_of_the_literal_line():
    batch = parity_literal("parity-nonaligned", ("M17", "M4", "M52"), ("M9", "M30", "M61"))
    assert symbols_at(batch, Role.INPUT_LABEL) == ["M17", "M4", "M52"]
    assert symbols_at(batch, Role.OUTPUT_LABEL, 3) == ["M61"]
    assert symbols_at(batch, Role.INPUT) == ["0", "1", "1"]
    assert symbols_at(batch, Role.OUTPUT) == ["0", "1", "0"]
    batch = addition_literal("addition-aligned", ("M2", "M1", "M3"))
    assert symbols_at(batch, Role.INPUT_LABEL, 1) == ["M2", "M2"]
    assert symbols_at(batch, Role.INPUT, 1) == ["2", "9"]
    assert symbols_at(batch, Role.INPUT, 2) == ["1"]
    assert symbols_at(batch, Role.OUTPUT) == ["1", "2", "0"]
    assert symbols_at(batch, Role.ANSWER) == ["0", "2", "1"]
    assert symbols_at(batch, Role.ANSWER_LABEL) == ["M3", "M1", "M2"]
    assert symbols_at(batch, Role.SEPARATOR) == ["+", "===", "###"]


@pytest.mark.parametrize(
    ("name", "role", "step", "message"),
    [
        ("parity-scratchpad", Role.ANSWER, None, "no answer in parity-scratchpad; its roles are START"),
        ("parity-scratchpad", Role.OUTPUT_LABEL, 1, "no output label in parity-scratchpad"),
        ("parity-interleaved", Role.SEPARATOR, None, "no separator in parity-interleaved"),
        ("parity-aligned", Role.FILLER, None, "no filler in parity-aligned"),
        ("parity-aligned", Role.OUTPUT, 4, "no output with step 4; steps run from 1 to 3"),
        ("parity-aligned", Role.OUTPUT_LABEL, 0, "no output label with step 0; steps run from 1 to 3"),
        ("parity-aligned", Role.INPUT, -1, "no input with step -1; steps run from 1 to 3"),
        ("parity-direct", Role.OUTPUT, 2, "no output with step 2; steps run from 3 to 3"),
        ("addition-aligned", Role.OUTPUT, 5, "no output with step 5; steps run from 1 to 4"),
    ],
)
def test_a_role_or_step_that_is_not_there_is_refused_with_those_that_are(name, role, step, message):
    with pytest.raises(ValueError, match=message):
        sample(name, 1, 3, seed=0).at(role, step)


def test_a_number_that_is_no_role_is_refused():
    with pytest.raises(ValueError, match="99"):
        sample("parity-aligned", 1, 3, seed=0).at(99)  # type: ignore[arg-type]


def test_names_read_as_words_and_count_from_either_end():
    batch = sample("parity-gap2", 1, 3, seed=0)
    assert [batch.name(pos) for pos in (0, 1, 2, 4, 13, 14)] == [
        *("start", "input label 1", "filler 1", "input 1", "separator", "output label 1"),
    ]
    assert batch.name(-1) == "output 3"
    for pos in (batch.n_pos, -batch.n_pos - 1):
        with pytest.raises(ValueError, match=f"position {pos} is outside 0 to {batch.n_pos - 1}"):
            batch.name(pos)


def test_roles_in_words():
    assert [role.words for role in LABEL_ROLES] == ["input label", "output label", "answer label"]
    assert [role.words for role in ANSWER_ROLES] == ["output", "answer"]


FORCED = {
    "parity-direct": [5],
    "parity-scratchpad": [5, 6, 7],
    "parity-interleaved": [2, 4, 6],
    "parity-aligned": [9, 11, 13],
    "parity-nonaligned": [9, 11, 13],
    "parity-numeric": [9, 11, 13],
    "parity-constant": [9, 11, 13],
    "parity-cyclic2": [9, 11, 13],
    "parity-suffix": [8, 10, 12],
    "parity-hints": [9, 11, 13],
    "parity-gap1": [13, 16, 19],
    "parity-gap2": [17, 21, 25],
    "addition-none": [6, 7, 8, 10, 11, 12],
    "addition-aligned": [12, 14, 16, 19, 21, 23],
    "addition-zeropad": [14, 16, 18, 21, 23, 25],
    "addition-nonaligned": [11, 13, 14, 16, 18, 21],
}
WRITTEN = {
    "parity-direct": [5],
    "parity-scratchpad": [5, 6, 7],
    "parity-interleaved": [2, 4, 6],
    "parity-aligned": range(8, 14),
    "parity-numeric": range(8, 14),
    "parity-constant": range(8, 14),
    "parity-cyclic2": range(8, 14),
    "parity-suffix": range(8, 14),
    "parity-hints": range(8, 14),
    "parity-gap1": range(11, 20),
    "parity-gap2": range(14, 26),
    "addition-none": range(6, 13),
    "addition-aligned": range(11, 24),
    "addition-zeropad": range(13, 26),
    "addition-nonaligned": range(9, 22),
}
LITERAL_BATCHES = [
    *((name, parity_literal(name, into, out)) for name, into, out, _ in PARITY_LITERAL),
    *((name, addition_literal(name, labels)) for name, labels, _ in ADDITION_LITERAL),
]


@pytest.mark.parametrize(("name", "batch"), LITERAL_BATCHES)
def test_forced_prediction_is_of_the_answers_alone(name, batch):
    assert batch.predicted().tolist() == batch.predicted(forced=True).tolist() == FORCED[name]


@pytest.mark.parametrize(("name", "batch"), LITERAL_BATCHES)
def test_unforced_prediction_is_of_all_that_follows_the_prompt(name, batch):
    if name == "parity-nonaligned":
        with pytest.raises(ValueError, match=r"output labels match nothing in the context.*forced=True"):
            batch.predicted(forced=False)
    else:
        assert batch.predicted(forced=False).tolist() == list(WRITTEN[name])


def test_recall_is_predicted_like_parity():
    ordered, shuffled = (sample(f"recall-{x}", 1, 2, seed=0) for x in ("ordered", "shuffled"))
    assert ordered.predicted().tolist() == shuffled.predicted().tolist() == [7, 9]
    assert ordered.predicted(forced=False).tolist() == [6, 7, 8, 9]
    with pytest.raises(ValueError, match="recall-shuffled"):
        shuffled.predicted(forced=False)


@pytest.mark.parametrize("name", ["parity-direct", "parity-aligned", "addition-aligned", "recall-ordered"])
def test_no_position_is_predicted_before_all_inputs_are_read(name):
    batch = sample(name, 1, 4, seed=0)
    for forced in (True, False):
        assert batch.predicted(forced).min() > batch.at(Role.INPUT).max()


@pytest.mark.parametrize(
    ("tokens", "role", "step"),
    [((2, 5), (5,), (4,)), ((2, 5), (4,), (5,)), ((2, 5), (4,), (4,)), ((5,), (5,), (5,)), ((2, 5), (2, 5), (2, 5))],
)
def test_shapes_that_do_not_fit_are_refused(tokens, role, step):
    like = sample("parity-aligned", 1, 3, seed=0)
    zeros = {"tokens": torch.zeros(tokens), "role": torch.zeros(role), "step": torch.zeros(step)}
    with pytest.raises(ValueError, match=r"tokens must be \[batch pos\] with role and step \[pos\]; got tokens"):
        dataclasses.replace(like, **zeros)


def test_other_tokens_must_fit_the_layout():
    batch = sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(ValueError, match="tokens must be"):
        batch.with_tokens(batch.tokens[:, :-1])


def test_sizes():
    batch = sample("parity-aligned", 3, 5, seed=0)
    assert (len(batch), batch.n_pos, batch.length) == (3, 22, 5)
    assert sample("addition-none", 1, 5, seed=0).length == (5, 5)


def test_rows_are_the_same_prompts():
    batch = sample("parity-aligned", 6, 5, seed=0)
    for index, rows in ((torch.tensor([4, 1]), [4, 1]), (slice(2, 4), [2, 3])):
        part = batch.rows(index)
        assert [part.text(i) for i in range(len(part))] == [batch.text(i) for i in rows]
        assert part.name(3) == batch.name(3)


def test_a_token_of_no_symbol_is_shown_by_its_number():
    batch = sample("parity-scratchpad", 1, 2, seed=0)
    assert batch.with_tokens(batch.tokens + 100_000).symbols()[0] == f"<{batch.tokens[0, 0] + 100_000}>"


def test_a_batch_is_frozen():
    batch = sample("parity-scratchpad", 1, 2, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.length = 3  # type: ignore[misc]
