"""`attention`: attention patterns as a view, by circuitsvis for short prompts and by our own viewer for long ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.views.patterns.circuitsvis_plot import circuitsvis_bundle, plot_props
from interp.views.patterns.packing import pack
from interp.views.patterns.parts import fragment, script_of
from interp.views.patterns.sources import UNNAMED, Shown, shown_patterns
from interp.views.patterns.still import mosaic
from interp.views.view import View

if TYPE_CHECKING:
    from interp.tasks import Prompts

VIEWERS = ("auto", "circuitsvis", "canvas")
# circuitsvis draws each cell as an object: 2 to 3 s here, minutes for 12 heads of 242 tokens.
MOST_TOKENS = 42
MOST_CELLS = 15_000


def attention(
    patterns: Any,
    layer: int | Sequence[int] | None = None,
    prompt: int = 0,
    heads: Sequence[int] | None = None,
    against: Any = None,
    batch: Prompts | None = None,
    conditions: tuple[str, str] = ("first", "second"),
    viewer: str = "auto",
    tokens: Sequence[str] | None = None,
) -> View:
    """Return the attention patterns of one prompt as a view, with the tokens and, where there are roles, their colours.

    Args:
        patterns: a `Capture`; or arrays by layer, in a mapping or a list; or one array. An array (numpy, torch, lists)
            is `[batch head dest_pos src_pos]`, `[head dest_pos src_pos]` or `[dest_pos src_pos]`.
        layer: one layer, or several for a linked grid of all their heads; all of them by default.
        prompt: which prompt of the batch.
        heads: some of the heads; all by default.
        against: a second condition of the same layout, such as a corrupted prompt. Shows both and first - second.
        batch: the prompts that the patterns are of; a `Capture` has its own.
        conditions: names of the two conditions.
        viewer: "circuitsvis", "canvas" (ours), or "auto": circuitsvis for one layer and one condition of at most
            42 tokens and 15,000 cells.
        tokens: the prompt's tokens as strings, in place of `batch`.

    Raises `ValueError` for a layer, head or prompt that does not exist, NaN, negative weights, two conditions of
    different layout, and patterns that circuitsvis cannot show if it is asked for.

    >>> attention(torch.eye(2)[None], tokens=["The", " cat"]).title
    'Attention, 1 head, 2 tokens'
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewers are {', '.join(VIEWERS)}; got {viewer!r}")
    shown = shown_patterns(patterns, layer, prompt, heads, batch, tokens)
    parts = [shown.values]
    if against is not None:
        _require_same_layout(batch or getattr(patterns, "prompts", None), getattr(against, "prompts", None))
        parts.append(_second(against, shown, prompt, batch, tokens))
    n_heads, n = len(shown.heads), shown.values.shape[-1]
    size = f"{n_heads} head{'s' * (n_heads > 1)}, {n} tokens"
    title = ", ".join(filter(None, ("Attention", shown.where, size)))
    title += f": {conditions[0]} against {conditions[1]}" if against is not None else ""
    why = _why_not_circuitsvis(shown, against is not None)
    if viewer == "circuitsvis" and why:
        raise ValueError(f"circuitsvis cannot show this: {why}; use viewer='canvas'")
    if viewer != "canvas" and not why:
        data = {"kind": "plot", "causal": not shown.values.triu(1).any(), **shown.prompt.data()}
        data |= plot_props(shown.values[0], shown.prompt, shown.heads)
        data |= {"title": title, "where": shown.where.capitalize()}
        bundle = circuitsvis_bundle()
        assert bundle is not None
    else:
        data = _canvas(torch.stack(parts), shown, conditions) | {"title": title, "why": why}
        bundle = script_of("canvas")
    still = mosaic(torch.stack(parts), shown, title, conditions)
    return View(title, f"{title}. {_in_words(shown)}", still, fragment(data), bundle)


def _second(
    against: Any, shown: Shown, prompt: int, batch: Prompts | None, tokens: Sequence[str] | None
) -> Float[Tensor, "layer head dest_pos src_pos"]:
    """Return the second condition's values, of the same layers and heads."""
    layers: Any = None if shown.layers == [UNNAMED] else shown.layers
    if layers is not None and not hasattr(getattr(against, "pattern", against), "keys"):
        layers = layers[0]  # one array
    names = tokens or (None if batch is not None or hasattr(against, "prompts") else shown.prompt.tokens)
    return shown_patterns(against, layers, prompt, shown.heads, batch, names).values


def _require_same_layout(first: Prompts | None, second: Prompts | None) -> None:
    if first is None or second is None:
        return
    for name in ("role", "step"):
        one, other = getattr(first, name), getattr(second, name)
        if (one is None) != (other is None) or (one is not None and not torch.equal(one, other)):
            raise ValueError("two conditions are compared position by position: they need the same roles and steps")


def _why_not_circuitsvis(shown: Shown, compared: bool) -> str:
    """Return why circuitsvis cannot show the patterns; "" if it can."""
    n = shown.values.shape[-1]
    if compared:
        return "it shows no comparison"
    if len(shown.layers) > 1:
        return "it shows one layer at a time"
    if n > MOST_TOKENS or shown.values.numel() > MOST_CELLS:
        heads = "1 head" if len(shown.heads) == 1 else f"{len(shown.heads)} heads"
        return f"{heads} of {n} tokens are more than it draws in a few seconds"
    return "" if circuitsvis_bundle() else "the installed version of circuitsvis is unknown"


def _canvas(
    blocks: Float[Tensor, "condition layer head dest_pos src_pos"], shown: Shown, conditions: tuple[str, str]
) -> dict:
    """Return the data of our own viewer."""
    packed = pack(blocks.flatten(0, 2))
    return {
        "kind": "canvas",
        **shown.prompt.data(),
        "layers": shown.layers,
        "heads": shown.heads,
        "conditions": conditions[: len(blocks)],
        "data": packed.data,
        "bits": packed.bits,
        "limit": packed.limit,
        "causal": packed.causal,
        "error": float(f"{packed.error * 1.5:.1g}"),  # rounded, but not down
    }


def _in_words(shown: Shown) -> str:
    """Describe at most 12 heads: with roles, the two between which most weight runs; else the strongest pair."""
    prompt, kinds = shown.prompt, shown.prompt.kinds
    names = [(i, j) for i in range(len(shown.layers)) for j in range(len(shown.heads))][:12]
    labels = [head_name(shown.layers[i], shown.heads[j]) for i, j in names]
    if len(kinds) == 1:
        texts = []
        for (i, j), label in zip(names, labels, strict=True):
            # The first position can only attend to itself.
            rows = shown.values[i, j, min(1, len(prompt.tokens) - 1) :]
            dest, src = divmod(int(rows.argmax()), rows.shape[-1])
            dest += len(prompt.tokens) - len(rows)
            pair = " to ".join(f"{prompt.names[pos]} ({prompt.tokens[pos]})" for pos in (dest, src))
            texts.append(f"{label}: from {pair} {float(shown.values[i, j, dest, src]):.2f}")
        return f"Largest weights: {'; '.join(texts)}."
    member = torch.tensor([[float(role == kind) for role in prompt.roles] for kind in kinds])
    mass = member @ shown.values @ member.T / member.sum(1)[:, None]  # [layer head dest_role src_role]
    texts = []
    for (i, j), label in zip(names, labels, strict=True):
        # The first kind is the start's, which can only attend to itself.
        dest, src = divmod(int(mass[i, j, 1:].argmax()), len(kinds))
        texts.append(f"{label}: from {kinds[dest + 1]} to {kinds[src]} {float(mass[i, j, dest + 1, src]):.2f}")
    return f"Largest mean weight between roles: {'; '.join(texts)}."


def head_name(layer: int | str, head: int) -> str:
    """Return "L1H4", or "H4" without a layer."""
    return f"H{head}" if layer == UNNAMED else f"L{layer}H{head}"
