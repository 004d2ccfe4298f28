"""One table holds every format: a row more is a format more, and nothing else has to change."""

import pytest
import torch

from interp.models import run_in_memory
from interp.tasks import (
    Role,
    default_tokenizer,
    fit_vocabulary,
    format_table,
    known_formats,
    names_in_order,
    parse_format,
    sample,
    sequence_length,
)
from interp.tasks.counterfactual import flip_input, redraw, rename_labels, reorder_labels, swap_labels
from interp.tasks.format_table import TABLE, FormatRow

TOY = FormatRow(
    task="parity",
    name="toy",
    meaning="Letters c and d are bits, and a label follows each, with {n} fillers between.",
    title="toy",
    order=99,
    labels="pool",
    address=-1,
    after=True,
    number="gap",
    known_numbers=(2,),
    values=("c", "d"),
    structure=(">>>", "===", "_"),
    in_grid=False,
)


@pytest.fixture
def toy(monkeypatch):
    """The table with one row more, for one test."""
    monkeypatch.setattr(format_table, "TABLE", (*TABLE, TOY))
    return parse_format("parity-toy2")


def test_without_its_row_a_format_is_unknown():
    """The "before" half."""
    with pytest.raises(ValueError, match="unknown format 'parity-toy2'"):
        parse_format("parity-toy2")


def test_a_row_makes_a_format_that_is_sampled_and_named(toy):
    assert "parity-toy2" in known_formats()
    assert names_in_order("parity")[-1] == "toy2"
    assert (str(toy), toy.address, toy.meaning) == ("parity-toy2", -1, TOY.meaning.format(n=2))
    batch = sample("parity-toy2", 8, 3, seed=0)
    assert batch.n_pos == sequence_length(toy, 3) == 26
    for row in range(len(batch)):
        words = batch.symbols(row)
        bits = [w == "d" for w in words[1:13:4]]
        assert [w == "d" for w in words[14::4]] == [sum(bits[: i + 1]) % 2 == 1 for i in range(3)]
        assert words[4:13:4] == words[17::4]
        assert (words[0], words[13], words[2:4]) == (">>>", "===", ["_", "_"])
    assert [batch.name(pos) for pos in (1, 2, 4, 25)] == ["input 1", "filler 1", "input label 1", "output label 3"]
    assert batch.predicted().tolist() == [14, 18, 22]
    assert batch.predicted(forced=False).tolist() == list(range(14, 26))


def test_counterfactuals_need_no_edit(toy):
    batch = sample(toy, 16, 4, seed=1)
    swapped = swap_labels(batch, 1, 3)
    at = batch.at(Role.INPUT_LABEL)
    assert torch.equal(swapped.tokens[:, at[[2, 1, 0, 3]]], batch.tokens[:, at])
    flipped = flip_input(batch, 2, scratchpad="recompute")
    changed = (flipped.tokens != batch.tokens).any(dim=0).nonzero().flatten().tolist()
    assert changed == [*batch.at(Role.INPUT, 2).tolist(), *batch.at(Role.OUTPUT).tolist()[1:]]
    assert torch.equal(redraw(batch, 2, keep="labels").tokens[:, at], batch.tokens[:, at])
    for other in (reorder_labels(batch, 0), rename_labels(batch, 0, held_out=True)):
        assert (other.tokens[:, at] != batch.tokens[:, at]).any()


def test_it_is_posed_to_models(toy):
    vocabulary = fit_vocabulary(default_tokenizer(), toy)
    assert sample(toy, 2, 3, 0, vocabulary).text() == sample(toy, 2, 3, 0).text()
    assert run_in_memory("toy", torch.nn.Identity(), "parity-toy2", vocabulary).format == toy  # type: ignore[arg-type]


@pytest.mark.parametrize("name", known_formats())
def test_the_address_is_the_last_label_seen_before_an_answer(name):
    """At the answer of step i, the last label in the context is that of step i + address, on both sides."""
    fmt = parse_format(name)
    if fmt.address is None or fmt.task == "addition":
        return
    batch = sample(fmt, 1, 5, seed=0)
    for label, value in ((Role.INPUT_LABEL, Role.INPUT), (Role.OUTPUT_LABEL, Role.OUTPUT)):
        for step in range(2, 6):
            seen = [pos for pos in batch.at(label).tolist() if pos < int(batch.at(value, step))]
            assert int(batch.step[seen[-1]]) == step + fmt.address


def test_rows_are_distinct_and_explained():
    assert len({(row.task, row.name) for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert row.meaning.endswith(".")
        assert row.name.isalpha()
        assert row.name.islower()
        assert (row.labels == "fixed") == (row.label_of is not None)
        assert row.labels or row.address is None
        assert (0 in row.known_numbers) == (row.number != "gap")
    assert {f"{row.task}-{row.name}" for row in TABLE if not row.in_grid} >= {
        "parity-suffix",
        "recall-ordered",
        "recall-shuffled",
    }
