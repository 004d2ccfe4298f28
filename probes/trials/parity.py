"""Trials of parity: prompts with the steps that interventions use, and the counterfactual answer of each mechanism.

A trial is a prompt, the step that is read, and other steps: a partner before it whose label can be swapped, an earlier
step between the two whose input can be edited, a later one, and two bystanders. Interventions of different arms share
their trials, so that they can be combined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.tasks import LABEL_ROLES, Batch, Role, counterfactual, parity
from interp.tasks.layout import generator
from probes.limits import check_shortest

# Prompts drawn per trial that is wanted: at length 5 about one prompt in five has the steps that a trial needs.
OVERSAMPLE = 12
CELLS = (0, 1, 2, 3)
# Cells in which the bit and the state under both labels differ, and in which neither does.
BOTH_DIFFER, NEITHER_DIFFERS = 2, 3
# Weights of the effects in the four cells of `Trials`, by which each answer map counts once. The bit under a label
# changes the answer in cells 0 and 2, the state stored with it in 1 and 2, the state before it in 0 and 1. A change in
# cell 3 follows no label: the model reads by index and fails where labels do not match.
EACH_MAP_ONCE = (0.5, 0.5, 0.5, -1.5)
# Addition has cells 0 and 3 only, because a label leads to digits only.
DIGITS_ONCE = (1.0, -1.0)


@dataclass(frozen=True, eq=False)
class Trials:
    """Prompts of parity or addition with the steps that the interventions use, all `[batch]` and 1-based.

    Parity: `partner < earlier < step < later`; `bystanders` have different bits and precede `step`. Addition
    (`probes.trials.addition`): steps are places, and the order is `earlier < step < later`.
    `cell` gives the differences between `step` and `partner`, by which a swap of their labels changes the answer:
    0: the bit differs and the stored state does not; 1: the state differs and the bit does not; 2: both differ;
    3: neither differs, so that a change there does not follow the label.
    `answer` and `other` are token ids: the answer, and the answer under every intervention that changes it.
    """

    batch: Batch
    step: Int[Tensor, " batch"]
    partner: Int[Tensor, " batch"]
    earlier: Int[Tensor, " batch"]
    later: Int[Tensor, " batch"]
    bystanders: tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]
    cell: Int[Tensor, " batch"]
    answer: Int[Tensor, " batch"]
    other: Int[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def length(self) -> int:
        """Bits, or digits of the longer operand."""
        return self.batch.length if isinstance(self.batch.length, int) else max(self.batch.length)

    @property
    def strata(self) -> Int[Tensor, " batch"]:
        """The index of each trial's cell among the cells that occur, from 0."""
        return self.cell.unique(return_inverse=True)[1]

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each stratum's effect in rho, by which each answer map counts once."""
        return DIGITS_ONCE if self.batch.format.task == "addition" else EACH_MAP_ONCE

    @property
    def all_differ(self) -> Bool[Tensor, " batch"]:
        """Trials in which a swap of labels changes the answer by every answer map: cell 2, in addition cell 0."""
        return self.cell == (0 if self.batch.format.task == "addition" else BOTH_DIFFER)

    def rows(self, index: Int[Tensor, " rows"] | Bool[Tensor, " batch"]) -> Trials:
        """Return some of the trials."""
        tensors = ("step", "partner", "earlier", "later", "cell", "answer", "other")
        first, second = self.bystanders
        picked = {name: getattr(self, name)[index] for name in tensors}
        return Trials(batch=self.batch.rows(index), bystanders=(first[index], second[index]), **picked)

    @property
    def swapped_inputs(self) -> Batch:
        """M1: the input labels of `step` and `partner` are swapped."""
        return counterfactual.swap_labels(self.batch, self.step, self.partner, role=Role.INPUT_LABEL)

    @property
    def swapped_outputs(self) -> Batch:
        """M2: the output labels of `step` and `partner` are swapped."""
        return counterfactual.swap_labels(self.batch, self.step, self.partner, role=Role.OUTPUT_LABEL)

    def swapped_bystanders(self, role: Role) -> Batch:
        """Return the matched control of M1 or M2: the labels of the two bystanders are swapped."""
        return counterfactual.swap_labels(self.batch, *self.bystanders, role=role)

    @property
    def edited(self) -> Batch:
        """The reference edit: the step's own bit (first digit) is changed, so that the true answer is `other`."""
        return counterfactual.flip_input(self.batch, self.step)

    @property
    def other_history(self) -> Batch:
        """M5: an earlier bit (a lower digit, and with it the carry) is changed; the written scratchpad is kept."""
        return counterfactual.flip_input(self.batch, self.earlier)

    @property
    def other_future(self) -> Batch:
        """The matched control of M5: a later bit (a higher digit) is changed."""
        return counterfactual.flip_input(self.batch, self.later)

    @property
    def labels(self) -> Bool[Tensor, "batch pos"]:
        """Label positions except the step's own output label (both that it cites in non-aligned addition).

        The label at which the answer is predicted, where that is another one, is left out too: it holds what it has
        just read.
        """
        return labels_to_patch(self.batch, self.step)

    def positions(self, role: Role, steps: Sequence[Int[Tensor, " batch"]]) -> Bool[Tensor, "batch pos"]:
        """Return the positions of a role that belong to any of the given steps of each prompt."""
        of_steps = torch.stack([self.batch.step == s.unsqueeze(1) for s in steps]).any(dim=0)
        return (self.batch.role == role) & of_steps


def refuse(batch: Batch) -> str | None:
    """Return why labels cannot be tested on a format; None where they can."""
    fmt = batch.format
    if fmt.task not in ("parity", "addition"):
        return f"{fmt} is neither parity nor addition: no counterfactual answers are defined for it"
    if not fmt.labels:
        return f"{fmt} has no labels, so there is no mnemonic to test"
    if "direct" in fmt.name:
        return f"{fmt} has no output steps"
    return None


def refuse_address(batch: Batch) -> str | None:
    """Return why labels of a format cannot be addresses (they repeat within a prompt); None where they can."""
    symbols = batch.format.fixed_labels(batch.length) if isinstance(batch.length, int) else ()
    if len(set(symbols)) < len(symbols):
        return f"{batch.format} repeats labels within a prompt, so none of them is an address"
    return None


def choose(batch: Batch, seed: int, size: int | None = None, cells: Sequence[int] = CELLS) -> Trials:
    """Choose about `size` random trials of parity, equally many per cell; prompts without suitable steps are left out.

    Raises `ValueError` for a format or length that does not allow the interventions, and for an empty cell.
    """
    if reason := refuse(batch):
        raise ValueError(reason)
    if batch.format.task != "parity":
        raise ValueError(f"{batch.format} is not parity; for addition use probes.trials.addition.choose_sums")
    check_shortest(batch.length)
    gen = generator(seed)
    content = parity.read(batch)
    bits, n = content.bits, content.bits.shape[1]
    state = content.parities
    # Step i, partner j and earlier k with j < k < i; zero-based, so that i runs to the last but one.
    step = torch.randint(3, n - 1, (len(batch),), generator=gen)
    number = torch.arange(n)
    partners = number < (step - 1).unsqueeze(1)
    bit_differs, state_differs = (x != x.gather(1, step.unsqueeze(1)) for x in (bits, state))
    kinds = torch.stack(
        [
            bit_differs & ~state_differs,
            ~bit_differs & state_differs,
            bit_differs & state_differs,
            ~bit_differs & ~state_differs,
        ]
    )[list(cells)]
    possible = (kinds & partners).any(dim=-1)  # [cell batch]
    # Equally many prompts aim at each cell; a prompt without a partner for its cell takes the next possible one.
    count = len(cells)
    turn = (torch.arange(len(batch)).unsqueeze(0) + torch.arange(count).unsqueeze(1)) % count
    aims = torch.where(possible, turn, count).min(dim=0)
    chosen, possible_cell = aims.indices, aims.values < count
    partner, _ = one_of(kinds[chosen, torch.arange(len(batch))] & partners, gen)
    cell = torch.tensor(list(cells))[chosen]
    earlier, _ = one_of((number > partner.unsqueeze(1)) & (number < step.unsqueeze(1)), gen)
    later, _ = one_of(number > step.unsqueeze(1), gen)
    free = (number < step.unsqueeze(1)) & (number != partner.unsqueeze(1))
    pairs = free.unsqueeze(1) & free.unsqueeze(2) & (bits.unsqueeze(1) != bits.unsqueeze(2))
    pair, has_pair = one_of(pairs.flatten(1), gen)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    answer = state.gather(1, step.unsqueeze(1)).squeeze(1)
    trials = Trials(
        batch=batch,
        step=step + 1,
        partner=partner + 1,
        earlier=earlier + 1,
        later=later + 1,
        bystanders=(pair // n + 1, pair % n + 1),
        cell=cell,
        answer=symbols[answer],
        other=symbols[1 - answer],
    )
    rows = balanced(cell, possible_cell & has_pair, size, cells)
    if not len(rows):
        raise ValueError(
            f"too few prompts have the steps that a trial needs at length {trials.length}; ask for more prompts"
        )
    return trials.rows(rows)


def labels_to_patch(
    batch: Batch, step: Int[Tensor, " batch"], roles: tuple[Role, ...] = LABEL_ROLES
) -> Bool[Tensor, "batch pos"]:
    """Return label positions except the step's own output label and the position that predicts the answer."""
    predicting = (batch.at(Role.OUTPUT)[step - 1] - 1).unsqueeze(1)
    own = (batch.role == Role.OUTPUT_LABEL) & (batch.step == step.unsqueeze(1))
    return torch.isin(batch.role, torch.tensor(roles)) & ~own & (torch.arange(batch.n_pos) != predicting)


def steps_read(task: str, length: int | tuple[int, int]) -> tuple[int, int]:
    """Return the first and last step that trials can read, 1-based.

    >>> steps_read("parity", 20)
    (4, 19)
    """
    n = length if isinstance(length, int) else min(length)
    return (3, n - 1) if task == "addition" else (4, n - 1)


def balanced(
    cell: Int[Tensor, " batch"], allowed: Bool[Tensor, " batch"], size: int | None, cells: Sequence[int]
) -> Int[Tensor, " rows"]:
    """Return the rows of equally many allowed trials per cell, about `size` of them; none if a cell has under two."""
    members = [((cell == c) & allowed).nonzero().flatten() for c in cells]
    each = min(len(m) for m in members)
    each = each if size is None else min(each, -(-size // len(cells)))
    return torch.cat([m[:each] for m in members]).sort().values if each >= 2 else torch.tensor([], dtype=torch.long)


def one_of(
    allowed: Bool[Tensor, "batch choice"], gen: torch.Generator
) -> tuple[Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Draw one allowed choice per row uniformly; return it and whether there is one."""
    noise = torch.rand(allowed.shape, generator=gen)
    return torch.where(allowed, noise, -1.0).argmax(dim=1), allowed.any(dim=1)
