"""The still picture: read back pixel by pixel, it hides no head."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from interp.views.patterns.prompt import prompt_of
from interp.views.patterns.sources import Shown
from interp.views.patterns.still import mosaic, pooled
from tests.interp.views.patterns.samples import noise, planted, prompts


def drawn(values: torch.Tensor, length: int, names=("a", "b")) -> tuple[np.ndarray, bytes]:
    """`values [condition layer head dest src]`."""
    layers: list[int | str] = list(range(values.shape[1]))
    heads = list(range(values.shape[2]))
    shown = Shown(prompt=prompt_of(prompts(length), 0), values=values[0], layers=layers, heads=heads)
    png = mosaic(values, shown, "planted", names)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int), png


def dark_blue(image: np.ndarray) -> np.ndarray:
    return (image[..., 2] - image[..., 0] > 60) & (image.sum(-1) < 260)


@pytest.mark.parametrize("n", [34, 82, 242])
@pytest.mark.parametrize("k", [2, 3])
def test_the_largest_of_a_block_keeps_a_previous_token_head_that_every_other_pixel_loses(n, k):
    head = planted(1, n)[0, 0]
    for parity in range(2):
        thinned = head.clone()
        thinned[torch.arange(n) % 2 == parity] = 0
        kept = pooled(thinned, k)
        assert (kept.sum(0) > 0).float().mean() > 0.45
    size = -(-n // k)
    assert (pooled(head, k).diagonal() == 1).sum() >= size - 1
    if k == 2:
        assert head[::k, ::k].sum() <= 1  # nearest neighbour: nothing is left but the first token


def test_the_largest_keeps_its_sign():
    assert pooled(torch.tensor([[0.1, -0.9, 0.2], [0.3, 0.0, 0.0], [0.0, 0.0, -0.1]]), 2).tolist() == pytest.approx(
        np.array([[-0.9, 0.2], [0.0, -0.1]])
    )


def test_each_planted_cell_is_a_pixel_or_more():
    image, _ = drawn(planted(1, 82)[None], 20)
    ys, xs = np.nonzero(dark_blue(image[34:-45]))
    runs = {(int(y), int(x)) for y, x in zip(ys, xs, strict=True)}
    assert len({y for y, _ in runs}) >= 82
    assert len({x for _, x in runs}) >= 81


@pytest.mark.parametrize("n_heads", [1, 12])
def test_a_hard_picture_is_pooled_small_and_still_shows_the_planted_head(n_heads):
    values = noise(n_heads, 242) * 0.2
    values[:, 0] = planted(1, 242)[:, 0]
    image, png = drawn(values[None], 60)
    assert len(png) < 110_000
    panel = image[50 : 50 + 60, 16 : 16 + 60]
    assert dark_blue(panel).any(1).mean() > 0.95
    assert dark_blue(panel).any(0).mean() > 0.95


def test_a_difference_of_zero_is_neither_red_nor_blue():
    two = torch.stack([planted(2, 34), planted(2, 34)])
    two[1, 0, 0, 20, 19], two[1, 0, 0, 20, 5] = 0, 1  # and one cell of each sign
    image, _ = drawn(two, 8)
    difference = image[-56 - 108 : -56 - 10, 20:114]
    blue, red = difference[..., 2] - difference[..., 0] > 60, difference[..., 0] - difference[..., 2] > 60
    assert blue.sum() == red.sum() == 9  # 3 x 3 pixels a cell
    grey = difference[~blue & ~red]
    assert (np.abs(grey[:, 0] - grey[:, 2]) < 12).all()
