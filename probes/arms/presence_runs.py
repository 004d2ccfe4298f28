"""Presence, runs: the unpatched run of the prompts, and keys and values at labels of the sources.

They are kept between calls while they fit the memory budget. Those that do not fit are kept until other prompts run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching import Metric
from interp.patching.editing import SHARE, Place, chunks
from interp.patching.patched_runs import PROJECTED
from interp.patching.rerunning import COPIES, numbers_kept
from interp.patching.unpatched import Biases, Unpatched, run_unpatched, trace
from interp.sites import Site
from interp.support.budget import numbers
from interp.tasks import Batch, Role
from probes.arms.bands import FEW_LAYERS
from probes.arms.idle_heads import LABELS

# Sites that patched runs take from the unpatched one in a deep model: q is needed in the first layers that change only.
WITHOUT_QUERIES: tuple[Site, ...] = ("resid_pre", "k", "v")


class KeptRuns:
    """Runs of one batch, of which `score` and the answers are read, and of its sources.

    `first`: prompts that run before all others, and then twice as many each time, for a search whose tests end at the
    prompts that decide. None: always as many as fit.
    """

    def __init__(
        self, anatomy: Anatomy, batch: Batch, score: Metric, sources: Sequence[Batch], first: int | None = None
    ) -> None:
        self.first = first
        self.anatomy, self.batch, self.score, self.sources = anatomy, batch, score, sources
        self.reads = torch.cat([score.positions, batch.at(Role.OUTPUT) - 1]).unique()
        self.labels = torch.isin(batch.role, torch.tensor(LABELS))
        self.biases, self._kept = Biases(), dict[tuple[int, int, int], Any]()
        self._size = 0  # numbers in them
        self._passing = dict[tuple[int, int, int], Any]()  # those of the prompts that run now which do not fit

    def chunks(self) -> Iterator[Int[Tensor, " row"]]:
        """Yield the numbers of the prompts that run together."""
        anatomy, layers = self.anatomy, len(self.anatomy.blocks)
        # Of each source keys and values at labels, and of a change both for every head.
        width = 2 * anatomy.d_head * (len(self.sources) * anatomy.n_kv_heads + anatomy.n_heads)
        kept = numbers_kept(anatomy, self._places(), self.batch.n_pos) + layers * int(self.labels.sum()) * width
        together = list(chunks(anatomy, self.batch, self.score, COPIES, kept))
        return iter(together if self.first is None else growing(len(self.batch), self.first, len(together[0])))

    def unpatched(self, rows: Tensor) -> Unpatched:
        """Return the run of some of the prompts that are patched; kept for the next call as those of sources are."""
        places = self._places()
        tokens = self.batch.tokens[rows].to(self.anatomy.device)

        def compute() -> tuple[Unpatched, int]:
            run = run_unpatched(self.anatomy, rows, tokens, self.reads, places, self.biases)
            run.kept = _WithQueries(self.anatomy, run.kept)
            return run, sum(x.numel() for x in (run.final, *run.kept.values()))

        return self._recall(rows, -1, compute)

    def _places(self) -> list[Place]:
        layers = len(self.anatomy.blocks)
        sites = PROJECTED if layers <= FEW_LAYERS else WITHOUT_QUERIES
        return [(site, layer) for layer in range(layers) for site in sites]

    def source(self, rows: Tensor, number: int) -> Mapping[Place, Tensor]:
        """Return K and V of every layer at labels of some prompts of a source, K as attention uses it.

        They are kept for the next call while all fit.
        """
        sites: tuple[Site, ...] = ("k", "v")
        places: list[Place] = [(site, layer) for layer in range(len(self.anatomy.blocks)) for site in sites]
        tokens = self.sources[number].tokens[rows].to(self.anatomy.device)

        def compute() -> tuple[Mapping[Place, Tensor], int]:
            kept = trace(self.anatomy, tokens, self.reads.to(tokens.device), places, False, self.biases)[1]
            at, found = self.labels.nonzero().flatten().to(tokens.device), dict[Place, Tensor]()
            for (site, layer), x in kept.items():
                some = x.index_select(1, at)
                found[site, layer] = self.anatomy.keys(self.anatomy.blocks[layer], some, at) if site == "k" else some
            return found, sum(x.numel() for x in found.values())

        return self._recall(rows, number, compute)

    def _recall(self, rows: Tensor, number: int, compute: Callable[[], tuple[Any, int]]) -> Any:
        """Return a run of some prompts, kept while all kept fit the budget, else until other prompts run."""
        key = (number, int(rows[0]), len(rows))  # chunks may differ in size
        for kept in (self._kept, self._passing):
            if key in kept:
                return kept[key]
        found, size = compute()
        if self._size + size <= numbers(SHARE, self.anatomy.device, self.anatomy.dtype.itemsize):
            self._kept[key] = found
            self._size += size
            return found
        if any(other[1:] != key[1:] for other in self._passing):
            self._passing.clear()
        self._passing[key] = found
        return found


def growing(n_prompts: int, first: int, most: int) -> list[Int[Tensor, " row"]]:
    """Return the numbers of prompts in chunks that double from `first` up to `most`.

    The last chunk takes the rest where that is at most half as large again.

    >>> [len(rows) for rows in growing(8, first=1, most=7)]
    [1, 2, 5]
    """
    found, done, size = list[Tensor](), 0, min(first, most)
    while done < n_prompts:
        left = n_prompts - done
        size = left if left <= min(most, size * 3 // 2) else size
        found.append(torch.arange(done, min(done + size, n_prompts)))
        done, size = done + size, min(2 * size, most)
    return found


class _WithQueries(dict[Place, Tensor]):
    """The kept sites of a run, with q computed where it is asked for: only the first layers that change need it."""

    def __init__(self, anatomy: Anatomy, kept: Mapping[Place, Tensor]) -> None:
        super().__init__(kept)
        self.anatomy = anatomy

    def __missing__(self, place: Place) -> Tensor:
        site, layer = place
        if site != "q":
            raise KeyError(place)
        return self.anatomy.blocks[layer].project(self["resid_pre", layer])[0]
