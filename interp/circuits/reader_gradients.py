"""Gradients of the metric at the inputs of readers: of one run, or averaged over a path between two runs."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.edge_forward import EdgeModel
from interp.patching.editing import Edit, Place, Site, forward_with_edits, measure, read_for_gradient
from interp.patching.metric import Metric
from interp.support.finite import require_finite

# Maps the fraction of the path that each prompt has covered, `[row 1 1]` from 0 to 1, to the residual that a run
# starts with and to what its first attention adds (None: what it computes).
Path = Callable[[Tensor], tuple[Tensor, Tensor | None]]
# Share of the points of a path that are spread evenly before the others go where the metric changes.
EVENLY = 0.25
# Even points suffice where the gradients along the path add up to the metric's change within this share of it.
CLOSED = 0.005
_READ: tuple[Site, ...] = ("q", "k", "v")


class ReaderGradients:
    """The metric of some prompts, and its gradient at the input of each reader."""

    def __init__(self, edge_model: EdgeModel, metric: Metric, rows: Tensor) -> None:
        self.edge_model, self.metric, self.rows = edge_model, metric, rows

    def integrated(self, n: int, layer: int, path: Path) -> Float[Tensor, "reader row pos d_model"]:
        """Return gradients averaged over the path from 0 to 1, by the midpoint rule on n intervals.

        The intervals are even, which is best on a smooth path. With sharp attention the metric changes within a small
        part of the path, which even intervals step over: then the gradients along the path do not add up to the
        metric's change. For the prompts where this is so, the rule is applied again, to intervals that are small where
        the metric changes, and the result that adds up better is kept. No prompt's result depends on another's.
        """
        rows = len(self.rows)
        ends = torch.linspace(0, 1, n + 1, dtype=torch.float64).expand(rows, -1)
        change = (self.metric_at(layer, path, ends[:, -1]) - self.metric_at(layer, path, ends[:, 0])).cpu()
        even = self._midpoints(layer, path, ends)
        gap = (self._along(layer, path, even) - change).abs()
        is_open = ~(gap <= CLOSED * change.abs())  # also where it is NaN
        if not is_open.any():
            return even
        adapted = self._midpoints(layer, path, self._ends_by_change(n, layer, path))
        better = is_open & ((self._along(layer, path, adapted) - change).abs() < gap)
        return torch.where(better.to(even.device).view(1, -1, 1, 1), adapted, even)

    def _ends_by_change(self, n: int, layer: int, path: Path) -> Float[Tensor, "row end"]:
        """Return the ends of n intervals. A quarter of them is even; after that, prompt by prompt, the interval whose
        width times change of the metric is largest is halved."""
        ends = torch.linspace(0, 1, max(1, int(n * EVENLY)) + 1, dtype=torch.float64).expand(len(self.rows), -1)
        values = torch.stack([self.metric_at(layer, path, fraction) for fraction in ends.T], dim=1)
        while ends.shape[1] <= n:
            # An interval's error to first order.
            widest = (values.diff(dim=1).abs() * ends.diff(dim=1)).argmax(dim=1, keepdim=True)
            middle = (ends.gather(1, widest) + ends.gather(1, widest + 1)) / 2
            ends, order = torch.cat([ends, middle], dim=1).sort(dim=1)
            new = self.metric_at(layer, path, middle[:, 0]).unsqueeze(1)
            values = torch.cat([values, new], dim=1).gather(1, order)
        return ends

    def _midpoints(
        self, layer: int, path: Path, ends: Float[Tensor, "row end"]
    ) -> Float[Tensor, "reader row pos d_model"]:
        """Return gradients averaged over intervals, each with the gradient in its middle."""
        total: Tensor | None = None
        for fraction, width in zip(((ends[:, 1:] + ends[:, :-1]) / 2).T, ends.diff(dim=1).T, strict=True):
            part = self.of_run(*path(self._per_row(fraction)), layer) * self._per_row(width)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _along(
        self, layer: int, path: Path, gradients: Float[Tensor, "reader row pos d_model"]
    ) -> Float[Tensor, " row"]:
        """Return the change of the metric from 0 to 1 by average gradients: those of all readers of what is moved."""
        ends = (path(self._per_row(torch.full((len(self.rows),), x, dtype=torch.float64))) for x in (0.0, 1.0))
        (start, adds), (end, more) = ends
        total = gradients.sum(dim=0)
        if adds is None or more is None:
            return (total * (end - start)).double().sum(dim=(-2, -1)).cpu()
        if self.edge_model.anatomy.blocks[layer].parallel:  # its MLP does not read what its attention adds
            total = total - gradients[self.edge_model.readers(layer)][-1]
        return (total * (more - adds)).double().sum(dim=(-2, -1)).cpu()

    def even(self, n: int, layer: int, path: Path) -> Float[Tensor, "reader row pos d_model"]:
        """Return gradients averaged over n runs at the fractions 1/n, 2/n, ..., 1: EAP-IG's own rule."""
        total: Tensor | None = None
        for step in range(1, n + 1):
            fraction = torch.full((len(self.rows),), step / n, dtype=torch.float64)
            part = self.of_run(*path(self._per_row(fraction)), layer)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total / n

    def _per_row(self, x: Float[Tensor, " row"]) -> Float[Tensor, "row 1 1"]:
        a = self.edge_model.anatomy
        return x.to(a.device, a.dtype).view(-1, 1, 1)

    @torch.no_grad()
    def metric_at(self, layer: int, path: Path, fraction: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
        """Return the metric of a run that starts before `layer`, at a fraction of the path per prompt."""
        final, _ = self._run(*path(self._per_row(fraction)), layer, ())
        return measure(self.edge_model.anatomy, final, self.metric, self.rows).double()

    def _run(
        self,
        resid: Tensor,
        attn_out: Tensor | None,
        layer: int,
        keep: Collection[Place],
        constants: dict[Place, Tensor] | None = None,
    ) -> tuple[Tensor, dict[Place, Tensor]]:
        """Return the residual after the last layer, and the values to keep."""
        # A view of the MLP's input has a gradient of its own, without that of the residual stream beside the MLP.
        edits: dict[Place, Edit] = {("mlp_in", i): lambda x, _: x.view_as(x) for i in self._layers(layer)}
        if attn_out is not None:
            edits["attn_out", layer] = lambda *_: attn_out
        for place, value in (constants or {}).items():
            edits[place] = lambda *_, value=value: value.clone()
        return forward_with_edits(self.edge_model.anatomy, resid, layer, edits=edits, keep=keep)

    def _layers(self, first: int) -> range:
        return range(first, len(self.edge_model.anatomy.blocks))

    def of_run(
        self,
        resid: Float[Tensor, "row pos d_model"],
        attn_out: Float[Tensor, "row pos d_model"] | None = None,
        layer: int = 0,
        constants: dict[Place, Tensor] | None = None,
    ) -> Float[Tensor, "reader row pos d_model"]:
        """Return gradients at the readers of a run that starts with `resid` before `layer`; 0 at earlier readers.

        With `attn_out`, the attention of that layer adds this value and its q, k and v get 0 too. `constants` replace
        the value at some sites; no gradient passes through them.
        """
        attends = self._layers(layer if attn_out is None else layer + 1)
        qkv: list[Place] = [(site, i) for i in attends for site in _READ]
        mlps: list[Place] = [("mlp_in", i) for i in self._layers(layer)]
        before: list[Place] = [("resid_pre", i) for i in attends]
        found = resid.new_zeros(len(self.edge_model.graph.readers), *resid.shape)
        with torch.enable_grad():
            start = resid.detach().requires_grad_()
            final, kept = self._run(start, attn_out, layer, (*qkv, *mlps, *before), constants)
            final = final.view_as(final)
            total = read_for_gradient(self.edge_model.anatomy, final, self.metric, self.rows)
            places = [*qkv, *mlps]
            inputs = [*(kept[place] for place in places), final]
            *gradients, found[-1] = torch.autograd.grad(total, inputs, allow_unused=constants is not None)
        for place, gradient in zip(places, gradients, strict=True):
            kept[place] = torch.zeros_like(kept[place]) if gradient is None else gradient
        for i in attends:
            own = [kept[site, i] for site in _READ]
            found[self.edge_model.readers(i)][:-1] = self._through_norm(i, kept["resid_pre", i].detach(), own)
        for place in mlps:
            found[self.edge_model.readers(place[1])][-1] = kept[place]
        return require_finite(found, f"a gradient of {self.metric.name}", self.rows, axis=1)

    @torch.no_grad()
    def _through_norm(
        self, layer: int, resid: Tensor, gradients: list[Tensor]
    ) -> Float[Tensor, "reader row pos d_model"]:
        """Turn gradients at q, k and v into gradients at what each head reads, through its weights and the norm."""
        weights = [w for w, _ in self.edge_model.input_weights[layer]]
        at_norm = [torch.einsum("...phe,dhe->h...pd", g, w) for g, w in zip(gradients, weights, strict=True)]
        backward = torch.func.vjp(self.edge_model.anatomy.blocks[layer].ln1, resid)[1]
        return torch.func.vmap(backward)(torch.cat(at_norm))[0].detach()
