"""M9, pairs: base and source prompts for interchange interventions on the pointer and on the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.das import Pairs
from interp.tasks import Batch, Role, counterfactual, parity
from interp.tasks.layout import generator

Variable = Literal["pointer", "state"]
VARIABLES: tuple[Variable, ...] = get_args(Variable)
SHORTEST = 4
INPUT_SIDE = (Role.INPUT, Role.INPUT_LABEL)


@dataclass(frozen=True)
class ResidualSite:
    """The residual before a layer, at the position of a role `shift` steps after the step that is read."""

    layer: int
    role: Role
    shift: int = 0

    def __str__(self) -> str:
        step = f"i{self.shift:+d}" if self.shift else "i"
        return f"resid_pre {self.layer} at {self.role.words} {step}"


def length_of(batch: Batch) -> int:
    """Return the number of bits of a parity batch."""
    assert isinstance(batch.length, int)
    return batch.length


def pairs_for(variable: Variable, batch: Batch, site: ResidualSite, seed: int) -> Pairs:
    """Return pairs for interchange at a random step i of each prompt; about half of the answers should change.

    pointer: the source has other bits, and the labels of i and of a random j are swapped, on the side of the site's
    role (j after i on the output side). The base should answer p_(i-1) XOR b_j, with its own bits. Other bits prevent
    that a retrieved value counts as a pointer. On the input side the site is at both i and j.
    state: the source has other bits before the site's step and the same written scratchpad. The answer should change
    where their parity differs. Where it does not, the history still differs.

    Raises `ValueError` for another variable, a format that is not parity with labels and steps, a pointer where
    labels repeat, a length that is too short, and a site that does not precede the answer.
    """
    return pairs_and_control_targets(variable, batch, site, seed)[0]


def pairs_and_control_targets(
    variable: Variable, batch: Batch, site: ResidualSite, seed: int
) -> tuple[Pairs, Int[Tensor, " pair"]]:
    """Return the pairs, and the targets by a matched control variable.

    The control of the pointer is a step that no label names; that of the state is the parity of a random subset of
    the history. Raises `ValueError` as `pairs_for`.
    """
    if variable not in VARIABLES:
        raise ValueError(f"variables are {', '.join(VARIABLES)}; got {variable!r}")
    if batch.format.task != "parity" or not batch.format.labels:
        raise ValueError(f"subspaces need a parity format with labels; got {batch.format}")
    content = parity.read(batch)
    bits, n = content.bits, content.bits.shape[1]
    if n < SHORTEST:
        raise ValueError(f"a length of at least {SHORTEST} is needed; got {n}")
    gen = generator(seed)
    first, last = max(1, 3 - site.shift), min(n, n - site.shift)
    step = torch.randint(first, last + 1, (len(batch),), generator=gen)  # 1-based
    rows = torch.arange(len(batch))
    match variable:
        case "state":
            places = [step + site.shift]
            source, changed = _other_history(batch, bits, places[0], gen)
            within = torch.randint(2, (n,), generator=gen).bool()
            within[1] = ~within[0]
            flips, control_flips = (x.sum(dim=1) % 2 == 1 for x in (changed, changed & within))
        case "pointer":
            if len(set(batch.format.fixed_labels(n))) < len(batch.format.fixed_labels(n)):
                raise ValueError(f"{batch.format} repeats labels within a prompt, so none of them is a pointer")
            if site.shift or site.role not in (*INPUT_SIDE, Role.OUTPUT_LABEL):
                raise ValueError("a pointer needs a site at inputs, input labels or output labels, without a shift")
            if site.role == Role.OUTPUT_LABEL:
                step = step.clamp_max(n - 2)
            number = torch.arange(1, n + 1)
            # On the output side only labels that are not written yet: an earlier one also matches its own output.
            allowed = number > step.unsqueeze(1) if site.role == Role.OUTPUT_LABEL else number != step.unsqueeze(1)
            drawn = torch.where(allowed, torch.rand(len(batch), n, generator=gen), -1.0).topk(2, dim=1).indices + 1
            partner = drawn[:, 0]
            flips, control_flips = (bits[rows, step - 1] != bits[rows, other - 1] for other in drawn.unbind(dim=1))
            side = Role.INPUT_LABEL if site.role in INPUT_SIDE else Role.OUTPUT_LABEL
            others = counterfactual.redraw(batch, int(torch.randint(2**31, (), generator=gen)), keep="labels")
            source = counterfactual.swap_labels(others, step, partner, role=side)
            places = [step, partner] if site.role in INPUT_SIDE else [step]
    positions = torch.stack([_positions(batch, site.role)[place - 1] for place in places], dim=1).sort(dim=1).values
    answers = content.parities[rows, step - 1]
    target, control_target = (torch.where(which, 1 - answers, answers) for which in (flips, control_flips))
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    pairs = Pairs(
        base=batch,
        source=source,
        site=positions,
        answer=_positions(batch, Role.OUTPUT)[step - 1],
        target=target,
        symbols=symbols,
    )
    return pairs, control_target


def _other_history(
    batch: Batch, bits: Int[Tensor, "batch n"], until: Int[Tensor, " batch"], gen: torch.Generator
) -> tuple[Batch, Bool[Tensor, "batch n"]]:
    """Redraw the bits before the steps `until` and keep the scratchpad; return also which bits changed."""
    before = torch.arange(1, bits.shape[1] + 1) < until.unsqueeze(1)
    drawn = torch.where(before, torch.randint(2, bits.shape, generator=gen), bits)
    tokens = batch.tokens.clone()
    tokens[:, batch.at(Role.INPUT)] = batch.vocabulary.tokens(batch.format.inputs)[drawn]
    return batch.with_tokens(tokens), drawn != bits


def _positions(batch: Batch, role: Role) -> Int[Tensor, " step"]:
    """Return the last position of each step of a role, by step."""
    return torch.stack([batch.at(role, step)[-1] for step in range(1, length_of(batch) + 1)])
