"""Where did each head look? One call: circuitsvis for short prompts, a viewer of our own for long ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tasks import Batch
from interp.views.patterns.circuitsvis_plot import mended_bundle, plot_props
from interp.views.patterns.packing import checked, pack
from interp.views.patterns.parts import fragment, script_of
from interp.views.patterns.prompt import Prompt, prompt_of
from interp.views.patterns.still import mosaic
from interp.views.view import View

VIEWERS = ("auto", "circuitsvis", "canvas")
# circuitsvis draws each cell as an object: 2-3 s here, minutes for 12 heads x 242 tokens.
MOST_TOKENS = 42
MOST_CELLS = 15_000


def attention(
    first: Any,
    layer: int | Sequence[int],
    prompt: int = 0,
    heads: Sequence[int] | None = None,
    against: Any = None,
    batch: Batch | None = None,
    conditions: tuple[str, str] = ("first", "second"),
    viewer: str = "auto",
) -> View:
    """Attention patterns of one prompt, with the tokens' own names and roles.

    Args:
        first: what has `patterns[layer]` `[batch head dest_pos src_pos]` and `batch`, such as a `Capture`; or those
            patterns by layer, with `batch` given here.
        layer: one layer, or several for a grid of all their heads, linked.
        prompt: which prompt of the batch.
        heads: some of the heads; all by default.
        against: a second condition of the same layout, such as a corrupted prompt. Shows both and first - second.
        conditions: what the two conditions are called.
        viewer: "circuitsvis", "canvas" (ours), or "auto": circuitsvis for one layer and one condition of at most
            42 tokens and 15 000 cells.

    Raises `ValueError` for a layer, head or prompt that is not there, NaN, negative weights, two conditions of
    different layout, and what circuitsvis cannot show.

    >>> from interp.tasks import sample
    >>> batch = sample("parity-aligned", batch_size=1, length=2, seed=0)
    >>> attention({0: torch.eye(batch.n_pos)[None, None]}, layer=0, batch=batch).title
    'Attention, layer 0, 1 head, 10 tokens'
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewers are {', '.join(VIEWERS)}; got {viewer!r}")
    layers = [layer] if isinstance(layer, int) else list(layer)
    batch = batch or getattr(first, "batch", None)
    if batch is None:
        raise ValueError("give a Capture, or patterns with batch=")
    shown = prompt_of(batch, prompt)
    values, numbers = _values(first, layers, prompt, heads, batch.n_pos)
    parts = [values]
    if against is not None:
        _same_layout(batch, getattr(against, "batch", batch))
        parts.append(_values(against, layers, prompt, numbers, batch.n_pos)[0])
    n_heads, n = len(numbers), batch.n_pos
    many = f"{n_heads} head{'s' * (n_heads > 1)}, {n} tokens"
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {_span(layers)}"
    compared = against is not None
    title = f"Attention, {where}, {many}" + (f": {conditions[0]} against {conditions[1]}" if compared else "")
    why = _why_not_circuitsvis(layers, values, compared)
    if viewer == "circuitsvis" and why:
        raise ValueError(f"circuitsvis cannot show this: {why}; use viewer='canvas'")
    if viewer != "canvas" and not why:
        view = {"kind": "plot", "causal": not values.triu(1).any(), **shown.data()}
        view |= plot_props(values[0], shown, numbers) | {"title": title}
        bundle = mended_bundle()
        assert bundle is not None
    else:
        view = _canvas(torch.stack(parts), shown, layers, numbers, conditions) | {"title": title, "why": why}
        bundle = script_of("canvas")
    alt = f"{title}. {_in_words(parts[0], shown, layers, numbers)}"
    still = mosaic(torch.stack(parts), shown, layers, numbers, title, conditions)
    return View(title, alt, still, fragment(view), bundle)


def _values(
    source: Any, layers: list[int], prompt: int, heads: Sequence[int] | None, n_pos: int
) -> tuple[Float[Tensor, "layer head dest_pos src_pos"], list[int]]:
    patterns = getattr(source, "patterns", source)
    if not isinstance(patterns, Mapping):
        raise ValueError(f"give a Capture or patterns by layer; got {type(source).__name__}")
    if not layers or not set(layers) <= set(patterns):
        there = ", ".join(map(str, sorted(patterns))) or "none"
        raise ValueError(f"patterns of layers {layers} were asked for, and these are there: {there}")
    for layer in layers:
        shape = tuple(patterns[layer].shape)
        if len(shape) != 4 or shape[2:] != (n_pos, n_pos) or prompt >= shape[0]:
            raise ValueError(f"patterns of layer {layer} must be [batch head {n_pos} {n_pos}]; got {shape}")
    n_heads = {patterns[layer].shape[1] for layer in layers}
    numbers = list(range(min(n_heads))) if heads is None else list(heads)
    if len(n_heads) > 1 or not numbers or any(head not in range(min(n_heads)) for head in numbers):
        raise ValueError(f"heads are 0 to {min(n_heads) - 1}, as many in each layer; got {numbers}")
    picked = [checked(patterns[layer][prompt][numbers], f"patterns of layer {layer}") for layer in layers]
    return torch.stack(picked), numbers


def _span(layers: list[int]) -> str:
    whole = layers == list(range(layers[0], layers[-1] + 1)) and len(layers) > 2
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))


def _same_layout(batch: Batch, other: Batch) -> None:
    if not (torch.equal(batch.role, other.role) and torch.equal(batch.step, other.step)):
        raise ValueError("two conditions are compared position by position: they need the same roles and steps")


def _why_not_circuitsvis(layers: list[int], values: Tensor, compared: bool) -> str:
    n = values.shape[-1]
    if compared:
        return "it shows no comparison"
    if len(layers) > 1:
        return "it shows one layer at a time"
    if n > MOST_TOKENS or values.numel() > MOST_CELLS:
        return f"{values.shape[1]} heads of {n} tokens are more than it draws in a few seconds"
    return "" if mended_bundle() else "this version of circuitsvis is not one whose labels we can mend"


def _canvas(
    blocks: Float[Tensor, "condition layer head dest_pos src_pos"],
    prompt: Prompt,
    layers: list[int],
    heads: list[int],
    conditions: tuple[str, str],
) -> dict:
    packed = pack(blocks.flatten(0, 2))
    return {
        "kind": "canvas",
        **prompt.data(),
        "layers": layers,
        "heads": heads,
        "conditions": conditions[: len(blocks)],
        "data": packed.data,
        "bits": packed.bits,
        "limit": packed.limit,
        "causal": packed.causal,
        "error": float(f"{packed.error * 1.5:.1g}"),  # rounded, but not below
    }


def _in_words(values: Tensor, prompt: Prompt, layers: list[int], heads: list[int]) -> str:
    """For each head, at most 12, the two roles between which most of its weight runs, as the mean over destinations."""
    kinds = prompt.kinds
    member = torch.tensor([[float(role == kind) for role in prompt.roles] for kind in kinds])
    mass = member @ values @ member.T / member.sum(1)[:, None]  # [layer head dest_role src_role]
    words = []
    for i in range(min(12, len(layers) * len(heads))):
        layer, head = divmod(i, len(heads))
        best = int(mass[layer, head, 1:].argmax()) if len(kinds) > 1 else 0
        dest, src = divmod(best, len(kinds))
        dest += len(kinds) > 1  # the first position can only look at itself
        weight = float(mass[layer, head, dest, src])
        words.append(f"L{layers[layer]}H{heads[head]}: from {kinds[dest].words} to {kinds[src].words} {weight:.2f}")
    return f"Largest mean weight between roles: {'; '.join(words)}."
