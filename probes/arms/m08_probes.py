"""M8, probes: linear probes on activations, their held-out scores, and online code lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks.layout import generator

# Shares of the prompts after which the probe is fitted again; each portion is coded by the previous probe.
PORTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Weight of the uniform code in every probability, so that an unseen class costs a finite number of bits.
UNIFORM_SHARE = 1e-3
REGULARISATION = 1.0
# The least spread of a dimension, as a share of the largest, that is not float32 rounding.
FAINTEST = 1e-6


@dataclass(frozen=True)
class Code:
    """The online code length (Voita and Titov 2003.12298) of `labels` values, and the uniform code's, in bits."""

    bits: float
    uniform: float
    labels: int

    @property
    def compression(self) -> float:
        """The uniform code length over this one; 1 where nothing is learned."""
        return self.uniform / self.bits


def split(size: int, seed: int) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """Return two random halves of the prompts, as sorted indices."""
    order = torch.randperm(size, generator=generator(seed))
    return order[: size // 2].sort().values, order[size // 2 :].sort().values


def held_out(
    fitted: Float[Tensor, "train place d_model"],
    values: Tensor,
    tested: Float[Tensor, "test place d_model"],
    true: Tensor,
    classes: int,
) -> Float[Tensor, "test place"]:
    """Return the scores on `tested` of a probe that is fitted on `fitted`.

    A class scores 1 (right) or 0 (wrong). A number scores 1 - error^2 / variance, whose mean over prompts is R2.
    """
    return scores(Standardised.of(fitted, tested), values, true, classes)


def scores(features: Standardised, values: Tensor, true: Tensor, classes: int) -> Float[Tensor, "test place"]:
    """Return `held_out` of features that several probes share."""
    estimator = _fit(features.fitted, values, classes)
    guess = torch.from_numpy(estimator.predict(features.tested)).reshape(true.shape).double()
    if classes:
        return (guess == true).double()
    return 1 - (guess - true) ** 2 / true.double().var(unbiased=False)


def online_code(
    features: Float[Tensor, "prompt place d_model"], values: Int[Tensor, "prompt place"], classes: int
) -> Code:
    """Return the online code length of the values given the features.

    The first portion of the prompts is coded uniformly, each later one by the probe fitted on all earlier portions.

    >>> online_code(noise, coin_flips, classes=2).compression  # about 1
    """
    return online_codes(features, [values], classes)[0]


def online_codes(
    features: Float[Tensor, "prompt place d_model"], each: Sequence[Int[Tensor, "prompt place"]], classes: int
) -> list[Code]:
    """Return `online_code` of several values at the same places."""
    ends = sorted({max(1, round(share * len(features))) for share in PORTIONS})
    uniform = float(np.log2(classes))
    bits = [uniform * values[: ends[0]].numel() for values in each]
    for start, end in pairwise(ends):
        shared = Standardised.of(features[:start], features[start:end])
        for k, values in enumerate(each):
            bits[k] += _portion(shared, values[:start], values[start:end], classes)
    return [Code(found, uniform * values.numel(), values.numel()) for found, values in zip(bits, each, strict=True)]


def _portion(features: Standardised, before: Tensor, now: Tensor, classes: int) -> float:
    """Return the bits that a portion of the values takes, by a probe fitted on the earlier ones."""
    if len(before.unique()) < 2:
        return float(np.log2(classes)) * now.numel()
    estimator = _fit(features.fitted, before, classes)
    known = {int(c): column for column, c in enumerate(estimator.classes_)}
    p = estimator.predict_proba(features.tested)
    columns = [known.get(v, -1) for v in now.flatten().tolist()]
    right = np.where(np.array(columns) < 0, 0.0, p[np.arange(len(p)), columns])
    return -float(np.log2((1 - UNIFORM_SHARE) * right + UNIFORM_SHARE / classes).sum())


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features of the places that a probe is fitted on, and of those that it is tested on, in the former's spread."""

    fitted: Float[np.ndarray, "row d_model"]
    tested: Float[np.ndarray, "row d_model"]

    @classmethod
    def of(cls, fitted: Tensor, tested: Tensor) -> Standardised:
        """Return features `[prompt place d_model]` as standardised rows."""
        x = _rows(fitted)
        mean, spread = x.mean(axis=0), x.std(axis=0)
        # StandardScaler turns rounding into a feature after an erasure; such dimensions are dropped here.
        scale = np.where(spread > FAINTEST * spread.max(), 1 / np.maximum(spread, 1e-300), 0.0)
        return cls((x - mean) * scale, (_rows(tested) - mean) * scale)


def _fit(rows: Float[np.ndarray, "row d_model"], values: Tensor, classes: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    y = values.flatten().numpy()
    if classes and len(np.unique(y)) < 2:
        raise ValueError("all values to decode are the same: a probe has nothing to learn")
    # Newton's method needs few steps and does not stop early on separable data; its matrix grows with the classes.
    solver = "newton-cholesky" if classes == 2 else "lbfgs"
    made = LogisticRegression(C=REGULARISATION, solver=solver, max_iter=1000, tol=1e-3) if classes else Ridge()
    return made.fit(rows, y)


def _rows(features: Tensor) -> np.ndarray:
    return features.double().flatten(0, 1).numpy()
