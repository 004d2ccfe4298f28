"""Pairs of prompts for interchange at a site, and the answers expected after it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from interp.tasks import Prompts

# The order of axes in which keys and values of base runs are kept, as products of matrices read them: k `[pair kv_head
# d_head pos]`, v `[pair kv_head pos d_head]`.
ORDERS = {"k": (0, 2, 3, 1), "v": (0, 2, 1, 3)}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Base and source prompts, the site of the interchange, and the answer that each base should then give.

    Shapes:
        site:   `[pair place]` positions in rising order. Their residuals together, `[pair place*d_model]`, are the
                space of the directions.
        answer: `[pair]` positions of the answers, after every place of the site; at most one past the last token.
        target: `[pair]` the answer under the source's value of the variable, as an index into `symbols`.
        symbols: `[symbol]` token ids among which the answer is chosen.
    """

    base: Prompts
    source: Prompts
    site: Int[Tensor, "pair place"]
    answer: Int[Tensor, " pair"]
    target: Int[Tensor, " pair"]
    symbols: Int[Tensor, " symbol"]

    def __post_init__(self) -> None:
        n = len(self.base)
        if not len(self.source) == len(self.site) == len(self.answer) == len(self.target) == n or self.site.ndim != 2:
            raise ValueError("base, source, site, answer and target must have one entry per pair")
        if self.base.n_pos != self.source.n_pos:
            raise ValueError(f"base has {self.base.n_pos} positions and source {self.source.n_pos}")
        if (self.site >= self.answer.unsqueeze(1)).any() or (self.site < 0).any():
            raise ValueError("every place of the site must be before the answer")
        if (self.site.diff(dim=1) <= 0).any():
            raise ValueError("the places of a site must rise: list each pair's positions in order, each once")
        if self.symbols.is_floating_point() or len(self.symbols.unique()) != len(self.symbols):
            raise ValueError("symbols must be different token ids")
        require_targets(self.target, len(self.symbols))

    def __len__(self) -> int:
        return len(self.base)

    def rows(self, index: Tensor) -> Pairs:
        """Return some of the pairs."""
        return Pairs(
            base=self.base.rows(index),
            source=self.source.rows(index),
            site=self.site[index],
            answer=self.answer[index],
            target=self.target[index],
            symbols=self.symbols,
        )


def require_targets(targets: Tensor, n_symbols: int) -> None:
    """Raise `ValueError` unless targets are indices of so many symbols."""
    if targets.is_floating_point() or (len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < n_symbols):
        raise ValueError(f"targets must be indices of the {n_symbols} symbols, from 0 to {n_symbols - 1}")


def by_position(x: Tensor, site: str) -> Tensor:
    """Return what base runs keep of a site as `[pair pos ...]`, a view."""
    order = ORDERS.get(site)
    return x if order is None else x.permute([order.index(axis) for axis in range(x.ndim)])
