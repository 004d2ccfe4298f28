"""How sure is a number? Intervals over prompts, by scipy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from probes.evidence import Interval

LEVEL = 0.95


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson score interval of a proportion; `n` may be an effective sample size.

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
    """Wilson interval of a proportion over steps that nest in prompts.

    Steps of a prompt fail together, so the sample size is the effective one, p(1-p) over the variance of
    the prompts' means: never fewer than the prompts, never more than the steps (Kish's design effect).
    """
    prompts, steps = right.shape
    per_prompt = right.double().mean(dim=1).numpy()
    p = float(per_prompt.mean())
    variance = float(per_prompt.var(ddof=1)) / prompts if prompts > 1 else 0.0
    n = p * (1 - p) / variance if variance > 0 else prompts
    n = float(np.clip(n, prompts, prompts * steps))
    return wilson(p * n, n, level)


def ratio(
    numerator: Float[Tensor, " prompt"], denominator: Float[Tensor, " prompt"], level: float = LEVEL
) -> Interval:
    """The ratio of two means over prompts, with a t interval on the linearised ratio (delta method).

    Raises `ValueError` when the mean denominator is not clearly different from zero: the ratio is then
    undefined and no number is better than none.
    """
    top, bottom = (x.double().numpy() for x in (numerator, denominator))
    n = len(top)
    if n < 3:
        raise ValueError(f"a ratio needs at least 3 prompts; got {n}")
    mean = float(bottom.mean())
    error = float(bottom.std(ddof=1)) / np.sqrt(n)
    if abs(mean) <= 3 * error or mean == 0:
        raise ValueError(
            f"the edited bit moves the margin by {mean:.3g} +- {error:.2g}: too little to normalise by"
        )
    value = float(top.mean()) / mean
    residual = top - value * bottom
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * float(residual.std(ddof=1)) / np.sqrt(n) / abs(mean)
    return Interval(value, value - half, value + half)
