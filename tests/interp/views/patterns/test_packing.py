"""Weights come back from the page's text within the error that is stated."""

import base64
import zlib

import numpy as np
import pytest
import torch

from interp.views.patterns.packing import MOST_FINE, checked, pack
from tests.interp.views.patterns.samples import noise, planted


def unpacked(packed) -> np.ndarray:
    """As canvas.js does it."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed.data)), np.uint8).astype(float)
    if packed.bits == 8:
        return (raw / 255) ** 2 * packed.limit
    high, low = raw.reshape(2, -1)
    return (high * 256 + low) / 65535 * packed.limit


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("values", [planted(4, 30)[0], noise(3, 17)[0], torch.zeros(1, 5, 5)])
def test_weights_come_back_within_the_stated_error(values, bits):
    packed = pack(values, bits)
    n = values.shape[-1]
    true = values[:, torch.tril(torch.ones(n, n, dtype=torch.bool))].reshape(-1).numpy()
    assert packed.causal
    assert np.abs(unpacked(packed) - true).max() <= packed.error * 1.001


def test_a_pattern_that_looks_ahead_is_kept_whole():
    ahead = torch.softmax(torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0)), -1)
    packed = pack(ahead)
    assert not packed.causal
    assert np.allclose(unpacked(packed), ahead.reshape(-1).numpy(), atol=packed.error)


def test_small_weights_keep_their_digits_in_8_bits():
    uniform = torch.full((1, 242, 242), 1 / 242).tril()
    uniform[0, 0, 0] = 1
    assert abs(unpacked(pack(uniform, 8))[-1] - 1 / 242) < 0.0003


def test_many_cells_take_8_bits():
    assert pack(torch.ones(12, 242, 242).tril()).bits == 16
    big = torch.ones(24, 242, 242).tril()
    assert big.numel() > MOST_FINE
    assert pack(big).bits == 8


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN"), (float("inf"), "infinity"), (-0.1, "negative")])
def test_what_no_colour_can_show_is_refused(value, words):
    values = planted(1, 4)
    values[0, 0, 2, 1] = value
    with pytest.raises(ValueError, match=words):
        checked(values, "patterns")
