"""The literal loop: one whole forward pass of the raw model per patch. The reference for the engine.

It uses hooks on Hugging Face's own modules and Hugging Face's own forward pass, and shares only the patched values
with the engine. Every hook asserts that it fired once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.cells import Cell
from interp.patching.metric import Metric
from interp.patching.reference_hooks import Edit, site_hooks


@torch.no_grad()
def record(anatomy: Anatomy | GenericAnatomy, tokens: Int[Tensor, "batch pos"], site: str, layer: int) -> Tensor:
    """Return a site's activations in the raw model's own forward pass."""
    with recording(anatomy, site, [layer]) as kept:
        first = torch.zeros(1, dtype=torch.long, device=anatomy.device)
        anatomy.raw(tokens.to(anatomy.device), use_cache=False, logits_to_keep=first)
    return kept[layer]


@contextmanager
def recording(
    anatomy: Anatomy | GenericAnatomy, site: str, layers: Sequence[int]
) -> Iterator[dict[int, Float[Tensor, "batch pos ..."]]]:
    """Fill a dictionary with a site's activations by layer, in the one forward pass that is run within the block."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Edit:
        def hook(x: Tensor) -> Tensor:
            kept[layer] = x.clone()
            return x

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_at(anatomy, site, layer, keep(layer)))
        yield kept


@torch.no_grad()
def literal(
    anatomy: Anatomy | GenericAnatomy,
    tokens: Int[Tensor, "batch pos"],
    site: str,
    cell: Cell,
    source: Tensor,
    metric: Metric,
    prompts: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Return the metric of one patched run. `source`: the site's activations in the source run, from `record`."""
    return literal_together(anatomy, tokens, site, [cell], {cell.layer: source}, metric, prompts)[0]


@torch.no_grad()
def literal_together(
    anatomy: Anatomy | GenericAnatomy,
    tokens: Int[Tensor, "batch pos"],
    site: str,
    cells: Sequence[Cell],
    sources: Mapping[int, Tensor],
    metric: Metric,
    prompts: Int[Tensor, " batch"],
) -> Float[Tensor, "cell batch"]:
    """Return the metric of patched runs that are rows of one forward pass. `sources`: as in `literal`, by layer."""
    n = len(tokens)
    rows = tokens.repeat(len(cells), 1)
    logits = _logits(anatomy, rows, n, site, dict(enumerate(cells)), lambda layer, _: sources[layer], metric)
    return metric.measure(logits.unflatten(0, (len(cells), n)), prompts).double().cpu()


@torch.no_grad()
def literal_beside(
    anatomy: Anatomy | GenericAnatomy,
    base: Int[Tensor, "batch pos"],
    source: Int[Tensor, "batch pos"],
    site: str,
    cells: Sequence[Cell],
    metric: Metric,
    prompts: Int[Tensor, " batch"],
) -> tuple[Float[Tensor, "cell batch"], Float[Tensor, "both read d_vocab"]]:
    """Return `literal_together`, and the logits of the unpatched base and source runs, which are rows of the same pass.

    The patched values come from the source's rows.
    """
    n = len(base)
    rows = torch.cat([base, source, *[base] * len(cells)])
    logits = _logits(anatomy, rows, n, site, dict(enumerate(cells, start=2)), lambda _, x: x[n : 2 * n], metric)
    both, patched = logits[: 2 * n], logits[2 * n :]
    if not cells:
        return torch.zeros(0, n, dtype=torch.float64), both
    return metric.measure(patched.unflatten(0, (len(cells), n)), prompts).double().cpu(), both


def _logits(
    anatomy: Anatomy | GenericAnatomy,
    rows: Int[Tensor, "row pos"],
    n: int,
    site: str,
    cells: Mapping[int, Cell],
    source_of: Callable[[int, Tensor], Tensor],
    metric: Metric,
) -> Float[Tensor, "row read d_vocab"]:
    """Return the logits that a metric reads, of one pass of the raw model over sets of `n` prompts.

    `cells` are patched, by the number of their set. `source_of(layer, x)` gives the values that they write, from the
    unpatched activations x of all rows.
    """

    def edit_of(layer: int) -> Edit:
        def edit(x: Tensor) -> Tensor:
            source, x = source_of(layer, x), x.clone()
            for i, cell in cells.items():
                if cell.layer == layer:
                    _patch(x[i * n : (i + 1) * n], site, cell, source)
            return x

        return edit

    with ExitStack() as stack:
        for layer in sorted({cell.layer for cell in cells.values()}):
            stack.enter_context(_at(anatomy, site, layer, edit_of(layer)))
        positions = metric.positions.to(anatomy.device)
        return anatomy.raw(rows.to(anatomy.device), use_cache=False, logits_to_keep=positions).logits


def _patch(x: Tensor, site: str, cell: Cell, source: Tensor) -> None:
    """Write a cell's values from `source` into x `[batch pos ...]`."""
    at: list[int] | slice = list(cell.positions)
    if len(at) == 1 and cell.neurons is None:
        at = slice(at[0], at[0] + 1)  # a view: an index would be a tensor of its own
    if site == "pattern":
        x[:, cell.head, at] = source[:, cell.head, at]
    elif cell.head is not None:
        x[:, at, cell.head] = source[:, at, cell.head]
    elif cell.neurons is not None:
        where = torch.tensor(at, device=x.device).unsqueeze(1), torch.tensor(cell.neurons, device=x.device)
        x[:, *where] = source[:, *where]
    else:
        x[:, at] = source[:, at]


@contextmanager
def _at(anatomy: Anatomy | GenericAnatomy, site: str, layer: int, edit: Edit) -> Iterator[None]:
    """Apply `edit` to a site's activations within the block, and assert that it fired once."""
    fired: list[str] = []

    def counted(x: Tensor) -> Tensor:
        fired.append(site)
        return edit(x)

    if isinstance(anatomy, GenericAnatomy):
        with anatomy.edited((site, layer), counted):
            yield
    else:
        handles = site_hooks(anatomy, anatomy.blocks[layer], site, counted)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
    assert fired == [site], f"{site} of layer {layer} fired {len(fired)} times"
