"""M9, search: the pairs on which DAS learns and is tested, and the best of several searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.das import Basis, Joined, fit_each, join_each, swapped_answers
from interp.tasks import Batch
from probes.arms.m09_pairs import ResidualSite, Variable, pairs_and_control_targets

# Fewest prompts of a search.
FEWEST = 32
# Share of training pairs that ends a search.
SUCCESS = 0.97


@dataclass(frozen=True, eq=False)
class Prepared:
    """The pairs on which a search learns and those on which it is tested, from the prompts of `batch`.

    `control_targets`: the targets of the tested pairs by a matched control variable.
    """

    variable: Variable
    site: ResidualSite
    batch: Batch
    searched: Joined
    tested: Joined
    control_targets: Int[Tensor, " pair"]


def prepare(
    raw: PreTrainedModel, wanted: Sequence[tuple[Variable, ResidualSite]], batch: Batch, seed: int
) -> list[Prepared]:
    """Return the pairs of several searches, two thirds of the prompts to learn from; base prompts run once for all.

    Raises `ValueError` as `pairs_for`, for fewer prompts than `FEWEST`, and for a layer that does not exist.
    """
    drawn = [pairs_and_control_targets(variable, batch, site, seed) for variable, site in wanted]
    if len(batch) < FEWEST:
        raise ValueError(f"a search needs {FEWEST} prompts or more; got {len(batch)}")
    cut, joined = 2 * len(batch) // 3, []
    for rows in (torch.arange(cut), torch.arange(cut, len(batch))):
        base, some = batch.rows(rows), []
        for (_, site), (pairs, _) in zip(wanted, drawn, strict=True):
            some.append(((site.layer,), replace(pairs.rows(rows), base=base)))
        joined.append(join_each(raw, some, to_search=not joined))
    return [
        Prepared(variable, site, batch, searched[site.layer], tested[site.layer], control_targets[cut:])
        for (variable, site), (_, control_targets), searched, tested in zip(wanted, drawn, *joined, strict=True)
    ]


def search(
    joined: Joined, rank: int, each: Sequence[Int[Tensor, " pair"]], seed: int, epochs: int, attempts: int
) -> list[tuple[Basis, float]]:
    """Return, for each of several targets, the best of several searches and the share of pairs that it reaches.

    A success ends the attempts. Sharp attention gives almost no gradient from some random starts.
    """
    best: dict[int, tuple[Basis, float]] = {}
    for attempt in range(attempts):
        left = [i for i in range(len(each)) if i not in best or best[i][1] < SUCCESS]
        bases = fit_each(joined, rank, seed + attempt, [each[i] for i in left], epochs) if left else []
        for i, basis in zip(left, bases, strict=True):
            reached = float((swapped_answers(joined, basis).argmax(dim=1) == each[i]).double().mean())
            if i not in best or reached > best[i][1]:
                best[i] = basis, reached
    return [best[i] for i in range(len(each))]
