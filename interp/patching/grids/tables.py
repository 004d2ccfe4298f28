"""Grids as tensors and results of TransformerLens's shapes: cells by axis, reduction over the batch, stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.models.resolve import AnyModel
from interp.patching.cells import Cell
from interp.patching.grids.caches import Cache
from interp.patching.grids.callables import GridMetric
from interp.patching.grids.evaluating import Setting, baselines, setting_of, site_values
from interp.sites import Site, head_count

if TYPE_CHECKING:
    import pandas
    from transformer_lens.patching import PatchingResult

Metrics = GridMetric | Mapping[str, GridMetric]


@dataclass(frozen=True)
class GridAxes:
    """A site and the axes that a grid sweeps, in the order of the returned tensor."""

    site: Site
    axes: tuple[str, ...]


# Axes of the stacks, by TransformerLens's names; some grids call the same axis by another name.
_RENAMED = {"head_index": "head", "dest_pos": "pos"}


@exclusive
@torch.no_grad()
def grid(
    model: AnyModel,
    corrupted_tokens: PromptsLike,
    cache: Cache,
    metrics: Metrics,
    which: GridAxes,
    index_axis_names: None = None,
    index_df: pandas.DataFrame | None = None,
    return_index_df: bool = False,
    reduce: str = "scalar",
    baseline: bool = False,
) -> Tensor | tuple[Tensor, pandas.DataFrame] | PatchingResult:
    """Return a grid as TransformerLens does: a tensor by axis, or flat for the rows of `index_df`; see `grids`."""
    if index_axis_names is not None:
        raise ValueError("index_axis_names is fixed by the function; leave it out, or None beside index_df")
    result = isinstance(metrics, Mapping) or reduce == "none" or baseline
    if result and return_index_df:
        raise ValueError("return_index_df is for tensors; a PatchingResult has index_df")
    setting = setting_of(model, corrupted_tokens, metrics, reduce)
    sizes = _sizes(setting, which)
    if index_df is None:
        index, shape = list(product(*map(range, sizes))), sizes
    else:
        index = _checked(index_df, which, sizes)
        shape = (len(index),)
    values = _reduced(setting, _values(setting, cache, which, index)).unflatten(1, shape)
    if not result:
        return (values[0], _index(index, which.axes, index_df)) if return_index_df else values[0]
    return _result(
        setting,
        metrics,
        values,
        axes=[] if index_df is not None else list(which.axes),
        index=_index(index, which.axes, index_df),
        base=_reduced(setting, baselines(setting)) if baseline else None,
    )


@exclusive
@torch.no_grad()
def stack(
    model: AnyModel,
    corrupted_tokens: PromptsLike,
    cache: Cache,
    metrics: Metrics,
    grids: Mapping[str, GridAxes],
    axes: tuple[str, ...],
    reduce: str = "scalar",
    baseline: bool = False,
) -> Tensor | PatchingResult:
    """Return several grids on a leading axis. Key-value heads are padded with zeros to the number of heads."""
    setting = setting_of(model, corrupted_tokens, metrics, reduce)
    parts = []
    for which in grids.values():
        sizes = _sizes(setting, which)
        values = _values(setting, cache, which, list(product(*map(range, sizes))))
        values = _reduced(setting, values).unflatten(1, sizes)
        names = [_RENAMED.get(name, name) for name in which.axes]
        order = [1 + names.index(axis) for axis in axes]
        values = values.permute(0, *order, *range(1 + len(axes), values.ndim))
        if "head" in axes:
            at = 1 + axes.index("head")
            missing = setting.anatomy.n_heads - values.shape[at]
            values = torch.cat([values, torch.zeros_like(values.narrow(at, 0, 1)).repeat_interleave(missing, at)], at)
        parts.append(values)
    values = torch.stack(parts, dim=1)
    if not (isinstance(metrics, Mapping) or reduce == "none" or baseline):
        return values[0]
    cells = list(product(*map(range, values.shape[1 : 2 + len(axes)])))
    return _result(
        setting,
        metrics,
        values,
        axes=["patch_type", *axes],
        index=_index(cells, ("patch_type", *axes), None),
        base=_reduced(setting, baselines(setting)) if baseline else None,
        names=list(grids),
    )


def _sizes(setting: Setting, which: GridAxes) -> tuple[int, ...]:
    anatomy = setting.anatomy
    heads = head_count(which.site, anatomy.n_heads, anatomy.n_kv_heads)
    counts = {"layer": len(anatomy.blocks), "head": heads, "head_index": heads}
    return tuple(counts.get(axis, setting.prompts.n_pos) for axis in which.axes)


def _checked(index_df: pandas.DataFrame, which: GridAxes, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the rows of a data frame. Raises `ValueError` for other columns than the axes, or indices outside."""
    if index_df.shape[1] != len(sizes) or not len(index_df):
        raise ValueError(f"index_df must have rows of {', '.join(which.axes)}; got {list(index_df.columns)}")
    rows = [tuple(int(i) for i in row) for row in index_df.itertuples(index=False)]
    for row in rows:
        for axis, i, size in zip(which.axes, row, sizes, strict=True):
            if not -size <= i < size:
                raise ValueError(f"index_df has {axis} {i}; {axis} runs from 0 to {size - 1}")
    return [tuple(i % size for i, size in zip(row, sizes, strict=True)) for row in rows]


def _values(setting: Setting, cache: Cache, which: GridAxes, index: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the metrics `[metric cell batch]` of the cells of an index."""
    names = [_RENAMED.get(axis, axis) for axis in which.axes]
    everywhere = tuple(range(setting.prompts.n_pos))
    cells, sources = [], []
    for row in index:
        at = dict(zip(names, row, strict=True))
        cells.append(Cell(at["layer"], (at["pos"],) if "pos" in at else everywhere, at.get("head")))
        sources.append(at.get("src_pos"))
    return site_values(setting, cache, which.site, cells, sources if "src_pos" in names else None)


def _reduced(setting: Setting, values: Tensor) -> Tensor:
    """Return values `[... batch]` in the default dtype, averaged over the batch unless reduce="none"."""
    values = values if setting.reduce == "none" else values.mean(dim=-1)
    return values.to(setting.anatomy.device, torch.get_default_dtype())


def _index(rows: Sequence[tuple[int, ...]], axes: Sequence[str], given: pandas.DataFrame | None) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(rows, columns=list(axes)) if given is None else given


def _result(
    setting: Setting,
    metrics: Metrics,
    values: Tensor,
    axes: list[str],
    index: pandas.DataFrame,
    base: Tensor | None,
    names: list[str] | None = None,
) -> PatchingResult:
    from transformer_lens.patching import PatchingResult

    many = isinstance(metrics, Mapping)
    return PatchingResult(
        values=values if many else values[0],
        axis_names=axes,
        index_df=index,
        metric_names=list(setting.metrics),
        reduced=setting.reduce != "none",
        baseline=base if many or base is None else base[0],
        has_metric_axis=many,
        patch_type_names=names,
    )
