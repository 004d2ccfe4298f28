"""M8, probes: linear probes on activations, their held-out scores, and online code lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    return scores(Standardised.of(fitted, tested), [(values, true)], classes)[0]


def scores(
    features: Standardised, each: Sequence[tuple[Tensor, Tensor]], classes: int
) -> list[Float[Tensor, "test place"]]:
    """Return `held_out` of several values at the same places, each with those of the places that are tested.

    Raises `ValueError` for a class that is the same at all places of the fit.
    """
    fitted, true = [values for values, _ in each], [truth for _, truth in each]
    if not classes:
        from sklearn.linear_model import Ridge

        numbers = torch.stack([values.flatten() for values in fitted], dim=1).numpy()
        guesses = torch.from_numpy(Ridge().fit(features.fitted.numpy(), numbers).predict(features.tested.numpy()))
        by_value = zip(guesses.view(-1, len(each)).unbind(dim=1), true, strict=True)
        errors = [(guess.reshape(truth.shape) - truth) ** 2 for guess, truth in by_value]
        return [1 - x / truth.double().var(unbiased=False) for x, truth in zip(errors, true, strict=True)]
    if any(len(values.unique()) < 2 for values in fitted):
        raise ValueError("all values to decode are the same: a probe has nothing to learn")
    found = _probabilities(features, fitted, classes)
    return [(p.argmax(dim=1).view(truth.shape) == truth).double() for p, truth in zip(found, true, strict=True)]


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
    uniform = math.log2(classes)
    bits = [uniform * values[: ends[0]].numel() for values in each]
    for start, end in pairwise(ends):
        shared = Standardised.of(features[:start], features[start:end])
        known = [k for k, values in enumerate(each) if len(values[:start].unique()) > 1]
        found = _probabilities(shared, [each[k][:start] for k in known], classes)
        for k, values in enumerate(each):
            bits[k] += 0 if k in known else uniform * values[start:end].numel()
        for k, p in zip(known, found, strict=True):
            right = p.gather(1, each[k][start:end].reshape(-1, 1))
            bits[k] -= float(((1 - UNIFORM_SHARE) * right + UNIFORM_SHARE / classes).log2().sum())
    return [Code(found, uniform * values.numel(), values.numel()) for found, values in zip(bits, each, strict=True)]


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features of the places that a probe is fitted on, and of those that it is tested on, in the former's spread."""

    fitted: Float[Tensor, "row d_model"]
    tested: Float[Tensor, "row d_model"]

    @classmethod
    def of(cls, fitted: Tensor, tested: Tensor) -> Standardised:
        """Return features `[prompt place d_model]` as standardised rows in float64."""
        x, y = (features.double().flatten(0, 1) for features in (fitted, tested))
        spread, mean = torch.std_mean(x, dim=0, correction=0)
        # StandardScaler turns rounding into a feature after an erasure; such dimensions are dropped here.
        scale = torch.where(spread > FAINTEST * spread.max(), 1 / spread.clamp_min(1e-300), 0.0)
        return cls((x - mean).mul_(scale), (y - mean).mul_(scale))


def _probabilities(features: Standardised, each: Sequence[Tensor], classes: int) -> list[Float[Tensor, "row class"]]:
    """Return the probability of each class at the tested places, by probes of several values that vary."""
    return [_probability(features, values.flatten(), classes) for values in each]


def _probability(features: Standardised, labels: Int[Tensor, " row"], classes: int) -> Float[Tensor, "row class"]:
    from sklearn.linear_model import LogisticRegression

    # Newton's method needs few steps and does not stop early on separable data; its matrix grows with the classes.
    solver = "newton-cholesky" if classes == 2 else "lbfgs"
    made = LogisticRegression(C=REGULARISATION, solver=solver, max_iter=1000, tol=1e-3)
    made.fit(features.fitted.numpy(), labels.numpy())
    p = torch.zeros(len(features.tested), classes, dtype=torch.float64)
    p[:, torch.from_numpy(made.classes_)] = torch.from_numpy(made.predict_proba(features.tested.numpy()))
    return p
