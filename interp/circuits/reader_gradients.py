"""How does the metric change with what each reader sees? Gradients of a run, or averaged over a way between two."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.edge_forward import Passing
from interp.patching.editing import Edit, Place, Site, forward_with_edits, measure, read_for_gradient
from interp.patching.metrics import Metric
from interp.support.finite import require_finite

# From how far each prompt has gone the way, `[row 1 1]` from 0 to 1: the residual that a run starts with, and what its
# first attention adds.
Move = Callable[[Tensor], tuple[Tensor, Tensor | None]]
# Share of the points of a way that are spread evenly; the others go where the metric changes.
EVENLY = 0.25
_READ: tuple[Site, ...] = ("q", "k", "v")


class Pull:
    """The metric of some prompts, and its gradient at what each reader sees."""

    def __init__(self, passing: Passing, metric: Metric, rows: Tensor) -> None:
        self.passing, self.metric, self.rows = passing, metric, rows

    def along(self, n: int, layer: int, move: Move) -> Float[Tensor, "reader row pos d_model"]:
        """Gradients averaged over the way from 0 to 1, by the midpoints of n parts.

        Sharp attention makes the metric jump somewhere on the way, and even parts step over it. So a quarter of the
        parts is even, and then, prompt by prompt, the part is halved whose width times the metric's change is largest.
        """
        rows = len(self.rows)
        ends = torch.linspace(0, 1, max(1, int(n * EVENLY)) + 1, dtype=torch.float64).expand(rows, -1)
        values = torch.stack([self.ahead(layer, move, far) for far in ends.T], dim=1)
        while ends.shape[1] <= n:
            # What a part may be wrong by, to first order.
            widest = (values.diff(dim=1).abs() * ends.diff(dim=1)).argmax(dim=1, keepdim=True)
            middle = (ends.gather(1, widest) + ends.gather(1, widest + 1)) / 2
            ends, order = torch.cat([ends, middle], dim=1).sort(dim=1)
            values = torch.cat([values, self.ahead(layer, move, middle[:, 0]).unsqueeze(1)], dim=1).gather(1, order)
        middles, widths = (ends[:, 1:] + ends[:, :-1]) / 2, ends.diff(dim=1)
        total: Tensor | None = None
        for far, width in zip(middles.T, widths.T, strict=True):
            part = self.back(*move(self._spread(far)), layer) * self._spread(width)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _spread(self, x: Float[Tensor, " row"]) -> Float[Tensor, "row 1 1"]:
        a = self.passing.anatomy
        return x.to(a.device, a.dtype).view(-1, 1, 1)

    @torch.no_grad()
    def ahead(self, layer: int, move: Move, far: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
        """The metric of a run that starts as `back` says, so far along the way."""
        final, _ = self._run(*move(self._spread(far)), layer, ())
        return measure(self.passing.anatomy, final, self.metric, self.rows).double()

    def _run(
        self, resid: Tensor, attn_out: Tensor | None, layer: int, keep: Collection[Place]
    ) -> tuple[Tensor, dict[Place, Tensor]]:
        """The residual after the last layer, and what is kept. What an MLP reads is told apart from the residual."""
        # A view has a gradient of its own, without that of the residual stream beside the MLP.
        edits: dict[Place, Edit] = {("mlp_in", i): lambda x, _: x.view_as(x) for i in self._layers(layer)}
        if attn_out is not None:
            edits["attn_out", layer] = lambda *_: attn_out
        return forward_with_edits(self.passing.anatomy, resid, layer, edits=edits, keep=keep)

    def _layers(self, first: int) -> range:
        return range(first, len(self.passing.anatomy.blocks))

    def back(
        self,
        resid: Float[Tensor, "row pos d_model"],
        attn_out: Float[Tensor, "row pos d_model"] | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "reader row pos d_model"]:
        """Gradients at the readers of a run that starts with `resid` before `layer`; 0 at readers before it.

        With `attn_out` the attention of that layer adds this, whatever it reads, and its q, k and v get 0 too.
        """
        attends = self._layers(layer if attn_out is None else layer + 1)
        read: list[Place] = [(site, i) for i in attends for site in _READ]
        fed: list[Place] = [("mlp_in", i) for i in self._layers(layer)]
        before: list[Place] = [("resid_pre", i) for i in attends]
        found = resid.new_zeros(len(self.passing.graph.readers), *resid.shape)
        with torch.enable_grad():
            final, kept = self._run(resid.detach().requires_grad_(), attn_out, layer, (*read, *fed, *before))
            final = final.view_as(final)
            total = read_for_gradient(self.passing.anatomy, final, self.metric, self.rows)
            *pulled, found[-1] = torch.autograd.grad(total, [*(kept[place] for place in (*read, *fed)), final])
        for i in attends:
            resid, own = kept["resid_pre", i].detach(), [pulled.pop(0) for _ in _READ]
            found[self.passing.readers(i)][:-1] = self._through(i, resid, own)
        for (_, i), gradient in zip(fed, pulled, strict=True):
            found[self.passing.readers(i)][-1] = gradient
        return require_finite(found, f"a gradient of {self.metric.name}", self.rows, axis=1)

    @torch.no_grad()
    def _through(self, layer: int, resid: Tensor, pulled: list[Tensor]) -> Float[Tensor, "reader row pos d_model"]:
        """From gradients at q, k and v to gradients at what each head reads, through its weights and the norm."""
        weights = [w for w, _ in self.passing.reads[layer]]
        at_norm = [torch.einsum("...phe,dhe->h...pd", g, w) for g, w in zip(pulled, weights, strict=True)]
        pull = torch.func.vjp(self.passing.anatomy.blocks[layer].ln1, resid)[1]
        return torch.func.vmap(pull)(torch.cat(at_norm))[0].detach()
