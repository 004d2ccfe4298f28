"""Forward pass in which only some edges carry this prompt's values and the others carry replacement values.

Along a kept edge a reader sees what the writer computes in this pass. Along a cut edge it sees the writer's
*replacement*: its output on another prompt, a mean, or zero (`interp.circuits.ablation`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.graph import Graph
from interp.circuits.places import Places
from interp.models.anatomy import Anatomy
from interp.support.budget import numbers

# Share of the memory budget for the prompts of one pass: 256 MiB of a GiB.
SHARE = 1 / 4


@dataclass(frozen=True, eq=False)
class EdgeModel:
    """A model taken apart into writers and readers, with its graph and the place of each position."""

    anatomy: Anatomy
    graph: Graph
    places: Places

    @property
    def writers_per_layer(self) -> int:
        """Number of writers of a layer: its heads and its MLP."""
        return self.anatomy.n_heads + 1

    @cached_property
    def input_weights(self) -> list[tuple[tuple[Tensor, Tensor], ...]]:
        """`Anatomy.input_weights` of each layer."""
        return [self.anatomy.input_weights(layer) for layer in range(len(self.anatomy.blocks))]

    @cached_property
    def output_weights(self) -> list[Float[Tensor, "head d_head d_model"]]:
        """`Anatomy.output_weights` of each layer."""
        return [self.anatomy.output_weights(layer) for layer in range(len(self.anatomy.blocks))]

    @cached_property
    @torch.no_grad()
    def biases(self) -> Float[Tensor, "layer d_model"]:
        """The output bias of each layer's attention, which belongs to no head."""
        return torch.cat([self.anatomy.output_bias(layer) for layer in range(len(self.anatomy.blocks))])

    def writers_before(self, layer: int) -> int:
        """Return the number of writers before a layer."""
        return 1 + layer * self.writers_per_layer

    def readers(self, layer: int) -> slice:
        """Return the readers of a layer: q, k and v of its heads, then its MLP."""
        per_layer = self.anatomy.n_heads + 2 * self.anatomy.n_kv_heads + 1
        return slice(layer * per_layer, (layer + 1) * per_layer)

    def chunks(self, n_prompts: int, copies: float = 1.0) -> Iterator[Int[Tensor, " row"]]:
        """Iterate over the indices of prompts to run together; each prompt needs `copies` times one pass's memory."""
        a, n_pos = self.anatomy, self.places.n_pos
        readers = self.readers(0)
        width = (2 * len(self.graph.writers) + 2 * (readers.stop - readers.start)) * a.d_model
        floats = copies * n_pos * (width + 3 * a.n_heads * n_pos)
        return iter(torch.arange(n_prompts).split(max(1, int(numbers(SHARE, a.device) // floats))))

    def writer_outputs(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "writer row pos d_model"]:
        """Return what each writer adds to the residual stream when every edge is kept."""
        return self.full_run(tokens)[1]

    def full_run(
        self, tokens: Int[Tensor, "row pos"]
    ) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "writer row pos d_model"]]:
        """Return the input of the logits and the output of each writer when every edge is kept."""
        return self.forward(tokens, None, torch.ones_like(self.graph.possible))

    @torch.no_grad()
    def forward(
        self,
        tokens: Int[Tensor, "row pos"],
        replacement: Float[Tensor, "writer #row pos d_model"] | None,
        kept: Bool[Tensor, "place reader writer"],
        start: int = 0,
        before: Float[Tensor, "writer row pos d_model"] | None = None,
    ) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "writer row pos d_model"]]:
        """Return the input of the logits and the output of each writer when edges outside `kept` carry `replacement`.

        With `start`, writers before that layer keep their outputs `before` of an earlier pass. This is exact where
        both passes keep the same edges into the earlier layers. Without `replacement` every edge must be kept.
        """
        a, tokens = self.anatomy, tokens.to(self.anatomy.device)
        assert replacement is not None or bool(kept.all()), "a cut edge needs a replacement"
        positions = torch.arange(tokens.shape[1], device=a.device)
        shape = (len(self.graph.writers), *tokens.shape, a.d_model)
        if before is None:
            outputs = torch.empty(shape, dtype=a.dtype, device=a.device)
            outputs[0] = a.embed(tokens)
            resid = outputs[0].clone()
        else:
            outputs = before.clone()
            resid = self.resid_before(outputs, start)
        cut = ~kept
        # What each writer's replacement adds to its output here, filled in as the writers run.
        change = torch.empty_like(outputs)

        def ran(writers: slice) -> None:
            if replacement is not None:
                torch.sub(replacement[writers], outputs[writers], out=change[writers])

        ran(slice(self.writers_before(start)))

        def inputs(resid: Tensor, readers: slice, writers: int) -> Tensor | None:
            """Return the input of some readers, `[reader row pos d_model]`; None where it is `resid` itself."""
            cut_here = cut[:, readers, :writers]
            if not cut_here.any():
                return None
            return resid + self._sum_cut(change[:writers], cut_here)

        for layer in range(start, len(a.blocks)):
            block, first, own = a.blocks[layer], self.writers_before(layer), self.readers(layer)
            heads = slice(first, first + a.n_heads)
            mlp = slice(own.stop - 1, own.stop)
            x = inputs(resid, slice(own.start, own.stop - 1), first)
            q, k, v = block.project(resid) if x is None else self._project(layer, x)
            z = a.mix(a.pattern(block, q, k, positions, positions), v)
            outputs[heads] = torch.einsum("...phe,hed->h...pd", z, self.output_weights[layer])
            ran(heads)
            mid = resid + outputs[heads].sum(dim=0) + self.biases[layer]
            mlp_in = resid if block.parallel else mid
            x = inputs(mlp_in, mlp, first if block.parallel else heads.stop)
            outputs[heads.stop] = block.mlp_out(mlp_in if x is None else x[0])
            ran(slice(heads.stop, heads.stop + 1))
            resid = mid + outputs[heads.stop]
        x = inputs(resid, slice(len(self.graph.readers) - 1, len(self.graph.readers)), shape[0])
        return resid if x is None else x[0], outputs

    def empty(self, replacement: Float[Tensor, "writer #row pos d_model"]) -> Float[Tensor, "#row pos d_model"]:
        """Return the input of the logits when every edge is cut: what the writers' replacements add up to."""
        return self.resid_before(replacement, len(self.anatomy.blocks))

    def resid_before(
        self, outputs: Float[Tensor, "writer row pos d_model"], layer: int
    ) -> Float[Tensor, "row pos d_model"]:
        """Return the residual before a layer (or after the last one) from the outputs of writers."""
        return outputs[: self.writers_before(layer)].sum(dim=0) + self.biases[:layer].sum(dim=0)

    def _project(self, layer: int, x: Float[Tensor, "reader row pos d_model"]) -> tuple[Tensor, ...]:
        """Return q, k and v of heads that each read a residual of their own."""
        a = self.anatomy
        normed = a.blocks[layer].ln1(x).split((a.n_heads, a.n_kv_heads, a.n_kv_heads))
        return tuple(
            torch.einsum("h...pd,dhe->...phe", part, weight) + bias
            for part, (weight, bias) in zip(normed, self.input_weights[layer], strict=True)
        )

    def _sum_cut(
        self, change: Float[Tensor, "writer row pos d_model"], cut: Bool[Tensor, "place reader writer"]
    ) -> Float[Tensor, "reader row pos d_model"]:
        """Return for each reader the sum of `change` over the writers whose edge is cut."""
        if len(cut) == 1:  # of all positions
            return (cut[0].to(change) @ change.flatten(1)).unflatten(1, change.shape[1:])
        total = change.new_zeros(cut.shape[1], *change.shape[1:])
        for place, mask in enumerate(cut.to(change)):
            if mask.any():
                at = (self.places.index == place).nonzero().flatten().to(change.device)
                here = change[:, :, at]
                total[:, :, at] = (mask @ here.flatten(1)).unflatten(1, here.shape[1:])
        return total
