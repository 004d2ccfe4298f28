"""How does the metric change with what each reader sees? Gradients of a run, or averaged over a way between two."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.passing import Passing
from interp.patching.metrics import Metric
from interp.patching.stepwise import measure, read_for_gradient

# From how far each prompt has gone the way, `[row 1 1]` from 0 to 1: the residual that a run starts with, and what its
# first attention adds.
Move = Callable[[Tensor], tuple[Tensor, Tensor | None]]
# Share of the points of a way that are spread evenly; the others go where the metric changes.
EVENLY = 0.25


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
        a, (resid, attn_out) = self.passing.anatomy, move(self._spread(far))
        final = self._run(resid, attn_out, layer, lambda *_: None)
        return measure(a, final, self.metric, self.rows).double()

    def _run(
        self, resid: Tensor, attn_out: Tensor | None, layer: int, keep: Callable[[int, Tensor, tuple, Tensor], None]
    ) -> Tensor:
        """The residual after the last layer. `keep` sees each layer's number, residual, (q, k, v) and MLP's input."""
        a = self.passing.anatomy
        positions = torch.arange(resid.shape[1], device=resid.device)
        for i in range(layer, len(a.blocks)):
            block, read, adds = a.blocks[i], (), attn_out if i == layer else None
            if adds is None:
                read = q, k, v = block.project(resid)
                adds = block.attn_out(a.mix(a.pattern(q, k, positions, positions), v))
            mid = resid + adds
            # A view has a gradient of its own, without that of the residual stream beside the MLP.
            fed = (resid if block.parallel else mid).view_as(mid)
            keep(i, resid, read, fed)
            resid = mid + block.mlp_out(fed)
        return resid

    def back(
        self, resid: Float[Tensor, "row pos d_model"], attn_out: Float[Tensor, "row pos d_model"] | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "reader row pos d_model"]:  # fmt: skip
        """Gradients at the readers of a run that starts with `resid` before `layer`; 0 at readers before it.

        With `attn_out` the attention of that layer adds this, whatever it reads, and its q, k and v get 0 too.
        """
        read: dict[int, tuple] = {}
        fed: dict[int, Tensor] = {}
        before: dict[int, Tensor] = {}

        def keep(i: int, resid: Tensor, projected: tuple, into_mlp: Tensor) -> None:
            before[i], fed[i] = resid.detach(), into_mlp
            if projected:
                read[i] = projected

        found = resid.new_zeros(len(self.passing.graph.readers), *resid.shape)
        with torch.enable_grad():
            final = self._run(resid.detach().requires_grad_(), attn_out, layer, keep)
            final = final.view_as(final)
            total = read_for_gradient(self.passing.anatomy, final, self.metric, self.rows)
            taps = [*(t for some in read.values() for t in some), *fed.values(), final]
            *pulled, found[-1] = torch.autograd.grad(total, taps)
        for i in read:
            found[self.passing.readers(i)][:-1] = self._through(i, before[i], [pulled.pop(0) for _ in range(3)])
        for i, gradient in zip(fed, pulled, strict=True):
            found[self.passing.readers(i)][-1] = gradient
        return found

    @torch.no_grad()
    def _through(self, layer: int, resid: Tensor, pulled: list[Tensor]) -> Float[Tensor, "reader row pos d_model"]:
        """From gradients at q, k and v to gradients at what each head reads, through its weights and the norm."""
        a = self.passing.anatomy
        weights = [w for w, _ in a.input_weights(layer)]
        at_norm = [torch.einsum("...phe,dhe->h...pd", g, w) for g, w in zip(pulled, weights, strict=True)]
        pull = torch.func.vjp(a.blocks[layer].ln1, resid)[1]
        return torch.func.vmap(pull)(torch.cat(at_norm))[0].detach()
