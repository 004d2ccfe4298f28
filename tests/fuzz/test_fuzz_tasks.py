"""Tasks: whatever is asked for, there are prompts or one sentence that says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from interp.tasks import (
    Batch,
    Role,
    Vocabulary,
    counterfactual,
    default_vocabulary,
    fit_vocabulary,
    known_formats,
    parse_format,
    sample,
    sequence_length,
)
from tests.fuzz.counting import counts, hammer, refusal
from tests.fuzz.junk import absurd, json_junk, leaves, small

FORMATS = known_formats()
names = st.one_of(
    st.sampled_from(FORMATS),
    st.builds("parity-{}{}".format, st.sampled_from(("gap", "cyclic")), st.integers(-2, 20_000)),
    st.builds("{}-{}".format, st.sampled_from(("parity", "addition", "recall", "")), st.text(max_size=12)),
    st.text(max_size=20),
    absurd,
)
lengths = st.one_of(
    small(1, 20),
    st.lists(small(1, 9), max_size=3).map(tuple),
    st.just(np.int64(3)),
    absurd,
    st.sampled_from((127, 129, 10**6, 2**40)),
)
seeds = st.one_of(st.integers(0, 2**32 + 5), absurd)
SYMBOLS = (
    ">>>",
    "===",
    "###",
    "+",
    "#",
    "_",
    "[0]",
    "[1]",
    "???",
    *"0123456789abcdefghijklmnopqr",
    "M1",
    "M2",
    "M3",
    "M4",
    "c1",
    "ĠM1",
    "▁0",
    "",
)


def check_sample(asked: tuple) -> None:
    name, batch_size, length, seed = asked
    batch = refusal(lambda: sample(name, batch_size, length, seed))
    if batch is not None:
        fmt = parse_format(name)
        assert batch.tokens.shape == (batch_size, sequence_length(fmt, length))
        assert len(batch.text(0).split()) == batch.n_pos


@counts(60, 40_000)
def test_prompts_or_a_reason(count):
    hammer("tasks", count, st.tuples(names, small(1, 4), lengths, seeds), check_sample)


def vocabularies() -> st.SearchStrategy[Any]:
    ids = st.dictionaries(st.sampled_from(SYMBOLS), st.integers(0, 60) | st.integers(0, 60) | leaves, max_size=40)
    labels = st.lists(st.sampled_from(SYMBOLS) | leaves, max_size=6) | leaves
    return st.fixed_dictionaries({"ids": ids | leaves, "labels": labels, "held_out": labels}) | json_junk.filter(
        lambda x: isinstance(x, dict)
    )


def check_vocabulary(given: tuple) -> None:
    data, name, length = given
    try:
        vocabulary = refusal(lambda: Vocabulary.from_json(data))
    except KeyError:  # a key is missing; `load_run` names the file
        return
    if vocabulary is not None:
        assert len(set(vocabulary.ids.values())) == len(vocabulary.ids)
        refusal(lambda: sample(name, 2, length, 0, vocabulary))


def whole_vocabularies() -> st.SearchStrategy[dict]:
    """Every symbol there, in another order, with labels that may mean something else."""
    labels = st.lists(st.sampled_from(("M1", "M2", "M3", "M4", "0", "===", "a")), max_size=6, unique=True)
    orders = st.permutations(range(len(SYMBOLS))).map(lambda order: dict(zip(SYMBOLS, order, strict=True)))
    return st.fixed_dictionaries({"ids": orders, "labels": labels, "held_out": st.just([])})


@counts(60, 20_000)
def test_vocabularies_with_clashes_and_gaps(count):
    given = st.tuples(vocabularies() | whole_vocabularies(), st.sampled_from(FORMATS), st.integers(1, 4))
    hammer("tasks", count, given, check_vocabulary)


def tensors(shape: st.SearchStrategy[tuple], high: int) -> st.SearchStrategy:
    kinds = st.sampled_from((torch.int64, torch.int64, torch.int64, torch.int32, torch.float32, torch.bool))
    values = st.integers(-1, high)
    right = st.builds(lambda s, v, k: torch.full(s, v).to(k), shape, values, kinds)
    ranged = shape.map(lambda s: torch.arange(int(np.prod(s))).reshape(s) % (high + 1))
    return st.one_of(ranged, ranged, right, st.just(np.zeros((2, 4), int)), st.just([[1, 2]]), absurd)


def check_batch(given: tuple) -> None:
    tokens, role, step, name, length = given
    batch = refusal(
        lambda: Batch(
            tokens, role=role, step=step, format=parse_format(name), length=length, vocabulary=default_vocabulary()
        )
    )
    if batch is None:
        return
    for pos in (0, -1, batch.n_pos, 10**30):
        refusal(lambda pos=pos: batch.name(pos))
    for forced in (True, False):
        refusal(lambda forced=forced: batch.predicted(forced))
    for wanted in Role:
        refusal(lambda wanted=wanted: batch.at(wanted, 1))
    if len(batch):
        batch.text(0)


@counts(60, 15_000)
def test_batches_from_arrays_that_do_not_fit(count):
    n = st.integers(0, 5)
    given = st.tuples(
        tensors(st.tuples(n, n) | st.just((2, 4)), 20),
        tensors(st.tuples(n) | st.just((4,)), 9),
        tensors(st.tuples(n) | st.just((4,)), 3),
        st.sampled_from(FORMATS),
        st.integers(1, 3),
    )
    hammer("tasks", count, given, check_batch)


steps = st.one_of(st.integers(-1, 6), absurd, st.lists(st.integers(0, 6), max_size=4).map(torch.tensor))
EDITS = {
    "swap": lambda b, i, j, seed, role: counterfactual.swap_labels(b, i, j, role),
    "reorder": lambda b, i, j, seed, role: counterfactual.reorder_labels(b, seed),
    "rename": lambda b, i, j, seed, role: counterfactual.rename_labels(b, seed, held_out=bool(role % 2)),
    "flip": lambda b, i, j, seed, role: counterfactual.flip_input(b, i, ("keep", "recompute")[role % 2], role % 3),
    "redraw": lambda b, i, j, seed, role: counterfactual.redraw(b, seed, ("", "labels", "inputs", "x")[role % 4]),
}


def check_edit(given: tuple) -> None:
    name, length, edit, *rest = given
    batch = sample(name, 2, length, 0)
    edited = refusal(lambda: EDITS[edit](batch, *rest))
    if edited is not None:
        assert edited.tokens.shape == batch.tokens.shape
        assert torch.equal(edited.role, batch.role)


@counts(60, 15_000)
def test_edits_of_any_step(count):
    roles = st.sampled_from(tuple(Role))
    given = st.tuples(
        st.sampled_from(FORMATS), st.integers(1, 5), st.sampled_from(sorted(EDITS)), steps, steps, seeds, roles
    )
    hammer("tasks", count, given, check_edit)


def check_fit(given: tuple) -> None:
    words, name, longest = given
    model = WordLevel({"<unk>": 0, **{w: i + 1 for i, w in enumerate(words)}}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")
    vocabulary = refusal(lambda: fit_vocabulary(tokenizer, parse_format(name), longest))
    if vocabulary is not None:
        assert len(set(vocabulary.ids.values())) == len(vocabulary.ids)
        refusal(lambda: sample(name, 1, 2, 0, vocabulary))


@counts(20, 2_000)
def test_tokenizers_with_doubles_and_few_words(count):
    word = st.one_of(st.sampled_from(SYMBOLS), st.text("ab Ġ▁M12+", max_size=3), st.text(max_size=3))
    given = st.tuples(st.lists(word, max_size=60, unique=True), st.sampled_from(FORMATS), small(1, 20))
    hammer("tasks", count, given, check_fit)
