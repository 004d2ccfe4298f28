"""Steer or patch a model while it runs or generates, in `with` blocks, and steering vectors from two sets of prompts.

with steered(run, at=("resid_post", 6), add=vector, scale=4.0):
    tokens = run.raw.generate(...)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_by_length, prompts_of
from interp.hooking import At, PassEdit, Positions, anatomy_now, edited, place_of, positions_mask, shape_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.reference import record
from interp.sites import HEAD_SITES, Site
from interp.support.finite import require_finite
from interp.support.locks import lock_of
from interp.tasks import Prompts
from interp.tasks.limits import is_index

# Prompts in one forward pass.
ROWS = 32


@contextmanager
def steered(
    model: AnyModel,
    at: At,
    add: Float[Tensor, "*site"],
    scale: float = 1.0,
    positions: Positions = None,
    heads: int | Sequence[int] | None = None,
) -> Iterator[None]:
    """Within the block, `scale * add` is added to a site in every pass of the model, so also while it generates.

    Args:
        model: a run or a Hugging Face model, which is edited itself; or a TransformerBridge, edited by its own hooks.
        at: a site and a layer or several, such as ("resid_post", 6).
        add: a vector of the site's axes after `batch pos`: `[d_model]`, `[d_mlp]`, or `[head d_head]`; with one head
            `[d_head]`.
        positions: where it is added, counted from the first token of the prompt: all (None), indices, or a range such
            as slice(12, None) for generated tokens.
        heads: at q, k, v and z, the heads that it is added to; None for all.

    Cached and uncached generation agree. Where the rotary encoding depends on the prompt's length (dynamic scaling,
    beyond the trained length) they cannot, and a cached pass raises `ValueError`: pass `use_cache=False`. So does one
    of a model whose state does not say how many positions it has seen (RWKV), unless all positions are steered. Rows
    that begin with padding raise `ValueError` too: there, give all positions, or slice(n, None) with n the padded
    length.

    Raises `ValueError` for a site, layer, head or vector that does not fit the model; `RuntimeError` at the end if
    nothing was steered, as when another model ran inside the block.

    In other threads, functions of this package wait for the end of the block, and a plain pass raises `ValueError`.
    """
    with lock_of(raw_of(model)):
        site, layers = place_of(model, at)
        shape = shape_of(model, site, layers[0])
        chosen = _heads(site, shape, heads)
        if not isinstance(scale, int | float | Tensor) or not isfinite(scale):
            raise ValueError(f"scale must be a finite number; got {scale!r}")
        if not isinstance(add, Tensor):
            raise ValueError(f"the vector for {site} must be a tensor; got {type(add).__name__}")
        vector = torch.zeros(shape, dtype=torch.float64)
        fits = shape if chosen is None else (len(chosen), shape[1])
        given = add.detach().double().cpu()
        given = given.unsqueeze(0) if chosen is not None and given.ndim == 1 and len(chosen) == 1 else given
        if tuple(given.shape) != fits:
            raise ValueError(f"the vector for {site} must be {list(fits)}; got {list(add.shape)}")
        require_finite(given.reshape(1, -1), "the steering vector", axis=0)
        vector[slice(None) if chosen is None else chosen] = scale * given

        def edit(_: int) -> PassEdit:
            def steer(x: Tensor, now: Tensor) -> Tensor:
                where = _mask(positions, now, x)
                return torch.where(where, x + vector.to(device=x.device, dtype=x.dtype), x)

            return steer

        with edited(model, at, edit, positions):
            yield


@contextmanager
def patched(
    model: AnyModel,
    at: At,
    source: PromptsLike,
    positions: int | Sequence[int] | None = None,
    source_positions: int | Sequence[int] | None = None,
    source_layer: int | None = None,
    heads: int | Sequence[int] | None = None,
) -> Iterator[None]:
    """Within the block, a site takes the values that it has on `source`, in every pass of the model.

    `source` is one prompt, or one per row of the passes; it is run when the block is entered. `positions` are those of
    the passes, by default all of the source's; `source_positions` those of the source, by default the same. With
    `source_layer` the values are those of the site in another layer (Patchscopes). `model`, `at`, `heads` and errors
    are as in `steered`; also raises `ValueError` for a pass with another number of rows than `source` has.
    """
    with lock_of(raw_of(model)):
        site, layers = place_of(model, at)
        own = prompts_of(model, source, "source")
        chosen = _heads(site, shape_of(model, site, layers[0]), heads)
        there = (
            list(range(own.n_pos)) if positions is None else [positions] if isinstance(positions, int) else [*positions]
        )
        taken = there if source_positions is None else source_positions
        taken = [taken] if isinstance(taken, int) else [*taken]
        if len(taken) != len(there) or not there:
            raise ValueError(f"positions and source_positions are pairs; got {len(there)} and {len(taken)}")
        if bad := [p for p in taken if not 0 <= p < own.n_pos]:
            raise ValueError(f"the source has positions 0 to {own.n_pos - 1}; got {bad[0]}")
        from_layers = layers if source_layer is None else place_of(model, (site, source_layer))[1] * len(layers)
        values = {
            layer: _record(model, own, site, other)[:, taken] for layer, other in zip(layers, from_layers, strict=True)
        }

        def edit(layer: int) -> PassEdit:
            def put(x: Tensor, now: Tensor) -> Tensor:
                new = values[layer].to(device=x.device, dtype=x.dtype)
                if len(new) not in (1, len(x)):
                    raise ValueError(
                        f"the source has {len(new)} prompts, and this pass {len(x)} rows; give one, or as many"
                    )
                out = x.clone()
                for number, position in enumerate(there):
                    for column in (now == position).nonzero().flatten().tolist():
                        if chosen is None:
                            out[:, column] = new[:, number]
                        else:
                            out[:, column, chosen] = new[:, number, chosen]
                return out

            return put

        with edited(model, at, edit, there):
            yield


@exclusive
def mean_difference(
    model: AnyModel,
    positive: PromptsLike,
    negative: PromptsLike,
    at: tuple[Site, int],
    position: int | None = -1,
) -> Float[Tensor, "*site"]:
    """Return the mean activation on `positive` prompts less that on `negative` ones (Marks and Tegmark 2310.06824).

    `position` is an index, counted from the end if negative; None averages over all positions. Texts may have
    different lengths, and the sets different sizes: each prompt counts once. The result is float32, on the CPU. Inside
    a `steered` block the activations are those of the steered model.

    >>> vector = mean_difference(run, ["I love it", "How nice"], ["I hate it", "How sad"], at=("resid_post", 6))
    """
    site, layers = place_of(model, at)
    if len(layers) != 1:
        raise ValueError("mean_difference reads one layer")
    means = []
    for name, prompts in (("positive", positive), ("negative", negative)):
        total, n = 0.0, 0
        for group in prompts_by_length(model, prompts, name):
            values = _record(model, group, site, layers[0]).double()
            if position is not None and not -group.n_pos <= position < group.n_pos:
                raise ValueError(f"{name}: a prompt has {group.n_pos} tokens, and no position {position}")
            picked = values.mean(dim=1) if position is None else values[:, position]
            total, n = total + require_finite(picked, site, axis=0, batch=group).sum(dim=0), n + len(group)
        if not n:
            raise ValueError(f"{name}: there are no prompts")
        means.append(torch.as_tensor(total) / n)
    return (means[0] - means[1]).float().cpu()


def _record(model: AnyModel, prompts: Prompts, site: Site, layer: int) -> Tensor:
    """Return a site's activations in the raw model's own passes."""
    anatomy = anatomy_now(model)
    return torch.cat([record(anatomy, tokens, site, layer) for tokens in prompts.tokens.split(ROWS)])


def _heads(site: str, shape: tuple[int, ...], heads: int | Sequence[int] | None) -> list[int] | None:
    """Return heads as a list. Raises `ValueError` for a site without heads, and for one that does not exist."""
    if heads is None:
        return None
    if site not in HEAD_SITES:
        raise ValueError(f"{site} has no heads; leave `heads` out")
    listed = [heads] if isinstance(heads, int) else list(heads)
    if not listed or (bad := [head for head in listed if not is_index(head, shape[0])]):
        raise ValueError(f"{site} has heads 0 to {shape[0] - 1}; got {bad[0] if listed else 'none'}")
    return listed


def _mask(positions: Positions, now: Tensor, x: Tensor) -> Tensor:
    return positions_mask(positions, now).view(1, -1, *[1] * (x.ndim - 2))
