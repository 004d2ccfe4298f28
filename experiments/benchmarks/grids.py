"""Benchmark: every grid of `interp.patching.grids` against `transformer_lens.patching`, with equal numbers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.small_models import TYPES, VOCAB, small_model
from interp import logit_diff
from interp.models import boot_bridge
from interp.patching import grids as ours

SITES = ("resid_pre", "resid_mid", "attn_out", "mlp_out")
HEADS = tuple(f"attn_head_{site}_{at}" for site in ("out", "q", "k", "v", "pattern") for at in ("by_pos", "all_pos"))
STACKS = ("block_every", "attn_head_all_pos_every", "attn_head_by_pos_every")
PATHS = ("direct_path", "direct_path_all_sources")
# Functions, without get_act_patch_.
GRIDS = (*SITES, *HEADS, "attn_head_pattern_dest_src_pos", *STACKS, *PATHS)
# A function is timed again, up to the number of rounds, while its runs have taken fewer seconds than this.
SECONDS = 2.0
ANSWER, OTHER = 3, 5


@dataclass(frozen=True)
class GridCase:
    """One row: the grids of a model type, on one pair of prompts that differ from position 1 on."""

    model_type: str
    n_layers: int = 4
    d_model: int = 64
    n_heads: int = 4
    n_pos: int = 15

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"grids-{self.model_type}"


DEFAULT = tuple(GridCase(model_type) for model_type in TYPES)


def metric(logits: Tensor) -> Tensor:
    """Return the difference of two logits after the last token: what a notebook would write."""
    return (logits[:, -1, ANSWER] - logits[:, -1, OTHER]).mean()


def run_case(case: GridCase, rounds: int) -> dict:
    """Return milliseconds of each grid, with the same metric on both sides and with a declared one, and differences."""
    from transformer_lens import patching as theirs

    bridge: Any = boot_bridge(small_model(case.model_type, case.n_layers, case.d_model, case.n_heads))
    gen = torch.Generator().manual_seed(0)
    clean, corrupted = (torch.randint(1, VOCAB, (1, case.n_pos), generator=gen) for _ in range(2))
    corrupted[:, 0] = clean[:, 0]
    declared = logit_diff(answer=ANSWER, other=OTHER)
    grids = {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hint that a declared metric is faster
        caches = [bridge.run_with_cache(tokens)[1] for tokens in (clean, corrupted)]
        for name in GRIDS:
            given, extra = (caches, (0, 1)) if name == "direct_path" else (caches if name in PATHS else caches[:1], ())
            options = {"verbose": False} if name in PATHS else {}
            full = f"get_act_patch_{name}"

            def call(module: Any, by: Any, full: str = full, given: Any = given, extra: Any = extra) -> Tensor:
                return getattr(module, full)(bridge, corrupted, *given, by, *extra, **options)  # noqa: B023

            ways = {
                "transformer_lens": partial(call, theirs, metric),
                "ours": partial(call, ours, metric),
                "declared": partial(call, ours, declared),
            }
            grids[name] = compared(ways, rounds)
    return {"case": asdict(case), "grids": grids}


def compared(ways: dict[str, Callable[[], Tensor]], rounds: int) -> dict:
    """Return the number of values, median milliseconds of each way in alternation, and the largest difference.

    The difference is that of any way from the first, relative to the largest value.
    """
    results = {name: way() for name, way in ways.items()}  # also loads code and checks the model
    times: dict[str, list[float]] = {name: [] for name in ways}
    began = time.perf_counter()
    while len(times["ours"]) < rounds and (not times["ours"] or time.perf_counter() - began < SECONDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - start))
    expected = results["transformer_lens"].double()
    scale = float(expected.abs().max())
    return {
        "values": expected.numel(),
        "ms": {name: median(found) for name, found in times.items()},
        "difference": max(float((found.double() - expected).abs().max()) / scale for found in results.values()),
    }
