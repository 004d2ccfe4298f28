"""What else could the prompt have been? Edits that keep the layout, so that positions keep their meaning.

Each returns a new `Batch` with the same roles and steps. Outputs stay as they were written unless an edit
says that it recomputes them, so a teacher-forced step still follows the original earlier answers.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import addition, parity
from interp.tasks.batch import LABEL_ROLES, Batch, Role
from interp.tasks.layout import draw_without_repeats, generator
from interp.tasks.limits import MOST_POSITIONS, is_whole, shown
from interp.tasks.sampling import sample

Step = int | Int[Tensor, " batch"]


def swap_labels(batch: Batch, i: Step, j: Step, role: Role = Role.INPUT_LABEL) -> Batch:
    """The labels of steps i and j trade places on one side; bits, digits and answers stay.

    `i` and `j` are steps, one for all prompts or one for each (`[batch]`). Where a label stands at several
    positions of the role (both operands of an addition), it is traded at all of them. In non-aligned
    addition, where a step has a label for each operand, those of the first operand are traded. For
    `Role.INPUT_LABEL` this is intervention M1 of science 2.1, for `Role.OUTPUT_LABEL` it is M2.

    Raises `ValueError` when a step has no label of that role, when i equals j, or when the two labels are
    the same token, so that there is nothing to trade (`constant`, and `cyclic` a period apart).

    >>> swap_labels(sample("parity-numeric", 1, 3, seed=0), 1, 3).text()
    '>>> 3 a 2 b 1 b === 1 a 2 b 3 a'
    """
    if role not in LABEL_ROLES:
        names = ", ".join(r.name for r in LABEL_ROLES)
        raise ValueError(f"role must be one of {names}; got {Role(role).name}")
    at = batch.at(role)
    where_i, where_j = (_first_positions(batch, role, s) for s in (i, j))
    rows = torch.arange(len(batch))
    label_i, label_j = (batch.tokens[rows, w].unsqueeze(1) for w in (where_i, where_j))
    if (label_i == label_j).any():
        raise ValueError(
            f"the labels of steps {_words(i)} and {_words(j)} are the same token in {batch.format}: "
            "there is nothing to trade"
        )
    tokens = batch.tokens.clone()
    here = batch.tokens[:, at]
    tokens[:, at] = torch.where(here == label_i, label_j, torch.where(here == label_j, label_i, here))
    return batch.with_tokens(tokens)


def reorder_labels(batch: Batch, seed: int) -> Batch:
    """The input labels of each prompt change places at random: `swap_labels` of all of them at once.

    Bits, digits, answers and output labels stay, so step i now cites another slot. Every valid prompt cites its slots
    in order; to a model that follows labels only such a prompt is one with other addresses. No prompt keeps its order.
    Raises `ValueError` where a prompt has no two different input labels.

    >>> reorder_labels(sample("parity-numeric", 1, 3, seed=0), seed=1).text()
    '>>> 2 a 3 b 1 b === 1 a 2 b 3 a'
    """
    at = batch.at(Role.INPUT_LABEL)
    here = batch.tokens[:, at]
    which = _numbered(here)
    count = int(which.max()) + 1
    if count < 2 or (which.amax(dim=1) + 1 < count).any():
        raise ValueError(f"the input labels of a prompt of {batch.format} are one and the same: no other order")
    order = torch.rand(len(batch), count, generator=generator(seed)).argsort(dim=1)
    same = (order == torch.arange(count)).all(dim=1, keepdim=True)
    order = torch.where(same, order.roll(1, dims=1), order)
    names = torch.empty(len(batch), count, dtype=here.dtype).scatter_(1, which, here)
    tokens = batch.tokens.clone()
    tokens[:, at] = names.gather(1, order).gather(1, which)
    return batch.with_tokens(tokens)


def rename_labels(batch: Batch, seed: int, held_out: bool = False) -> Batch:
    """Each label gets a new name, the same one wherever it stands in its prompt (M3 of science 2.1).

    A label may draw its own name, one time in as many as there are names. New names are drawn without
    repeats from the label pool, or with `held_out=True` from labels that no prompt of the task has ever
    contained. Raises `ValueError` when a prompt has more labels than there are names.
    """
    if not batch.format.labels:
        raise ValueError(f"{batch.format} has no labels to rename")
    vocabulary = batch.vocabulary
    pool = vocabulary.held_out_pool if held_out else vocabulary.pool
    at = torch.isin(batch.role, torch.tensor(LABEL_ROLES)).nonzero().flatten()
    here = batch.tokens[:, at]
    which = _numbered(here)
    count = int(which.max()) + 1
    if count > len(pool):
        kind = "held-out labels" if held_out else "labels in the pool"
        raise ValueError(f"a prompt has {count} labels and there are only {len(pool)} {kind}")
    names = draw_without_repeats(pool, len(batch), count, generator(seed))
    tokens = batch.tokens.clone()
    tokens[:, at] = names.gather(1, which)
    return batch.with_tokens(tokens)


def flip_input(batch: Batch, step: Step, scratchpad: Literal["keep", "recompute"] = "keep", operand: int = 0) -> Batch:
    """One input is edited: a bit is flipped; a digit goes one up, 9 to 8 (in operand 0 or 1).

    `scratchpad="keep"` leaves the written outputs, so that under teacher forcing the true answer of parity
    changes at this step alone; `"recompute"` writes the correct outputs of the edited input.

    Raises `ValueError` when the operand has no such step, or when outputs are to be recomputed for a digit
    that is zero padding: a number of more digits would be another layout.
    """
    if scratchpad not in ("keep", "recompute"):
        raise ValueError(f"scratchpad must be 'keep' or 'recompute'; got {scratchpad!r}")
    if operand not in (0, 1):
        raise ValueError(f"operand must be 0 or 1; got {operand}")
    where = _first_positions(batch, Role.INPUT, step, operand)
    symbols = batch.vocabulary.tokens(batch.format.inputs)
    rows = torch.arange(len(batch))
    value = (batch.tokens[rows, where].unsqueeze(1) == symbols).long().argmax(dim=1)
    last = len(symbols) - 1
    edited = torch.where(value == last, last - 1, value + 1)
    tokens = batch.tokens.clone()
    tokens[rows, where] = symbols[edited]
    kept = batch.with_tokens(tokens)
    if scratchpad == "keep":
        return kept
    match batch.format.task:
        case "parity":
            return parity.write(parity.read(kept), batch.format, batch.vocabulary)
        case "addition":
            assert isinstance(batch.length, tuple)
            if int(torch.as_tensor(step).max()) > batch.length[operand]:
                raise ValueError(f"step {_words(step)} of operand {operand} is padding; use scratchpad='keep'")
            return addition.write(addition.read(kept), batch.format, batch.vocabulary)
        case task:
            raise ValueError(f"outputs of {task} cannot be recomputed; use scratchpad='keep'")


def redraw(batch: Batch, seed: int, keep: Literal["", "labels", "inputs"] = "") -> Batch:
    """Other random prompts of the same layout; `keep` holds the labels or the inputs as they were.

    Outputs are recomputed, so the result is a valid prompt: the natural source for resampling.
    """
    if keep not in ("", "labels", "inputs"):
        raise ValueError(f"keep must be '', 'labels' or 'inputs'; got {keep!r}")
    if keep == "inputs":
        if batch.format.labels == "fixed":
            raise ValueError(f"labels of {batch.format} are the same in every prompt; there is nothing to redraw")
        return rename_labels(batch, seed)
    fresh = sample(batch.format, len(batch), batch.length, seed, batch.vocabulary)
    if torch.equal(fresh.tokens, batch.tokens):
        raise ValueError(f"seed {seed} draws the same prompts again; use another seed")
    if keep == "" or not batch.format.labels:
        return fresh
    tokens = fresh.tokens.clone()
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    tokens[:, labels] = batch.tokens[:, labels]
    if batch.format.task == "recall":
        raise ValueError("the values of recall belong to its labels; redraw both")
    return fresh.with_tokens(tokens)


def _numbered(labels: Int[Tensor, "batch label"]) -> Int[Tensor, "batch label"]:
    """Each prompt's labels by number, equal ones alike, in the order of their tokens."""
    ordered, order = labels.sort(dim=1)
    rank = torch.zeros_like(labels)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long().cumsum(dim=1)
    return torch.empty_like(labels).scatter_(1, order, rank)


def _first_positions(batch: Batch, role: Role, step: Step, operand: int = 0) -> Int[Tensor, " batch"]:
    """Position of each prompt's step: the first of that role and step that belongs to the operand."""
    if not isinstance(step, Tensor) and not is_whole(step):
        raise ValueError(f"a step must be an integer, or a tensor of them; got {shown(step)}")
    steps = step if isinstance(step, Tensor) else torch.full((len(batch),), min(max(int(step), -2), MOST_POSITIONS))
    if steps.shape != (len(batch),):
        raise ValueError(f"steps must be one number or [batch]={len(batch)} of them; got {tuple(steps.shape)}")
    table = {}
    for s in set(steps.tolist()):
        found = _of_operand(batch, role, s, operand)
        if len(found) == 0:
            raise ValueError(f"operand {operand} has no {role.words} with step {s}")
        table[s] = int(found[0])
    return torch.tensor([table[s] for s in steps.tolist()])


def _of_operand(batch: Batch, role: Role, step: int, operand: int) -> Int[Tensor, " found"]:
    """Positions of a step that belong to one operand; all of them where the operands share their labels."""
    found = batch.at(role, step)
    if batch.format.task != "addition":
        return found[: 0 if operand else None]
    if role in LABEL_ROLES and batch.format.name != "nonaligned":
        return found
    if role in (Role.INPUT, Role.INPUT_LABEL):
        return found[(found > batch.at(Role.SEPARATOR)[0]) == bool(operand)]
    # Non-aligned outputs cite the second operand's label before the first's.
    assert isinstance(batch.length, tuple)
    if step > batch.length[operand]:
        return found[:0]
    return found[:1] if operand else found[-1:]


def _words(step: Step) -> str:
    return str(step) if isinstance(step, int) else "(one for each prompt)"
