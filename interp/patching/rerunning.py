"""Patched runs that compute only what differs from the unpatched run, and their metrics.

`interp.patching.patched_runs` has one run. Here are the unpatched runs that it takes from, in chunks of prompts that
fit the budget, and the metrics of both. Nothing after the last position that any prompt of a chunk reads is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.changes import Changes
from interp.patching.editing import SHARE, Place, chunks
from interp.patching.effect import PatchEffect
from interp.patching.metric import Metric
from interp.patching.patched_runs import final_patched
from interp.patching.unpatched import Biases, Unpatched, compare_with_raw, run_unpatched
from interp.sites import Site
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Copies of a layer's values that a patched run takes beside what is kept; with fewer the peak passes small budgets.
COPIES = 16


@dataclass(frozen=True)
class Room:
    """The memory that the caller's runs take beside the unpatched run, which limits how many prompts run together.

    `copies`: of a layer's values. `kept`: numbers per prompt that stay until the chunk is done. `share`: the share of
    the budget for one chunk. `part`: the share of a prompt's positions that a run computes on average.
    """

    copies: int = COPIES
    kept: int = 0
    share: float = SHARE
    part: float = 1


def numbers_kept(anatomy: Anatomy, places: Collection[Place], n_pos: int) -> int:
    """Return how many numbers the kept places of one prompt take, with the keys in the form that attention uses."""
    by_head, by_kv_head = anatomy.n_heads * anatomy.d_head, anatomy.n_kv_heads * anatomy.d_head
    width: dict[Site, int] = {"attn_scores": anatomy.n_heads * n_pos, "pattern": anatomy.n_heads * n_pos}
    width |= {"q": by_head, "z": by_head, "k": by_kv_head + by_head, "v": by_kv_head}
    return n_pos * sum(width.get(site, anatomy.d_model) for site, _ in places)


def unpatched_runs(
    anatomy: Anatomy,
    prompts: Prompts,
    metrics: Sequence[Metric],
    keep: Collection[Place],
    room: Room | None = None,
) -> Iterator[Unpatched]:
    """Yield the unpatched runs of the prompts with the places `keep`, in chunks that fit the budget with `room`.

    Prompts that each read one position of their own (`Metric.own`) come in the order of these positions, and their
    runs end there: restore the order by `in_order`.
    """
    widest = max(metrics, key=lambda metric: len(metric.positions))
    own = metrics[0].own if len(metrics) == 1 and anatomy.causal else None
    order = torch.arange(len(prompts)) if own is None else own.argsort(stable=True)
    difference: float | None = None
    biases = Biases()
    room = Room() if room is None else room
    kept = numbers_kept(anatomy, keep, prompts.n_pos) + room.kept
    for numbers in chunks(anatomy, prompts, widest, room.copies, kept, room.share, room.part):
        rows = order[numbers]
        here = list(metrics) if own is None else [metrics[0].of_rows(rows)]
        reads = reads_of(here)
        tokens = prompts.tokens[rows] if own is None else prompts.tokens[rows, : int(reads[-1]) + 1]
        run = run_unpatched(anatomy, rows, tokens.to(anatomy.device), reads, keep, biases)
        if difference is None:
            difference = compare_with_raw(anatomy, tokens, run, max(here, key=lambda m: len(m.positions)))
        run.raw_difference, run.metrics = difference, here
        yield run


def in_order(rows: Sequence[Int[Tensor, " row"]], values: Sequence[Float[Tensor, "*entry row"]]) -> Tensor:
    """Return values of chunks of prompts, `[*entry batch]`, in the order of the prompts."""
    return torch.cat(list(values), dim=-1)[..., torch.cat(list(rows)).argsort()]


class Measured:
    """Metrics of the unpatched run and of some entries, gathered in chunks of prompts."""

    def __init__(self, metrics: Sequence[Metric], names: Iterable[str]) -> None:
        self.metrics, self.names = metrics, tuple(names)
        self._rows: list[Tensor] = []
        self._base: list[Sequence[Tensor]] = []  # by chunk, then metric
        self._entries: list[Sequence[Sequence[Tensor]]] = []  # by chunk, entry, then metric

    def add(self, run: Unpatched, base: Sequence[Tensor], entries: Sequence[Sequence[Tensor]]) -> None:
        """Add the metrics of a chunk, in the order of the metrics and of the names."""
        self._rows.append(run.rows)
        self._base.append(base)
        self._entries.append(entries)

    def effects(self, site: str, direction: str, axis: str, details: dict) -> list[PatchEffect]:
        """Return one effect per metric, whose only axis has the entries. There is no source: it is the base."""
        return [self._effect(k, site, direction, axis, details) for k in range(len(self.metrics))]

    def _effect(self, k: int, site: str, direction: str, axis: str, details: dict) -> PatchEffect:
        base = in_order(self._rows, [chunk[k] for chunk in self._base])
        values = in_order(self._rows, [torch.stack([cell[k] for cell in chunk]) for chunk in self._entries])
        return PatchEffect(
            site=site,
            metric=self.metrics[k].name,
            direction=direction,
            axes=(axis,),
            labels={axis: self.names},
            values=values,
            base=base,
            source=base,
            details=details,
        )


def measure_unpatched(anatomy: Anatomy, run: Unpatched, metrics: Sequence[Metric]) -> list[Float[Tensor, " row"]]:
    """Return the metrics of the unpatched run, on the CPU."""
    reads = reads_of(metrics).to(run.final.device)
    return _measure(anatomy, run.final_at(reads), metrics, run.rows)


@torch.no_grad()
def measure_patched(
    anatomy: Anatomy, run: Unpatched, changes: Changes, metrics: Sequence[Metric]
) -> list[Float[Tensor, " row"]]:
    """Return the metrics of a patched run, on the CPU. Raises `ValueError` for a NaN or infinite value."""
    reads = reads_of(metrics).to(run.final.device)
    return _measure(anatomy, final_patched(anatomy, run, changes, reads), metrics, run.rows)


def reads_of(metrics: Sequence[Metric]) -> Int[Tensor, " read"]:
    """Return the positions that any of the metrics reads."""
    return torch.cat([metric.positions for metric in metrics]).unique()


def _measure(anatomy: Anatomy, resid: Tensor, metrics: Sequence[Metric], rows: Tensor) -> list[Tensor]:
    """Return each metric, from the last residual where any of them reads: it is unembedded once."""
    tokens = metrics[0].tokens if len(metrics) == 1 else None
    reads, logits = reads_of(metrics), anatomy.unembed(resid, tokens)
    values = []
    for metric in metrics:
        own = logits
        if len(metric.positions) < len(reads):
            own = logits[:, torch.isin(reads, metric.positions).to(logits.device)]
        measured = metric.measure(own, rows) if tokens is None else metric.measure_read(own, rows)
        values.append(require_finite(measured, metric.name, rows).cpu())
    return values
