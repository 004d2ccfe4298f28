"""What did one position look at, or what mattered to it? One row of one head or map as coloured tokens."""

from __future__ import annotations

from html import escape
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tasks import Batch
from interp.views.patterns.circuitsvis_plot import mended_bundle, token_props
from interp.views.patterns.parts import fragment, script_of
from interp.views.patterns.prompt import COLOURS, Prompt, prompt_of
from interp.views.view import View

MOST_TOKENS = 100  # more are shown in a strip that scrolls by itself
VIEWERS = ("auto", "circuitsvis", "strip")
NEGATIVE, POSITIVE = (178, 24, 43), (33, 102, 172)


def tokens(
    values: Float[Tensor, "*batch_dest src_pos"],
    batch: Batch,
    prompt: int,
    dest: int,
    title: str = "",
    viewer: str = "auto",
) -> View:
    """The tokens of a prompt, each coloured by its value for the position `dest`: blue positive, red negative.

    Args:
        values: `[batch dest_pos src_pos]`, such as `patterns[layer][:, head]` or an attribution; `[dest_pos src_pos]`
            of this prompt; or the row itself, `[src_pos]`.
        dest: the position that looks, or that is explained.
        viewer: "circuitsvis", "strip" (ours), or "auto": circuitsvis up to 100 tokens.

    Bounds are symmetric around zero. Raises `ValueError` for NaN, other shapes, and a prompt or position that is not
    there.

    >>> from interp.tasks import sample
    >>> batch = sample("parity-aligned", batch_size=1, length=2, seed=0)
    >>> tokens(torch.eye(batch.n_pos), batch, prompt=0, dest=3).title
    'From input label 2'
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewers are {', '.join(VIEWERS)}; got {viewer!r}")
    shown, n = prompt_of(batch, prompt), batch.n_pos
    if dest not in range(n):
        raise ValueError(f"positions are 0 to {n - 1}; got {dest!r}")
    shapes = {1: (n,), 2: (n, n), 3: (len(batch), n, n)}
    if tuple(values.shape) != shapes.get(values.ndim):
        raise ValueError(f"values must be one of {', '.join(map(str, shapes.values()))}; got {tuple(values.shape)}")
    row = values[prompt] if values.ndim == 3 else values
    row = (row[dest] if row.ndim == 2 else row).detach().to("cpu", torch.float32)
    if not torch.isfinite(row).all():
        raise ValueError("the row has NaN or infinity, which no colour can show")
    title = title or f"From {shown.names[dest]}"
    signed = bool((row < 0).any())
    scale = float(row.abs().max())
    limits = (
        f"Colours run from {-scale:.3f} (red) over 0 (white) to {scale:.3f} (blue)."
        if signed
        else (f"Colours run from 0 (white) to {scale:.3f} (blue).")
    )
    data: dict[str, Any] = {
        "title": title,
        **shown.data(),
        "from": shown.names[dest],
        "signed": signed,
        "values": [float(f"{v:.7g}") for v in row],
    }
    bundle = mended_bundle() if viewer != "strip" and (viewer == "circuitsvis" or n <= MOST_TOKENS) else None
    if bundle:
        data |= {"kind": "row", "note": f"circuitsvis, with roles and keyboard added. {limits}"}
        data |= token_props(row, shown)
    elif viewer == "circuitsvis":
        raise ValueError("this version of circuitsvis is not one that we can mend; use viewer='strip'")
    else:
        bundle = script_of("strip")
        data |= {
            "kind": "strip",
            "note": f"Drawn by mnemoscope\u2019s own viewer, not circuitsvis: {n} tokens. "
            + limits.replace("(white)", "(the ground)"),
        }
    top = row.abs().topk(min(3, n)).indices.tolist()
    strongest = ", ".join(f"{shown.names[pos]} ({shown.tokens[pos]}) {float(row[pos]):.3f}" for pos in top)
    alt = f"{title}: {n} tokens of a prompt, coloured by value. Largest: {strongest}."
    return View(title, alt, _svg(row, shown, title, limits).encode(), fragment(data), bundle)


def _svg(row: Tensor, prompt: Prompt, title: str, limits: str) -> str:
    """The tokens in lines, each with a bar of its role's colour."""
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
            f'height="19" fill="rgb({rgb[0]},{rgb[1]},{rgb[2]})" stroke="#c4cad3" stroke-width=".5"/>'
            f'<rect x="{x:.1f}" y="{y + 19}" width="{room:.1f}" height="4" fill="{COLOURS[prompt.roles[pos]]}"/>'
            f'<text x="{x + room / 2:.1f}" y="{y + 14}" text-anchor="middle" fill="{ink}">{escape(token)}</text></g>'
        )
        x += room + 2
    x = 8
    for role in prompt.kinds:
        parts.append(
            f'<rect x="{x}" y="34" width="10" height="10" fill="{COLOURS[role]}"/>'
            f'<text class="words" x="{x + 14}" y="43">{role.words}</text>'
        )
        x += 28 + 7 * len(role.words)
    height = y + line + 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        "<style>text { font: 12px 'DejaVu Sans Mono', Menlo, Consolas, monospace } "
        ".words { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #15181c }</style>"
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f'<text class="words" x="8" y="20" style="font-weight: bold">{escape(title)}</text>{"".join(parts)}'
        f'<text class="words" x="8" y="{height - 8}">{escape(limits)}</text></svg>'
    )
