"""What does an edge carry that is not in the circuit?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.edge_forward import Passing
from interp.circuits.graph import Prompts, tokens_of
from interp.support.finite import require_finite

Kind = Literal["corrupted", "resample", "mean"]


@dataclass(frozen=True, eq=False)
class Ablation:
    """What writers give along edges that are cut.

    - "corrupted": what they give in the prompt of the same number in `prompts`: pairs (Conmy et al. 2304.14997).
    - "resample": what they give in another one of `prompts`, drawn for each prompt with `seed` (Chan et al. 2022).
    - "mean": their mean over `prompts`, position by position (Wang et al. 2211.00593).
    """

    kind: Kind
    prompts: Prompts
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"an ablation is one of {', '.join(get_args(Kind))}; got {self.kind!r}")
        if self.kind != "corrupted" and len(tokens_of(self.prompts)) < 2:
            raise ValueError(f"{self.kind} needs two or more prompts to draw from")

    def prepared(self, passing: Passing, tokens: Int[Tensor, "batch pos"]) -> Instead:
        """Ready for the prompts `tokens`. Raises `ValueError` where the prompts do not fit them."""
        others = tokens_of(self.prompts)
        if others.shape[1] != tokens.shape[1] or (self.kind == "corrupted" and len(others) != len(tokens)):
            raise ValueError(
                f"prompts are {list(tokens.shape)} and those of the ablation {list(others.shape)}: lengths must be "
                "equal, and for 'corrupted' their numbers"
            )
        match self.kind:
            case "corrupted":
                return Instead(passing, others, None)
            case "resample":
                return Instead(passing, others[self._partners(tokens, others)], None)
            case "mean":
                return Instead(passing, others, _mean(passing, others))

    def _partners(self, tokens: Tensor, others: Tensor) -> Int[Tensor, " batch"]:
        """For each prompt the number of another one: never the prompt itself, where it is among them."""
        gen = torch.Generator().manual_seed(self.seed)
        found = torch.randint(len(others), (len(tokens),), generator=gen)
        for _ in range(len(others)):
            same = (others[found] == tokens).all(dim=1)
            if not same.any():
                return found
            found = torch.where(same, (found + 1) % len(others), found)
        raise ValueError("every prompt to resample from is the prompt itself")


@dataclass(frozen=True, eq=False)
class Instead:
    """What writers give instead, for prompts by number."""

    passing: Passing
    tokens: Int[Tensor, "batch pos"]
    mean: Float[Tensor, "writer 1 pos d_model"] | None

    def __getitem__(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "writer #row pos d_model"]:
        return self.passing.written(self.tokens[rows]) if self.mean is None else self.mean


def ablation_of(given: Ablation | Prompts) -> Ablation:
    """An ablation; prompts alone are the corrupted twins."""
    return given if isinstance(given, Ablation) else Ablation("corrupted", given)


def _mean(passing: Passing, tokens: Tensor) -> Float[Tensor, "writer 1 pos d_model"]:
    total = None
    for rows in passing.rows(len(tokens)):
        written = require_finite(passing.written(tokens[rows]), "what a part gives, for the mean,", rows, axis=1)
        summed = written.double().sum(dim=1, keepdim=True)
        total = summed if total is None else total + summed
    assert total is not None
    return (total / len(tokens)).to(passing.anatomy.dtype)
