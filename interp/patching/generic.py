"""The engine for models that are run layer by layer (`GenericAnatomy`): the layers before a patch are reused.

It computes all positions, so it is slower than `interp.patching.engine`, and as exact.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models.anatomy import GenericAnatomy
from interp.patching.cells import Cell
from interp.patching.metric import Metric


@dataclass(frozen=True)
class GenericTrace:
    """Every site of one run, by site and layer, `[batch pos d_model]`."""

    tokens: Int[Tensor, "batch pos"]
    values: Mapping[tuple[str, int], Tensor]

    def site(self, site: str, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """Return a site's activations."""
        return self.values[site, layer]

    @property
    def final(self) -> Float[Tensor, "batch pos d_model"]:
        """The residual after the last layer."""
        return self.values["resid_post", max(layer for _, layer in self.values)]


def generic_trace(anatomy: GenericAnatomy, tokens: Int[Tensor, "batch pos"]) -> GenericTrace:
    """Run the model once and keep every site."""
    tokens = tokens.to(anatomy.device)
    return GenericTrace(tokens, anatomy.trace(tokens))


class GenericEngine:
    """Patches from one run (source) into another (base), both `[batch pos]` of the same layout. See `Engine`."""

    def __init__(
        self,
        anatomy: GenericAnatomy,
        base: GenericTrace,
        source: GenericTrace,
        site: str,
        metric: Metric,
        prompts: Tensor,
        cache: bool = True,
    ) -> None:
        self.anatomy, self.base, self.source, self.site, self.metric = anatomy, base, source, site, metric
        self.prompts, self.cache = prompts, cache
        self.n_layers = len(anatomy.layers)
        self.reads = metric.positions.to(anatomy.device)

    def between(self, source: GenericTrace, site: str) -> GenericEngine:
        """Return an engine with the same base and another source or site."""
        other = copy.copy(self)
        other.source, other.site = source, site
        return other

    @torch.no_grad()
    def measure(self, run: GenericTrace) -> Float[Tensor, " batch"]:
        """Return the metric of an unpatched run of these prompts."""
        return self._measure(run.final)

    def measure_both(self) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return the metric of the base and of the source."""
        return self.measure(self.base), self.measure(self.source)

    @torch.no_grad()
    def differs(self) -> Bool[Tensor, "layer head pos"]:
        """Return where source and base differ in any bit, for any prompt."""
        changed = [self.source.site(self.site, i) != self.base.site(self.site, i) for i in range(self.n_layers)]
        return torch.stack([x.any(dim=-1).any(dim=0).unsqueeze(0) for x in changed]).cpu()

    @torch.no_grad()
    def run(self, cells: Sequence[Cell], start: int) -> Float[Tensor, "cell batch"]:
        """Return the metric after each patch."""
        values: list[Tensor] = [torch.empty(0)] * len(cells)
        for layer in sorted({cell.layer for cell in cells}):
            numbers = [i for i, cell in enumerate(cells) if cell.layer == layer]
            for i, value in zip(numbers, self._run_layer(layer, [cells[i] for i in numbers]), strict=True):
                values[i] = value
        return torch.stack(values)

    queue = run

    def _run_layer(self, layer: int, cells: Sequence[Cell]) -> Float[Tensor, "cell batch"]:
        n, n_pos = len(cells), self.base.tokens.shape[1]
        mask = torch.zeros(n, 1, n_pos, 1, dtype=torch.bool)
        for row, cell in enumerate(cells):
            mask[row, 0, list(cell.positions)] = True
        mask = mask.to(self.anatomy.device)
        source, tokens = self.source.site(self.site, layer), self.base.tokens.repeat(n, 1)

        def edit(x: Float[Tensor, "row pos d_model"]) -> Tensor:
            return torch.where(mask, source, x.unflatten(0, (n, -1))).flatten(0, 1)

        rows = self.base.site("resid_post" if self.site == "resid_post" else "resid_pre", layer).repeat(n, 1, 1)
        match self.site:
            case "resid_pre":
                final = self.anatomy.run(edit(rows), layer, tokens=tokens)
            case "resid_post":
                rows = edit(rows)
                final = rows if layer == self.n_layers - 1 else self.anatomy.run(rows, layer + 1, tokens=tokens)
            case _:
                final = self.anatomy.run(rows, layer, edits={(self.site, layer): edit}, tokens=tokens)
        return self._measure(final.unflatten(0, (n, -1)))

    def _measure(self, final: Float[Tensor, "*stack pos d_model"]) -> Float[Tensor, "*stack"]:
        logits = self.anatomy.unembed(final[..., self.reads, :])
        return self.metric.measure(logits, self.prompts).double().cpu()
