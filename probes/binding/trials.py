"""Trials of lists and recall: prompts, the item asked for, and the item to which an intervention moves the answer.

The counterfactual answer is the value of another item, `target`. In a repeated list it is two or more items after the
query, so that it has not been written yet and its predecessor is not the queried item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.tasks import Prompts, Role, sample
from interp.tasks.list_forms import ListForm
from interp.tasks.lists import Lookups, list_form, sample_lists
from probes.limits import check_binding_task, check_items, check_list_prompts

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Vocabulary

# Combinations of query and target that share the prompts.
GROUPS = 4
# Arms about all items before. Where they were measured the position needs its own: a trade of two items each is one of
# order too, for a model that reads more than the item before.
ALL_BEFORE, BEFORE_LISTED, ALL_MOVED, LABEL_MOVED, ORDER_MOVED = DEEP_ARMS = (
    "order, all before",
    "order, all before at list",
    "position, all before",
    "label and position, all before",
    "order and position, all before",
)
# What else is edited on the prompts of `DEEP_ARMS`: it shows what an address adds to others, and nothing by itself.
LABEL_DEEP, BOTH_DEEP, JOINT_DEEP = DEEP_CHECKS = (
    "label, all before",
    "label and order, all before",
    "joint, all before",
)
# Query, target, third item and bystanders, as in `Trial`.
Combination = tuple[int, int, int, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Trial:
    """Prompts with the items that interventions use, all numbered from 1.

    `target` is the item whose value is the counterfactual answer, `third` the item to which matched controls move the
    address, `bystanders` two items whose trade is the matched control of a trade in the list. With `only_deep` it is
    for the arms in `DEEP_ARMS` alone: those that need many items before the query and the target.

    Raises `ValueError` for items that do not exist, for those that an intervention on others would change too (its
    control would then be no control), and for prompts in which two items have the same value or label.
    """

    lookups: Lookups
    target: int
    third: int
    bystanders: tuple[int, int]
    only_deep: bool = False

    def __post_init__(self) -> None:
        query, target, items = self.query, self.target, self.lookups.n_items
        targets = [i for i in range(2, items + 1) if abs(i - query) > 1]
        thirds, others = beside(items, query, target)
        for name, item, allowed in (
            ("target", target, targets),
            ("third", self.third, thirds),
            *(("bystanders", item, others) for item in self.bystanders),
        ):
            if item not in allowed:
                given = f"query {query}" if name == "target" else f"query {query} and target {target}"
                may = " or ".join(map(str, allowed)) or "of a longer list"
                raise ValueError(f"of {items} items, with {given}, {name} must be {may}; got {item}")
        if len(set(self.bystanders)) != 2:
            raise ValueError(f"bystanders must be two different items; got {self.bystanders}")
        found = self.lookups
        _require_different(found.prompts, "value", {item: (pos,) for item, pos in found.values.items()})
        _require_different(found.prompts, "label", found.labels)

    @classmethod
    def of(cls, lookups: Lookups) -> Trial:
        """Return a trial of one's own prompts, with a target, a third item and bystanders that their query allows.

        Raises `ValueError` for fewer than six items, and for a query that is the first item or one of the last two.
        """
        query, items = lookups.query, lookups.n_items
        fitting = [found for found in combinations_of(items) if found[0] == query]
        if fitting:  # if possible one that `DEEP_ARMS` can use
            return cls(lookups, *next((found for found in fitting if found[1] == 2 * query), fitting[0])[1:])
        raise ValueError(f"of {items} items, the query must be one of 2 to {items - 2}; got {query}")

    @property
    def query(self) -> int:
        """The item asked for."""
        return self.lookups.query

    @property
    def is_deep(self) -> bool:
        """Whether all items up to the query, at least three, can be traded with the next ones, up to the target.

        Then the item after the query moves too, so that neither what is before nor what is after leads to the index.
        """
        return self.query >= 3 and self.target == 2 * self.query

    def first(self, count: int) -> Trial:
        """Return the same trial with the first so many of its prompts."""
        return self._rows(slice(count))

    def distinct(self) -> Trial:
        """Return the same trial without prompts that repeat an earlier one."""
        rows = self.lookups.prompts.tokens.tolist()
        first = {tuple(row): i for i, row in reversed(list(enumerate(rows)))}
        return self if len(first) == len(rows) else self._rows(torch.tensor(sorted(first.values())))

    def _rows(self, index: slice | Tensor) -> Trial:
        return replace(self, lookups=replace(self.lookups, prompts=self.lookups.prompts.rows(index)))


def _require_different(prompts: Prompts, what: str, spans: Mapping[int, tuple[int, ...]]) -> None:
    """Raise `ValueError` where two items of a row have the same value or label."""
    for i, j in combinations(sorted(spans), 2):
        if len(spans[i]) == len(spans[j]):
            alike = (prompts.tokens[:, list(spans[i])] == prompts.tokens[:, list(spans[j])]).all(dim=1)
            if alike.any():
                row = int(alike.nonzero()[0])
                raise ValueError(f"row {row} has the same {what} for items {i} and {j}; all {what}s must differ")


def combinations_of(items: int) -> list[Combination]:
    """Return query, target, third item and bystanders of every trial that a list of so many items allows."""
    check_items(items)
    found = []
    for query in range(2, items - 1):
        for target in range(query + 2, items + 1):
            thirds, others = beside(items, query, target)
            if thirds and len(others) >= 2:
                # The third item is taken from alternating ends, so that controls are on both sides of the query.
                third = thirds[-1] if len(found) % 2 else thirds[0]
                found.append((query, target, third, (others[0], others[-1])))
    return found


def beside(items: int, query: int, target: int) -> tuple[list[int], list[int]]:
    """Return the items that may be the third one, and those that may be bystanders, beside a query and a target.

    Neither these two, nor an item that an intervention on them changes: that before each, or the one after it, whose
    neighbour it is.
    """
    thirds = [i for i in range(2, items + 1) if i not in (query, target, query + 1, target + 1)]
    others = [i for i in range(1, items + 1) if i not in (query - 1, query, target - 1, target)]
    return thirds, others


def _spread(combinations: Sequence[Combination]) -> list[Combination]:
    """Return combinations whose queries are from the first to the last, with near and far targets in turn."""
    by_query = [list(group) for _, group in groupby(combinations, key=lambda combination: combination[0])]
    chosen = []
    for k in range(GROUPS):
        options = by_query[k * (len(by_query) - 1) // (GROUPS - 1)]
        chosen.append(options[-1] if k % 2 else options[0])
    return chosen


def trials_of(
    run: Run | Any, task: str | ListForm, items: int, prompts: int, seed: int, fillers: int = 0
) -> list[Trial]:
    """Return trials with `prompts` prompts in all, over four combinations of query and target from all queries.

    A list that is repeated has a fifth, for `DEEP_ARMS`, with as many prompts of its own: it asks for the last item of
    the first half, and the target is that of the second.

    `task`: a name in `BINDING_TASKS`, or a list of one's own. `run` needs a tokenizer for a list, and the task recall
    for recall. Raises `ValueError` for an unknown task, too few items and too few prompts.
    """
    if isinstance(task, str):
        check_binding_task(task)
    check_items(items)
    check_list_prompts(prompts)
    if task == "recall":
        _check_values(run, items)
    else:
        list_form(task, items, fillers).check_items(items)

    def drawn(k: int, count: int, query: int) -> Lookups:
        number = seed * 1000 + k
        if task == "recall":
            return sample_recall(run, count, items, query, number)
        return sample_lists(run, task, count, items, query, number, fillers)

    trials = []
    for k, (query, target, third, bystanders) in enumerate(_spread(combinations_of(items))):
        count = prompts // GROUPS + (k < prompts % GROUPS)
        trials.append(Trial(drawn(k, count, query), target, third, bystanders))
    if trials[-1].lookups.query_values:  # the list is repeated
        trials.append(replace(Trial.of(drawn(GROUPS, prompts, items // 2)), only_deep=True))
    return trials


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RecallPrompts(Prompts):
    """Prompts of recall, shown by the task's symbols."""

    vocabulary: Vocabulary | None = None

    def symbol(self, token: int) -> str:
        """Return the task's symbol that a token stands for."""
        return super().symbol(token) if self.vocabulary is None else self.vocabulary.symbol(token)

    def text(self, row: int = 0) -> str:
        """Return one prompt, its symbols apart."""
        return " ".join(self.symbols(row))


def _check_values(run: Run, items: int) -> None:
    values = len(run.vocabulary.tokens(run.format.inputs))
    if items > values:
        raise ValueError(f"{items} items are too many: recall has {values} values, and all must differ")


def sample_recall(run: Run, batch: int, items: int, query: int, seed: int) -> Lookups:
    """Return prompts of recall, queried in order, whose values differ, up to the label of item `query`.

    Raises `ValueError` for a format that asks in another order, and for more items than there are values.
    """
    if run.format.row.shuffled:
        raise ValueError(f"{run.format} asks in random order; the verdict on recall needs recall-ordered")
    _check_values(run, items)
    symbols = run.vocabulary.tokens(run.format.inputs)
    drawn = sample(run.format, batch, items, seed, run.vocabulary)
    order = torch.rand(batch, len(symbols), generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    tokens = torch.as_tensor(drawn.tokens).clone()
    for role in (Role.INPUT, Role.OUTPUT):  # in order, so that item i is the value at step i of both
        tokens[:, drawn.at(role)] = symbols[order[:, :items]]

    def by_item(role: Role) -> dict[int, int]:
        return {i: int(pos) for i, pos in enumerate(drawn.at(role).tolist(), 1)}

    end = by_item(Role.OUTPUT_LABEL)[query]
    labels = {i: (pos,) for i, pos in by_item(Role.INPUT_LABEL).items()}
    query_labels = {i: (pos,) for i, pos in by_item(Role.OUTPUT_LABEL).items() if i <= query}
    query_values = {i: pos for i, pos in by_item(Role.OUTPUT).items() if i < query}
    prompts = RecallPrompts(tokens=tokens[:, : end + 1], bos=drawn.bos, vocabulary=run.vocabulary)
    return Lookups(prompts, query, labels, by_item(Role.INPUT), query_labels, query_values)
