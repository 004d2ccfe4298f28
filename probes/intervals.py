"""Intervals over prompts: proportions, means and ratios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from interp.support.finite import require_finite
from probes.evidence import Interval

LEVEL = 0.95


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Return the Wilson score interval of a proportion; `n` may be an effective sample size.

    >>> print(wilson(8, 10))
    0.800 [0.490, 0.943]
    """
    if n <= 0:
        raise ValueError("no trials: a proportion needs at least one")
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def clustered_proportion(right: Bool[Tensor, "prompt step"], level: float = LEVEL) -> Interval:
    """Return the Wilson interval of a proportion over steps that nest in prompts.

    Steps of one prompt fail together. The effective sample size is p(1-p) over the variance of the prompts' means,
    between the number of prompts and the number of steps (Kish's design effect).
    """
    prompts, steps = right.shape
    per_prompt = right.double().mean(dim=1).numpy()
    p = float(per_prompt.mean())
    variance = float(per_prompt.var(ddof=1)) / prompts if prompts > 1 else 0.0
    n = p * (1 - p) / variance if variance > 0 else prompts
    n = float(np.clip(n, prompts, prompts * steps))
    return wilson(p * n, n, level)


def mean(values: Float[Tensor, " prompt"], level: float = LEVEL, floor: float = 0.0) -> Interval:
    """Return a mean over prompts with a t interval; `floor` is the least standard error.

    A count that did not vary in n prompts need not be constant. A floor of 1/n allows for that, with an upper bound of
    two thirds of the rule of three at 95 %. Raises `ValueError` for fewer than 3 prompts and for values that are not
    finite.
    """
    x = require_finite(values, "a value to average").double().numpy()
    if len(x) < 3:
        raise ValueError(f"a mean needs at least 3 prompts; got {len(x)}")
    error = max(float(x.std(ddof=1)) / np.sqrt(len(x)), floor)
    return _t(float(x.mean()), error, len(x) - 1, level)


def ratio(
    numerator: Float[Tensor, " prompt"],
    denominator: Float[Tensor, " prompt"],
    level: float = LEVEL,
    strata: Int[Tensor, " prompt"] | None = None,
    weights: Sequence[float] | None = None,
    floor: float = 0.0,
) -> Interval:
    """Return the ratio of two means over prompts, with a t interval on the linearised ratio (delta method).

    With `strata` (numbers from 0) the numerator is the sum over strata of weight times the stratum's mean, the
    denominator is the unweighted mean of the strata's means, and the variance is that within strata (Cochran, Sampling
    Techniques, chapter 5). Without `weights` all strata have the same weight. `floor` as in `mean`, in units of the
    numerator.

    Raises `ValueError` where the mean denominator is within 3 standard errors of zero: the ratio is undefined.
    """
    top, bottom = (require_finite(x, "a term of a ratio").double() for x in (numerator, denominator))
    groups = torch.zeros(len(top), dtype=torch.long) if strata is None else strata
    if not len(top):
        raise ValueError("a ratio needs at least 3 prompts; got 0")
    members = [groups == g for g in range(int(groups.max()) + 1)]
    weights = [1 / len(members)] * len(members) if weights is None else weights
    if len(weights) != len(members):
        raise ValueError(f"{len(members)} strata need as many weights; got {len(weights)}")
    if min([int(m.sum()) for m in members], default=0) < (3 if len(members) < 2 else 2):
        raise ValueError(f"a ratio needs at least 3 prompts, and 2 in each stratum; got {len(top)}")

    def error_of(by_prompt: list[Tensor]) -> float:
        return float(np.sqrt(sum(float(x.var()) / len(x) for x in by_prompt)))

    equal = 1 / len(members)
    average = float(sum(bottom[m].mean() * equal for m in members))
    error = error_of([bottom[m] * equal for m in members])
    if abs(average) <= 3 * error or average == 0:
        raise ValueError(f"the full effect is {average:.3g} +- {error:.2g}: too little to normalise by")
    value = float(sum(w * top[m].mean() for w, m in zip(weights, members, strict=True))) / average
    residual = [w * top[m] - value * equal * bottom[m] for w, m in zip(weights, members, strict=True)]
    spread = max(error_of(residual), floor) / abs(average)
    return _t(value, spread, len(top) - len(members), level)


def _t(value: float, error: float, df: float, level: float) -> Interval:
    return Interval(value, value, value, float(error), df).at(level)
