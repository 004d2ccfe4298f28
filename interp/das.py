"""Distributed alignment search (DAS; Geiger et al. 2303.02536): directions that carry one variable.

TransformerLens's interchange interventions and `fit_das`, on the part of a model after the site. Only positions from
the site to the answer are computed, on keys and values of the unpatched run, which costs a small part of full forward
passes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.arguments import exclusive, require_gradients
from interp.models.anatomy import TOLERANCE, Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.pair_runs import CHUNK, CPU_TOKENS, run_bases, run_sources
from interp.pairs import Pairs
from interp.patching.editing import Place
from interp.sites import Site
from interp.support.exactness import Inexact
from interp.support.finite import require_finite
from interp.support.locks import lock_of
from interp.tasks.layout import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from interp.tail import Tail

Basis = Float[Tensor, "site rank"]


@dataclass(frozen=True, eq=False)
class Joined:
    """The part of a model from resid_pre of `layer` on, with what interchange on the given pairs needs; from `join`."""

    tail: Tail
    pairs: Pairs
    layer: int

    @property
    def source(self) -> Float[Tensor, "pair site"]:
        """The residual at the site in the source runs."""
        return self.tail.sources

    @property
    def size(self) -> int:
        """Dimensions of the site: places times d_model."""
        return self.source.shape[1]


def join(model: AnyModel, layer: int, pairs: Pairs) -> Joined:
    """Run base and source prompts once, and keep what interchange at resid_pre of `layer` needs.

    Raises `ValueError` for a layer that does not exist, and `RuntimeError` if the part from `layer` on does not give
    the logits of the whole model on the first pairs.
    """
    return join_layers(model, (layer,), [pairs])[0][layer]


def join_to_test(model: AnyModel, layer: int, pairs: Pairs) -> Joined:
    """Return `join` for pairs that are only tested, which takes less time: see `join_layers`."""
    return join_layers(model, (layer,), [pairs], to_search=False)[0][layer]


@exclusive
@torch.no_grad()
def join_layers(
    model: AnyModel, layers: Collection[int], together: Sequence[Pairs], to_search: bool = True
) -> list[dict[int, Joined]]:
    """Return `join` at each of the layers, for pairs with the same base prompts: these run once for all.

    `to_search=False`, for pairs that are only tested: their runs end at the answers and the sites. A search amplifies
    the last digits of the runs that it learns from until other directions are found, so these stay as they are.
    Raises `ValueError` for pairs whose base prompts differ, and the errors of `join`.
    """
    anatomy = anatomy_of(raw_of(model))
    layers, n_layers = sorted(set(layers)), len(anatomy.blocks)
    if not layers or not set(layers) <= set(range(n_layers)):
        raise ValueError(f"sites are resid_pre of layers 0 to {n_layers - 1}; got {layers}")
    sites: tuple[Site, ...] = ("k", "v")
    keep: list[Place] = [(site, layer) for layer in range(layers[0], n_layers) for site in sites]
    keep = [*(("resid_pre", layer) for layer in layers), *keep]
    if any(pairs.base is not together[0].base for pairs in together):
        raise ValueError("pairs that are joined together must have the same base prompts")
    with _kernels_of_a_search(anatomy.raw, to_search):
        whole, logits = run_bases(anatomy, together, keep, to_search)
    return [
        _joined(anatomy, layers, pairs, whole, require_finite(expected, "a logit of a base prompt", axis=0), to_search)
        for pairs, expected in zip(together, logits, strict=True)
    ]


def _joined(
    anatomy: Anatomy,
    layers: Sequence[int],
    pairs: Pairs,
    whole: dict[Place, Tensor],
    expected: Float[Tensor, "pair symbol"],
    to_search: bool,
) -> dict[int, Joined]:
    """Run the source prompts and check that each part of the model gives the logits that the whole gave."""
    from interp.tail import Tail

    with _kernels_of_a_search(anatomy.raw, to_search):
        sources, joined = run_sources(anatomy, pairs, layers, to_search), dict[int, Joined]()
    for layer in layers:
        tail = Tail(anatomy, layer, pairs, whole, sources[layer])
        require_finite(tail.sources, "the residual of a source prompt", axis=0)
        first = torch.arange(min(CHUNK, len(pairs)))
        difference = float((tail(first) - expected[first]).abs().max() / expected.std().clamp_min(1e-6))
        if not difference <= (TOLERANCE if anatomy.dtype in (torch.float32, torch.float64) else 0.1):
            raise Inexact(
                f"the part from layer {layer} on differs from the whole model by {difference:.1e} of its logits' spread"
            )
        joined[layer] = Joined(tail, pairs, layer)
    return joined


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
    a rank below 1 or above the site's size.
    """
    from transformer_lens.tools.analysis.interchange import fit_das

    require_gradients("fit")
    _check_rank(joined, rank)
    n = len(joined.pairs)
    rows = torch.arange(n)
    targets = joined.pairs.target if targets is None else targets
    raw = joined.tail.anatomy.raw
    with lock_of(raw), _frozen(raw):
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

    With `placebo`, each base is changed by the same norm as by `basis`, but inside the placebo's directions.
    """
    from transformer_lens.tools.analysis.interchange import NormMatchedPlacebo, SubspaceInterchange, intervened_logits

    size = joined.size
    move: Any = SubspaceInterchange(torch.zeros(size, 1) if basis is None else basis)
    if basis is not None and basis.shape[0] != size:
        raise ValueError(f"directions at this site have {size} dimensions; got {tuple(basis.shape)}")
    if placebo is not None:
        move = NormMatchedPlacebo(move, placebo)
    # Pairs with as many positions between site and answer run together, and on a CPU so few that they fit its caches.
    spans, tail = joined.pairs.answer - joined.pairs.site[:, 0], joined.tail
    rows = spans.argsort(stable=True)
    size = min(CHUNK, max(1, CPU_TOKENS // int(spans.max()))) if tail.anatomy.device.type == "cpu" else CHUNK
    with lock_of(tail.anatomy.raw):
        source = joined.source[rows.to(joined.source.device)]
        logits = intervened_logits(tail, "site", move, rows, source, tail, batch_size=size)[rows.argsort()]
    return require_finite(logits, "a logit after the interchange", axis=0)


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
        torch.manual_seed(seed)
        fresh = type(raw)(raw.config)
    return fresh.to(device=raw.device, dtype=raw.dtype).eval()


def _check_rank(joined: Joined, rank: int) -> None:
    if not 1 <= rank <= joined.size:
        raise ValueError(f"a site of {joined.size} dimensions has ranks 1 to {joined.size}; got {rank}")


@contextmanager
def _kernels_of_a_search(raw: nn.Module, to_search: bool) -> Iterator[None]:
    """Compute as with gradients, whose kernels round otherwise (`interp.models.architectures.parts.tanh_gelu`)."""
    if not to_search:
        yield
        return
    with torch.enable_grad(), _frozen(raw):
        yield


@contextmanager
def _frozen(raw: nn.Module) -> Iterator[None]:
    """Turn off requires_grad of the weights within the block, so that the search writes no gradients to them."""
    flags = [p.requires_grad for p in raw.parameters()]
    raw.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in zip(raw.parameters(), flags, strict=True):
            p.requires_grad_(flag)
