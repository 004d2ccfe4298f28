"""Unfinished work of circuit searches on disk: the scores of all edges, and how far ACDC has come.

A search has files of its own in a folder, named by the digest of what it depends on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.arguments import PromptsLike
from interp.circuits.exact import exact_edge_scores
from interp.circuits.pairs import Progress, prepare
from interp.circuits.places import Places, PlacesBy
from interp.circuits.scores import EdgeScores
from interp.circuits.scoring import Method, edge_scores
from interp.models.resolve import AnyModel
from interp.patching.metric import MetricLike
from interp.support.digests import digest_of
from interp.support.writing import read_digested, write_digested

# ACDC writes how far it has come when the last time is so many seconds ago.
SECONDS_PER_WRITE = 20.0
# Digits of a digest in the name of a file.
DIGITS = 16
Index = tuple[int, int, int]


def load_or_score(
    folder: Path | None,
    arguments: tuple[AnyModel, PromptsLike, PromptsLike, MetricLike],
    method: Method | Literal["exact-noise", "exact-denoise"],
    points: int,
    places: Places | PlacesBy,
    progress: Callable[[], Progress] = lambda: iter,
    key: object = None,
) -> EdgeScores:
    """Return the scores that a folder keeps, or compute them by a method and write them there; None: compute them.

    `arguments`: model, clean, corrupted, metric. `key`, as JSON has it, tells apart searches that share a folder. A
    file of another graph, or a damaged one, is made again.
    """
    from safetensors.torch import load, save

    path = None if folder is None else folder / f"scores-{digest_of(key)[:DIGITS]}.safetensors"
    if path is not None and (kept := read_digested(path)) is not None:
        head, _, values = kept.partition(b"\n")
        with suppress(ValueError):
            graph = prepare(*arguments, places, check=False).edge_model.graph
            return EdgeScores(graph, load(values)["values"], **json.loads(head))
    match method:
        case "exact-noise" | "exact-denoise":
            direction = "noise" if method == "exact-noise" else "denoise"
            scores = exact_edge_scores(*arguments, direction, places, progress())
        case _:
            scores = edge_scores(*arguments, method, points, places, progress())
    if path is not None:
        head = {name: getattr(scores, name) for name in ("method", "metric", "clean", "corrupted", "details")}
        values = save({"values": scores.values.contiguous()})
        write_digested(path, json.dumps(head).encode() + b"\n" + values)
    return scores


def rounded(values: Float[Tensor, "*shape"]) -> list[str]:
    """Return numbers to five digits, which the rounding of another number of threads hardly changes."""
    return [f"{x:.5g}" for x in values.flatten().tolist()]


@dataclass(frozen=True, eq=False)
class Pruned:
    """How far ACDC has come: the edges that are left, the metric with them, and what cutting each tried edge cost."""

    kept: Bool[Tensor, "place reader writer"]
    now: Float[Tensor, " batch"]
    losses: tuple[float, ...] = ()


class PruningFile:
    """The file in a folder that keeps how far ACDC has come through its edges, in their order; None keeps nothing.

    Searches differ in their edges, threshold and metrics, these to five digits.
    """

    def __init__(
        self, folder: Path | None, order: Sequence[Index], threshold: float, metrics: Sequence[Float[Tensor, " batch"]]
    ) -> None:
        key = digest_of([order, threshold, *map(rounded, metrics)])[:DIGITS]
        self.path, self.order = None if folder is None else folder / f"pruning-{key}.json", order
        self._written = time.monotonic()

    def load(self, start: Pruned) -> Pruned:
        """Return what the file holds, or `start` where there is none."""
        if self.path is None or (data := read_digested(self.path)) is None:
            return start
        found, kept = json.loads(data), start.kept.clone()
        for number in found["removed"]:
            kept[self.order[number]] = False
        return Pruned(kept, torch.tensor(found["now"], dtype=torch.float64).to(start.now), tuple(found["losses"]))

    def write(self, pruned: Pruned) -> None:
        """Write how far ACDC has come."""
        if self.path is None:
            return
        removed = [i for i, edge in enumerate(self.order[: len(pruned.losses)]) if not pruned.kept[edge]]
        data = {"removed": removed, "losses": pruned.losses, "now": pruned.now.tolist()}
        write_digested(self.path, json.dumps(data))
        self._written = time.monotonic()

    def write_now_and_then(self, pruned: Pruned) -> None:
        """Write it if the last time is `SECONDS_PER_WRITE` ago."""
        if time.monotonic() - self._written >= SECONDS_PER_WRITE:
            self.write(pruned)
