"""Counterfactual prompts: edits that keep the layout, so that positions keep their roles and steps.

Each function returns a new `Batch`. Outputs stay as written unless the edit says that it recomputes them, so
a teacher-forced step still follows the original earlier answers.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import addition, parity
from interp.tasks.batch import LABEL_ROLES, Batch, Role
from interp.tasks.layout import draw_labels, generator
from interp.tasks.limits import MOST_POSITIONS, is_whole, shown
from interp.tasks.sampling import sample

Step = int | Int[Tensor, " batch"]


def swap_labels(batch: Batch, i: Step, j: Step, role: Role = Role.INPUT_LABEL) -> Batch:
    """Swap the labels of steps i and j on one side; bits, digits and answers stay.

    `i` and `j` are steps, one for all prompts or one per prompt (`[batch]`). A label with several positions of
    the role (both operands of an addition) is swapped at all of them. In non-aligned addition, where a step has
    one label per operand, those of the first operand are swapped. For `Role.INPUT_LABEL` this is intervention M1,
    for `Role.OUTPUT_LABEL` M2 (probes/README.md, Battery).

    Raises `ValueError` if a step has no label of that role, or if the two labels are the same token (i equals j,
    `constant`, and `cyclic` a period apart).

    >>> swap_labels(sample("parity-numeric", 1, 3, seed=0), 1, 3).text()
    '>>> 3 a 2 b 1 b === 1 a 2 b 3 a'
    """
    if role not in LABEL_ROLES:
        names = ", ".join(r.name for r in LABEL_ROLES)
        raise ValueError(f"role must be one of {names}; got {Role(role).name}")
    at = batch.at(role)
    rows = torch.arange(len(batch))
    label_i, label_j = (batch.tokens[rows, _first_positions(batch, role, s)].unsqueeze(1) for s in (i, j))
    if (label_i == label_j).any():
        raise ValueError(
            f"the labels of steps {_step_text(i)} and {_step_text(j)} are the same token in {batch.format}: "
            "there is nothing to swap"
        )
    tokens = batch.tokens.clone()
    labels = batch.tokens[:, at]
    tokens[:, at] = torch.where(labels == label_i, label_j, torch.where(labels == label_j, label_i, labels))
    return batch.with_tokens(tokens)


def reorder_labels(batch: Batch, seed: int) -> Batch:
    """Permute the input labels of each prompt at random. No prompt keeps its order.

    Bits, digits, answers and output labels stay, so step i now cites another slot. A valid prompt cites its slots in
    order; for a model that follows labels, this prompt has other addresses.
    Raises `ValueError` if a prompt has no two different input labels.

    >>> reorder_labels(sample("parity-numeric", 1, 3, seed=0), seed=1).text()
    '>>> 2 a 3 b 1 b === 1 a 2 b 3 a'
    """
    at = batch.at(Role.INPUT_LABEL)
    labels = batch.tokens[:, at]
    which = _numbered(labels)
    count = int(which.max()) + 1
    if count < 2 or (which.amax(dim=1) + 1 < count).any():
        raise ValueError(f"a prompt of {batch.format} has no two different input labels, so there is no other order")
    order = torch.rand(len(batch), count, generator=generator(seed)).argsort(dim=1)
    same = (order == torch.arange(count)).all(dim=1, keepdim=True)
    order = torch.where(same, order.roll(1, dims=1), order)
    names = torch.empty(len(batch), count, dtype=labels.dtype).scatter_(1, which, labels)
    tokens = batch.tokens.clone()
    tokens[:, at] = names.gather(1, order).gather(1, which)
    return batch.with_tokens(tokens)


def rename_labels(batch: Batch, seed: int, held_out: bool = False) -> Batch:
    """Replace each label by another one, the same at all its positions in a prompt (M3: probes/README.md, Battery).

    New labels are drawn from the label pool as the format draws them, without repeats, or with `held_out=True` from
    labels that prompts of the task never contain. A label may draw itself. Raises `ValueError` if a prompt has more
    labels than the pool.
    """
    if not batch.format.labels:
        raise ValueError(f"{batch.format} has no labels to rename")
    vocabulary = batch.vocabulary
    pool = vocabulary.held_out_pool if held_out else vocabulary.pool
    at = torch.isin(batch.role, torch.tensor(LABEL_ROLES)).nonzero().flatten()
    which = _numbered(batch.tokens[:, at])
    count = int(which.max()) + 1
    if count > len(pool):
        kind = "held-out labels" if held_out else "labels in the pool"
        raise ValueError(f"a prompt has {count} labels and there are only {len(pool)} {kind}")
    names = draw_labels(batch.format, pool, len(batch), count, generator(seed))
    tokens = batch.tokens.clone()
    tokens[:, at] = names.gather(1, which)
    return batch.with_tokens(tokens)


def flip_input(batch: Batch, step: Step, scratchpad: Literal["keep", "recompute"] = "keep", operand: int = 0) -> Batch:
    """Edit one input: flip a bit; raise a digit by one, 9 to 8 (in operand 0 or 1).

    `scratchpad="keep"` leaves the written outputs, so that under teacher forcing the correct answer of parity
    changes at this step only; `"recompute"` writes the correct outputs of the edited input.

    Raises `ValueError` if the operand has no such step, or if outputs are to be recomputed for a digit that is
    zero padding, which would change the layout.
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
                raise ValueError(f"step {_step_text(step)} of operand {operand} is padding; use scratchpad='keep'")
            return addition.write(addition.read(kept), batch.format, batch.vocabulary)
        case task:
            raise ValueError(f"outputs of {task} cannot be recomputed; use scratchpad='keep'")


def redraw(batch: Batch, seed: int, keep: Literal["", "labels", "inputs"] = "") -> Batch:
    """Return other random prompts of the same layout; `keep` keeps the labels or the inputs.

    Outputs are recomputed, so the result is a valid prompt, which can serve as a source for resample ablation.
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
        raise ValueError("the values of recall go with its labels; redraw both")
    return fresh.with_tokens(tokens)


def _numbered(labels: Int[Tensor, "batch label"]) -> Int[Tensor, "batch label"]:
    """Number the labels of each prompt in the order of their tokens; equal labels have the same number."""
    ordered, order = labels.sort(dim=1)
    rank = torch.zeros_like(labels)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long().cumsum(dim=1)
    return torch.empty_like(labels).scatter_(1, order, rank)


def _first_positions(batch: Batch, role: Role, step: Step, operand: int = 0) -> Int[Tensor, " batch"]:
    """Return, for each prompt, the first position of that role and step that belongs to the operand."""
    if not isinstance(step, Tensor) and not is_whole(step):
        raise ValueError(f"a step must be an integer, or a tensor of them; got {shown(step)}")
    steps = step if isinstance(step, Tensor) else torch.full((len(batch),), min(max(int(step), -2), MOST_POSITIONS))
    if steps.shape != (len(batch),):
        raise ValueError(f"steps must be one number or [batch]={len(batch)} of them; got {tuple(steps.shape)}")
    table = {}
    for s in set(steps.tolist()):
        positions = _of_operand(batch, role, s, operand)
        if len(positions) == 0:
            raise ValueError(f"operand {operand} has no {role.words} with step {s}")
        table[s] = int(positions[0])
    return torch.tensor([table[s] for s in steps.tolist()])


def _of_operand(batch: Batch, role: Role, step: int, operand: int) -> Int[Tensor, " found"]:
    """Return the positions of a step that belong to one operand; all of them if the operands share their labels."""
    positions = batch.at(role, step)
    if batch.format.task != "addition":
        return positions[: 0 if operand else None]
    if role in LABEL_ROLES and not batch.format.row.separate:
        return positions
    if role in (Role.INPUT, Role.INPUT_LABEL):
        return positions[(positions > batch.at(Role.SEPARATOR)[0]) == bool(operand)]
    # Non-aligned outputs cite the second operand's label before the first's.
    assert isinstance(batch.length, tuple)
    if step > batch.length[operand]:
        return positions[:0]
    return positions[:1] if operand else positions[-1:]


def _step_text(step: Step) -> str:
    return str(step) if isinstance(step, int) else "(one per prompt)"
