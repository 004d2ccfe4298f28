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


@dataclass(frozen=True, eq=False)
class Moments:
    """What erasers of several concepts on the same activations share.

    Shapes:
        x:          `[row d_model]` the activations, and `mean` their mean.
        directions: `[d_model d_model]` eigenvectors of their covariance, with the eigenvalues `variance`.
        support:    `[d_model supported]` the directions that LEACE may use.
        inside:     `[row supported]` the activations in these directions; `products` is their scatter matrix.
    """

    x: Float[Tensor, "row d_model"]
    mean: Float[Tensor, " d_model"]
    directions: Float[Tensor, "d_model d_model"]
    variance: Float[Tensor, " d_model"]
    support: Float[Tensor, "d_model supported"]
    inside: Float[Tensor, "row supported"]
    products: Float[Tensor, "supported supported"]

    @classmethod
    def of(cls, features: Float[Tensor, "prompt place d_model"], concept: Concept) -> Moments:
        """Return the moments of the activations at the places of a concept."""
        x = features[:, concept.places].double().flatten(0, 1)
        variance, directions = torch.linalg.eigh(x.T.cov())
        # Shrinkage would leave a trace of the concept, which a probe with standardisation finds.
        support = directions[:, variance > SUPPORT * variance[-1]]
        inside = x @ support
        products = inside.T @ (inside - inside.mean(dim=0))
        return cls(x, x.mean(dim=0), directions, variance, support, inside, products)


def fit_erasers(
    raw: PreTrainedModel,
    fitted: Batch,
    role: Role,
    layers: Sequence[int],
    intact: Mapping[int, Moments],
    concept: Concept,
    values: Tensor,
) -> dict[int, FittedEraser]:
    """Fit an eraser per layer in order, on activations to which the earlier erasers were applied.

    `intact`: the moments of the activations before each layer without an eraser.
    """
    fits: dict[int, FittedEraser] = {}
    for layer in layers:
        erasers = {earlier: f.eraser for earlier, f in fits.items()}
        moments = intact[layer]
        if erasers:
            moments = Moments.of(residuals(raw, fitted, role, [layer], erasers)[layer], concept)
        fits[layer] = _leace(moments, concept, values)
    return fits


def _leace(moments: Moments, concept: Concept, values: Tensor) -> FittedEraser:
    from concept_erasure import LeaceEraser, LeaceFitter

    y, inside, support = values.flatten(), moments.inside, moments.support
    z = y.double() if concept.classes == 2 else torch.nn.functional.one_hot(y, concept.classes).double()
    z = z.reshape(len(inside), -1)
    fitter = LeaceFitter(support.shape[1], z.shape[1], shrinkage=False, dtype=torch.float64)
    fitter.n, fitter.mean_x, fitter.sigma_xx_ = torch.tensor(len(inside)), inside.mean(dim=0), moments.products
    fitter.sigma_xz_ = inside.T @ (z - z.mean(dim=0))
    inner = fitter.eraser
    eraser = LeaceEraser(support @ inner.proj_left, inner.proj_right @ support.mT, moments.mean)
    varies = moments.variance > VARIES * moments.variance[-1]
    return FittedEraser(eraser, moments.directions[:, varies], moments.variance[varies].sqrt())


def displacement(eraser: Eraser, features: Float[Tensor, "prompt place d_model"]) -> float:
    """Return how far an eraser moves activations (root mean square), in units of their spread."""
    x = features.double()
    moved = (eraser(x) - x).square().sum(dim=-1).mean()
    return float((moved / (x - x.mean(dim=(0, 1))).square().sum(dim=-1).mean()).sqrt())
