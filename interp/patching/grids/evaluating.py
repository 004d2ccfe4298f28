"""Evaluate the cells of a grid: build the sweep of a site from cached activations, run it and check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.arguments import PromptsLike, prompts_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.changed import require_evaluating
from interp.models.resolve import AnyModel, raw_of
from interp.patching.cells import Cell, check_site
from interp.patching.engine import Engine
from interp.patching.grids.cached_sweep import CachedSweep, check_cells
from interp.patching.grids.caches import Cache, cached_values, require_same_hooks, snapped, with_site
from interp.patching.grids.callables import BoundMetric, GridMetric, bind_metrics
from interp.patching.tracing import Trace, pattern_of, trace
from interp.sites import Site
from interp.support.budget import allowed
from interp.tasks import Prompts

# Source positions whose entries are spot-checked, of those of a pattern by destination and source.
CHECKED_SOURCES = 4


@dataclass(frozen=True, eq=False)
class Setting:
    """What the cells of a grid share. `engines` holds the newest engine of the corrupted run, by metric."""

    model: AnyModel
    anatomy: Anatomy
    prompts: Prompts
    metrics: dict[str, BoundMetric]
    reduce: str
    engines: dict[str, dict[range, Engine]] = field(default_factory=dict)

    def sweep(
        self, name: str, site: Site, cells: Sequence[Cell], source_of: Callable[[Trace, range], Trace]
    ) -> CachedSweep:
        """Return the sweep of some cells for one metric."""
        bound = self.metrics[name]
        return CachedSweep(
            anatomy=self.anatomy,
            base=self.prompts,
            source=self.prompts,
            site=site,
            metric=bound.metric,
            direction="denoise",
            axes=("cell",),
            labels={"cell": tuple(range(len(cells)))},
            cells=tuple(cells),
            memory=allowed(self.anatomy.device),
            source_of=source_of,
            engines=self.engines.setdefault(name, {}),
            whole_batch=bound.whole_batch,
        )


def setting_of(
    model: AnyModel,
    corrupted_tokens: PromptsLike,
    metrics: GridMetric | Mapping[str, GridMetric],
    reduce: str,
) -> Setting:
    """Resolve and check the arguments of a grid.

    Raises `ValueError` for a model in training mode, one that is not taken apart or not causal, and no prompts.
    """
    if isinstance(model, nn.Module):
        require_evaluating(model)
    anatomy = anatomy_of(raw_of(model), test=False)  # `check_cells` compares with the raw model on these prompts
    if not anatomy.causal:
        raise ValueError("this model attends in both directions; use interp.interchange or interp.knock_out")
    prompts = prompts_of(model, corrupted_tokens, "corrupted_tokens")
    if not len(prompts):
        raise ValueError("there are no prompts")
    bound = bind_metrics(metrics, model, prompts, reduce)
    return Setting(model=model, anatomy=anatomy, prompts=prompts, metrics=bound, reduce=reduce)


def site_values(
    setting: Setting, cache: Cache, site: Site, cells: Sequence[Cell], sources: Sequence[int] | None = None
) -> Float[Tensor, "metric cell batch"]:
    """Return the metrics after each patch of a site with its cached values.

    `sources`: for "pattern", one source position per cell: only that entry of the destination row is patched.
    """
    anatomy, prompts = setting.anatomy, setting.prompts
    check_site(site, anatomy)
    layers = sorted({cell.layer for cell in cells})
    values = cached_values(cache, anatomy, prompts, site, layers)
    require_same_hooks(setting.model, cache, anatomy, prompts, site, layers)
    if sources is not None:
        return _entry_values(setting, values, cells, sources)

    def source_of(base: Trace, rows: range) -> Trace:
        return _source(anatomy, base, site, {layer: x[rows.start : rows.stop] for layer, x in values.items()})

    results = []
    for name in setting.metrics:
        # A patched pattern changes its own row of z only, so it is a patch of z.
        sweep = setting.sweep(name, "z" if site == "pattern" else site, cells, source_of)
        results.append(sweep.values())
        check_cells(sweep, results[-1], site, lambda layer: values[layer])
    return torch.stack(results)


def _source(anatomy: Anatomy, base: Trace, site: Site, values: Mapping[int, Tensor]) -> Trace:
    """Return the corrupted run with a site's cached values, and with what the engine derives from them."""
    if site == "pattern":
        values = {layer: anatomy.mix(pattern, base.v[layer]) for layer, pattern in values.items()}
        site = "z"
    values = {layer: snapped(value, base.site(site, layer)) for layer, value in values.items()}
    run = with_site(base, site, values)
    if site == "resid_pre":
        projected = {layer: anatomy.blocks[layer].project(value) for layer, value in values.items()}
        for which, name in enumerate(("q", "k", "v")):
            run = with_site(run, name, {layer: qkv[which] for layer, qkv in projected.items()})
    return run


def _entry_values(
    setting: Setting, patterns: Mapping[int, Tensor], cells: Sequence[Cell], sources: Sequence[int]
) -> Float[Tensor, "metric cell batch"]:
    """Return the metrics after each patch of one entry of a pattern; one sweep of z per source position."""
    anatomy, prompts = setting.anatomy, setting.prompts
    results = torch.zeros(len(setting.metrics), len(cells), len(prompts), dtype=torch.float64)
    order = torch.randperm(prompts.n_pos, generator=torch.Generator().manual_seed(0))
    checked = order[:CHECKED_SOURCES].tolist()
    for src in sorted(set(sources)):
        numbers = [i for i, source in enumerate(sources) if source == src]
        some = [cells[i] for i in numbers]

        def source_of(base: Trace, rows: range, src: int = src) -> Trace:
            return _with_entry(anatomy, base, {la: x[rows.start : rows.stop] for la, x in patterns.items()}, src)

        def literal_source(layer: int, src: int = src) -> Tensor:
            pattern = pattern_of(anatomy, trace(anatomy, prompts.tokens), layer)
            pattern[..., src] = patterns[layer][..., src]
            return pattern

        for metric, name in enumerate(setting.metrics):
            sweep = setting.sweep(name, "z", some, source_of)
            results[metric, numbers] = values = sweep.values()
            if src in checked:
                check_cells(sweep, values, "pattern", literal_source)
    return results


def _with_entry(anatomy: Anatomy, base: Trace, patterns: Mapping[int, Tensor], src: int) -> Trace:
    """Return the run in which every head's weight on position `src` is the cached one."""
    values = {}
    for layer, pattern in patterns.items():
        change = (pattern - pattern_of(anatomy, base, layer))[..., src]  # [batch head dest]
        v = anatomy.expand_heads(base.v[layer])[:, src]  # [batch head d_head]
        z = base.z[layer] + change.transpose(1, 2).unsqueeze(-1) * v.unsqueeze(1)
        values[layer] = snapped(z, base.z[layer])
    return with_site(base, "z", values)


def baselines(setting: Setting) -> Float[Tensor, "metric batch"]:
    """Return the metrics of the unpatched corrupted run."""
    cell = Cell(0, (0,), None)
    return torch.stack(
        [setting.sweep(name, "resid_post", [cell], lambda base, _: base).baselines[0] for name in setting.metrics]
    )
