"""Inference over K trained models: intervals, tests, corrections and Shapley shares.

The unit of replication is the trained model (initialisation x data order). Prompts nest in models: average over a
model's prompts first and pass one mean per model, because pooled prompts overstate the evidence. `t_interval`,
`sign_flip` and `equivalence` decide; `bootstrap_interval` is for display only (probes/README.md, Decision).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float
from scipy import stats

from probes.evidence import Interval

# statsmodels costs 0.3 s to import and is imported where it is used.

LEVEL = 0.95
# All 2^K sign flips are counted up to this many models; for more models, this many flips are drawn.
MOST_EXACT = 14
# One number, or one per prompt.
Amount = TypeVar("Amount", float, Float[np.ndarray, " prompt"])
# The name of a test.
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Shares(Generic[Amount]):
    """An effect divided between factors, in the unit of the values (rho: shares of the margin).

    `share` has one entry per factor, and sum(shares) + `baseline` + `remainder` = 1 for each prompt. `baseline` is the
    value with no factor on, 0 for rho. `interaction` is the joint effect minus the sum of the single effects: negative
    where factors are backups, positive where they need each other. It is already divided among the shares.
    `remainder` is what no factor explains.
    """

    share: Mapping[str, Amount]
    baseline: Amount
    interaction: Amount
    remainder: Amount


def t_interval(model_means: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's t interval for the mean over trained models, from one mean per model.

    In the unit of the means, and not clipped to their range. It covers at its level for every K if model means are
    about normal (Student 1908). Models that agree exactly give an interval of width zero.
    Raises `ValueError` for fewer than 2 models: one model allows a claim about that model only.

    >>> print(t_interval([0.8, 0.9, 1.0]))
    0.900 [0.652, 1.148]
    """
    means = _means(model_means)
    _check_fraction("level", level)
    value, k = float(means.mean()), len(means)
    return Interval(value, value, value, float(means.std(ddof=1) / np.sqrt(k)), k - 1).at(level)


def bootstrap_interval(
    values: Sequence[Sequence[float]], level: float = LEVEL, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the percentile interval of the hierarchical bootstrap: resample models, then their prompts.

    FOR DISPLAY ONLY: with 3 models a nominal 95 % covers about .78 (probes/README.md, Decision); `t_interval` decides.
    `values` has one sequence of prompts per model, of any lengths; models have equal weight. In the unit of the values
    (Davison and Hinkley 1997, section 3.8).

    >>> print(bootstrap_interval([[0.0, 0.0], [1.0, 1.0, 1.0]]))
    0.500 [0.000, 1.000]
    """
    models = [np.asarray(prompts, dtype=float) for prompts in values]
    if any(prompts.ndim != 1 or not len(prompts) for prompts in models):
        raise ValueError("values must have one sequence of prompts per model, none of them empty")
    own = _means([float(prompts.mean()) for prompts in models])
    _check_fraction("level", level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(models), size=(resamples, len(models)))
    means = np.empty(drawn.shape)
    for k, prompts in enumerate(models):
        # A model that is drawn twice gets two independent draws of its prompts.
        places = np.nonzero(drawn == k)
        means[places] = rng.choice(prompts, size=(len(places[0]), len(prompts))).mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(own.mean()), float(low), float(high))


def sign_flip(model_means: Sequence[float], bound: float = 0.0, seed: int = 0) -> float:
    """Return the one-sided p of the exact sign-flip test that the effect is above `bound` over models.

    Under the null, models scatter symmetrically about `bound` or below it. The smallest p is 2^-K, so .05 needs
    K >= 5. Exact up to 14 models; for more, 2^14 flips are drawn (`seed`) and the observed one is counted with them
    (Fisher 1935; Phipson and Smyth 2010). Raises `ValueError` for fewer than 2 models.

    >>> sign_flip([0.2, 0.3, 0.4, 0.5]), sign_flip([0.2, 0.3, 0.4, 0.5], bound=0.2)
    (0.0625, 0.125)
    """
    if not np.isfinite(bound):
        raise ValueError(f"bound must be finite; got {bound}")
    above = _means(model_means) - bound
    result = stats.permutation_test(
        (above,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=2**MOST_EXACT,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def equivalence(model_means: Sequence[float], margin: float) -> float:
    """Return the p of two one-sided t tests (TOST; Schuirmann 1987) that the effect is within +-`margin` over models.

    `margin` is in the unit of the means. p < alpha exactly where the t interval of level 1 - 2 alpha lies within the
    margin. At a true 0, with a standard deviation over models as large as the margin, the power at .05 is .30 for
    K = 5, .63 for 8 and .79 for 10. Models that agree up to rounding have no t statistic: p is 0 within the margin and
    1 elsewhere. Raises `ValueError` for fewer than 2 models or a margin that is not positive.

    >>> round(equivalence([-0.05, 0.0, 0.05], margin=0.1), 4)
    0.0371
    """
    from statsmodels.stats.weightstats import DescrStatsW

    means = _means(model_means)
    if not 0 < margin < np.inf:
        raise ValueError(f"margin must be positive; got {margin}")
    rounding = 8 * np.finfo(float).eps * max(margin, float(np.abs(means).max()))
    if np.ptp(means) <= rounding:
        return 0.0 if abs(means.mean()) < margin - rounding else 1.0
    return float(DescrStatsW(means).ttost_mean(-margin, margin)[0])


def holm(p_values: Mapping[Name, float], alpha: float = 0.05) -> dict[Name, tuple[float, bool]]:
    """Adjust the p values of a confirmatory family: the chance of any false rejection is at most `alpha`.

    Return adjusted p and whether it is rejected, for each name, in the given order; valid under any dependence
    (Holm 1979). The family is everything that was planned, fixed before the measurement; an empty family is allowed.

    >>> holm({"address": 0.01, "content": 0.03, "normalisation": 0.04}, alpha=0.05)
    {'address': (0.03, True), 'content': (0.06, False), 'normalisation': (0.06, False)}
    """
    return _adjusted(p_values, alpha, "holm")


def benjamini_hochberg(p_values: Mapping[Name, float], q: float = 0.05) -> dict[Name, tuple[float, bool]]:
    """Adjust the p values of exploratory findings: the expected share of false rejections is at most `q`.

    Return adjusted p and whether it is rejected, for each name, in the given order; for tests that are independent or
    positively dependent (Benjamini and Hochberg 1995). For head maps, labelled exploratory.

    >>> benjamini_hochberg({"L0H0": 0.02, "L0H1": 0.03, "L1H0": 0.5}, q=0.05)
    {'L0H0': (0.045, True), 'L0H1': (0.045, True), 'L1H0': (0.5, False)}
    """
    return _adjusted(p_values, q, "fdr_bh")


def shapley(values: Mapping[frozenset[str], Amount]) -> Shares[Amount]:
    """Divide an effect between binary factors: the mean increment over all orders of switching factors on.

    `values` has the effect for each subset of factors that are on, with the empty and the full subset: a number, or
    one per prompt. Exact, over all subsets (Shapley 1953). A share depends on the readout: rho gives shares of the
    margin. The mean of prompts' shares is the share of the prompts' mean. Raises `ValueError` that names missing
    subsets.

    >>> none, a, b = frozenset(), frozenset({"address"}), frozenset({"content"})
    >>> shares = shapley({none: 0.0, a: 0.5, b: 0.125, a | b: 0.75})
    >>> shares.share, shares.interaction, shares.remainder
    ({'address': 0.5625, 'content': 0.1875}, 0.125, 0.25)
    """
    if not all(isinstance(subset, frozenset) for subset in values):
        raise ValueError("subsets must be frozensets of factor names")
    # Sorted, because the order of a set of strings differs between runs of Python.
    factors = sorted(frozenset().union(*values))
    if not factors:
        raise ValueError("no factors: give the value of every subset of at least one")
    subsets = [frozenset(c) for size in range(len(factors) + 1) for c in combinations(factors, size)]
    missing = ["{" + ", ".join(sorted(subset)) + "}" for subset in subsets if subset not in values]
    if missing:
        raise ValueError(f"values of these subsets are missing: {', '.join(missing)}")
    arrays = {subset: np.asarray(values[subset], dtype=float) for subset in subsets}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(shapes.pop()) > 1:
        raise ValueError("values must all be numbers, or all one per prompt for the same prompts")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("values must be finite")
    none, every = arrays[subsets[0]], arrays[subsets[-1]]

    def share(factor: str) -> Any:
        others = [subset for subset in subsets if factor not in subset]
        steps = [(arrays[s | {factor}] - arrays[s]) / comb(len(factors) - 1, len(s)) for s in others]
        return _amount(np.sum(steps, axis=0) / len(factors))

    alone = np.sum([arrays[frozenset({factor})] - none for factor in factors], axis=0)
    return Shares(
        share={factor: share(factor) for factor in factors},
        baseline=_amount(none.copy()),
        interaction=_amount(every - none - alone),
        remainder=_amount(1 - every),
    )


def _amount(array: Any) -> Any:
    """Return a number for a number and an array for an array."""
    return float(array) if np.ndim(array) == 0 else array


def _means(model_means: Sequence[float]) -> Float[np.ndarray, " model"]:
    means = np.asarray(model_means, dtype=float)
    if means.ndim != 1:
        raise ValueError(f"one mean per model is needed; got an array of shape {means.shape}")
    if len(means) < 2:
        raise ValueError(f"a conclusion over models needs at least 2 of them; got {len(means)}")
    if not np.isfinite(means).all():
        raise ValueError("a model's mean is NaN or infinite: leave the model out and report that")
    return means


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1; got {value}")


def _adjusted(p_values: Mapping[Name, float], alpha: float, method: str) -> dict[Name, tuple[float, bool]]:
    from statsmodels.stats.multitest import multipletests

    _check_fraction("the error rate", alpha)
    wrong = [name for name, p in p_values.items() if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"not p-values: {', '.join(map(str, wrong))}")
    if not p_values:
        return {}
    reject, adjusted, *_ = multipletests(list(p_values.values()), alpha=alpha, method=method)
    pairs = zip(np.asarray(adjusted).tolist(), np.asarray(reject).tolist(), strict=True)
    return dict(zip(p_values, pairs, strict=True))
