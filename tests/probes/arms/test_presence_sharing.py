"""Interventions that begin alike share layers, and give what each gives alone."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp.models.architectures.block import Block
from interp.tasks import default_vocabulary, sample
from probes.arms import presence_runs
from probes.arms.presence_cells import Cells
from probes.arms.presence_interchanges import Interchanges, grafted, masks_of_cells, measure_all
from probes.arms.presence_metrics import answer_accuracy
from probes.arms.presence_removals import counted
from probes.arms.presence_runs import growing
from probes.arms.presence_search import all_cells
from probes.arms.presence_sharing import ChangesBy, begun_alike

LAYERS = 6


@pytest.fixture(scope="module")
def work() -> Interchanges:
    vocabulary = default_vocabulary()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary.ids),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    batch = sample("parity-aligned", 4, 5, 1, vocabulary)
    return Interchanges(LlamaForCausalLM(config).double().eval(), batch, 2, answer_accuracy(batch))


def but(work: Interchanges, layers: tuple[int, ...], *kinds: str) -> Cells:
    """All cells except those of some layers; of some kinds of query, or all."""
    every = all_cells(work.anatomy.raw, work.batch)
    return Cells(tuple(c for c in every if c[1][0] not in layers and (not kinds or c[0] in kinds)))


GROUPS = {
    "all but late": lambda work: but(work, (4, 5)),
    "all": lambda work: but(work, ()),
    "all but early": lambda work: but(work, (0, 1)),
    "all but middle": lambda work: but(work, (2, 3)),
    "answers": lambda work: but(work, (), "answers"),
    # The first queries that change are in later layers than those of "answers".
    "answers, then all": lambda work: Cells((*but(work, (3, 4, 5), "answers").members, *but(work, (0, 1, 2)).members)),
    "again": lambda work: but(work, ()),
}
MAKE = {
    "removed": lambda work: counted(work.labels, -math.inf),
    "grafted": lambda work: grafted(work, 0, work.labels),
}


def changes_of(work: Interchanges, made: str) -> dict[str, ChangesBy]:
    change_of = MAKE[made](work)
    return {name: ChangesBy(masks_of_cells(work, cells(work)), change_of) for name, cells in GROUPS.items()}


def test_what_begins_alike_is_found(work: Interchanges) -> None:
    found = begun_alike(changes_of(work, "removed"), LAYERS)
    assert found == {
        "all": ("all but late", 4),
        "all but middle": ("all but late", 2),
        "answers, then all": ("answers", 3),
        "again": ("all", LAYERS - 1),
    }
    one, other = changes_of(work, "removed"), changes_of(work, "grafted")
    assert not begun_alike({"one": one["all"], "other": other["all"]}, LAYERS)


@pytest.mark.parametrize("made", list(MAKE))
def test_shared_layers_are_computed_once_and_change_nothing(
    work: Interchanges, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, mlp_out = [], Block.mlp_out
    monkeypatch.setattr(Block, "mlp_out", lambda self, resid: layers.append(1) or mlp_out(self, resid))
    monkeypatch.setattr(presence_runs, "chunks", lambda *_, **__: torch.arange(4).split(2))
    changes = changes_of(work, made)
    for rows in work.chunks():
        work.unpatched(rows)
        work.source(rows, 0)
    layers.clear()
    alone = {name: measure_all(work, {name: change})[name] for name, change in changes.items()}
    apart = len(layers)
    layers.clear()
    together = measure_all(work, changes)
    for name, (score, lead) in together.items():
        torch.testing.assert_close(lead, alone[name][1], rtol=1e-9, atol=1e-9, msg=name)
        assert torch.equal(score, alone[name][0]), name
    assert len({round(float(lead.sum()), 6) for _, lead in together.values()}) == len(GROUPS) - 1
    # Of the last but one pair, other positions change, so that nothing is shared; of the last, but one layer all is.
    assert apart - len(layers) == 2 * (4 + 2 + LAYERS - 1)


def test_few_prompts_run_before_the_others(work: Interchanges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "first", 1)
    assert [rows.tolist() for rows in work.chunks()] == [[0], [1, 2, 3]]
    monkeypatch.setattr(presence_runs, "chunks", lambda *_, **__: torch.arange(4).split(2))
    assert [rows.tolist() for rows in work.chunks()] == [[0], [1, 2], [3]]


@pytest.mark.parametrize(
    ("n_prompts", "first", "most", "sizes"),
    [
        (8, 1, 7, [1, 2, 5]),
        (8, 1, 4, [1, 2, 4, 1]),
        (24, 1, 8, [1, 2, 4, 8, 8, 1]),
        (3, 4, 2, [2, 1]),
        (5, 8, 8, [5]),
        (1, 1, 1, [1]),
    ],
)
def test_chunks_double(n_prompts: int, first: int, most: int, sizes: list[int]) -> None:
    found = growing(n_prompts, first, most)
    assert [len(rows) for rows in found] == sizes
    assert torch.cat(found).tolist() == list(range(n_prompts))
