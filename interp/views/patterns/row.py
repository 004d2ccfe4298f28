"""`tokens`: one row of one head or of one attribution, as coloured tokens."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.views.patterns.circuitsvis_plot import circuitsvis_bundle, token_props
from interp.views.patterns.parts import fragment, script_of
from interp.views.patterns.prompt import Prompt, prompt_of, prompt_of_tokens
from interp.views.patterns.sources import tensor_of
from interp.views.view import View

if TYPE_CHECKING:
    from interp.tasks import Prompts

MOST_TOKENS = 100  # longer prompts get a strip that scrolls by itself
VIEWERS = ("auto", "circuitsvis", "strip")
NEGATIVE, POSITIVE = (178, 24, 43), (33, 102, 172)


def tokens(
    values: Any,
    batch: Prompts | Sequence[str],
    prompt: int = 0,
    dest: int | None = None,
    title: str = "",
    viewer: str = "auto",
) -> View:
    """Return the tokens of a prompt, each coloured by its value: blue positive, red negative.

    Args:
        values: the row itself, `[src_pos]`; or with `dest`, `[dest_pos src_pos]` of this prompt or
            `[batch dest_pos src_pos]`, such as `patterns[layer][:, head]` or an attribution. numpy, torch or lists.
        batch: the prompts; or the prompt's tokens as strings.
        prompt: which prompt of the batch.
        dest: the position that attends, or that is explained.
        viewer: "circuitsvis", "strip" (ours), or "auto": circuitsvis up to 100 tokens.

    Bounds are symmetric around zero. Raises `ValueError` for NaN, other shapes, and a prompt or position that does not
    exist.

    >>> tokens([0.0, -0.5, 1.0], ["When", " Mary", " and"]).title
    'Values of tokens'
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewers are {', '.join(VIEWERS)}; got {viewer!r}")
    is_batch = hasattr(batch, "n_pos")
    shown = prompt_of(batch, prompt) if is_batch else prompt_of_tokens(batch)  # type: ignore[arg-type]
    row = _row(tensor_of(values, "values"), len(batch) if is_batch else 1, len(shown.tokens), prompt, dest)
    title = title or ("Values of tokens" if dest is None else f"From {shown.names[dest]}")
    data, bundle, limits = _data(row, shown, dest, title, viewer)
    top = row.abs().topk(min(3, len(row))).indices.tolist()
    strongest = ", ".join(f"{shown.names[pos]} ({shown.tokens[pos]}) {float(row[pos]):.3f}" for pos in top)
    alt = f"{title}: {len(row)} tokens of a prompt, coloured by value. Largest: {strongest}."
    return View(title, alt, _svg(row, shown, title, limits).encode(), fragment(data), bundle)


def _row(values: Tensor, n_prompts: int, n: int, prompt: int, dest: int | None) -> Float[Tensor, " src_pos"]:
    """Return the row of values that is shown."""
    if dest is not None and dest not in range(n):
        raise ValueError(f"positions are 0 to {n - 1}; got {dest!r}")
    shapes = {1: (n,), 2: (n, n), 3: (n_prompts, n, n)}
    if tuple(values.shape) != shapes.get(values.ndim):
        raise ValueError(f"values must be one of {', '.join(map(str, shapes.values()))}; got {tuple(values.shape)}")
    if values.ndim > 1 and dest is None:
        raise ValueError(f"values {tuple(values.shape)} have a row per position: give dest=, from 0 to {n - 1}")
    row = values[prompt] if values.ndim == 3 else values
    row = (row[dest] if row.ndim == 2 else row).to("cpu", torch.float32)
    if not torch.isfinite(row).all():
        raise ValueError("the row has NaN or infinity, which no colour can show")
    return row


def _data(
    row: Float[Tensor, " src_pos"], shown: Prompt, dest: int | None, title: str, viewer: str
) -> tuple[dict[str, Any], str, str]:
    """Return the page's data, the script, and the limits of the colours in words."""
    n, signed, scale = len(row), bool((row < 0).any()), float(row.abs().max())
    limits = (
        f"Colours run from {-scale:.3f} (red) over 0 (white) to {scale:.3f} (blue)."
        if signed
        else f"Colours run from 0 (white) to {scale:.3f} (blue)."
    )
    data: dict[str, Any] = {
        "title": title,
        **shown.data(),
        "from": "" if dest is None else shown.names[dest],
        "signed": signed,
        "values": [float(f"{v:.7g}") for v in row],
    }
    bundle = circuitsvis_bundle() if viewer != "strip" and (viewer == "circuitsvis" or n <= MOST_TOKENS) else None
    if bundle:
        data |= {"kind": "row", "note": f"circuitsvis, with roles and keyboard added. {limits}"}
        return data | token_props(row, shown), bundle, limits
    if viewer == "circuitsvis":
        raise ValueError("the installed version of circuitsvis is unknown; use viewer='strip'")
    note = f"Drawn by mnemoscope\u2019s own viewer, not circuitsvis: {n} tokens. "
    return (
        data | {"kind": "strip", "note": note + limits.replace("(white)", "(the ground)")},
        script_of("strip"),
        limits,
    )


def _svg(row: Tensor, prompt: Prompt, title: str, limits: str) -> str:
    """Return the tokens in lines as SVG, each with a bar of its role's colour."""
    width, line, x, y = 760, 30, 8, 62
    limit = float(row.abs().max()) or 1.0
    parts = []
    for pos, token in enumerate(prompt.tokens):
        room = 8 + 7.5 * max(1, len(token))
        if x + room > width - 8 and x > 8:
            x, y = 8, y + line
        share, value = abs(float(row[pos])) / limit, float(row[pos])
        rgb = [round(255 + (c - 255) * share) for c in (POSITIVE if value >= 0 else NEGATIVE)]
        ink = "#ffffff" if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] < 140 else "#15181c"
        parts.append(
            f'<g><title>{escape(prompt.names[pos])}: {value:.4g}</title><rect x="{x:.1f}" y="{y}" width="{room:.1f}" '
            f'height="19" fill="rgb({rgb[0]},{rgb[1]},{rgb[2]})" stroke="#c4cad3" stroke-width="0.5"/>'
            f'<rect x="{x:.1f}" y="{y + 19}" width="{room:.1f}" height="4" fill="{prompt.colour(pos)}"/>'
            f'<text x="{x + room / 2:.1f}" y="{y + 14}" text-anchor="middle" fill="{ink}">{escape(token)}</text></g>'
        )
        x += room + 2
    x = 8
    for role, colour in prompt.legend:
        parts.append(
            f'<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/>'
            f'<text class="words" x="{x + 14}" y="43">{role}</text>'
        )
        x += 28 + 7 * len(role)
    height = y + line + 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        "<style>text { font: 12px 'DejaVu Sans Mono', Menlo, Consolas, monospace } "
        ".words { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #15181c }</style>"
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f'<text class="words" x="8" y="20" style="font-weight: bold">{escape(title)}</text>{"".join(parts)}'
        f'<text class="words" x="8" y="{height - 8}">{escape(limits)}</text></svg>'
    )
