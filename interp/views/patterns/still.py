"""The still picture of attention patterns: all heads in a PNG, with at least one pixel per cell or the largest of some.

Maps are not resampled: neighbouring tokens alternate between bits and labels, and nearest-neighbour sampling at half
size hides 98 % of a previous-token head. Maps are set pixel by pixel; text is drawn by matplotlib.
"""

from __future__ import annotations

import io
import zlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.views.patterns.prompt import Prompt
from interp.views.patterns.sources import UNNAMED, Shown

# The most bytes of deflated levels. With palette and text, the file has then at most about 100 KB.
MOST_BYTES = 70_000
LEVELS = 33  # odd, so that a difference of zero has its own colour
STRIP, GAP, NAME = 4, 14, 16  # pixels
MASS = ((1.0, 1.0, 1.0), (0.42, 0.68, 0.84), (0.03, 0.19, 0.42))
SIGNED = ((0.70, 0.09, 0.17), (0.97, 0.97, 0.97), (0.13, 0.40, 0.67))
EMPTY = (0.90, 0.91, 0.93)  # cells that a causal head cannot attend to


def pooled(values: Float[Tensor, "*block dest_pos src_pos"], k: int) -> Float[Tensor, "*block row column"]:
    """Return of each k x k cells the value with the largest absolute value.

    >>> pooled(torch.tensor([[0.0, -0.5], [0.25, 0.0]]), 2)
    tensor([[-0.5000]])
    """
    pad = -values.shape[-1] % k
    padded = torch.nn.functional.pad(values, (0, pad, 0, pad))
    tiles = padded.unflatten(-1, (-1, k)).unflatten(-3, (-1, k)).movedim(-3, -2).flatten(-2)
    return tiles.gather(-1, tiles.abs().argmax(-1, keepdim=True))[..., 0]


def mosaic(
    blocks: Float[Tensor, "condition layer head dest_pos src_pos"],
    shown: Shown,
    title: str,
    conditions: tuple[str, str],
) -> bytes:
    """Return a PNG with a row of heads per layer; with two conditions, a row for each and one for the difference."""
    layers, heads = shown.layers, shown.heads
    rows, signed, names, notes = [], [], [], []
    for i, layer in enumerate(layers):
        kinds = [(blocks[0, i], False, "")]
        if len(blocks) == 2:
            kinds = [
                (blocks[0, i], False, conditions[0]),
                (blocks[1, i], False, conditions[1]),
                (blocks[0, i] - blocks[1, i], True, "difference"),
            ]
        for values, sign, name in kinds:
            rows.append(values)
            signed.append(sign)
            names.append([f"H{head}" if layer == UNNAMED else f"L{layer}H{head}" for head in heads])
            notes.append(name)
    if len(rows) == 1:  # one layer: lines of a width that a page has
        across = next(c for c in range(min(len(heads), 6), 0, -1) if len(heads) % c == 0 or c <= 4)
        rows = list(rows[0].split(across))
        names = [names[0][i : i + across] for i in range(0, len(heads), across)]
        signed, notes = signed * len(rows), notes * len(rows)
    limits = [
        max((float(r.abs().max()) for r, s in zip(rows, signed, strict=True) if s == sign), default=1) or 1.0
        for sign in (False, True)
    ]
    causal = not any(bool(r.triu(1).any()) for r in rows)
    n, k = rows[0].shape[-1], 1
    while True:
        levels = [_levels(pooled(r, k), limits[s], s, causal) for r, s in zip(rows, signed, strict=True)]
        if k >= n or len(zlib.compress(b"".join(level.tobytes() for level in levels), 6)) < MOST_BYTES:
            break
        k += 1
    return _png(levels, signed, names, notes, shown.prompt, title, k, limits)


def _levels(values: Tensor, limit: float, signed: bool, causal: bool) -> np.ndarray:
    """Return colour indices; index LEVELS marks the cells that a causal head cannot attend to."""
    share = (values / limit + 1) / 2 if signed else values / limit
    # A weight that is not zero is never drawn as zero.
    codes = (share * (LEVELS - 1)).round() if signed else (share * (LEVELS - 1)).ceil()
    codes = codes.clamp(0, LEVELS - 1).to(torch.uint8).numpy()
    if causal:
        codes[..., *np.triu_indices(codes.shape[-1], 1)] = LEVELS
    return codes


def _png(
    levels: list[np.ndarray],
    signed: list[bool],
    names: list[list[str]],
    notes: list[str],
    prompt: Prompt,
    title: str,
    k: int,
    limits: list[float],
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap, to_rgb
    from matplotlib.figure import Figure
    from PIL import Image

    tables = [
        np.array([*LinearSegmentedColormap.from_list("", stops)(np.linspace(0, 1, LEVELS))[:, :3], EMPTY])
        for stops in (MASS, SIGNED)
    ]
    size = levels[0].shape[-1]
    up = max(1, 112 // size)
    side = size * up
    across = max(len(level) for level in levels)
    left, top = 12, 34
    width = max(560, left + across * (side + STRIP + GAP))
    tall = side + STRIP + NAME + 6 + (NAME - 2) * any(notes)
    height = top + len(levels) * tall + 56
    image = np.ones((height, width, 3))
    colours = np.array([to_rgb(prompt.colour(pos)) for pos in range(len(prompt.roles))])
    # Where a pixel covers several tokens, the strip has a lane per token, as bits and labels alternate.
    at = np.minimum(np.arange(size)[:, None] * k + np.arange(STRIP) * min(k, STRIP) // STRIP, len(colours) - 1)
    roles = colours[at].repeat(up, 0)
    texts = []
    for i, row in enumerate(levels):
        y = top + (i + 1) * tall - side - STRIP - 6
        texts.append((left, y - NAME - 2, notes[i]))
        for j, codes in enumerate(row):
            x = left + j * (side + STRIP + GAP)
            image[y : y + side, x : x + STRIP] = roles
            image[y : y + side, x + STRIP : x + STRIP + side] = tables[signed[i]][codes].repeat(up, 0).repeat(up, 1)
            image[y + side : y + side + STRIP, x + STRIP : x + STRIP + side] = roles.swapaxes(0, 1)
            texts.append((x + STRIP, y - 4, names[i][j]))
    foot = height - 38
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    for j, (role, colour) in enumerate(prompt.legend):
        x = left + j * (width - left) // len(prompt.legend)
        image[foot - 8 : foot, x : x + 8] = to_rgb(colour)
        texts.append((x + 11, foot, role))
    figure.figimage((image * 255).round().astype(np.uint8))
    for x, y, text in texts:
        figure.text(x / width, 1 - y / height, text, fontsize=6.8, va="baseline", parse_math=False)
    figure.text(left / width, 1 - 16 / height, title, fontsize=8.5, va="baseline", weight="bold", parse_math=False)
    scale = f"White is 0, dark blue {limits[0]:.3f}." + (
        f" Difference: blue up to +{limits[1]:.3f}, red to \u2212{limits[1]:.3f}." if any(signed) else ""
    )
    pool = "One pixel or more per cell." if k == 1 else f"Each pixel is the largest of {k} x {k} cells."
    figure.text(
        left / width,
        1 - (foot + 18) / height,
        "Down: from (destination). Across: to (source). " + pool,
        fontsize=6.8,
        va="baseline",
    )
    figure.text(left / width, 1 - (foot + 31) / height, scale, fontsize=6.8, va="baseline")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    # A fixed palette: one chosen by frequency would lose rare cells of strong difference.
    roles_used = np.array([to_rgb(prompt.colour(prompt.roles.index(role))) for role in prompt.kinds])
    greys = np.linspace(0, 1, 64)[:, None].repeat(3, 1)
    palette = (np.concatenate([*tables, roles_used, greys]) * 255).round().astype(np.uint8)
    found, where = np.unique(drawn @ np.array([65536, 256, 1]), return_inverse=True)
    found = np.stack([found >> 16, found >> 8 & 255, found & 255], -1)
    nearest = np.abs(found[:, None] - palette.astype(int)).sum(-1).argmin(-1).astype(np.uint8)
    small = Image.fromarray(nearest[where].reshape(height, width))
    small.putpalette(palette.tobytes())
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()
