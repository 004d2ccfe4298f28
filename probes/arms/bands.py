"""Bands of layers: arms that patch one layer at a time patch several together in a deep model."""

from __future__ import annotations

from itertools import pairwise

# Models of at most so many layers are patched layer by layer.
FEW_LAYERS = 12
BANDS = 6


def layer_bands(n_layers: int) -> dict[str, tuple[int, ...]]:
    """Return the layers that are patched together, by name: single layers, or six bands of more than 12 layers.

    A pass is needed for each, so that the cost of an arm in a deep model is that of six passes per site.

    >>> list(layer_bands(3))
    ['L0', 'L1', 'L2']
    >>> list(layer_bands(30))
    ['L0-L4', 'L5-L9', 'L10-L14', 'L15-L19', 'L20-L24', 'L25-L29']
    """
    if n_layers <= FEW_LAYERS:
        return {f"L{layer}": (layer,) for layer in range(n_layers)}
    starts = [k * n_layers // BANDS for k in range(BANDS + 1)]
    bands = (tuple(range(a, b)) for a, b in pairwise(starts))
    return {f"L{band[0]}-L{band[-1]}": band for band in bands}
