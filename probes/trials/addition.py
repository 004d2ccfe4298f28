"""On which sums and places are the interventions made, and what would each answer be? (trials of addition)

A trial reads one place of the sum, teacher forced. Digits are written so that a trade of labels leads either to the
answer that an edit of the place's own digit has, or to the same answer as before, and so that another carry leads to
that other answer too: all interventions of a trial share one counterfactual answer. What follows `###` is not read.

Read as the place i, the digits around it are:
- i: uniform; the carry into it is 1 where its first digit is 9, else 0, because `counterfactual.flip_input` takes a
  digit one up, and 9 to 8, and a carry that flips must do the same to the answer.
- i-1 (`earlier`): digits that sum to 9 and hand the carry on, so that one digit edited flips the carry into i. Whether
  a model works the carry out from all lower digits or from those of i-1 and the sum's digit written there, it gets the
  same one, before and after.
- i-2: digits that sum to 8 or less, or to 10 or more: nothing lower has a say in the carry into i.
- `partner`: any place but these three. Digits found under its label give the other answer in cell 0, and the same in
  cell 3.
All other digits are as they were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import Batch, addition
from interp.tasks.layout import generator
from probes.trials.parity import Trials, check_shortest, one_of, refuse

# Of `Trials.cell`: what is found under the partner's label gives the other answer, or the same.
CELLS = (0, 3)
# Digits of one place, by the carry that they make whatever the carry into them is.
SURE_OF_CARRY = tuple(
    torch.tensor([(a, b) for a in range(10) for b in range(10) if (a + b >= 10 if carry else a + b <= 8)])
    for carry in (0, 1)
)


def choose_sums(batch: Batch, seed: int, size: int | None = None, cells: Sequence[int] = CELLS) -> Trials:
    """Trials of addition in the layout and with the labels of `batch`; about `size`, as many in each of `cells`.

    What is found under a label are the digits of both operands, in the non-aligned format (where each operand has
    labels of its own, and the first one's are traded) the first operand's digit. `bystanders` are two more places,
    under whose labels different digits stand; `later` is any place above `step` but the partner. With operands of two
    lengths every place is one that both have.

    Raises `ValueError` for a format that is no addition or has no labels, operands of fewer than six digits, cells
    other than 0 and 3, or too few prompts.

    >>> trials = choose_sums(sample("addition-aligned", 96, 10, seed=0), seed=0)
    """
    if reason := refuse(batch):
        raise ValueError(reason)
    if batch.format.task != "addition":
        raise ValueError(f"{batch.format} is no addition; for parity there is probes.trials.parity.choose")
    if not cells or not set(cells) <= set(CELLS):
        raise ValueError(f"cells of addition are 0 and 3; got {list(cells)}")
    check_shortest(batch.length, "addition")
    each = len(batch) // len(cells)
    each = each if size is None else min(each, -(-size // len(cells)))
    if each < 2:
        raise ValueError(f"too few prompts for trials in {len(cells)} cells: {len(batch)}; ask for more prompts")
    batch = batch.rows(slice(each * len(cells)))
    gen = generator(seed)
    content = addition.read(batch)
    places = min(content.first.shape[1], content.second.shape[1])
    everyone = torch.arange(len(batch))
    cell = torch.tensor(list(cells))[everyone % len(cells)]
    # Zero-based: i has two places below it and one above it.
    step = torch.randint(2, places - 1, (len(batch),), generator=gen)
    later = _draw(step + 1, places, gen)
    number = torch.arange(places).unsqueeze(0)
    taken = (number <= step.unsqueeze(1)) & (number >= step.unsqueeze(1) - 2)
    partner, _ = one_of(~taken & (number != later.unsqueeze(1)), gen)
    taken |= number == partner.unsqueeze(1)
    u, _ = one_of(~taken, gen)
    v, _ = one_of(~taken & (number != u.unsqueeze(1)), gen)
    first, second = _written(content, batch.format.name == "nonaligned", cell, step, partner, (u, v), gen)
    made = addition.AdditionContent(first, second, content.labels)
    answer = made.total[everyone, step]
    other = (answer + _edit(first[everyone, step])) % 10
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    return Trials(
        addition.write(made, batch.format, batch.vocabulary),
        step + 1,
        partner + 1,
        step,
        later + 1,
        (u + 1, v + 1),
        cell,
        symbols[answer],
        symbols[other],
    )


def _written(
    content: addition.AdditionContent,
    nonaligned: bool,
    cell: Int[Tensor, " batch"],
    step: Int[Tensor, " batch"],
    partner: Int[Tensor, " batch"],
    bystanders: Sequence[Int[Tensor, " batch"]],
    gen: torch.Generator,
) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch m"]]:
    """The operands' digits with those that a trial needs, units first; no number begins with a zero."""
    first, second = content.first.clone(), content.second.clone()
    rows, count = torch.arange(len(first)), len(first)
    tops = tuple((partner == operand.shape[1] - 1).long() for operand in (first, second))
    # The place that is read. Where its first digit must also stand at the head of a number, it is no zero.
    digit = _draw(tops[0] if nonaligned else torch.zeros(count, dtype=torch.long), 10, gen)
    addend = torch.randint(10, (count,), generator=gen)
    first[rows, step], second[rows, step] = digit, addend
    carry = (digit == 9).long()
    # The one below hands the carry on: 9 in all, and one up (a carry of 0) or one down (9 to 8) makes the other one.
    below = torch.where(carry == 1, 9, torch.randint(9, (count,), generator=gen))
    first[rows, step - 1], second[rows, step - 1] = below, 9 - below
    pairs = torch.stack([table[torch.randint(len(table), (count,), generator=gen)] for table in SURE_OF_CARRY])
    first[rows, step - 2], second[rows, step - 2] = pairs[carry, rows].unbind(dim=1)
    # Under the partner's label: what an edit of the place's own digit would give, or what is there already.
    sought = digit + torch.where(cell == 0, _edit(digit), 0)
    if nonaligned:
        first[rows, partner] = sought
    else:
        target = (sought + addend) % 10
        value = torch.arange(10).expand(count, 10)
        heads_second = tops[1].unsqueeze(1).bool() & (value == target.unsqueeze(1))
        one, _ = one_of((value >= tops[0].unsqueeze(1)) & ~heads_second, gen)
        first[rows, partner], second[rows, partner] = one, (target - one) % 10
    # A trade of the bystanders' labels brings other digits under both.
    u, v = bystanders
    under_u, under_v = (first[rows, at] + (0 if nonaligned else second[rows, at]) for at in (u, v))
    same = (under_u - under_v) % 10 == 0
    first[rows, v] += torch.where(same, _edit(first[rows, v]), 0)
    return first, second


def _edit(digit: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """What `counterfactual.flip_input` adds to a digit: one, but 9 becomes 8."""
    return torch.where(digit == 9, -1, 1)


def _draw(low: Int[Tensor, " batch"], high: int, gen: torch.Generator) -> Int[Tensor, " batch"]:
    """Uniform whole numbers from each row's `low` up to, and without, `high`."""
    return low + (torch.rand(len(low), generator=gen) * (high - low)).long()
