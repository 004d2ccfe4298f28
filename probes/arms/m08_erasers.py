"""M8, erasers: fit LEACE and erasers of random directions on the activations of one role.

LEACE (Belrose et al. 2306.03819) changes activations as little as possible so that no linear probe finds the concept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.erasure import Eraser, residuals
from interp.tasks import Batch, Role
from probes.arms.m08_concepts import Concept

# The least share of the largest variance for a direction that LEACE may use (below it, float32 rounding is amplified),
# and for one that a control may erase (below it, an erasure moves nothing).
SUPPORT, VARIES = 1e-10, 1e-6


@dataclass(frozen=True, eq=False)
class FittedEraser:
    """A LEACE eraser, with the directions in which activations vary (columns) and their standard deviations."""

    eraser: Any
    directions: Float[Tensor, "d_model varying"]
    spread: Float[Tensor, " varying"]

    def random(self, gen: torch.Generator) -> Any:
        """Return an eraser of as many random directions of the whitened space, by LEACE's formula."""
        from concept_erasure import LeaceEraser

        rank = int(torch.linalg.matrix_rank(self.eraser.proj_right))
        u = torch.linalg.qr(torch.randn(len(self.spread), rank, generator=gen, dtype=self.spread.dtype)).Q
        colour, whiten = self.directions * self.spread, self.directions / self.spread
        return LeaceEraser(colour @ u, (whiten @ u).mT, self.eraser.bias)


def fit_erasers(
    raw: PreTrainedModel,
    fitted: Batch,
    role: Role,
    layers: Sequence[int],
    intact: Mapping[int, Tensor],
    concept: Concept,
    values: Tensor,
) -> dict[int, FittedEraser]:
    """Fit an eraser per layer in order, on activations to which the earlier erasers were applied."""
    fits: dict[int, FittedEraser] = {}
    for layer in layers:
        erasers = {earlier: f.eraser for earlier, f in fits.items()}
        features = residuals(raw, fitted, role, [layer], erasers)[layer] if erasers else intact[layer]
        fits[layer] = _leace(features, concept, values)
    return fits


def _leace(features: Float[Tensor, "prompt place d_model"], concept: Concept, values: Tensor) -> FittedEraser:
    from concept_erasure import LeaceEraser, LeaceFitter

    x, y = features[:, concept.places].double().flatten(0, 1), values.flatten()
    z = y.double() if concept.classes == 2 else torch.nn.functional.one_hot(y, concept.classes).double()
    variance, directions = torch.linalg.eigh(x.T.cov())
    # Shrinkage would leave a trace of the concept, which a probe with standardisation finds.
    support = directions[:, variance > SUPPORT * variance[-1]]
    inner = LeaceFitter.fit(x @ support, z, shrinkage=False).eraser
    eraser = LeaceEraser(support @ inner.proj_left, inner.proj_right @ support.mT, x.mean(dim=0))
    varies = variance > VARIES * variance[-1]
    return FittedEraser(eraser, directions[:, varies], variance[varies].sqrt())


def displacement(eraser: Eraser, features: Float[Tensor, "prompt place d_model"]) -> float:
    """Return how far an eraser moves activations (root mean square), in units of their spread."""
    x = features.double()
    moved = (eraser(x) - x).square().sum(dim=-1).mean()
    return float((moved / (x - x.mean(dim=(0, 1))).square().sum(dim=-1).mean()).sqrt())
