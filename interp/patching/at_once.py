"""A small sweep of resid_pre in one pass: both unpatched runs, every patch and both controls are rows of one stack.

A patched row joins at its own layer, with the source's values at its positions and the base's elsewhere, taken from
the rows of the unpatched runs. So no trace is kept, and each operator is started once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.biases import Biases
from interp.patching.cells import Cell, first, which_live
from interp.patching.cost import Sizes, engine_flops, lower_bound_flops
from interp.patching.memory import MemoryPlan
from interp.patching.metric import Metric
from interp.patching.own_layer import after_attention
from interp.patching.row_attention import attend_own_keys
from interp.patching.units import BUCKET
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Rows beside the patches: the base, the source, the positive and the negative control.
OTHERS = 4
# A pass is small while it computes at most this many times what its device computes as the operators are started.
SMALL = 10


@dataclass(frozen=True, eq=False)
class AtOnce:
    """What the pass gives; metrics are on the CPU.

    Shapes:
        alive: `[cell]`, which patches can change the metric.
        values: `[cell batch]`, the metric after each patch; the base's where it cannot change.
        base, source: `[batch]`, the metric of the unpatched runs.
        controls: `[2 batch]`, the metric after everything is patched, and after a patch of the base into itself.
        final: `[both batch read d_model]`, the residual of the base and the source after the last layer.
    """

    anatomy: Anatomy
    metric: Metric
    prompts: Int[Tensor, " batch"]
    alive: tuple[bool, ...]
    values: Float[Tensor, "cell batch"]
    base: Float[Tensor, " batch"]
    source: Float[Tensor, " batch"]
    controls: Float[Tensor, "control batch"]
    final: Float[Tensor, "both batch read d_model"]

    site = "resid_pre"

    def finals(self, count: int) -> Float[Tensor, "row read d_model"]:
        """Return the last residuals of the first prompts where the metric reads: of the base, then of the source."""
        return self.final[:, :count].flatten(0, 1)


def run_if_small(
    anatomy: Anatomy,
    base: Prompts,
    source: Prompts,
    metric: Metric,
    cells: Sequence[Cell],
    sizes: Sizes,
    plan: MemoryPlan,
    starting: float,
) -> AtOnce | None:
    """Run a sweep of resid_pre in one pass, where this is no slower; else return None.

    `starting`: FLOPs that the device computes while the operators of one layer are started.
    """
    tokens = (base.tokens != source.tokens).any(dim=0).tolist()
    if True not in tokens or len(base) > plan.prompts or not plan.together:
        return None
    differs = _may_differ(tokens, sizes.n_layers)
    may = which_live(cells, "resid_pre", differs, metric.positions.tolist())
    own = [cell for cell, matters in zip(cells, may, strict=True) if matters]
    if not own or len(own) + OTHERS > plan.cells:
        return None
    whole = len(base) * engine_flops(sizes, own, "resid_pre", 0)
    least = len(base) * lower_bound_flops(sizes, own, "resid_pre")
    passes = 1 + max(map(first, own)) // BUCKET  # that buckets of their own would take
    few = starting * sizes.n_layers
    if whole > SMALL * few or whole - least > passes * few:
        return None
    return run_at_once(anatomy, base, source, metric, cells, may, differs)


def _may_differ(tokens: list[bool], n_layers: int) -> list[list[list[bool]]]:
    """Return where resid_pre can differ, `[layer][0][pos]`, by where tokens do: from the first of these on, in layer 0
    at these alone."""
    start = tokens.index(True)
    return [[tokens]] + [[[p >= start for p in range(len(tokens))]]] * (n_layers - 1)


@torch.no_grad()
def run_at_once(
    anatomy: Anatomy,
    base: Prompts,
    source: Prompts,
    metric: Metric,
    cells: Sequence[Cell],
    may: list[bool],
    may_differ: list[list[list[bool]]],
) -> AtOnce:
    """Run the cells that `may` matter beside both unpatched runs, which can differ where `may_differ` says.

    Raises `NotFinite` for a NaN or infinite metric, naming the run and the prompt.
    """
    numbers = sorted((i for i, matters in enumerate(may) if matters), key=lambda i: cells[i].layer)  # as rows join
    everything, own = Cell(0, tuple(range(base.n_pos))), [cells[i] for i in numbers]
    tokens = torch.cat([base.tokens, source.tokens]).to(anatomy.device)
    rows, differs = _forward(anatomy, tokens, everything, own, metric.positions)
    rows, prompts = rows.unflatten(0, (-1, len(base))), torch.arange(len(base))
    found = metric.measure_read(anatomy.unembed(rows, metric.tokens), prompts).double().cpu()  # [row batch]
    if not isfinite(found.abs().max().item()):
        for run, what in ((found[0], "the base"), (found[1], "the source"), (found[2:], "a patched")):
            require_finite(run, f"{metric.name} of {what} run")
    row_of = dict(zip(numbers, range(OTHERS, len(found)), strict=True))
    if (do := differs.cpu().tolist()) != may_differ:  # tokens that are embedded alike
        may = which_live(cells, "resid_pre", do, metric.positions.tolist())
    taken = torch.tensor([row_of[i] if matters else 0 for i, matters in enumerate(may)])
    return AtOnce(
        anatomy=anatomy,
        metric=metric,
        prompts=prompts,
        alive=tuple(may),
        values=found.index_select(0, taken),
        base=found[0],
        source=found[1],
        controls=found[2:OTHERS],
        final=rows[:2],
    )


def _forward(
    anatomy: Anatomy, tokens: Int[Tensor, "row pos"], everything: Cell, cells: Sequence[Cell], reads: Tensor
) -> tuple[Float[Tensor, "row read d_model"], Bool[Tensor, "layer 1 pos"]]:
    """Return the last residuals of base, source, both controls and the cells, and where base and source differ.

    Each is as many rows as there are prompts. `tokens` are the base's, then the source's. Cells are in the order of
    their layers; the negative control patches the first of them, and joins before it.
    """
    (n, n_pos), last = (len(tokens) // 2, tokens.shape[1]), len(anatomy.blocks) - 1
    joining = _joining([everything, cells[0], *cells], n, n_pos, last + 1, anatomy.device)
    positions = torch.arange(n_pos, device=anatomy.device)
    rows = anatomy.embed(tokens)  # [row pos d_model]
    biases, differs = Biases(), list[Tensor]()
    for layer, block in enumerate(anatomy.blocks):
        differs.append(rows[:n] != rows[n : 2 * n])
        projected = block.projected(rows)
        if (index := joining[layer]) is not None:
            rows, *projected = (_with_patches(x, index) for x in (rows, *projected))
        q, k, v = block.heads_of(*projected)
        bias, dest = biases.whole(anatomy, block, n_pos), positions
        if layer == last:
            dest, at = _read_at(reads, anatomy.device)
            rows, q, bias = rows[:, at], q[:, at], bias[:, at]
        q, k = anatomy.queries(block, q, dest), anatomy.expand_heads(anatomy.keys(block, k, positions))
        v, sink = anatomy.expand_heads(v), anatomy.sink(block, q, dest)
        rows = after_attention(block, rows, attend_own_keys(anatomy, block, q, k, v, bias, sink))
    return rows, torch.stack(differs).any(dim=-1).any(dim=1, keepdim=True)


def _read_at(reads: Int[Tensor, " read"], device: torch.device) -> tuple[Tensor, Tensor | slice]:
    """Return the positions that are read, on the device, and what takes them: of a single one a slice, not a copy."""
    dest = reads.to(device, non_blocking=True)
    return dest, dest if len(reads) > 1 else slice(start := reads.tolist()[0], start + 1)


def _with_patches(x: Float[Tensor, "row pos *width"], index: Int[Tensor, " place"]) -> Float[Tensor, "more pos *width"]:
    """Return the rows with those that join, whose values are at these places of all rows and positions."""
    return x.flatten(0, 1).index_select(0, index).view(-1, *x.shape[1:])


def _joining(
    joins: Sequence[Cell], n: int, n_pos: int, n_layers: int, device: torch.device
) -> list[Int[Tensor, " place"] | None]:
    """Return per layer where the values of its rows are among those before it: first of the rows that there are, then
    of those that join; None where none does."""
    places, index, done = _places(joins, n, n_pos), list[Tensor | None](), 0
    for layer in range(n_layers):
        own = sum(cell.layer == layer for cell in joins)
        known = (2 + done) * n * n_pos
        both = numpy.concatenate([numpy.arange(known), places[done : done + own].ravel()])
        index.append(torch.from_numpy(both).to(device, non_blocking=True) if own else None)
        done += own
    return index


def _places(joins: Sequence[Cell], n: int, n_pos: int) -> numpy.ndarray:
    """Return where each value of the joining rows is among those of the base and then the source, `[join place]`.

    The second row, the negative control, takes all of them from the base.
    """
    patched = numpy.zeros(len(joins) * n_pos, dtype=numpy.int64)
    patched[[row * n_pos + p for row, cell in enumerate(joins) for p in cell.positions if row != 1]] = n * n_pos
    return (patched.reshape(-1, 1, n_pos) + numpy.arange(n * n_pos).reshape(n, n_pos)).reshape(len(joins), -1)
