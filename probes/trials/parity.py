"""On which prompts and steps are the interventions made, and what would each answer be under each mechanism?

A trial is a prompt, the step that is read, and four other steps: a partner before it whose label can be traded,
an earlier step between the two whose input can be edited, a later one, and two bystanders. Interventions of
different arms share their trials, so that they can act together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.tasks import LABEL_ROLES, Batch, Role, counterfactual, parity
from interp.tasks.layout import generator

# Fewest bits, and fewest digits of each operand: `probes.trials.addition` needs two more places below the step.
SHORTEST = 5
SHORTEST_SUM = 6
# Prompts drawn for each one that is wanted: at length 5 about one in five has the steps that are needed.
OVERSAMPLE = 12
CELLS = (0, 1, 2, 3)
# Where both answer maps of a trade agree that the answer changes.
BOTH_DIFFER = 2
# Effects in the four cells of `Trials`, weighted so that whatever is found under a label counts once: its bit
# changes the answer in cells 0 and 2, the state stored with it in 1 and 2, the state before it in 0 and 1, and what
# changes it in cell 3 too follows nothing (a model that reads by index and breaks where labels do not agree).
EACH_MAP_ONCE = (0.5, 0.5, 0.5, -1.5)
# Addition has cells 0 and 3 alone: digits are all that is found under a label.
DIGITS_ONCE = (1.0, -1.0)


@dataclass(frozen=True, eq=False)
class Trials:
    """Prompts of parity or addition with the steps that the interventions use, all `[batch]` and 1-based.

    Parity: `partner < earlier < step < later`; `bystanders` hold different bits and come before `step`. Addition
    (`probes.trials.addition`): steps are places, and the order is `earlier < step < later`.
    `cell` says where trading labels of `step` and `partner` changes the answer (science 2.1: two answer maps):
    0: the bit differs and the stored state does not; 1: the state differs and the bit does not; 2: both differ;
    3: neither does, so that what a trade changes there, it changes whatever stands under the labels.
    `answer` and `other` are token ids: the answer, and the one under every intervention that changes it.
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
        """Number of each trial's cell among the cells that there are, from 0."""
        return self.cell.unique(return_inverse=True)[1]

    @property
    def weights(self) -> tuple[float, ...]:
        """What each stratum's effect counts in rho, so that whatever is found under a label counts once."""
        return DIGITS_ONCE if self.batch.format.task == "addition" else EACH_MAP_ONCE

    @property
    def all_differ(self) -> Bool[Tensor, " batch"]:
        """Trials in which a trade of labels changes the answer by every answer map: cell 2, in addition cell 0."""
        return self.cell == (0 if self.batch.format.task == "addition" else BOTH_DIFFER)

    def rows(self, index: Int[Tensor, " rows"] | Bool[Tensor, " batch"]) -> Trials:
        """Some of the trials."""
        tensors = ("step", "partner", "earlier", "later", "cell", "answer", "other")
        first, second = self.bystanders
        picked = {name: getattr(self, name)[index] for name in tensors}
        return Trials(batch=self.batch.rows(index), bystanders=(first[index], second[index]), **picked)

    @property
    def swapped_inputs(self) -> Batch:
        """M1: the input labels of `step` and `partner` trade places."""
        return counterfactual.swap_labels(self.batch, self.step, self.partner, role=Role.INPUT_LABEL)

    @property
    def swapped_outputs(self) -> Batch:
        """M2: the same on the output side."""
        return counterfactual.swap_labels(self.batch, self.step, self.partner, role=Role.OUTPUT_LABEL)

    def swapped_bystanders(self, role: Role) -> Batch:
        """The matched control of both: two labels that the step does not use trade places."""
        return counterfactual.swap_labels(self.batch, *self.bystanders, role=role)

    @property
    def edited(self) -> Batch:
        """The ordinary prompt whose true answer is the other one: the step's own bit (first digit) is another."""
        return counterfactual.flip_input(self.batch, self.step)

    @property
    def other_history(self) -> Batch:
        """M5: an earlier bit (a lower digit, and with it the carry) is another, the written scratchpad is kept."""
        return counterfactual.flip_input(self.batch, self.earlier)

    @property
    def other_future(self) -> Batch:
        """The matched control of M5: a later bit (a higher digit) is another."""
        return counterfactual.flip_input(self.batch, self.later)

    @property
    def labels(self) -> Bool[Tensor, "batch pos"]:
        """Label positions but for the step's own output label (both that it cites in non-aligned addition)."""
        labels = torch.isin(self.batch.role, torch.tensor(LABEL_ROLES))
        own = (self.batch.role == Role.OUTPUT_LABEL) & (self.batch.step == self.step.unsqueeze(1))
        return labels & ~own

    def positions(self, role: Role, steps: Sequence[Int[Tensor, " batch"]]) -> Bool[Tensor, "batch pos"]:
        """Positions of a role that belong to any of the given steps of each prompt."""
        own = torch.stack([self.batch.step == s.unsqueeze(1) for s in steps]).any(dim=0)
        return (self.batch.role == role) & own


def refuse(batch: Batch) -> str | None:
    """Why labels cannot be tested on a format at all; None where they can."""
    fmt = batch.format
    if fmt.task not in ("parity", "addition"):
        return f"{fmt} is neither parity nor addition: no counterfactual answers are defined for it"
    if not fmt.labels:
        return f"{fmt} has no labels, so there is no mnemonic to test"
    if "direct" in fmt.name:
        return f"{fmt} has no output steps"
    return None


def refuse_address(batch: Batch) -> str | None:
    """Why labels cannot be addresses on a format: they repeat within a prompt. None where they can."""
    symbols = batch.format.fixed_labels(batch.length) if isinstance(batch.length, int) else ()
    if len(set(symbols)) < len(symbols):
        return f"{batch.format} repeats labels within a prompt, so none of them is an address"
    return None


def choose(batch: Batch, seed: int, size: int | None = None, cells: Sequence[int] = CELLS) -> Trials:
    """Random trials of parity, as many in each of `cells`, about `size`; prompts without such steps are left out.

    Raises `ValueError` for a format or length on which the interventions cannot be made, or when a cell is empty.
    """
    if reason := refuse(batch):
        raise ValueError(reason)
    if batch.format.task != "parity":
        raise ValueError(f"{batch.format} is not parity; for addition there is probes.trials.addition.choose_sums")
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
    # The cells in turn: as many prompts aim at each, and take another if need be.
    count = len(cells)
    turn = (torch.arange(len(batch)).unsqueeze(0) + torch.arange(count).unsqueeze(1)) % count
    aims = torch.where(possible, turn, count).min(dim=0)
    chosen, good = aims.indices, aims.values < count
    partner, _ = one_of(kinds[chosen, torch.arange(len(batch))] & partners, gen)
    cell = torch.tensor(list(cells))[chosen]
    earlier, _ = one_of((number > partner.unsqueeze(1)) & (number < step.unsqueeze(1)), gen)
    later, _ = one_of(number > step.unsqueeze(1), gen)
    free = (number < step.unsqueeze(1)) & (number != partner.unsqueeze(1))
    pairs = free.unsqueeze(1) & free.unsqueeze(2) & (bits.unsqueeze(1) != bits.unsqueeze(2))
    pair, has_pair = one_of(pairs.flatten(1), gen)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    answer = state.gather(1, step.unsqueeze(1)).squeeze(1)
    found = Trials(
        batch,
        step + 1,
        partner + 1,
        earlier + 1,
        later + 1,
        (pair // n + 1, pair % n + 1),
        cell,
        symbols[answer],
        symbols[1 - answer],
    ).rows(good & has_pair)
    return _balanced(found, size, cells)


def shortest_of(task: str) -> int:
    """The fewest bits or digits at which there is a step with all the others that a trial needs."""
    return SHORTEST_SUM if task == "addition" else SHORTEST


def check_shortest(length: int | tuple[int, int], task: str = "parity") -> None:
    """Raises `ValueError` for a length at which there is no step with all the others that a trial needs."""
    least = shortest_of(task)
    if (length if isinstance(length, int) else min(length)) < least:
        raise ValueError(f"a length of at least {least} is needed to choose a step and the others; got {length}")


def _balanced(trials: Trials, size: int | None, cells: Sequence[int]) -> Trials:
    """As many trials of each cell, in their order."""
    members = [(trials.cell == c).nonzero().flatten() for c in cells]
    each = min(len(m) for m in members)
    each = each if size is None else min(each, -(-size // len(cells)))
    if each < 2:
        raise ValueError(
            f"too few prompts have the steps that are needed at length {trials.length}; ask for more prompts"
        )
    return trials.rows(torch.cat([m[:each] for m in members]).sort().values)


def one_of(
    allowed: Bool[Tensor, "batch choice"], gen: torch.Generator
) -> tuple[Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """A uniformly random allowed choice in each row, and whether there is one."""
    noise = torch.rand(allowed.shape, generator=gen)
    return torch.where(allowed, noise, -1.0).argmax(dim=1), allowed.any(dim=1)
