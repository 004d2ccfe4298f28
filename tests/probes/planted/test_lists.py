"""Planted models of lists: the mechanism of each, shown by editing tokens and running the raw Hugging Face model."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from probes.binding import Trial, trials_of
from probes.planted import ARCHITECTURES_OF, LIST_MECHANISMS, Dirt
from probes.planted.list_planting import ListPlan, PlantedList, plant_list
from probes.planted.list_symbols import list_ids, list_tokenizer
from tests.probes.planted.raw_model import run

ARCHITECTURES = ARCHITECTURES_OF["A1"]
ITEMS, SHARE = 6, 0.3
ALONE = [name for name, truth in LIST_MECHANISMS.items() if truth.routes == 1]
# The item that the answer comes from after an edit of prompts that ask for item 3 of six; None: none, or several.
EDITS = (
    "labels 3 and 6 traded",
    "items 3 and 6 traded",
    "value 2 in the query changed",
    "value 1 in the query changed",
)
MOSTLY = 0
FOLLOWED: dict[str, tuple[int | None, ...]] = {
    "own label": (6, 3, 3, 3),
    "value before": (3, 6, None, 3),
    "label before": (3, 6, 3, 3),
    "value and label before": (3, 6, None, 3),
    "value two before": (3, 6, 3, None),
    "value before and two before": (3, 6, None, None),
    "position": (3, 6, 3, 3),
    "learned index": (3, 6, 3, 3),
    "own label, then value before": (6, 3, 3, 3),
    # Where the value before is not found, the own label decides, unless another value's code is too much like it.
    "value before, then own label": (3, 6, MOSTLY, 3),
    "own label and value before": (None, None, None, 3),
    "label after": (3, 6, 3, 3),
    "own label, sink": (6, 3, 3, 3),
    "position, sink": (3, 6, 3, 3),
    "own label, breaks as sink": (6, 3, 3, 3),
    "value before, breaks as sink": (3, 6, None, 3),
}


@cache
def planted(mechanism: str, architecture: str) -> PlantedList:
    share = SHARE if LIST_MECHANISMS[mechanism].routes == 2 else 1.0
    return plant_list(ListPlan(mechanism, architecture, "list-letters", ITEMS, share))


@cache
def trial() -> Trial:
    """Return prompts that ask for item 3; planting had others."""
    return next(t for t in trials_of(list_tokenizer(), "list-letters", ITEMS, 32, seed=7) if t.only_deep)


def edited(edit: str) -> Tensor:
    """Return the prompts after an edit; a changed value is one that the list does not have."""
    found, tokens = trial().lookups, trial().lookups.prompts.tokens.clone()
    base = tokens.clone()
    if edit == EDITS[0]:
        a, b = list(found.labels[3]), list(found.labels[6])
        tokens[:, a], tokens[:, b] = base[:, b], base[:, a]
    elif edit == EDITS[1]:
        a, b = ([*found.labels[i], found.values[i]] for i in (3, 6))
        tokens[:, a], tokens[:, b] = base[:, b], base[:, a]
    else:
        at = found.query_values[2 if edit == EDITS[2] else 1]
        values = [i for symbol, i in list_ids().items() if symbol[1:] in ("apple", "bread", "chair", "table", "water")]
        values += [list_ids()[" house"], list_ids()[" river"]]
        for row in range(len(tokens)):
            tokens[row, at] = next(v for v in values if v not in base[row].tolist())
    return tokens


def given(mechanism: str, architecture: str, edit: str | None) -> Tensor:
    """Return the logits of the list's values, `[batch item]`."""
    found = trial().lookups
    tokens = found.prompts.tokens if edit is None else edited(edit)
    logits = run(planted(mechanism, architecture).model, tokens)[:, -1]
    return torch.stack([logits.gather(1, found.answer(i)[:, None])[:, 0] for i in found.values], dim=1)


EACH = pytest.mark.parametrize(
    "architecture", ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES[1:])]
)


@EACH
@pytest.mark.parametrize("mechanism", ALONE)
def test_the_answer_follows_the_declared_address(mechanism: str, architecture: str) -> None:
    assert (given(mechanism, architecture, None).argmax(dim=1) == 2).all()
    for edit, item in zip(EDITS, FOLLOWED[mechanism], strict=True):
        logits = given(mechanism, architecture, edit)
        if item == MOSTLY:
            assert 0.6 < (logits.argmax(dim=1) == 2).float().mean() < 0.96, edit
        elif item is not None:
            assert (logits.argmax(dim=1) == item - 1).float().mean() >= 0.96, edit
        else:  # the edit takes the answer's lead, and gives it to no item in particular
            assert (logits.argmax(dim=1) == 2).float().mean() < 0.7, edit


@EACH
@pytest.mark.parametrize("mechanism", [name for name in LIST_MECHANISMS if name not in ALONE])
def test_two_routes_have_their_shares_of_the_logits(mechanism: str, architecture: str) -> None:
    """An edit that leads only the first route to item 6 moves that share of the answer's lead over it."""
    first, second = mechanism.split(" + ")
    base = given(mechanism, architecture, None)
    lead = (base[:, 2] - base[:, 5]).mean()
    edit, leads_second = (EDITS[0], False) if first == "own label" else (EDITS[1], True)
    logits = given(mechanism, architecture, edit)
    lost = float((lead - (logits[:, 2] - logits[:, 5]).mean()) / (2 * lead))
    assert second in ("value before", "value two before", "position")
    assert lost == pytest.approx(1.0 if leads_second else SHARE, abs=0.03)


@pytest.mark.parametrize("mechanism", ["own label, sink", "position, sink"])
def test_without_its_sink_another_value_leads(mechanism: str) -> None:
    tokens = trial().lookups.prompts.tokens
    hidden = torch.zeros(tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    hidden[-1, 0] = True  # the last token does not see the first
    right = trial().lookups.answer(3)
    model = planted(mechanism, "gpt2").model
    assert (run(model, tokens)[:, -1].argmax(dim=-1) == right).all()
    assert (run(model, tokens, hidden=hidden)[:, -1].argmax(dim=-1) == right).float().mean() < 0.7
    without = planted(mechanism.removesuffix(", sink"), "gpt2").model
    assert (run(without, tokens, hidden=hidden)[:, -1].argmax(dim=-1) == right).all()


def test_dirt_changes_weights_and_not_what_edits_do() -> None:
    dirt = Dirt(rotation=True, noise=0.02, superposition=True, layernorm=True)
    dirty = plant_list(ListPlan("own label", "gpt2", "list-letters", ITEMS, dirt=dirt))
    assert dirty.applied["noise"] > 0
    assert dirty.applied["constant"] < planted("own label", "gpt2").applied["constant"]
    found = trial().lookups
    for tokens, item in ((found.prompts.tokens, 3), (edited(EDITS[0]), 6)):
        logits = run(dirty.model, tokens)[:, -1]
        assert (logits.argmax(dim=-1) == found.answer(item)).float().mean() >= 0.96


def test_a_plan_that_its_list_does_not_allow_is_refused() -> None:
    with pytest.raises(AssertionError, match="does not find its items"):
        plant_list(ListPlan("learned index", "gpt2", "list-random-numerals", ITEMS))
