"""The engine: many patches at once, without computing what a patch leaves unchanged.

Under a causal mask a patch at layer l and position p changes only layers from l and positions from p on. Patches that
start in the same bucket of positions are stacked. Each row joins at its own layer with the unpatched run's residual,
and attends to the unpatched keys and values of the positions before the bucket. The last layer and the unembedding
are computed only where the metric reads. Results differ from one forward pass per patch by rounding only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.biases import Biases
from interp.patching.cells import Cell
from interp.patching.metric import Metric
from interp.patching.own_layer import OwnLayer, after_attention
from interp.patching.row_attention import attend_rows
from interp.patching.tracing import Trace, neurons_of, pattern_of
from interp.sites import NEURON_SITES


class Engine:
    """Patches from one run (source) into another (base), both `[batch pos]` of the same layout.

    `prompts [batch]` are the numbers of these prompts in the whole set, which the metric knows them by. With `cache`,
    activations that a site needs in another form are kept for all layers, else for one.
    """

    @torch.no_grad()
    def __init__(
        self,
        anatomy: Anatomy,
        base: Trace,
        source: Trace,
        site: str,
        metric: Metric,
        prompts: Tensor,
        cache: bool = True,
    ) -> None:
        self.anatomy, self.base, self.source, self.site, self.metric = anatomy, base, source, site, metric
        self.prompts, self.cache = prompts, cache
        self.n_layers = len(anatomy.blocks)
        self.n_pos = base.tokens.shape[1]
        self.reads = metric.positions.to(anatomy.device)
        self.read_list = metric.positions.tolist()
        self.positions = torch.arange(self.n_pos, device=anatomy.device)
        self._biases = Biases()
        # Unpatched keys and values as attention uses them, [batch head pos d_head].
        self.keys = [
            anatomy.expand_heads(anatomy.keys(block, k, self.positions)).transpose(1, 2)
            for block, k in zip(anatomy.blocks, base.k, strict=True)
        ]
        self.values = [anatomy.expand_heads(v).transpose(1, 2) for v in base.v]
        self.base_logits = self._logits(base.final[:, self.reads])
        self.own = OwnLayer(anatomy, base, source, site, self.keys, self.values, cache)

    def between(self, source: Trace, site: str) -> Engine:
        """Return an engine with the same base and another source or site."""
        other = copy.copy(self)
        other.source, other.site = source, site
        other.own = OwnLayer(self.anatomy, self.base, source, site, self.keys, self.values, self.cache)
        return other

    def finals(self, count: int) -> Float[Tensor, "row read d_model"]:
        """Return the last residuals of the first prompts where the metric reads: of the base, then of the source."""
        return torch.cat([run.final[:count, self.reads] for run in (self.base, self.source)])

    @torch.no_grad()
    def measure(self, run: Trace) -> Float[Tensor, " batch"]:
        """Return the metric of an unpatched run of these prompts."""
        return self.metric.measure_read(self._logits_of(run), self.prompts).double().cpu()

    @torch.no_grad()
    def measure_both(self) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return the metric of the base and of the source, computed together where few tokens are read."""
        if self.metric.tokens is None:
            return self.measure(self.base), self.measure(self.source)
        logits = torch.stack([self.base_logits, self._logits_of(self.source)])
        base, source = self.metric.measure_read(logits, self.prompts).double().cpu()
        return base, source

    def _logits_of(self, run: Trace) -> Float[Tensor, "batch read token"]:
        return self.base_logits if run is self.base else self._logits(run.final[:, self.reads])

    def _logits(self, resid: Float[Tensor, "*stack read d_model"]) -> Float[Tensor, "*stack read token"]:
        """Return the logits that the metric reads: of its tokens, or of the vocabulary.

        They are exact where the products before them are not (`Sweep.matmul`): small differences of logits are read.
        """
        device = self.anatomy.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.anatomy.unembed(resid.to(self.anatomy.dtype), self.metric.tokens)
        return self.anatomy.unembed(resid, self.metric.tokens)

    @torch.no_grad()
    def differs(self) -> Bool[Tensor, "layer head pos"]:
        """Return where source and base differ in any bit, for any prompt. Sites without heads have one."""
        return torch.stack([self._differs(layer) for layer in range(self.n_layers)]).cpu()

    def _differs(self, layer: int) -> Bool[Tensor, "head pos"]:
        if self.site == "pattern":
            source, base = (pattern_of(self.anatomy, run, layer) for run in (self.source, self.base))
            return (source != base).any(dim=-1).any(dim=0)
        if self.site in NEURON_SITES:
            if not self.anatomy.blocks[layer].has_neurons:
                return torch.zeros(1, self.n_pos, dtype=torch.bool, device=self.anatomy.device)
            source, base = (neurons_of(self.anatomy, run, self.site, layer) for run in (self.source, self.base))
            return (source != base).any(dim=-1).any(dim=0).unsqueeze(0)
        source, base = (run.site(self.site, layer) for run in (self.source, self.base))
        changed = (source != base).any(dim=-1).any(dim=0)  # [pos] or [pos head]
        return changed.unsqueeze(0) if changed.ndim == 1 else changed.T

    def run(self, cells: Sequence[Cell], start: int) -> Float[Tensor, "cell batch"]:
        """Return the metric after each patch, on the CPU. Every cell's positions are at or after `start`."""
        return self.queue(cells, start).cpu()

    def queue(self, cells: Sequence[Cell], start: int) -> Float[Tensor, "cell batch"]:
        """Return the same as `run`, on the model's device, without waiting for it."""
        return run_together([(self, cells)], start)

    def _dest(self, layer: int, start: int) -> Int[Tensor, " dest"]:
        """Return the positions that a layer has to compute: in the last layer, those that the metric reads."""
        return self.reads[self._early(start) :] if layer == self.n_layers - 1 else self.positions[start:]

    def _early(self, start: int) -> int:
        """Return how many of the positions read are before `start`."""
        return sum(position < start for position in self.read_list)

    def _edited(self, layer: int, mask: Bool[Tensor, "cell pos"], start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return resid_pre, q, k and v `[cell batch pos-from-start ...]` after patches of resid_pre at the masked
        positions, where q, k and v are the source's too: nothing has to be projected."""
        cells, width = mask.shape
        of_stream, of_heads = mask.view(cells, 1, width, 1), mask.view(cells, 1, width, 1, 1)

        def edited(site: str, mask: Tensor) -> Tensor:
            source, base = (_from(start, run.site(site, layer)) for run in (self.source, self.base))
            return torch.where(mask, source, base)

        q, k, v = (edited(site, of_heads) for site in "qkv")
        return edited("resid_pre", of_stream), q, k, v

    def advance(self, layer: int, rows: Tensor | None, entering: Sequence[tuple[Engine, Tensor]], start: int) -> Tensor:
        """Run one block over the stacked rows `[cell batch pos-from-start d_model]` and over the entering cells.

        Entering cells patch resid_pre of this layer: engines of the same base, and the masks of their cells.
        """
        anatomy, block, dest = self.anatomy, self.anatomy.blocks[layer], self._dest(layer, start)
        parts = [] if rows is None else [(rows, *block.project(rows))]
        parts += [engine._edited(layer, mask, start) for engine, mask in entering]
        resid, q, k, v = parts[0] if len(parts) == 1 else (torch.cat(p) for p in zip(*parts, strict=True))
        bias = _from(start, self._biases.whole(self.anatomy, block, self.n_pos))
        if layer == self.n_layers - 1:  # only what the metric reads
            at = dest - start
            resid, q, bias = resid[:, :, at], q[:, :, at], bias[:, at]
        q = anatomy.queries(block, q, dest)
        k = anatomy.expand_heads(anatomy.keys(block, k, self.positions[start:] if start else self.positions))
        before = (self.keys[layer], self.values[layer])
        sink = anatomy.sink(block, q, dest)
        z = attend_rows(anatomy, block, before, q, k, anatomy.expand_heads(v), bias, sink, start)
        return after_attention(block, resid, z)

    def mask(self, cells: Sequence[Cell], start: int) -> Bool[Tensor, "cell pos"]:
        """Return where each cell patches, from position `start` on."""
        mask = numpy.zeros((len(cells), self.n_pos), dtype=bool)
        for row, cell in enumerate(cells):
            mask[row, cell.positions] = True
        return torch.from_numpy(mask[:, start:]).to(self.anatomy.device, non_blocking=True)

    def _dest_list(self, layer: int, start: int) -> list[int]:
        last = layer == self.n_layers - 1
        return [p for p in self.read_list if p >= start] if last else list(range(start, self.n_pos))

    def read(self, rows: Tensor, start: int) -> Float[Tensor, "cell batch"]:
        """Return the metric, from final residuals `[cell batch read-from-start d_model]` and the base's logits."""
        logits = self._logits(rows)
        if early := self._early(start):
            logits = torch.cat([self.base_logits[:, :early].expand(len(rows), -1, -1, -1), logits], dim=2)
        return self.metric.measure_read(logits, self.prompts).double()


@torch.no_grad()
def run_together(groups: Sequence[tuple[Engine, Sequence[Cell]]], start: int) -> Float[Tensor, "cell batch"]:
    """Return the metric after each patch of some engines that share their base, in the order of the groups.

    All rows are stacked in one pass, which a row joins at its own layer. Nothing waits for the device: the values
    stay on it. Every cell's positions are at or after `start`.
    """
    engine = groups[0][0]
    by_layer = _by_layer(groups)
    rows: Tensor | None = None  # [cell batch pos-from-start d_model], in order of joining
    joined: list[int] = []
    for layer in range(engine.n_layers):
        entering: list[tuple[Engine, Tensor]] = []
        posts: list[Tensor] = []
        later: list[int] = []
        for own, numbers, cells in by_layer.get(layer, ()):
            if own.site == "resid_pre":
                entering.append((own, own.mask(cells, start)))
                joined += numbers
            else:
                dest, listed = own._dest(layer, start), own._dest_list(layer, start)
                posts.append(own.own.resid_post(layer, cells, dest, listed))
                later += numbers
        if rows is not None or entering:
            rows = engine.advance(layer, rows, entering, start)
        joined += later
        if posts:
            parts = posts if rows is None else [rows, *posts]
            rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    assert rows is not None
    values = engine.read(rows, start)
    back = sorted(range(len(joined)), key=joined.__getitem__)
    return values if joined == sorted(joined) else values[torch.tensor(back).to(values.device, non_blocking=True)]


def _by_layer(
    groups: Sequence[tuple[Engine, Sequence[Cell]]],
) -> dict[int, list[tuple[Engine, list[int], list[Cell]]]]:
    """Return, by layer, the cells of each group with their numbers in the order of the groups."""
    found: dict[int, list[tuple[Engine, list[int], list[Cell]]]] = {}
    before = 0
    for engine, cells in groups:
        own: dict[int, tuple[Engine, list[int], list[Cell]]] = {}
        for number, cell in enumerate(cells, before):
            _, numbers, mine = own.setdefault(cell.layer, (engine, [], []))
            numbers.append(number)
            mine.append(cell)
        before += len(cells)
        for layer, some in own.items():
            found.setdefault(layer, []).append(some)
    return found


def _from(start: int, x: Tensor) -> Tensor:
    """Return `x[:, start:]`; a slice of everything is an operator, too."""
    return x[:, start:] if start else x
