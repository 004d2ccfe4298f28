"""Presence, discovery: find the cells in which label positions carry neither identity nor content.

A cell is one head and one kind of query, such as output labels or written answers: one head can match labels for one
kind of query and only rest on them for another. Interchange decides, because a backup hides a carrier from ablation:
keys and values at labels come from a prompt with other bits in which the labels are reassigned on each side by itself
(probes/README.md, Battery).
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
from interp.patching import Knockout, Metric
from interp.patching.editing import SHARE, Edit, Place, chunks, forward_with_edits, measure
from interp.patching.knockouts import Head, Mode
from interp.patching.metrics import probability
from interp.places import At
from interp.sites import Site
from interp.support.budget import numbers
from interp.tasks import Batch, Role, counterfactual
from probes.arms.largest_identity import INPUTS, OUTPUTS, reassign
from probes.arms.m06_heads import HARMLESS, LABELS, all_heads
from probes.arms.presence_metrics import leads, moved_margin

# The queries of one kind. Other positions come before every label, or are not read.
KINDS: Mapping[str, Role] = {
    "input labels": Role.INPUT_LABEL,
    "inputs": Role.INPUT,
    "fillers": Role.FILLER,
    "separators": Role.SEPARATOR,
    "output labels": Role.OUTPUT_LABEL,
    "answers": Role.OUTPUT,
}
# How each source reassigns input labels and output labels. The two sides differ, because a consistent renaming in all
# cells at once changes no address; a shift keeps neighbouring labels together.
SOURCES = (("permutation", "shift by 1"), ("shift by 1", "permutation"))
# The largest mean |change of the margin|, as a share of it, at which cells count as carrying nothing.
STILL = 0.05
# Added to the seed of the sources.
REDRAWN = 400_000_000

Cell = tuple[str, Head]


@dataclass(frozen=True)
class Cells:
    """Cells (kind of query, head) in which labels carry nothing."""

    members: tuple[Cell, ...]

    def heads(self, kind: str) -> tuple[Head, ...]:
        """Return the heads of one kind of query."""
        return tuple(head for k, head in self.members if k == kind)

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of query that have a cell."""
        return tuple(kind for kind in KINDS if self.heads(kind))

    def knockouts(self, mode: Mode, src: At = LABELS, kinds: Sequence[str] | None = None) -> tuple[Knockout, ...]:
        """Return the removal of `src` from the cells, of some kinds of query or all."""
        return tuple(
            Knockout(src, KINDS[kind], heads=self.heads(kind), mode=mode)
            for kind in (self.kinds() if kinds is None else kinds)
        )


@dataclass(frozen=True, eq=False)
class Moved:
    """What an intervention changes, per prompt: `lost` (of a score of the answers) and mean |change of the margin|."""

    lost: Float[Tensor, " prompt"]
    margin: Float[Tensor, " prompt"]


def find_cells(model: PreTrainedModel, batch: Batch, seed: int) -> Cells:
    """Find the cells that carry nothing from labels, alone and jointly, on prompts that nothing else uses.

    Groups of cells are split until an interchange in the whole group does no harm: it loses at most `HARMLESS` of the
    answer's probability above chance, and moves margins by at most `STILL` of their size. Groups are then joined, the
    least harmful first, as long as the same holds for all of them together.
    """
    units = [(kind, head) for kind, role in KINDS.items() if (batch.role == role).any() for head in all_heads(model)]
    interchanged = Interchanges(model, batch, seed, probability(batch, among_answers=True))
    chance = 1 / len(batch.format.outputs)
    above = max(float(interchanged.clean.mean()) - chance, 1e-3)
    size = max(float(interchanged.lead.abs().mean()), 1e-6)

    def harm(cells: Sequence[Cell]) -> float:
        """Return the harm in units of what is allowed."""
        worst = 0.0
        for k in range(len(SOURCES)):
            m = interchanged.effect(Cells(tuple(cells)), k)
            worst = max(worst, float(m.lost.mean()) / above / HARMLESS, float(m.margin.mean()) / size / STILL)
            if worst > 1:
                break  # one source that does harm is enough
        return worst

    groups = sorted(_harmless_groups(units, harm), key=lambda group: group[0])
    low, high = 0, len(groups) + 1
    middle = len(groups)  # all of them first
    while high - low > 1:
        joined = [cell for _, group in groups[:middle] for cell in group]
        low, high = (middle, high) if not joined or harm(joined) <= 1 else (low, middle)
        middle = (low + high) // 2
    return Cells(tuple(sorted(cell for _, group in groups[:low] for cell in group)))


def _harmless_groups(
    cells: Sequence[Cell], harm: Callable[[Sequence[Cell]], float]
) -> list[tuple[float, Sequence[Cell]]]:
    """Return groups of cells that do no harm, with their harm; a harmful group is split, a harmful cell left out."""
    if not cells:
        return []
    if (harmed := harm(cells)) <= 1:
        return [(harmed, cells)]
    half = len(cells) // 2
    return [] if not half else [*_harmless_groups(cells[:half], harm), *_harmless_groups(cells[half:], harm)]


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
        self._kept: dict[tuple[int, int], Mapping[Place, Tensor]] = {}
        self.clean = _interchanged(self.raw, self, Cells(()), 0)[0]

    def effect(self, cells: Cells, k: int) -> Moved:
        """Return what source number `k` changes."""
        score, margin = _interchanged(self.raw, self, cells, k)
        return Moved(self.clean - score, margin)

    def effects(self, cells: Cells) -> list[Moved]:
        """Return what each source changes."""
        return [self.effect(cells, k) for k in range(len(self.sources))]

    def run(self, prompts: Batch, rows: Tensor, number: int) -> Mapping[Place, Tensor]:
        """Return resid_pre, K and V of every layer of some prompts; kept for the next call where they fit the budget.

        `number`: of the prompts, -1 for those that are patched.
        """
        key = (number, int(rows[0]))
        if key in self._kept:
            return self._kept[key]
        sites: tuple[Site, ...] = ("resid_pre",) if number < 0 else ("k", "v")
        places: list[Place] = [(site, layer) for layer in range(len(self.anatomy.blocks)) for site in sites]
        resid = self.anatomy.embed(prompts.tokens[rows].to(self.anatomy.device))
        final, kept = forward_with_edits(self.anatomy, resid, keep=places)
        kept["resid_pre", len(self.anatomy.blocks)] = final
        size = sum(x.numel() for x in kept.values()) * len(self.batch) // len(rows) * (1 + len(self.sources))
        if size <= numbers(SHARE):
            self._kept[key] = kept
        return kept


@exclusive
@torch.no_grad()
def _interchanged(model: PreTrainedModel, work: Interchanges, cells: Cells, k: int) -> list[Tensor]:
    """Return the metrics with K and V at labels from source `k`, for the queries and in the heads of the cells."""
    anatomy, batch = work.anatomy, work.batch
    masks = _masks(anatomy, batch, cells)
    start = min(masks, default=len(anatomy.blocks))
    values: list[list[Tensor]] = [[] for _ in work.metrics]
    for rows in chunks(anatomy, batch, work.metrics[0], copies=4 + 2 * len(anatomy.blocks)):
        final = work.run(batch, rows, -1)["resid_pre", start]
        edits: dict[Place, Edit] = {}
        if masks:
            source = work.run(work.sources[k], rows, k)
            for layer, mask in masks.items():
                edits |= _edits(anatomy, layer, mask, work.labels, source["k", layer], source["v", layer])
            final, _ = forward_with_edits(anatomy, final, start, edits=edits)
        for parts, metric in zip(values, work.metrics, strict=True):
            parts.append(measure(anatomy, final, metric, rows))
    return [torch.cat(parts).double() for parts in values]


def _edits(anatomy: Anatomy, layer: int, mask: Tensor, labels: Tensor, k: Tensor, v: Tensor) -> dict[Place, Edit]:
    """Return edits that take K and V at labels from another run where `mask` `[head dest]` holds."""
    block = anatomy.blocks[layer]
    edges = (mask.unsqueeze(2) & labels).to(anatomy.device)  # [head dest src]
    positions = torch.arange(len(labels), device=anatomy.device)
    keys = anatomy.expand_heads(anatomy.keys(block, k, positions))

    def scores(own: Tensor, computed: Mapping) -> Tensor:
        queries = anatomy.queries(block, computed["q"], positions)
        other = block.cap(torch.einsum("...dhe,...she->...hds", queries, keys) * block.scale)
        other = other + anatomy.bias(block, positions, positions)
        sink = anatomy.sink(block, queries, positions)
        return torch.where(edges, other if sink is None else other - sink, own)

    def outputs(z: Tensor, computed: Mapping) -> Tensor:
        difference = anatomy.expand_heads(v - computed["v"])
        return z + torch.einsum("rhds,rshe->rdhe", computed["pattern"] * edges, difference)

    return {("attn_scores", layer): scores, ("z", layer): outputs}


def _masks(anatomy: Anatomy, batch: Batch, cells: Cells) -> dict[int, Bool[Tensor, "head dest"]]:
    masks: dict[int, Tensor] = {}
    for kind, (layer, head) in cells.members:
        mask = masks.setdefault(layer, torch.zeros(anatomy.n_heads, batch.n_pos, dtype=torch.bool))
        mask[head] |= batch.role == KINDS[kind]
    return dict(sorted(masks.items()))


def source_of(batch: Batch, seed: int, inputs: str, outputs: str) -> Batch:
    """Return prompts with the same labels and other bits, in which the labels of each side are reassigned."""
    redrawn = counterfactual.redraw(batch, REDRAWN + seed, keep="labels")
    return reassign(reassign(redrawn, INPUTS, inputs, seed), OUTPUTS, outputs, seed + 1)
