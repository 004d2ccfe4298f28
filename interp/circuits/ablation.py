"""What the edges outside a circuit carry: another prompt's activations, a mean, or zero."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike
from interp.circuits.edge_forward import EdgeModel
from interp.circuits.pairs import resolved_prompts
from interp.models.resolve import AnyModel
from interp.support.finite import require_finite
from interp.tasks import Prompts

Kind = Literal["corrupted", "resample", "mean", "zero"]


@dataclass(frozen=True, eq=False)
class Ablation:
    """What each writer is replaced by along edges that are cut.

    - "corrupted": its output on the prompt with the same index in `prompts`: pairs (Conmy et al. 2304.14997).
    - "resample": its output on another one of `prompts`, drawn for each prompt with `seed` (Chan et al. 2022).
    - "mean": its mean output over `prompts`, position by position (Wang et al. 2211.00593).
    - "zero": zero; no prompts. The embedding is zeroed too, so residuals may be far from any that the model has seen.
    """

    kind: Kind
    prompts: PromptsLike | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"an ablation is one of {', '.join(get_args(Kind))}; got {self.kind!r}")
        if (self.prompts is None) != (self.kind == "zero"):
            raise ValueError(f"the ablation {self.kind!r} {'takes no' if self.kind == 'zero' else 'needs'} prompts")
        if self.kind in ("resample", "mean") and isinstance(self.prompts, Prompts | Tensor) and len(self.prompts) < 2:
            raise ValueError(f"{self.kind} needs two or more prompts to draw from")

    def replacement(self, edge_model: EdgeModel, tokens: Int[Tensor, "batch pos"]) -> Replacement:
        """Return the replacements for the prompts `tokens`. Raises `ValueError` where `prompts` do not fit them."""
        if self.kind == "zero":
            a = edge_model.anatomy
            shape = (len(edge_model.graph.writers), 1, tokens.shape[1], a.d_model)
            return Replacement(edge_model, tokens, torch.zeros(shape, dtype=a.dtype, device=a.device))
        assert isinstance(self.prompts, Prompts), "ablation_of resolves prompts"
        others = self.prompts.tokens
        if others.shape[1] != tokens.shape[1] or (self.kind == "corrupted" and len(others) != len(tokens)):
            raise ValueError(
                f"prompts are {list(tokens.shape)} and those of the ablation {list(others.shape)}: lengths must be "
                "equal, and for 'corrupted' their numbers"
            )
        match self.kind:
            case "corrupted":
                return Replacement(edge_model, others, None)
            case "resample":
                return Replacement(edge_model, others[partners(tokens, others, self.seed)], None)
            case "mean":
                return Replacement(edge_model, others, _mean(edge_model, others))


def partners(tokens: Int[Tensor, "batch pos"], others: Int[Tensor, "other pos"], seed: int) -> Int[Tensor, " batch"]:
    """Draw for each prompt the index of another one, never of the prompt itself. Raises `ValueError` if all are."""
    gen = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(others), (len(tokens),), generator=gen)
    for _ in range(len(others)):
        same = (others[drawn] == tokens).all(dim=1)
        if not same.any():
            return drawn
        drawn = torch.where(same, (drawn + 1) % len(others), drawn)
    raise ValueError("every prompt to resample from is the prompt itself")


@dataclass(frozen=True, eq=False)
class Replacement:
    """The replaced outputs of writers, indexed by prompt.

    Shapes:
        tokens:   `[batch pos]`, for each prompt the prompt whose activations replace its own.
        constant: `[writer 1 pos d_model]`, the same replacement for every prompt (mean, zero); else None.
    """

    edge_model: EdgeModel
    tokens: Int[Tensor, "batch pos"]
    constant: Float[Tensor, "writer 1 pos d_model"] | None

    def __getitem__(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "writer #row pos d_model"]:
        return self.edge_model.writer_outputs(self.tokens[rows]) if self.constant is None else self.constant


def ablation_of(given: Ablation | PromptsLike, model: AnyModel) -> Ablation:
    """Return an ablation with its prompts resolved; prompts alone are the corrupted prompts, row by row."""
    ablation = given if isinstance(given, Ablation) else Ablation("corrupted", given)
    if ablation.prompts is None:
        return ablation
    return replace(ablation, prompts=resolved_prompts(model, ablation.prompts, "the ablation"))


def _mean(edge_model: EdgeModel, tokens: Tensor) -> Float[Tensor, "writer 1 pos d_model"]:
    total = None
    for rows in edge_model.chunks(len(tokens)):
        outputs = edge_model.writer_outputs(tokens[rows])
        outputs = require_finite(outputs, "a writer's output, for the mean,", rows, axis=1)
        summed = outputs.double().sum(dim=1, keepdim=True)
        total = summed if total is None else total + summed
    assert total is not None
    return (total / len(tokens)).to(edge_model.anatomy.dtype)
