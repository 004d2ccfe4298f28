"""Trials of addition: prompts with the places that interventions use, and the counterfactual answers.

A trial reads one place of the sum, teacher forced. Its digits are chosen so that all interventions share one
counterfactual answer. A swap of labels leads either to the answer that an edit of the place's own digit gives, or to
the original answer; a changed carry leads to that other answer too. The sum after `###` is not read.

Digits by place, where i is the place that is read:
- i: uniform. The carry into it is 1 where its first digit is 9, else 0: `counterfactual.flip_input` adds one to a
  digit, except 9 to 8, and a changed carry must have the same effect on the answer.
- i-1 (`earlier`): digits that sum to 9 and pass the carry on, so that one edited digit changes the carry into i. The
  carry is the same whether a model computes it from all lower digits or from those of i-1 and the written sum digit.
- i-2: digits that sum to at most 8, or to at least 10, so that lower places do not affect the carry into i.
- `partner`: any place but these three. The digits under its label give the other answer in cell 0, and the original
  answer in cell 3.
All other digits are as drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import Batch, addition
from interp.tasks.layout import generator
from probes.limits import check_shortest
from probes.trials.parity import Trials, one_of, refuse

# Values of `Trials.cell`: the digits under the partner's label give the other answer, or the original one.
CELLS = (0, 3)
# Pairs of digits of one place whose carry does not depend on the carry into it, by that carry.
FIXED_CARRY = tuple(
    torch.tensor([(a, b) for a in range(10) for b in range(10) if (a + b >= 10 if carry else a + b <= 8)])
    for carry in (0, 1)
)


def choose_sums(batch: Batch, seed: int, size: int | None = None, cells: Sequence[int] = CELLS) -> Trials:
    """Write about `size` trials of addition in the layout and with the labels of `batch`, equally many per cell.

    A label leads to the digits of both operands; in the non-aligned format, where each operand has its own labels and
    those of the first are swapped, to the first operand's digit. `bystanders` are two more places with different
    digits; `later` is any place above `step` except the partner. With operands of two lengths, only places that both
    have are used.

    Raises `ValueError` for a format that is not addition or has no labels, operands of fewer than six digits, cells
    other than 0 and 3, or too few prompts.

    >>> trials = choose_sums(sample("addition-aligned", 96, 10, seed=0), seed=0)
    """
    if reason := refuse(batch):
        raise ValueError(reason)
    if batch.format.task != "addition":
        raise ValueError(f"{batch.format} is not addition; for parity use probes.trials.parity.choose")
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
    rows = torch.arange(len(batch))
    cell = torch.tensor(list(cells))[rows % len(cells)]
    # Zero-based: i has two places below it and one above.
    step = torch.randint(2, places - 1, (len(batch),), generator=gen)
    later = _draw(step + 1, places, gen)
    number = torch.arange(places).unsqueeze(0)
    used = (number <= step.unsqueeze(1)) & (number >= step.unsqueeze(1) - 2)
    partner, _ = one_of(~used & (number != later.unsqueeze(1)), gen)
    used |= number == partner.unsqueeze(1)
    u, _ = one_of(~used, gen)
    v, _ = one_of(~used & (number != u.unsqueeze(1)), gen)
    first, second = _digits_of_trials(content, batch.format.name == "nonaligned", cell, step, partner, (u, v), gen)
    content = addition.AdditionContent(first, second, content.labels)
    answer = content.total[rows, step]
    other = (answer + _edit(first[rows, step])) % 10
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    return Trials(
        batch=addition.write(content, batch.format, batch.vocabulary),
        step=step + 1,
        partner=partner + 1,
        earlier=step,
        later=later + 1,
        bystanders=(u + 1, v + 1),
        cell=cell,
        answer=symbols[answer],
        other=symbols[other],
    )


def _digits_of_trials(
    content: addition.AdditionContent,
    nonaligned: bool,
    cell: Int[Tensor, " batch"],
    step: Int[Tensor, " batch"],
    partner: Int[Tensor, " batch"],
    bystanders: Sequence[Int[Tensor, " batch"]],
    gen: torch.Generator,
) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch m"]]:
    """Return the operands' digits, units first, with those that a trial needs; no number begins with a zero."""
    first, second = content.first.clone(), content.second.clone()
    rows, count = torch.arange(len(first)), len(first)
    tops = tuple((partner == operand.shape[1] - 1).long() for operand in (first, second))
    # The place that is read. Its first digit is not zero where it also becomes a number's leading digit.
    digit = _draw(tops[0] if nonaligned else torch.zeros(count, dtype=torch.long), 10, gen)
    addend = torch.randint(10, (count,), generator=gen)
    first[rows, step], second[rows, step] = digit, addend
    carry = (digit == 9).long()
    # The place below passes the carry on: its digits sum to 9, and adding or subtracting one changes the carry.
    below = torch.where(carry == 1, 9, torch.randint(9, (count,), generator=gen))
    first[rows, step - 1], second[rows, step - 1] = below, 9 - below
    pairs = torch.stack([table[torch.randint(len(table), (count,), generator=gen)] for table in FIXED_CARRY])
    first[rows, step - 2], second[rows, step - 2] = pairs[carry, rows].unbind(dim=1)
    # Under the partner's label: the result of editing the place's own digit (cell 0), or the same digit (cell 3).
    wanted = digit + torch.where(cell == 0, _edit(digit), 0)
    if nonaligned:
        first[rows, partner] = wanted
    else:
        target = (wanted + addend) % 10
        value = torch.arange(10).expand(count, 10)
        leads_second = tops[1].unsqueeze(1).bool() & (value == target.unsqueeze(1))
        one, _ = one_of((value >= tops[0].unsqueeze(1)) & ~leads_second, gen)
        first[rows, partner], second[rows, partner] = one, (target - one) % 10
    # The bystanders' digits differ, so that a swap of their labels changes the digits under both.
    u, v = bystanders
    under_u, under_v = (first[rows, at] + (0 if nonaligned else second[rows, at]) for at in (u, v))
    same = (under_u - under_v) % 10 == 0
    first[rows, v] += torch.where(same, _edit(first[rows, v]), 0)
    return first, second


def _edit(digit: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Return what `counterfactual.flip_input` adds to a digit: 1, or -1 for a 9."""
    return torch.where(digit == 9, -1, 1)


def _draw(low: Int[Tensor, " batch"], high: int, gen: torch.Generator) -> Int[Tensor, " batch"]:
    """Draw uniform integers from each row's `low` to `high` - 1."""
    return low + (torch.rand(len(low), generator=gen) * (high - low)).long()
