"""Unfinished work of a circuit search on disk: the scores of all edges, and how far ACDC has come."""

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
Index = tuple[int, int, int]


def load_or_score(
    path: Path | None,
    arguments: tuple[AnyModel, PromptsLike, PromptsLike, MetricLike],
    method: Method | Literal["exact-noise", "exact-denoise"],
    points: int,
    places: Places | PlacesBy,
    progress: Callable[[], Progress] = lambda: iter,
    key: object = None,
) -> EdgeScores:
    """Return the scores that are kept at `path`, or compute them by a method and write them there; None: compute them.

    `arguments`: model, clean, corrupted, metric. `key`, as JSON has it, tells apart searches that share a path. A file
    of another key or graph, or a damaged one, is made again.
    """
    from safetensors.torch import load, save

    own = digest_of(key)
    if path is not None and (kept := read_digested(path)) is not None:
        head, _, values = kept.partition(b"\n")
        rest = json.loads(head)
        if rest.pop("key", None) == own:
            with suppress(ValueError):
                return EdgeScores(
                    prepare(*arguments, places, check=False).edge_model.graph, load(values)["values"], **rest
                )
    match method:
        case "exact-noise" | "exact-denoise":
            direction = "noise" if method == "exact-noise" else "denoise"
            scores = exact_edge_scores(*arguments, direction, places, progress())
        case _:
            scores = edge_scores(*arguments, method, points, places, progress())
    if path is not None:
        rest = {name: getattr(scores, name) for name in ("method", "metric", "clean", "corrupted", "details")}
        head = json.dumps({"key": own, **rest}).encode()
        write_digested(path, head + b"\n" + save({"values": scores.values.contiguous()}))
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
    """The file that keeps how far ACDC has come through its edges, in their order; without a path it keeps nothing.

    `key` tells apart searches that share a path: their edges, threshold and metrics, to five digits.
    """

    def __init__(
        self, path: Path | None, order: Sequence[Index], threshold: float, metrics: Sequence[Float[Tensor, " batch"]]
    ) -> None:
        self.path, self.order = path, order
        self.key = digest_of([order, threshold, *map(rounded, metrics)])
        self._written = time.monotonic()

    def load(self, start: Pruned) -> Pruned:
        """Return what the file holds, or `start` where there is none of this search."""
        if self.path is None or (data := read_digested(self.path)) is None:
            return start
        found = json.loads(data)
        if found.get("key") != self.key:
            return start
        kept = start.kept.clone()
        for number in found["removed"]:
            kept[self.order[number]] = False
        return Pruned(kept, torch.tensor(found["now"], dtype=torch.float64).to(start.now), tuple(found["losses"]))

    def write(self, pruned: Pruned) -> None:
        """Write how far ACDC has come."""
        if self.path is None:
            return
        removed = [i for i, edge in enumerate(self.order[: len(pruned.losses)]) if not pruned.kept[edge]]
        data = {"key": self.key, "removed": removed, "losses": pruned.losses, "now": pruned.now.tolist()}
        write_digested(self.path, json.dumps(data))
        self._written = time.monotonic()

    def write_now_and_then(self, pruned: Pruned) -> None:
        """Write it if the last time is `SECONDS_PER_WRITE` ago."""
        if time.monotonic() - self._written >= SECONDS_PER_WRITE:
            self.write(pruned)
