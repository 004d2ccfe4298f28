"""Distributed alignment search (DAS; Geiger et al. 2303.02536): directions that carry one variable.

TransformerLens's interchange interventions and `fit_das`, on the part of a model after the site. Only positions from
the site to the answer are computed, on keys and values of the unpatched run, which costs a small part of full forward
passes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import require_gradients
from interp.joining import Joined, frozen, join, join_each, join_layers, join_to_test
from interp.models.resolve import AnyModel, raw_of
from interp.pair_runs import CHUNK, CPU_TOKENS
from interp.pairs import Pairs, require_targets
from interp.support.finite import require_finite
from interp.support.locks import lock_of
from interp.tasks.layout import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Basis",
    "Joined",
    "Pairs",
    "arbitrary_targets",
    "everything",
    "fit",
    "fit_each",
    "join",
    "join_each",
    "join_layers",
    "join_to_test",
    "random_directions",
    "swapped_answers",
    "untrained",
]

Basis = Float[Tensor, "site rank"]
# Largest difference of the directions' inner products from those of orthonormal ones; QR in float32 gives 1e-6.
ORTHONORMAL = 1e-3


def fit(
    joined: Joined,
    rank: int,
    seed: int = 0,
    targets: Int[Tensor, " pair"] | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-2,
) -> Basis:
    """Return orthonormal directions whose interchange gives the pairs' targets, learned by TransformerLens's `fit_das`.

    `targets` replaces the pairs' own, for controls. `lr` and `epochs` are those of the search. Raises `ValueError` for
    a rank below 1 or above the site's size, and for targets that are no symbol's index.
    """
    from transformer_lens.tools.analysis.interchange import fit_das

    require_gradients("fit")
    _check_rank(joined, rank)
    if targets is not None:
        require_targets(targets, len(joined.pairs.symbols))
    n = len(joined.pairs)
    rows = torch.arange(n)
    targets = joined.pairs.target if targets is None else targets
    raw = joined.tail.anatomy.raw
    with lock_of(raw), frozen(raw):
        learned = fit_das(
            joined.tail,
            "site",
            rows,
            rows + n,
            targets,
            joined.tail,
            rank=rank,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=joined.source.device,
        )
    return learned.basis.cpu()


def fit_each(
    joined: Joined,
    rank: int,
    seed: int,
    each: Sequence[Int[Tensor, " pair"]],
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-2,
) -> list[Basis]:
    """Return `fit` for each of several targets, up to rounding.

    The searches draw the same batches, so that their rows pass through the model together. Products of matrices round
    rows of batches of some tens as those of twice as many: such searches are `fit`'s to the last digit.
    """
    from transformer_lens.tools.analysis.interchange import LearnedSubspace, SubspaceInterchange, run_with_intervention

    if len(each) == 1:
        return [fit(joined, rank, seed, each[0], epochs, batch_size, lr)]
    require_gradients("fit_each")
    _check_rank(joined, rank)
    raw, order, n = joined.tail.anatomy.raw, np.random.default_rng(seed), len(joined.pairs)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        first = LearnedSubspace(joined.size, rank)
    subspaces: list[Any] = [copy.deepcopy(first).to(joined.source.device) for _ in each]
    optimizer = torch.optim.Adam([p for subspace in subspaces for p in subspace.parameters()], lr=lr)

    def moved(base: Tensor, source: Tensor) -> Tensor:
        parts = zip(subspaces, base.chunk(len(each)), source.chunk(len(each)), strict=True)
        return torch.cat([SubspaceInterchange(subspace)(x, y) for subspace, x, y in parts])

    with lock_of(raw), frozen(raw):
        for _ in range(epochs):
            for rows in torch.as_tensor(order.permutation(n)).split(batch_size):
                optimizer.zero_grad()
                together, targets = rows.repeat(len(each)), torch.cat([x[rows] for x in each])
                source = joined.source[together.to(joined.source.device)]
                logits = run_with_intervention(joined.tail, "site", moved, together, source, joined.tail)
                loss = F.cross_entropy(logits, targets.to(logits.device), reduction="sum") / len(rows)
                loss.backward()
                optimizer.step()
    return [subspace.basis.detach().cpu() for subspace in subspaces]


def random_directions(joined: Joined, rank: int, seed: int) -> Basis:
    """Return random orthonormal directions at the site (TransformerLens's `random_basis`)."""
    from transformer_lens.tools.analysis.interchange import random_basis

    _check_rank(joined, rank)
    return random_basis(joined.size, rank, seed)


def arbitrary_targets(pairs: Pairs, seed: int) -> Int[Tensor, " pair"]:
    """Return a pseudo-random target per source prompt, the control for what DAS fits by its expressivity."""
    from transformer_lens.tools.analysis import interchange

    keys = [tuple(row) for row in torch.cat([pairs.source.tokens, pairs.site], dim=1).tolist()]
    return interchange.arbitrary_targets(keys, len(pairs.symbols), seed)


def swapped_answers(joined: Joined, basis: Basis | None, placebo: Basis | None = None) -> Float[Tensor, "pair symbol"]:
    """Return the logits of the symbols after the interchange inside `basis`; for None, those of the base prompts.

    With `placebo`, each base is changed by the same norm as by `basis`, but inside the placebo's directions. Raises
    `ValueError` for directions that are not orthonormal, or of another site.
    """
    from transformer_lens.tools.analysis.interchange import NormMatchedPlacebo, SubspaceInterchange, intervened_logits

    size, tail, swapped = joined.size, joined.tail, joined.answers.cpu().clone()
    if basis is None:
        return swapped
    for directions in (basis, placebo):
        if directions is not None:
            _check_basis(directions, size)
    move: Any = SubspaceInterchange(basis)
    if placebo is not None:
        move = NormMatchedPlacebo(move, placebo)
    # Where source and base have the same residual at the site, an interchange changes nothing.
    rows = (joined.source != joined.base).any(dim=1).cpu().nonzero().flatten()
    if not len(rows):
        return swapped
    # Pairs with as many positions between site and answer run together, and on a CPU so few that they fit its caches.
    spans = (joined.pairs.answer - joined.pairs.site[:, 0])[rows]
    rows = rows[spans.argsort(stable=True)]
    size = min(CHUNK, max(1, CPU_TOKENS // int(spans.max()))) if tail.anatomy.device.type == "cpu" else CHUNK
    with lock_of(tail.anatomy.raw):
        source = joined.source[rows.to(joined.source.device)]
        swapped[rows] = intervened_logits(tail, "site", move, rows, source, tail, batch_size=size)
    return require_finite(swapped, "a logit after the interchange", axis=0)


def everything(joined: Joined) -> Basis:
    """Return all directions of the site: the interchange of the whole residual."""
    return torch.eye(joined.size)


def untrained(model: AnyModel, seed: int) -> PreTrainedModel:
    """Return a model of the same class and configuration with random weights. Global random state does not change.

    TransformerLens's `random_init_bridge` needs a model with a name; ours may be in memory only.
    """
    raw: Any = raw_of(model)
    generator(seed)  # checks the seed
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the GPU too
        fresh = type(raw)(raw.config)
    return fresh.to(device=raw.device, dtype=raw.dtype).eval()


def _check_rank(joined: Joined, rank: int) -> None:
    if not 1 <= rank <= joined.size:
        raise ValueError(f"a site of {joined.size} dimensions has ranks 1 to {joined.size}; got {rank}")


def _check_basis(directions: Basis, size: int) -> None:
    if directions.ndim != 2 or directions.shape[0] != size:
        raise ValueError(f"directions at this site have {size} dimensions; got {tuple(directions.shape)}")
    gram = directions.double().T @ directions.double()
    if (gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max() > ORTHONORMAL:
        raise ValueError("directions must be orthonormal, as torch.linalg.qr makes them")
