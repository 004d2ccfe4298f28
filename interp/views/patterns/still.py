"""What is seen where no script runs? All heads as small maps in a PNG: a pixel or more a cell, or the largest of some.

Never resampled: neighbouring tokens alternate between bits and labels, and at half size, nearest-neighbour hides
98 % of a previous-token head. Text is matplotlib's, maps are set pixel by pixel.
"""

from __future__ import annotations

import io
import zlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.views.patterns.prompt import COLOURS, Prompt

# Bytes of deflated levels: with palette and text, the file is then at most about 100 KB.
MOST_BYTES = 70_000
LEVELS = 33  # odd: a difference of zero has a colour of its own
STRIP, GAP, NAME = 4, 14, 16  # pixels
MASS = ((1.0, 1.0, 1.0), (0.42, 0.68, 0.84), (0.03, 0.19, 0.42))
SIGNED = ((0.70, 0.09, 0.17), (0.97, 0.97, 0.97), (0.13, 0.40, 0.67))
EMPTY = (0.90, 0.91, 0.93)  # where a causal head cannot look


def pooled(values: Float[Tensor, "*block dest_pos src_pos"], k: int) -> Float[Tensor, "*block row column"]:
    """Of each k x k cells the one that is farthest from zero, with its sign.

    >>> pooled(torch.tensor([[0.0, -0.5], [0.25, 0.0]]), 2)
    tensor([[-0.5000]])
    """
    pad = -values.shape[-1] % k
    padded = torch.nn.functional.pad(values, (0, pad, 0, pad))
    tiles = padded.unflatten(-1, (-1, k)).unflatten(-3, (-1, k)).movedim(-3, -2).flatten(-2)
    return tiles.gather(-1, tiles.abs().argmax(-1, keepdim=True))[..., 0]


def mosaic(
    blocks: Float[Tensor, "condition layer head dest_pos src_pos"],
    prompt: Prompt,
    layers: list[int],
    heads: list[int],
    title: str,
    conditions: tuple[str, str],
) -> bytes:
    """A PNG: a row of heads a layer, and with two conditions a row each and one of their difference."""
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
            # The condition is said once a row: there is room for it to run over several heads.
            names.append([f"L{layer}H{head}" for head in heads])
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
    return _png(levels, signed, names, notes, prompt, title, k, limits)


def _levels(values: Tensor, limit: float, signed: bool, causal: bool) -> np.ndarray:
    """Numbers of colours; LEVELS is the colour of cells that no causal head can have."""
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
    colours = np.array([to_rgb(COLOURS[role]) for role in prompt.roles])
    # Where a pixel stands for several tokens, the strip has a lane for each of them: bits and labels alternate.
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
    for j, role in enumerate(prompt.kinds):  # the legend of the strips
        x = left + j * (width - left) // len(prompt.kinds)
        image[foot - 8 : foot, x : x + 8] = to_rgb(COLOURS[role])
        texts.append((x + 11, foot, role.words))
    figure.figimage((image * 255).round().astype(np.uint8))
    for x, y, text in texts:
        figure.text(x / width, 1 - y / height, text, fontsize=6.8, va="baseline")
    figure.text(left / width, 1 - 16 / height, title, fontsize=8.5, va="baseline", weight="bold")
    scale = f"White is 0, dark blue {limits[0]:.3f}." + (
        f" Difference: blue up to +{limits[1]:.3f}, red to \u2212{limits[1]:.3f}." if any(signed) else ""
    )
    pool = "One pixel or more a cell." if k == 1 else f"Each pixel is the largest of {k} x {k} cells."
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
    # A palette of the colours that are meant: one chosen by frequency would lose a few cells of strong difference.
    roles_used = np.array([to_rgb(COLOURS[role]) for role in prompt.kinds])
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
