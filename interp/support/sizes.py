"""Families and sizes of models, and how a kind of model names its size."""

from __future__ import annotations

import re
from typing import NamedTuple

# Families that have a TransformerBridge, and BLOOM with key sinks, which TransformerLens does not know.
BRIDGED = ("alibi", "rotary", "none", "absolute")
FAMILIES = (*BRIDGED, "alibi_sink")


class Size(NamedTuple):
    """Layers, width of the residual stream, and heads.

    >>> str(Size(24, 1024, 16))
    '24x1024x16'
    """

    n_layers: int
    d_model: int
    n_heads: int

    def __str__(self) -> str:
        return "x".join(map(str, self))

    @property
    def weights(self) -> int:
        """Number of weights without embeddings, 12 x layers x width squared (Kaplan et al. 2020, section 2.1)."""
        return 12 * self.n_layers * self.d_model**2


USUAL = Size(3, 128, 8)


def kind_of(family: str, size: Size) -> str:
    """Return the family, and its size where that is not the usual; `split_kind` reverses it.

    >>> kind_of("alibi", USUAL), kind_of("alibi", Size(6, 128, 8))
    ('alibi', 'alibi_6x128x8')
    """
    return family if size == USUAL else f"{family}_{size}"


def split_kind(kind: str) -> tuple[str, Size | None]:
    """Return the family of a kind of model, and its size if the kind names one.

    >>> split_kind("alibi_6x128x8")
    ('alibi', Size(n_layers=6, d_model=128, n_heads=8))
    >>> split_kind("alibi_sink")
    ('alibi_sink', None)
    """
    if match := re.fullmatch(r"(.+)_(\d{1,5})x(\d{1,5})x(\d{1,5})", kind):
        return match[1], Size(*map(int, match.groups()[1:]))
    return kind, None
