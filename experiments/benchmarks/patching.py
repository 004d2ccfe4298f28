"""How much faster is a sweep than one forward a patch? Side by side, alternating, the same prompts and numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from typing import Any

import pandas
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from interp.models import ModelConfig, boot_bridge, build_model
from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching import Metric, logit_diff, plan
from interp.patching.reference import literal, record
from interp.patching.sweep import BUCKET, Sweep
from interp.tasks import Batch, counterfactual, house_vocabulary, sample

# Patches timed of the loops, whose every patch costs one forward; ours is timed on whole sweeps.
LOOP_PATCHES = 8
# Positions swept at most; beyond, evenly spaced buckets of neighbouring positions stand for all.
MOST_POSITIONS = 88


@dataclass(frozen=True)
class Case:
    """One row of the benchmark. `bits` gives 4 bits + 2 tokens; random weights, the cost does not depend on them.

    `corrupt`: "flip" flips the middle bit, so that everything before it cannot matter (the usual sweep);
    "redraw" is another prompt, where nothing can be skipped (the hardest one).
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
        """What the row is called."""
        shape = f"{self.family}-{self.n_layers}x{self.d_model}-{4 * self.bits + 2}"
        return f"{shape}-b{self.prompts}-{self.site}-{self.corrupt}"


SHAPES = ((2, 64, 10), (4, 128, 20), (4, 128, 60), (6, 256, 20))
FAMILIES = ("alibi", "rotary", "none", "absolute")
# The headline shape in every family, site and batch; the other shapes in one family.
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
    """One row: medians in milliseconds a patch, ratios, counted FLOPs and the largest difference of the numbers."""
    sweep, metric, clean, corrupted = _prepare(case)
    anatomy, cells = sweep.anatomy, [c for c, alive in zip(sweep.cells, sweep.alive, strict=True) if alive]
    picked = [cells[i] for i in torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))[:LOOP_PATCHES]]
    by_transformer_lens = _transformer_lens_loop(anatomy, case, clean, corrupted, metric, picked)
    rows = torch.arange(len(clean))
    given = {c.layer: record(anatomy, clean.tokens, case.site, c.layer) for c in picked}

    def by_hooks() -> Tensor:
        found = [literal(anatomy, corrupted.tokens, case.site, c, given[c.layer], metric, rows).mean() for c in picked]
        return torch.stack(found)

    times: dict[str, list[float]] = {"ours": [], "transformer_lens": [], "hook loop": []}
    values: dict[str, Tensor] = {}
    effect = None
    for _ in range(rounds):
        fresh = _prepare(case, anatomy)[0]  # nothing cached: planning and both unpatched runs count
        began = time.perf_counter()
        effect = fresh.run()  # with its controls and its spot check
        times["ours"].append((time.perf_counter() - began) / len(fresh.cells))
        for name, loop in (("transformer_lens", by_transformer_lens), ("hook loop", by_hooks)):
            began = time.perf_counter()
            values[name] = loop()
            times[name].append((time.perf_counter() - began) / len(picked))
    assert effect is not None
    index = {cell: i for i, cell in enumerate(sweep.cells)}
    ours = effect.values.flatten(0, -2)[[index[c] for c in picked]].mean(dim=-1)
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
            "ours": counted, "loop": forward * cost.patches * len(clean) / case.prompts,
            "times_fewer": forward * cost.patches / counted,
            "of_lower_bound": cost.flops / cost.lower_bound_flops,
        },
        "difference": {n: float((ours - v.double()).abs().max()) / scale for n, v in values.items()},
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "device": str(anatomy.device),
    }  # fmt: skip


def _prepare(case: Case, anatomy: Anatomy | None = None) -> tuple[Sweep, Metric, Batch, Batch]:
    if anatomy is None:
        config = ModelConfig(case.family, case.n_layers, case.d_model, 16 if case.d_model >= 1024 else 4)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = build_model(config, case.vocabulary or len(house_vocabulary().ids), seed=0)
        anatomy = anatomy_of(model.to(device).eval())  # type: ignore[arg-type]
    clean = sample("parity-aligned", case.prompts, case.bits, seed=0)
    if case.corrupt == "flip":
        corrupted = counterfactual.flip_input(clean, case.bits // 2)
    else:
        corrupted = counterfactual.redraw(clean, seed=1)
    metric = logit_diff(clean, step=case.bits)
    sweep = plan(anatomy.raw, clean, corrupted, case.site, metric, positions=_positions(clean.n_pos))
    return sweep, metric, clean, corrupted


def _positions(n_pos: int) -> list[int] | None:
    """All positions, or evenly spaced buckets of them."""
    if n_pos <= MOST_POSITIONS:
        return None
    n = MOST_POSITIONS // BUCKET
    starts = [round(i * (n_pos - BUCKET) / (n - 1)) for i in range(n)]
    return sorted({p for s in starts for p in range(s, s + BUCKET)})


def _transformer_lens_loop(
    anatomy: Anatomy, case: Case, clean: Batch, corrupted: Batch, metric: Metric, picked: list
) -> Callable[[], Tensor]:
    """TransformerLens's own loop over the picked cells, on a bridge of the same weights."""
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
                bridge, tokens, cache, lambda logits: metric.compute(logits[:, at], rows).mean(),
                setters[case.site], case.site, index_df=index,
            ).cpu()  # fmt: skip

    return loop


def _flops(case: Case, anatomy: Anatomy, corrupted: Batch) -> tuple[float, float]:
    """FLOPs counted by torch: our whole sweep without its checks, and one forward of the batch."""
    sweep = _prepare(case, anatomy)[0]
    with FlopCounterMode(display=False) as ours:
        values = sweep.blank()
        for unit in sweep.units:
            sweep.put(values, unit, sweep.compute(unit))
    raw: Any = anatomy.raw
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        raw(corrupted.tokens.to(anatomy.device), use_cache=False)
    return float(ours.get_total_flops()), float(forward.get_total_flops())
