"""M9, scores: how often answers follow an interchange and stay where they should, and the results of a search."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.das import Basis, Joined, Pairs, swapped_answers
from probes.arms.m09_pairs import Variable
from probes.evidence import PROMPTS, Interval
from probes.intervals import wilson


@dataclass(frozen=True)
class InterchangeScore:
    """The effect of an interchange on answers, where they should change and where they should not.

    `follows` is IIA: how often the answer is the counterfactual one, over pairs where that differs from the original.
    `keeps` is how often the answer stays, over the other pairs. `effect` is follows + keeps - 1: 0 for an interchange
    that does nothing and for one that scrambles, 1 for one that changes this variable only.
    """

    follows: Interval
    keeps: Interval
    effect: Interval


@dataclass(frozen=True)
class Subspace:
    """The result of DAS at a site with `rank` directions, with its controls.

    `held_out` and `longer`: other prompts, at the length of the search and at another. `whole`: interchange of the
    whole residual. `placebo`: as many random directions, moved as far. `untrained`: the same search on a model with
    random weights. `fitted` and `arbitrary`: the share of training pairs whose target is reached, for the causal
    model's targets and for arbitrary ones (what expressivity alone can fit). `read` and `unread`: interchange of only
    the part of the directions that downstream weights read, or only the rest; `unread_part` is the rest's share of
    the directions' squared length. An effect that `read` does not have is an illusion. `answers`: how often the base
    prompts are answered correctly; where it is low, the other numbers mean little. `rival`: the same answers scored
    by a matched control variable (the pointer to a step that no label names; the parity of a random subset of the
    history). An interchange that only makes the model read some other slot has as much effect there. `untrained` and
    `arbitrary` are None where they were not requested, and for all but the largest rank.
    """

    variable: Variable
    site: str
    rank: int
    length: int
    longer_length: int | None
    answers: float
    held_out: InterchangeScore
    longer: InterchangeScore | None
    whole: InterchangeScore
    placebo: InterchangeScore
    untrained: InterchangeScore | None
    fitted: float
    arbitrary: float | None
    read: InterchangeScore
    unread: InterchangeScore
    unread_part: float
    rival: InterchangeScore
    n: int
    unit: str = PROMPTS

    def to_json(self) -> dict:
        """Return a nested plain dictionary."""
        return asdict(self)


def own_answers(pairs: Pairs) -> Int[Tensor, " pair"]:
    """Return the answers of the base prompts, as indices into `symbols`."""
    written = pairs.base.tokens[torch.arange(len(pairs)), pairs.answer]
    return (written.unsqueeze(1) == pairs.symbols).long().argmax(dim=1)


def score(joined: Joined, basis: Basis, level: float, placebo: Basis | None = None) -> InterchangeScore:
    """Return the score of an interchange of the directions of `basis`; `placebo` moves along other directions as far.

    Raises `ValueError` where the answer should change in all pairs or in none.
    """
    return score_of(swapped_answers(joined, basis, placebo), joined.pairs, joined.pairs.target, level)


def score_of(
    logits: Float[Tensor, "pair symbol"], pairs: Pairs, target: Int[Tensor, " pair"], level: float
) -> InterchangeScore:
    """Return the score of an interchange from the logits after it, for the pairs' targets or other ones.

    Raises `ValueError` as `score`.
    """
    reached, flips = logits.argmax(dim=1) == target, target != own_answers(pairs)
    if flips.all() or not flips.any():
        raise ValueError("the answer should change in all pairs or in none; ask for more prompts")
    follows, keeps = (wilson(int(reached[which].sum()), int(which.sum()), level) for which in (flips, ~flips))
    value = follows.value + keeps.value - 1
    # Newcombe's square-and-add interval, for two proportions of different pairs.
    below = ((follows.value - follows.low) ** 2 + (keeps.value - keeps.low) ** 2) ** 0.5
    above = ((follows.high - follows.value) ** 2 + (keeps.high - keeps.value) ** 2) ** 0.5
    return InterchangeScore(follows, keeps, Interval(value, value - below, value + above))
