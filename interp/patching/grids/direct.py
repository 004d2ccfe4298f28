"""Direct path patching: one head's output read by the q, k or v of one later head alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike
from interp.models.anatomy import Anatomy
from interp.models.resolve import AnyModel
from interp.patching.cells import Cell
from interp.patching.grids.cached_sweep import check_cells
from interp.patching.grids.caches import Cache, cached_values, require_same_hooks, with_site
from interp.patching.grids.callables import GridMetric
from interp.patching.grids.evaluating import Setting, setting_of
from interp.patching.tracing import Trace, trace
from interp.tasks.limits import is_index

Component = Literal["q", "k", "v"]
COMPONENTS = ("q", "k", "v")


@torch.no_grad()
def direct_paths(
    model: AnyModel,
    corrupted_tokens: PromptsLike,
    clean_cache: Cache,
    corrupted_cache: Cache,
    metric: GridMetric,
    sources: Sequence[tuple[int, int]] | None,
    component: Component,
) -> Float[Tensor, "source layer head"]:
    """Return the metric with the path from each source (layer, head) to each later head patched; else 0.

    A None for `sources` is every head. Between the two heads everything keeps its corrupted output, so the receiver
    reads the corrupted residual plus the source's change. After the receiver everything is recomputed.
    """
    setting = setting_of(model, corrupted_tokens, metric, "scalar")
    anatomy, prompts = setting.anatomy, setting.prompts
    n_layers, n_heads = len(anatomy.blocks), anatomy.n_heads
    if component not in COMPONENTS:
        raise ValueError(f"component must be q, k or v; got {component!r}")
    if component != "q" and anatomy.n_kv_heads != n_heads:
        raise ValueError(
            f"component={component!r}: {n_heads} heads share {anatomy.n_kv_heads} key-value heads, so that there is "
            "no path to one head's own; use interp.path_patch with a Receiver, whose head is a key-value head"
        )
    if sources is None:
        sources = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    for layer, head in sources:
        if not (is_index(layer, n_layers) and is_index(head, n_heads)):
            raise ValueError(f"no head {head} in layer {layer}; layers 0 to {n_layers - 1}, heads 0 to {n_heads - 1}")
    layers = sorted({layer for layer, _ in sources})
    clean, corrupted = (cached_values(c, anatomy, prompts, "z", layers) for c in (clean_cache, corrupted_cache))
    require_same_hooks(model, clean_cache, anatomy, prompts, "z", layers)
    results = torch.zeros(len(sources), n_layers, n_heads, device=anatomy.device)
    for number, (layer, head) in enumerate(sources):
        if layer + 1 < n_layers:
            change = torch.zeros_like(clean[layer])
            change[:, :, head] = clean[layer][:, :, head] - corrupted[layer][:, :, head]
            results[number, layer + 1 :] = _paths(setting, layer, change, component)
    return results


def _paths(
    setting: Setting, layer: int, change: Float[Tensor, "batch pos head d_head"], component: Component
) -> Float[Tensor, "later head"]:
    """Return the metric of each later head, from the change of the source's z."""
    anatomy, prompts = setting.anatomy, setting.prompts
    everywhere = tuple(range(prompts.n_pos))
    later = range(layer + 1, len(anatomy.blocks))
    cells = [Cell(dest, everywhere, head) for dest in later for head in range(anatomy.n_heads)]

    def source_of(base: Trace, rows: range) -> Trace:
        return _received(anatomy, base, layer, change[rows.start : rows.stop], component)

    @cache
    def received() -> Trace:
        return _received(anatomy, trace(anatomy, prompts.tokens), layer, change, component)

    def literal_source(layer: int) -> Tensor:
        return received().site(component, layer)

    sweep = setting.sweep("metric", component, cells, source_of)
    values = sweep.values()
    check_cells(sweep, values, component, literal_source)
    return values.mean(dim=-1).unflatten(0, (len(later), anatomy.n_heads)).to(anatomy.device, torch.float32)


def _received(anatomy: Anatomy, base: Trace, layer: int, change: Tensor, component: Component) -> Trace:
    """Return the corrupted run with the q, k or v of every later layer that reads the source's change."""
    block = anatomy.blocks[layer]
    added = block.attn_out(base.z[layer] + change) - block.attn_out(base.z[layer])
    which = COMPONENTS.index(component)
    later = range(layer + 1, len(anatomy.blocks))
    values = {i: anatomy.blocks[i].project(base.resid_pre[i] + added)[which] for i in later}
    return with_site(base, component, values)
