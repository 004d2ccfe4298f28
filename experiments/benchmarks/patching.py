"""Benchmark: patching sweeps against one forward pass per patch, in alternating rounds, with equal values."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from statistics import median
from typing import Any

import pandas
import torch
from torch import Tensor

from experiments.benchmarks.small_models import family_model
from interp.models import boot_bridge
from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching import Metric, logit_diff, plan
from interp.patching.reference import literal, record
from interp.patching.sweep import Sweep
from interp.patching.tracing import trace
from interp.patching.units import BUCKET
from interp.support.flops import flop_counter
from interp.tasks import Batch, counterfactual, sample

# Patches timed of the loops, in which every patch costs one forward pass. Our sweeps are timed whole.
LOOP_PATCHES = 8
# Patches per trace of nnsight: the fastest of 8, 16 and 41.
NNSIGHT_BATCH = 41
# Largest number of positions swept. Longer prompts are sampled in evenly spaced buckets of neighbouring positions.
MOST_POSITIONS = 88


@dataclass(frozen=True)
class Case:
    """One row of the benchmark: a model with random weights and prompts of 4 bits + 2 tokens.

    `corrupt`: "flip" flips the middle bit, so that no position before it can matter; "redraw" takes another prompt, in
    which nothing can be skipped.
    """

    family: str
    n_layers: int
    d_model: int
    bits: int
    prompts: int
    site: str
    corrupt: str
    vocabulary: int = 0

    @property
    def name(self) -> str:
        """Return the name of the row."""
        shape = f"{self.family}-{self.n_layers}x{self.d_model}-{4 * self.bits + 2}"
        return f"{shape}-b{self.prompts}-{self.site}-{self.corrupt}"


SHAPES = ((2, 64, 10), (4, 128, 20), (4, 128, 60), (6, 256, 20))
FAMILIES = ("alibi", "rotary", "none", "absolute")
# The main shape in every family, site and batch size; the other shapes in one family.
DEFAULT = tuple(
    Case(family, *shape, prompts, site, corrupt)
    for family, shape, prompts, site, corrupt in product(
        FAMILIES, SHAPES, (1, 8, 32), ("resid_pre", "z", "pattern"), ("flip", "redraw")
    )
    if (family == "alibi" and site == "resid_pre" and (prompts < 32 or shape[2] <= 20))
    or (family == "alibi" and shape == (4, 128, 20) and prompts < 32)
    or (shape == (4, 128, 20) and prompts == 1 and corrupt == "flip")
)
BLOOM_560M = Case("alibi", 24, 1024, 20, 1, "resid_pre", "flip", vocabulary=250_880)


def run_case(case: Case, rounds: int) -> dict:
    """Return one row: median milliseconds per patch, ratios, counted FLOPs and the largest difference of the values."""
    sweep, metric, clean, corrupted = _prepare(case)
    anatomy = sweep.anatomy
    assert isinstance(anatomy, Anatomy), "the models of the benchmark are taken apart"
    cells = [c for c, alive in zip(sweep.cells, sweep.alive, strict=True) if alive]
    picked = [cells[i] for i in torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))[:LOOP_PATCHES]]
    by_transformer_lens = _transformer_lens_loop(anatomy, case, clean, corrupted, metric, picked)
    rows = torch.arange(len(clean))
    given = {c.layer: record(anatomy, clean.tokens, case.site, c.layer) for c in picked}

    def by_hooks() -> Tensor:
        found = [literal(anatomy, corrupted.tokens, case.site, c, given[c.layer], metric, rows).mean() for c in picked]
        return torch.stack(found)

    loops = {"transformer_lens": (by_transformer_lens, len(picked)), "hook loop": (by_hooks, len(picked))}
    if by_nnsight := nnsight_by_hand(anatomy, case, clean, corrupted):
        loops["nnsight"] = (by_nnsight, len(anatomy.blocks) * NNSIGHT_BATCH)
    times: dict[str, list[float]] = {"ours": [], **{name: [] for name in loops}}
    values: dict[str, Tensor] = {}
    effect = None
    for _ in range(rounds):
        fresh = _prepare(case, anatomy)[0]  # nothing is cached: planning and both unpatched runs are timed
        began = time.perf_counter()
        effect = fresh.run()  # includes controls and spot check
        times["ours"].append((time.perf_counter() - began) / len(fresh.cells))
        for name, (loop, patches) in loops.items():
            began = time.perf_counter()
            values[name] = loop()
            times[name].append((time.perf_counter() - began) / patches)
    assert effect is not None
    index = {cell: i for i, cell in enumerate(sweep.cells)}
    ours = effect.values.flatten(0, -2)[[index[c] for c in picked]].mean(dim=-1)
    if "nnsight" in values:  # its loop runs other cells, so those are compared
        logits = values.pop("nnsight").unflatten(1, (NNSIGHT_BATCH, len(clean)))
        theirs = metric.compute(logits, rows).double()
        same = effect.values[:, _middle(clean.n_pos)]
        values["nnsight"] = ours + (theirs - same).abs().max()
    scale = max(1.0, float(effect.base.abs().max()), float(effect.source.abs().max()))
    ms = {name: 1000 * median(found) for name, found in times.items()}
    counted, forward = _flops(case, anatomy, corrupted)
    cost = sweep.cost
    return {
        "case": asdict(case),
        "tokens": clean.n_pos,
        "patches": cost.patches,
        "skipped": cost.skipped,
        "positions_swept": len(sweep.labels["pos"]),
        "ms_a_patch": ms,
        "ratio": {name: ms[name] / ms["ours"] for name in ms if name != "ours"},
        "flops": {
            "ours": counted,
            "loop": forward * cost.patches * len(clean) / case.prompts,
            "times_fewer": forward * cost.patches / counted,
            "of_lower_bound": cost.flops / cost.lower_bound_flops,
        },
        "difference": {n: float((ours - v.double()).abs().max()) / scale for n, v in values.items()},
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "device": str(anatomy.device),
    }


def _prepare(case: Case, anatomy: Anatomy | None = None) -> tuple[Sweep, Metric, Batch, Batch]:
    if anatomy is None:
        n_heads = 16 if case.d_model >= 1024 else 4
        anatomy = anatomy_of(family_model(case.family, case.n_layers, case.d_model, n_heads, case.vocabulary))
    clean = sample("parity-aligned", case.prompts, case.bits, seed=0)
    if case.corrupt == "flip":
        corrupted = counterfactual.flip_input(clean, case.bits // 2)
    else:
        corrupted = counterfactual.redraw(clean, seed=1)
    metric = logit_diff(clean, step=case.bits)
    most = MOST_POSITIONS if case.d_model < 1024 else 2 * BUCKET
    sweep = plan(anatomy.raw, clean, corrupted, case.site, metric, positions=_positions(clean.n_pos, most))
    return sweep, metric, clean, corrupted


def _positions(n_pos: int, most: int) -> list[int] | None:
    """Return None for all positions, or evenly spaced buckets of positions."""
    if n_pos <= most:
        return None
    n = most // BUCKET
    starts = [round(i * (n_pos - BUCKET) / (n - 1)) for i in range(n)]
    return sorted({p for s in starts for p in range(s, s + BUCKET)})


def _transformer_lens_loop(
    anatomy: Anatomy, case: Case, clean: Batch, corrupted: Batch, metric: Metric, picked: list
) -> Callable[[], Tensor]:
    """Return TransformerLens's own loop over the picked cells, on a bridge of the same weights."""
    import copy

    from transformer_lens import patching as theirs

    bridge: Any = boot_bridge(copy.deepcopy(anatomy.raw))
    setters = {
        "resid_pre": theirs.layer_pos_patch_setter,
        "z": theirs.layer_pos_head_vector_patch_setter,
        "pattern": theirs.layer_head_pos_pattern_patch_setter,
    }
    names = ["layer", "pos"] if case.site == "resid_pre" else ["layer", "pos", "head"]
    if case.site == "pattern":
        names = ["layer", "head", "dest_pos"]
    parts = [{"layer": c.layer, "pos": c.positions[0], "dest_pos": c.positions[0], "head": c.head} for c in picked]
    index = pandas.DataFrame([[part[n] for n in names] for part in parts], columns=names)
    tokens = corrupted.tokens.to(anatomy.device)
    rows = torch.arange(len(clean))
    at = metric.positions.to(anatomy.device)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean.tokens.to(anatomy.device))

    def loop() -> Tensor:
        with torch.no_grad():
            return theirs.generic_activation_patch(
                bridge,
                tokens,
                cache,
                lambda logits: metric.compute(logits[:, at], rows).mean(),
                setters[case.site],
                case.site,
                index_df=index,
            ).cpu()

    return loop


def nnsight_by_hand(anatomy: Anatomy, case: Case, clean: Batch, corrupted: Batch) -> Callable[[], Tensor] | None:
    """Return the fastest loop we could write in nnsight 0.8 on BLOOM; None where it is not installed (extra `peers`).

    The loop skips layers before the patch, runs patches of one layer as a batch in one trace, and unembeds only the
    position that the metric reads. It patches positions in the middle of the prompt in every layer, so its mean is that
    of a whole sweep. It returns logits `[layer row read d_vocab]`.
    """
    here = case.family == "alibi" and case.site == "resid_pre" and clean.n_pos <= MOST_POSITIONS and not case.vocabulary
    if not here or find_spec("nnsight") is None:
        return None
    from nnsight import NNsight  # type: ignore[import-not-found]

    model: Any = NNsight(anatomy.raw)
    metric = logit_diff(clean, step=case.bits)
    base, source = (trace(anatomy, b.tokens) for b in (corrupted, clean))
    positions = _middle(clean.n_pos)
    at, n = metric.positions.to(anatomy.device), len(clean)

    def loop() -> Tensor:
        found = []
        for layer in range(len(anatomy.blocks)):
            resid = base.resid_pre[layer].repeat(NNSIGHT_BATCH, 1, 1)
            for k, position in enumerate(positions):
                resid[k * n : (k + 1) * n, position] = source.resid_pre[layer][:, position]
            tokens = corrupted.tokens.to(anatomy.device).repeat(NNSIGHT_BATCH, 1)
            with torch.no_grad(), model.trace(tokens, use_cache=False, logits_to_keep=at):
                if layer == 0:
                    model.transformer.word_embeddings_layernorm.output = resid
                for i in range(layer):
                    model.transformer.h[i].skip((resid, None))
                logits = model.output.logits.save()
            found.append(logits)
        return torch.stack(found)

    return loop


def _middle(n_pos: int) -> list[int]:
    start = n_pos // 2 - NNSIGHT_BATCH // 2
    return list(range(start, start + NNSIGHT_BATCH))


def _flops(case: Case, anatomy: Anatomy, corrupted: Batch) -> tuple[float, float]:
    """Return FLOPs counted by torch: of our whole sweep without checks, and of one forward pass of the batch."""
    sweep = _prepare(case, anatomy)[0]
    with flop_counter() as ours:
        values = sweep.blank()
        for unit in sweep.units:
            sweep.put(values, unit, sweep.compute(unit))
    raw: Any = anatomy.raw
    with torch.no_grad(), flop_counter() as forward:
        raw(corrupted.tokens.to(anatomy.device), use_cache=False)
    return float(ours.get_total_flops()), float(forward.get_total_flops())
