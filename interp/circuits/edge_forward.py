"""What does a model compute when only some edges carry this prompt, and the others carry something else?

A reader outside of the full circuit sees, along each edge that is cut, what the writer gives *instead* (in another
prompt's run, or on average); along the edges that are kept it sees what the writer computes now, in the circuit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.graph import Graph, Places
from interp.models.anatomy import Anatomy
from interp.support.budget import numbers

# Of the budget, for what the prompts of one pass hold: 256 MiB of a GiB.
SHARE = 1 / 4


@dataclass(frozen=True, eq=False)
class Passing:
    """A model, its graph, and where each position belongs."""

    anatomy: Anatomy
    graph: Graph
    places: Places

    @property
    def per_layer(self) -> int:
        """Writers that a layer has."""
        return self.anatomy.n_heads + 1

    @cached_property
    def reads(self) -> list[tuple[tuple[Tensor, Tensor], ...]]:
        """`Anatomy.input_weights` of each layer."""
        return [self.anatomy.input_weights(layer) for layer in range(len(self.anatomy.blocks))]

    @cached_property
    def writes(self) -> list[Float[Tensor, "head d_head d_model"]]:
        """`Anatomy.output_weights` of each layer."""
        return [self.anatomy.output_weights(layer) for layer in range(len(self.anatomy.blocks))]

    @cached_property
    @torch.no_grad()
    def biases(self) -> Float[Tensor, "layer d_model"]:
        """What each layer's attention adds whatever its heads do."""
        a = self.anatomy
        nothing = torch.zeros(1, a.n_heads * a.d_head, dtype=a.dtype, device=a.device)
        return torch.cat([block.out(nothing) for block in a.blocks])

    def before(self, layer: int) -> int:
        """The number of writers before a layer."""
        return 1 + layer * self.per_layer

    def readers(self, layer: int) -> slice:
        """The readers of a layer: q, k and v of its heads, and its MLP as the last."""
        each = self.anatomy.n_heads + 2 * self.anatomy.n_kv_heads + 1
        return slice(layer * each, (layer + 1) * each)

    def rows(self, n_prompts: int, copies: float = 1.0) -> Iterator[Int[Tensor, " row"]]:
        """Numbers of the prompts to run together, where each takes `copies` times what one pass holds."""
        a, n_pos = self.anatomy, self.places.n_pos
        readers = self.readers(0)
        width = (2 * len(self.graph.writers) + 2 * (readers.stop - readers.start)) * a.d_model
        each = copies * n_pos * (width + 3 * a.n_heads * n_pos)
        return iter(torch.arange(n_prompts).split(max(1, int(numbers(SHARE) // each))))

    def written(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "writer row pos d_model"]:
        """What each writer adds to the residual stream in an ordinary run."""
        return self.ordinary(tokens)[1]

    def ordinary(
        self, tokens: Int[Tensor, "row pos"]
    ) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "writer row pos d_model"]]:
        """What the logits see, and what each writer gives, when every edge is kept."""
        return self.run(tokens, None, torch.ones_like(self.graph.possible))

    @torch.no_grad()
    def run(
        self,
        tokens: Int[Tensor, "row pos"],
        instead: Float[Tensor, "writer #row pos d_model"] | None,
        kept: Bool[Tensor, "place reader writer"],
        start: int = 0,
        before: Float[Tensor, "writer row pos d_model"] | None = None,
    ) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "writer row pos d_model"]]:
        """What the logits see, and what each writer gave, when edges outside of `kept` carry `instead`.

        With `start`, writers before that layer give what they gave in an earlier run, `before`: exact where the two
        runs keep the same edges into earlier layers. Without `instead` every edge must be kept.
        """
        a, tokens = self.anatomy, tokens.to(self.anatomy.device)
        assert instead is not None or bool(kept.all()), "a cut edge must carry something"
        positions = torch.arange(tokens.shape[1], device=a.device)
        shape = (len(self.graph.writers), *tokens.shape, a.d_model)
        if before is None:
            given = torch.empty(shape, dtype=a.dtype, device=a.device)
            given[0] = a.embed(tokens)
            resid = given[0].clone()
        else:
            given = before.clone()
            resid = self.resid(given, start)
        cut = ~kept

        def seen(resid: Tensor, readers: slice, writers: int) -> Tensor | None:
            """What some readers see, `[reader row pos d_model]`; None where it is the residual as it is."""
            gone = cut[:, readers, :writers]
            if not gone.any():
                return None
            assert instead is not None
            return resid + self._mixed(instead[:writers] - given[:writers], gone)

        for layer in range(start, len(a.blocks)):
            block, first, own = a.blocks[layer], self.before(layer), self.readers(layer)
            heads = slice(first, first + a.n_heads)
            mlp = slice(own.stop - 1, own.stop)
            x = seen(resid, slice(own.start, own.stop - 1), first)
            q, k, v = block.project(resid) if x is None else self._project(layer, x)
            z = a.mix(a.pattern(block, q, k, positions, positions), v)
            given[heads] = torch.einsum("...phe,hed->h...pd", z, self.writes[layer])
            mid = resid + given[heads].sum(dim=0) + self.biases[layer]
            fed = resid if block.parallel else mid
            x = seen(fed, mlp, first if block.parallel else heads.stop)
            given[heads.stop] = block.mlp_out(fed if x is None else x[0])
            resid = mid + given[heads.stop]
        x = seen(resid, slice(len(self.graph.readers) - 1, len(self.graph.readers)), shape[0])
        return resid if x is None else x[0], given

    def resid(self, given: Float[Tensor, "writer row pos d_model"], layer: int) -> Float[Tensor, "row pos d_model"]:
        """The residual before a layer (or, after the last one, at the end), from what writers gave."""
        return given[: self.before(layer)].sum(dim=0) + self.biases[:layer].sum(dim=0)

    def _project(self, layer: int, x: Float[Tensor, "reader row pos d_model"]) -> tuple[Tensor, ...]:
        """q, k and v of heads that each see a residual of their own."""
        a = self.anatomy
        normed = a.blocks[layer].ln1(x).split((a.n_heads, a.n_kv_heads, a.n_kv_heads))
        return tuple(
            torch.einsum("h...pd,dhe->...phe", some, weight) + bias
            for some, (weight, bias) in zip(normed, self.reads[layer], strict=True)
        )

    def _mixed(
        self, change: Float[Tensor, "writer row pos d_model"], gone: Bool[Tensor, "place reader writer"]
    ) -> Float[Tensor, "reader row pos d_model"]:
        """The sum over writers whose edge is gone of how what they give changes."""
        total = change.new_zeros(gone.shape[1], *change.shape[1:])
        for place, some in enumerate(gone.to(change)):
            if some.any():
                at = (self.places.index == place).nonzero().flatten().to(change.device)
                here = change[:, :, at]
                total[:, :, at] = (some @ here.flatten(1)).unflatten(1, here.shape[1:])
        return total
