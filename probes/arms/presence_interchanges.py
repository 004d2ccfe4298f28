"""Presence, interchange: keys and values at labels from another prompt, in some cells.

The runs that are patched and those of the sources are kept between calls while they fit the memory budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.arguments import exclusive
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import raw_of
from interp.patching import Metric
from interp.patching.editing import SHARE, Place, chunks, forward_with_edits
from interp.patching.rerunning import Changes, Unpatched, Where, WhereEdit, measure_patched, measure_unpatched
from interp.sites import Site
from interp.support.budget import numbers
from interp.tasks import Batch, Role, counterfactual
from probes.arms.largest_identity import INPUTS, OUTPUTS, reassign
from probes.arms.m06_heads import LABELS
from probes.arms.presence_cells import BY_STEP, KINDS, Cell, Cells
from probes.arms.presence_metrics import leads, moved_margin

# How each source reassigns input labels and output labels. The two sides differ, because a consistent renaming in all
# cells at once changes no address; a shift keeps neighbouring labels together.
SOURCES = (("permutation", "shift by 1"), ("shift by 1", "permutation"))
# Added to the seed of the sources.
REDRAWN = 400_000_000

# Returns the edits of a layer, from its mask `[head dest]` of cells and the rows of prompts that are run.
EditsOf = Callable[[int, Tensor, Tensor], dict[Place, WhereEdit]]


@dataclass(frozen=True, eq=False)
class Moved:
    """What an intervention changes, per prompt: `lost` (of a score of the answers) and mean |change of the margin|."""

    lost: Float[Tensor, " prompt"]
    margin: Float[Tensor, " prompt"]


class Interchanges:
    """Interchanges of keys and values at labels in some cells, on one batch. `score` is what `Moved.lost` is lost of.

    `clean` `[prompt]` is the score without intervention, `lead` `[prompt step]` the margin.
    """

    def __init__(self, model: PreTrainedModel, batch: Batch, seed: int, score: Metric) -> None:
        self.raw, self.anatomy, self.batch = raw_of(model), anatomy_of(raw_of(model)), batch
        self.lead = leads(model, batch)
        self.metrics = (score, moved_margin(batch, self.lead))
        self.sources = [source_of(batch, seed + k, *names) for k, names in enumerate(SOURCES)]
        self.labels = torch.isin(batch.role, torch.tensor(LABELS))
        self._kept: dict[tuple[int, int, int], Mapping[Place, Tensor]] = {}
        self._size = 0  # numbers in them
        self.clean = _interchanged(self.raw, self, Cells(()), 0)[0]

    def effect(self, cells: Cells, k: int) -> Moved:
        """Return what source number `k` changes."""
        score, margin = _interchanged(self.raw, self, cells, k)
        return Moved(self.clean - score, margin)

    def by_step(self, cells: Cells, k: int) -> Float[Tensor, " step"]:
        """Return the mean |change of the margin| at each step by source number `k`."""
        metrics = [moved_margin(self.batch, self.lead, step) for step in range(self.lead.shape[1])]
        return torch.stack([m.mean() for m in _interchanged(self.raw, self, cells, k, metrics)])

    def idle_steps(self, cell: Cell, most: float) -> tuple[int, ...]:
        """Return the steps at which interchange in one cell moves the margin by at most `most` on average."""
        moved, steps = list[Tensor](), ()
        for k in range(len(self.sources)):
            moved.append(self.by_step(Cells((cell,)), k))
            steps = idle_steps(self.batch, torch.stack(moved), most)
            if not steps:
                break  # one source that moves every step is enough
        return steps

    def effects(self, cells: Cells) -> list[Moved]:
        """Return what each source changes."""
        return [self.effect(cells, k) for k in range(len(self.sources))]

    def unpatched(self, rows: Tensor) -> Unpatched:
        """Return the run of some of the prompts that are patched."""
        kept = self.run(self.batch, rows, -1)
        return Unpatched(rows, kept["resid_pre", len(self.anatomy.blocks)], kept, 0.0)

    def run(self, prompts: Batch, rows: Tensor, number: int) -> Mapping[Place, Tensor]:
        """Return K and V of every layer of some prompts; kept for the next call while all kept fit the budget.

        `number`: of the source, of which only label positions are returned; -1 for the prompts that are patched, which
        have resid_pre, too.
        """
        key = (number, int(rows[0]), len(rows))  # chunks of several metrics differ in size
        if key in self._kept:
            return self._kept[key]
        n_layers = len(self.anatomy.blocks)
        sites: tuple[Site, ...] = ("resid_pre", "k", "v") if number < 0 else ("k", "v")
        places: list[Place] = [(site, layer) for layer in range(n_layers) for site in sites]
        resid = self.anatomy.embed(prompts.tokens[rows].to(self.anatomy.device))
        final, kept = forward_with_edits(self.anatomy, resid, keep=places)
        if number < 0:
            kept["resid_pre", n_layers] = final
        else:
            at = self.labels.nonzero().flatten().to(final.device)
            kept = {place: x[:, at] for place, x in kept.items()}
        size = sum(x.numel() for x in kept.values())
        if self._size + size <= numbers(SHARE):
            self._kept[key] = kept
            self._size += size
        return kept


@exclusive
@torch.no_grad()
def measure_edited(
    model: PreTrainedModel,
    work: Interchanges,
    cells: Cells,
    edits_of: EditsOf,
    metrics: Sequence[Metric] | None = None,
) -> list[Tensor]:
    """Return the metrics, by default those of `work`, with the edits of each layer that has a cell.

    Each is `[prompt]` in float64.
    """
    anatomy, batch, metrics = work.anatomy, work.batch, work.metrics if metrics is None else metrics
    masks = _masks(anatomy, batch, cells)
    values = []
    for rows in chunks(anatomy, batch, metrics[0], copies=4 + 3 * len(anatomy.blocks)):
        run = work.unpatched(rows)
        if not masks:
            values.append(measure_unpatched(anatomy, run, metrics))
            continue
        edits = dict[Place, WhereEdit]()
        for layer, mask in masks.items():
            edits |= edits_of(layer, mask, rows)
        first = min(int(mask.any(dim=0).nonzero()[0]) for mask in masks.values()) if anatomy.causal else 0
        values.append(measure_patched(anatomy, run, Changes(min(masks), first, edits), metrics))
    return [torch.cat(parts).double() for parts in zip(*values, strict=True)]


def _interchanged(
    model: PreTrainedModel, work: Interchanges, cells: Cells, k: int, metrics: Sequence[Metric] | None = None
) -> list[Tensor]:
    """Return the metrics with K and V at labels from source `k`, for the queries and in the heads of the cells."""

    def edits_of(layer: int, mask: Tensor, rows: Tensor) -> dict[Place, WhereEdit]:
        source = work.run(work.sources[k], rows, k)
        return _edits(work.anatomy, layer, mask, work.labels, source["k", layer], source["v", layer])

    return measure_edited(model, work, cells, edits_of, metrics)


def _edits(anatomy: Anatomy, layer: int, mask: Tensor, labels: Tensor, k: Tensor, v: Tensor) -> dict[Place, WhereEdit]:
    """Return edits that take K and V at labels from another run where `mask` `[head dest]` holds.

    `k` and `v` have the label positions only. Only these heads, queries and labels are computed. The edits write into
    the values that they are given.
    """
    block, device = anatomy.blocks[layer], anatomy.device
    chosen = mask.any(dim=1).nonzero().flatten()
    mask, heads, src = mask[chosen], chosen.to(device), labels.nonzero().flatten().to(device)
    keys = anatomy.expand_heads(anatomy.keys(block, k, src))[:, :, heads]

    def edges(where: Where) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries among `where`, their positions, and the edges `[head dest 1]`."""
        here = torch.arange(len(labels))[where if isinstance(where, slice) else where.cpu()]
        at = mask[:, here].any(dim=0).nonzero().flatten()
        return at.to(device), here[at].to(device), mask[:, here[at]].unsqueeze(2).to(device)

    def scores(own: Tensor, computed: Mapping, where: Where) -> Tensor:
        at, dest, taken = edges(where)
        queries = anatomy.queries(block, computed["q"][:, at], dest)
        other = block.cap(torch.einsum("rdhe,rshe->rhds", queries[:, :, heads] * block.scale, keys))
        bias, sink = anatomy.bias(block, dest, src), anatomy.sink(block, queries, dest)
        other = other.add_(bias[heads] if len(bias) > 1 else bias)
        other = other if sink is None else other - sink[:, heads]
        index = (slice(None), heads[:, None, None], at[:, None], src)
        own[index] = torch.where(taken, other, own[index])
        return own

    def outputs(z: Tensor, computed: Mapping, where: Where) -> Tensor:
        at, _, taken = edges(where)
        weights = computed["pattern"][:, heads[:, None, None], at[:, None], src] * taken
        difference = anatomy.expand_heads(v - computed["v"][:, src])[:, :, heads]
        z[:, at[:, None], heads] += torch.einsum("rhds,rshe->rdhe", weights, difference)
        return z

    return {("attn_scores", layer): scores, ("z", layer): outputs}


def _masks(anatomy: Anatomy, batch: Batch, cells: Cells) -> dict[int, Bool[Tensor, "head dest"]]:
    masks: dict[int, Tensor] = {}
    for (kind, (layer, head)), steps in (*((cell, None) for cell in cells.members), *cells.parts):
        queries = batch.role == KINDS[kind]
        if steps is not None:
            queries &= torch.isin(batch.step, torch.tensor(steps))
        mask = masks.setdefault(layer, torch.zeros(anatomy.n_heads, batch.n_pos, dtype=torch.bool))
        mask[head] |= queries
    return dict(sorted(masks.items()))


def source_of(batch: Batch, seed: int, inputs: str, outputs: str) -> Batch:
    """Return prompts with the same labels and other bits, in which the labels of each side are reassigned."""
    redrawn = counterfactual.redraw(batch, REDRAWN + seed, keep="labels")
    return reassign(reassign(redrawn, INPUTS, inputs, seed), OUTPUTS, outputs, seed + 1)


def idle_steps(batch: Batch, moved: Float[Tensor, "source step"], most: float) -> tuple[int, ...]:
    """Return the steps with an output label, without the first, at which no source moves the margin beyond `most`."""
    idle = (moved.amax(dim=0) <= most).nonzero().flatten()
    queried = set(batch.step[batch.role == KINDS[BY_STEP]].tolist())
    return tuple(s for s in batch.step[batch.at(Role.OUTPUT)[idle[idle > 0]]].tolist() if s in queried)
