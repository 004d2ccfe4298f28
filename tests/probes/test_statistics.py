"""Inference over models: each function on a known case and on a null, and the error of pooling prompts."""

import doctest
import gc
import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from probes import statistics as inference
from probes.statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    equivalence,
    holm,
    shapley,
    sign_flip,
    t_interval,
)

TRUTH = 0.6
BETWEEN = 0.10  # sd of models' means
WITHIN = 0.30  # sd of prompts in a model
PROMPTS = 200


def nested(rng, k):
    """Prompts of K models, [model prompt]."""
    return TRUTH + rng.normal(0, BETWEEN, (k, 1)) + rng.normal(0, WITHIN, (k, PROMPTS))


def covers(interval):
    return interval.low <= TRUTH <= interval.high


def test_the_examples_give_what_they_say():
    assert doctest.testmod(inference).failed == 0
    assert doctest.testmod(inference).attempted >= 8


# Intervals


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_t_interval_is_scipys(level):
    means = [0.1, 0.4, 0.2, 0.9]
    found = t_interval(means, level)
    reference = stats.ttest_1samp(means, 0).confidence_interval(level)
    assert (found.value, found.low, found.high) == pytest.approx((0.4, reference.low, reference.high))


def test_t_interval_can_be_had_at_another_level():
    found, direct = t_interval([0.1, 0.4, 0.2, 0.9]).at(0.9), t_interval([0.1, 0.4, 0.2, 0.9], 0.9)
    assert (found.value, found.low, found.high) == pytest.approx((direct.value, direct.low, direct.high))


def test_models_that_agree_give_an_interval_of_no_width():
    found = t_interval([0.5, 0.5, 0.5])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("k", [3, 5, 10])
def test_t_on_model_means_covers_and_pooled_prompts_do_not(k):
    """Coverage .95 at every K, against .35 for pooled prompts (probes/README.md, Decision)."""
    rng = np.random.default_rng(k)
    runs, covered, pooled = 2000, 0, 0
    for _ in range(runs):
        values = nested(rng, k)
        covered += covers(t_interval(values.mean(axis=1).tolist()))
        pooled += covers(t_interval(values.ravel().tolist()))
    assert covered / runs == pytest.approx(0.95, abs=0.015)  # 3 standard errors
    assert pooled / runs < 0.42


@pytest.mark.parametrize(("k", "coverage"), [(3, 0.78), (10, 0.92)])
def test_the_bootstrap_covers_too_little_with_few_models(k, coverage):
    rng = np.random.default_rng(k)
    runs = 600
    covered = sum(covers(bootstrap_interval(nested(rng, k).tolist(), resamples=300, seed=i)) for i in range(runs))
    assert covered / runs == pytest.approx(coverage, abs=0.05)


def test_the_bootstrap_redraws_models_and_prompts():
    """Its spread is that of both levels: (between + within / n) / K, with variances over n and over K."""
    rng = np.random.default_rng(0)
    models = [rng.normal(m, 1.0, 20) for m in rng.normal(0, 0.3, 12)]
    within, between = np.mean([m.var() / len(m) for m in models]), np.var([m.mean() for m in models])
    found = bootstrap_interval([m.tolist() for m in models], level=0.9, resamples=20_000)
    sd = (found.high - found.low) / (2 * stats.norm.ppf(0.95))
    assert sd == pytest.approx(np.sqrt((between + within) / 12), rel=0.03)
    for one_level in (between, within):
        assert sd > 1.1 * np.sqrt(one_level / 12)


def test_models_weigh_the_same_in_the_bootstrap_whatever_their_prompts():
    found = bootstrap_interval([[0.0], [1.0] * 99])
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_the_bootstrap_is_the_same_for_the_same_seed():
    values = nested(np.random.default_rng(0), 4).tolist()
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


# Present


@pytest.mark.parametrize("k", [2, 5, 8, 14])
def test_the_smallest_p_is_two_to_the_minus_k(k):
    assert sign_flip(np.linspace(0.2, 0.9, k).tolist()) == 2.0**-k
    assert sign_flip((-np.linspace(0.2, 0.9, k)).tolist()) == 1.0


def test_sign_flip_counts_all_flips():
    """Against a literal count, with ties and a bound."""
    means, bound = [0.5, 0.125, -0.25, 0.75, 0.375], 0.25
    above = np.array(means) - bound
    flips = [float((above * signs).sum()) for signs in itertools.product([1, -1], repeat=5)]
    assert sign_flip(means, bound) == np.mean([f >= above.sum() for f in flips])


def test_models_at_the_bound_are_no_evidence():
    assert sign_flip([0.1] * 6, bound=0.1) == 1.0


def test_beyond_14_models_flips_are_drawn():
    rng = np.random.default_rng(0)
    means = rng.normal(0.3, 1, 16)
    signs = np.array(list(itertools.product([1, -1], repeat=16)))
    exact = float((signs @ means >= means.sum() - 1e-12).mean())
    drawn = sign_flip(means.tolist(), seed=0)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2**14))
    assert drawn == sign_flip(means.tolist(), seed=0) != sign_flip(means.tolist(), seed=1)
    assert sign_flip([0.5] * 30) == pytest.approx(1 / (2**14 + 1))  # never 0: the observed flip counts


@pytest.mark.parametrize("noise", ["normal", "heavy tails", "unequal models"])
@pytest.mark.parametrize("k", [5, 8])
def test_sign_flip_seldom_finds_what_is_not_there(k, noise):
    """Exact for any symmetric null, of any shape, the same for all models or not."""
    rng = np.random.default_rng(k)
    runs = 1500
    draws = rng.standard_t(2, (runs, k)) if noise == "heavy tails" else rng.normal(0, 1, (runs, k))
    if noise == "unequal models":
        draws *= np.logspace(-1, 1, k)
    p = np.array([sign_flip((0.1 + x).tolist(), bound=0.1) for x in draws])
    for alpha in (0.05, 0.2):
        exact = np.floor(alpha * 2**k) / 2**k  # the largest attainable size
        assert np.mean(p <= alpha) == pytest.approx(exact, abs=3.5 * np.sqrt(exact * (1 - exact) / runs))


def test_sign_flip_finds_what_is_there():
    rng = np.random.default_rng(0)
    p = np.array([sign_flip(rng.normal(0.3, BETWEEN, 8).tolist(), bound=0.1) for _ in range(300)])
    assert np.mean(p <= 0.05) > 0.97


# Absent


@pytest.mark.parametrize(("k", "power"), [(5, 0.30), (8, 0.63), (10, 0.79)])
def test_power_of_equivalence_at_a_true_zero(k, power):
    """With standard deviation .10 and margin .10 (probes/README.md, Decision)."""
    rng = np.random.default_rng(k)
    runs = 2500
    p = np.array([equivalence(rng.normal(0, 0.10, k).tolist(), margin=0.10) for _ in range(runs)])
    assert np.mean(p < 0.05) == pytest.approx(power, abs=0.03)


@pytest.mark.parametrize("truth", [0.10, -0.10, 0.15])
def test_equivalence_is_seldom_claimed_on_the_margin_or_outside(truth):
    rng = np.random.default_rng(0)
    runs = 2000
    p = np.array([equivalence(rng.normal(truth, 0.02, 8).tolist(), margin=0.10) for _ in range(runs)])
    assert np.mean(p < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    if abs(truth) == 0.10:
        assert np.mean(p < 0.05) >= 0.035  # the size is used


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    rng = np.random.default_rng(0)
    agreed = set()
    for _ in range(300):
        means = rng.normal(0.03, 0.08, 6).tolist()
        interval = t_interval(means, 0.90)
        within = max(-interval.low, interval.high) < 0.1
        assert (equivalence(means, 0.1) < 0.05) == within
        agreed.add(within)
    assert agreed == {True, False}


@pytest.mark.parametrize(
    ("mean", "p"),
    [(0.0, 0.0), (0.099, 0.0), (-0.099, 0.0), (0.1, 1.0), (-0.1, 1.0), (0.3, 1.0), (0.1 + 1e-17, 1.0)],
)
@pytest.mark.parametrize("k", [2, 3, 7])
def test_models_that_agree_are_inside_or_not(mean, p, k):
    assert equivalence([mean] * k, margin=0.1) == p


def test_models_that_agree_up_to_rounding_count_as_agreeing():
    almost = float(np.nextafter(0.1, 0))
    assert almost < 0.1
    assert equivalence([0.1, almost, 0.1], margin=0.1) == 1.0
    assert equivalence([0.05, 0.05 + 1e-17, float(np.nextafter(0.05, 1))], margin=0.1) == 0.0


# Families


def test_holm_by_hand():
    found = holm({"c": 0.03, "a": 0.005, "d": 0.04, "b": 0.011}, alpha=0.05)
    assert list(found) == ["c", "a", "d", "b"]
    assert {name: p for name, (p, _) in found.items()} == pytest.approx({"a": 0.02, "b": 0.033, "c": 0.06, "d": 0.06})
    assert {name for name, (_, reject) in found.items() if reject} == {"a", "b"}


def test_holm_stops_at_the_first_that_fails():
    assert [reject for _, reject in holm({"a": 0.03, "b": 0.04}, alpha=0.05).values()] == [False, False]


@pytest.mark.parametrize("dependence", [0.0, 0.8])
@pytest.mark.parametrize("true_nulls", [6, 3])
def test_holm_keeps_the_chance_of_any_false_claim(true_nulls, dependence, monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels collects at each call: 0.1 s beside torch
    rng = np.random.default_rng(true_nulls)
    runs, holm_errors, raw_errors = 1500, 0, 0
    for _ in range(runs):
        z = np.sqrt(dependence) * rng.normal() + np.sqrt(1 - dependence) * rng.normal(size=6)
        z[true_nulls:] += 5
        p = dict(zip("abcdef", stats.norm.sf(z).tolist(), strict=True))
        nulls = list(p)[:true_nulls]
        found = holm(p, alpha=0.05)
        holm_errors += any(found[name][1] for name in nulls)
        raw_errors += any(p[name] < 0.05 for name in nulls)
    assert holm_errors / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert raw_errors / runs > 0.07  # what it is for
    if dependence == 0:
        assert holm_errors / runs > 0.03  # and it is not idle


def test_benjamini_hochberg_by_hand():
    found = benjamini_hochberg({"c": 0.03, "a": 0.005, "d": 0.8, "b": 0.011}, q=0.05)
    assert list(found) == ["c", "a", "d", "b"]
    assert {name: p for name, (p, _) in found.items()} == pytest.approx({"a": 0.02, "b": 0.022, "c": 0.04, "d": 0.8})
    assert {name for name, (_, reject) in found.items() if reject} == {"a", "b", "c"}


def test_benjamini_hochberg_keeps_the_share_of_false_findings():
    rng = np.random.default_rng(0)
    shares, found_true, holm_true = [], 0, 0
    for run in range(400):
        z = rng.normal(size=50)
        z[:20] += 3
        p = {f"L0H{h}": x for h, x in enumerate(stats.norm.sf(z).tolist())}
        rejected = [int(name[3:]) for name, (_, reject) in benjamini_hochberg(p, q=0.10).items() if reject]
        shares.append(sum(h >= 20 for h in rejected) / max(1, len(rejected)))
        found_true += sum(h < 20 for h in rejected)
        if run == 0:
            holm_true = sum(reject for _, reject in holm(p, 0.10).values())
            assert len(rejected) > holm_true
    assert np.mean(shares) == pytest.approx(0.10 * 30 / 50, abs=0.015)  # q times the share of true nulls
    assert found_true / (400 * 20) > 0.7


def test_an_empty_family_has_no_findings():
    assert holm({}, 0.05) == benjamini_hochberg({}, 0.05) == {}


# Shares


def subsets(*factors):
    return [frozenset(c) for size in range(len(factors) + 1) for c in itertools.combinations(factors, size)]


FACTORS = ("address", "content", "normalisation")


def game(seed, factors=FACTORS) -> dict[frozenset[str], float]:
    rng = np.random.default_rng(seed)
    return {s: float(rng.normal()) for s in subsets(*factors)}


def game_by_prompt(seed, prompts, factors=FACTORS) -> dict[frozenset[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    return {s: rng.normal(size=prompts) for s in subsets(*factors)}


def test_shares_are_means_over_orders():
    """The definition, literally."""
    values = game(0, factors=("a", "b", "c", "d"))
    orders = list(itertools.permutations("abcd"))
    for factor in "abcd":
        before = [frozenset(order[: order.index(factor)]) for order in orders]
        steps = [values[s | {factor}] - values[s] for s in before]
        assert shapley(values).share[factor] == pytest.approx(np.mean(steps))


@pytest.mark.parametrize("prompts", [None, 7])
@pytest.mark.parametrize("factors", [("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")])
def test_shares_add_up(factors, prompts):
    """Efficiency."""
    values: dict[frozenset[str], Any] = game_by_prompt(1, prompts, factors) if prompts else game(1, factors)
    found = shapley(values)
    none, every = values[frozenset()], values[frozenset(factors)]
    assert sum(found.share.values()) == pytest.approx(every - none)
    assert sum(found.share.values()) + found.baseline + found.remainder == pytest.approx(np.ones_like(none))


def test_factors_that_do_the_same_share_the_same():
    """Symmetry."""
    by_size = [0.0, 0.2, 0.7, 0.9]
    found = shapley({s: by_size[len(s)] for s in subsets("a", "b", "c")})
    assert list(found.share.values()) == pytest.approx([0.3] * 3)
    assert found.interaction == pytest.approx(0.9 - 3 * 0.2)
    assert found.remainder == pytest.approx(0.1)


def test_a_factor_that_does_nothing_has_no_share():
    """Dummy."""
    inner = game(2, factors=("a", "b"))
    found = shapley({s: inner[s - {"idle"}] for s in subsets("a", "b", "idle")})
    assert found.share["idle"] == pytest.approx(0, abs=1e-12)
    reduced = shapley(inner)
    assert {name: found.share[name] for name in "ab"} == pytest.approx(dict(reduced.share))
    assert found.interaction == pytest.approx(reduced.interaction)


def test_additive_effects_are_their_own_shares_without_interaction():
    effects = {"a": 0.5, "b": 0.25, "c": -0.125}
    found = shapley({s: sum(effects[f] for f in s) + 0.0 for s in subsets("a", "b", "c")})
    assert found.share == pytest.approx(effects)
    assert (found.interaction, found.remainder) == pytest.approx((0.0, 0.375))


def test_interaction_tells_a_backup_from_a_need():
    either = shapley({s: float(bool(s)) for s in subsets("a", "b")})
    both = shapley({s: float(len(s) == 2) for s in subsets("a", "b")})
    assert either.share == both.share == {"a": 0.5, "b": 0.5}
    assert (either.interaction, both.interaction) == (-1.0, 1.0)


def test_a_baseline_is_nobodys_share():
    found = shapley({s: 0.25 + 0.5 * ("a" in s) for s in subsets("a", "b")})
    assert found.share == {"a": 0.5, "b": 0.0}
    assert (found.baseline, found.interaction, found.remainder) == (0.25, 0.0, 0.25)


def test_shares_by_prompt_are_those_of_each_prompt():
    values = game_by_prompt(3, prompts=5)
    found = shapley(values)
    for i in range(5):
        one = shapley({s: float(v[i]) for s, v in values.items()})
        assert {name: x[i] for name, x in found.share.items()} == pytest.approx(dict(one.share))
        assert (found.interaction[i], found.remainder[i]) == pytest.approx((one.interaction, one.remainder))
    means = shapley({s: float(v.mean()) for s, v in values.items()})
    assert {name: x.mean() for name, x in found.share.items()} == pytest.approx(dict(means.share))


def test_numbers_give_numbers_in_a_fixed_order():
    found = shapley(dict(reversed(game(0).items())))
    assert list(found.share) == ["address", "content", "normalisation"]
    assert all(type(x) is float for x in (*found.share.values(), found.baseline, found.interaction, found.remainder))


def test_missing_subsets_are_named():
    values = game(0)
    del values[frozenset()], values[frozenset({"content", "address"})]
    with pytest.raises(ValueError, match=r"missing: \{\}, \{address, content\}$"):
        shapley(values)


# The caller's mistakes


@pytest.mark.parametrize(
    "conclude",
    [t_interval, sign_flip, lambda x: equivalence(x, 0.1), lambda x: bootstrap_interval([[v, v] for v in x])],
)
def test_models_are_checked(conclude):
    for few in ([], [0.5]):
        with pytest.raises(ValueError, match=f"needs at least 2 of them; got {len(few)}"):
            conclude(few)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="NaN or infinite"):
            conclude([0.1, bad, 0.2])


@pytest.mark.parametrize("conclude", [t_interval, sign_flip, lambda x: equivalence(x, 0.1)])
def test_prompts_are_not_models(conclude):
    with pytest.raises(ValueError, match=r"one mean per model is needed; got an array of shape \(3, 2\)"):
        conclude([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: t_interval([0.1, 0.2], level=95), "level must lie between 0 and 1; got 95"),
        (lambda: bootstrap_interval([[0.1], [0.2]], level=1.0), "level must lie"),
        (lambda: bootstrap_interval([[0.1], [0.2]], resamples=0), "resamples must be at least 1"),
        (lambda: bootstrap_interval([[0.1], []]), "none of them empty"),
        (lambda: bootstrap_interval([0.1, 0.2]), "one sequence of prompts per model"),  # type: ignore[list-item]
        (lambda: sign_flip([0.1, 0.2], bound=float("nan")), "bound must be finite"),
        (lambda: equivalence([0.1, 0.2], margin=0.0), "margin must be positive"),
        (lambda: equivalence([0.1, 0.2], margin=float("nan")), "margin must be positive"),
        (lambda: holm({"a": 0.1, "b": 1.5, "c": float("nan")}, 0.05), "not p-values: b, c"),
        (lambda: holm({"a": 0.1}, alpha=0.0), "the error rate must lie between 0 and 1"),
        (lambda: benjamini_hochberg({"a": -0.1}, q=0.05), "not p-values: a"),
        (lambda: shapley({}), "no factors"),
        (lambda: shapley({frozenset(): 0.0}), "no factors"),
        (lambda: shapley({"": 0.0, "a": 1.0}), "must be frozensets"),  # type: ignore[dict-item]
        (lambda: shapley({frozenset(): 0.0, frozenset("a"): float("nan")}), "must be finite"),
        (lambda: shapley({frozenset(): np.zeros(2), frozenset("a"): np.zeros(3)}), "the same prompts"),
        (lambda: shapley({frozenset(): np.zeros((2, 2)), frozenset("a"): np.zeros((2, 2))}), "one per prompt"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
