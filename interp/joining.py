"""Run the base and source prompts of pairs once, and keep what interchange at a layer needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.arguments import exclusive
from interp.models.anatomy import Anatomy, anatomy_of, tolerance_of
from interp.models.resolve import AnyModel, raw_of
from interp.pair_runs import run_bases, run_sources
from interp.pairs import Pairs
from interp.patching.editing import Place
from interp.sites import Site
from interp.support.exactness import Inexact
from interp.support.finite import require_finite

if TYPE_CHECKING:
    from interp.tail import Tail

# Pairs on which the part of the model is compared with the whole.
CHECKED = 16


@dataclass(frozen=True, eq=False)
class Joined:
    """The part of a model from resid_pre of `layer` on, with what interchange on the given pairs needs; from `join`.

    `answers`: the logits of the symbols for the base prompts, by the whole model.
    """

    tail: Tail
    pairs: Pairs
    layer: int
    answers: Float[Tensor, "pair symbol"]

    @property
    def source(self) -> Float[Tensor, "pair site"]:
        """The residual at the site in the source runs."""
        return self.tail.sources

    @property
    def base(self) -> Float[Tensor, "pair site"]:
        """The residual at the site in the base runs."""
        resid, sites = self.tail.kept["resid_pre", self.layer], self.pairs.site.to(self.source.device)
        return resid[torch.arange(len(sites), device=sites.device).unsqueeze(1), sites].flatten(1)

    @property
    def size(self) -> int:
        """Dimensions of the site: places times d_model."""
        return self.source.shape[1]


def join(model: AnyModel, layer: int, pairs: Pairs) -> Joined:
    """Run base and source prompts once, and keep what interchange at resid_pre of `layer` needs.

    Raises `ValueError` for a layer that does not exist, and `RuntimeError` if the part from `layer` on does not give
    the logits of the whole model on the first pairs.
    """
    return join_each(model, [((layer,), pairs)])[0][layer]


def join_to_test(model: AnyModel, layer: int, pairs: Pairs) -> Joined:
    """Return `join` for pairs that are only tested, which takes less time: see `join_layers`."""
    return join_each(model, [((layer,), pairs)], to_search=False)[0][layer]


def join_layers(
    model: AnyModel, layers: Collection[int], together: Sequence[Pairs], to_search: bool = True
) -> list[dict[int, Joined]]:
    """Return `join` at each of the layers, for pairs with the same base prompts: these run once for all.

    `to_search=False`, for pairs that are only tested: their runs end at the answers and the sites. A search amplifies
    the last digits of the runs that it learns from until other directions are found, so these stay as they are.
    Raises `ValueError` for pairs whose base prompts differ, and the errors of `join`.
    """
    return join_each(model, [(layers, pairs) for pairs in together], to_search)


@exclusive
@torch.no_grad()
def join_each(
    model: AnyModel, wanted: Sequence[tuple[Collection[int], Pairs]], to_search: bool = True
) -> list[dict[int, Joined]]:
    """Return `join_layers` of pairs that each have layers of their own."""
    anatomy = anatomy_of(raw_of(model))
    by_pairs, together = [sorted(set(layers)) for layers, _ in wanted], [pairs for _, pairs in wanted]
    n_layers, every = len(anatomy.blocks), sorted({layer for layers in by_pairs for layer in layers})
    if not all(by_pairs) or not set(every) <= set(range(n_layers)):
        raise ValueError(f"sites are resid_pre of layers 0 to {n_layers - 1}; got {every}")
    sites: tuple[Site, ...] = ("k", "v")
    keep: list[Place] = [(site, layer) for layer in range(every[0], n_layers) for site in sites]
    keep = [*(("resid_pre", layer) for layer in every), *keep]
    if any(pairs.base is not together[0].base for pairs in together):
        raise ValueError("pairs that are joined together must have the same base prompts")
    n_vocab = anatomy.raw.config.vocab_size
    if outside := [int(i) for pairs in together for i in pairs.symbols if not 0 <= i < n_vocab]:
        raise ValueError(f"symbol {outside[0]} is outside 0 to {n_vocab - 1}, the model's vocabulary")
    with _kernels_of_a_search(anatomy.raw, to_search):
        whole, logits = run_bases(anatomy, together, keep, to_search)
    return [
        _joined(anatomy, layers, pairs, whole, require_finite(expected, "a logit of a base prompt", axis=0), to_search)
        for layers, pairs, expected in zip(by_pairs, together, logits, strict=True)
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
        first = torch.arange(min(CHECKED, len(pairs)))
        difference = float((tail(first) - expected[first]).abs().max() / expected.std().clamp_min(1e-6))
        if not difference <= tolerance_of(anatomy.dtype):
            raise Inexact(
                f"the part from layer {layer} on differs from the whole model by {difference:.1e} of its logits' spread"
            )
        joined[layer] = Joined(tail, pairs, layer, expected)
    return joined


@contextmanager
def _kernels_of_a_search(raw: nn.Module, to_search: bool) -> Iterator[None]:
    """Compute as with gradients, whose kernels round otherwise (`interp.models.architectures.parts.tanh_gelu`)."""
    if not to_search:
        yield
        return
    with torch.enable_grad(), frozen(raw):
        yield


@contextmanager
def frozen(raw: nn.Module) -> Iterator[None]:
    """Turn off requires_grad of the weights within the block, so that a search writes no gradients to them."""
    flags = [p.requires_grad for p in raw.parameters()]
    raw.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in zip(raw.parameters(), flags, strict=True):
            p.requires_grad_(flag)
