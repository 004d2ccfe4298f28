import numpy as np
import pytest
import torch
from scipy import stats

from probes.intervals import clustered_proportion, mean, ratio, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (50, 50), (199, 256)])
def test_wilson_is_scipys(k, n):
    reference = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    found = wilson(k, n)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_needs_trials():
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)


def test_clustered_interval_is_as_wide_as_prompts_when_steps_fail_together():
    together = (torch.arange(100) < 80).unsqueeze(1).expand(100, 40)
    found, prompts = clustered_proportion(together), wilson(80, 100)
    assert found.high - found.low == pytest.approx(prompts.high - prompts.low, rel=0.02)


def test_clustered_interval_is_as_narrow_as_steps_when_steps_fail_alone():
    alone = torch.rand(400, 50, generator=torch.Generator().manual_seed(0)) < 0.8
    found, steps = clustered_proportion(alone), wilson(0.8 * 20000, 20000)
    assert found.high - found.low == pytest.approx(steps.high - steps.low, rel=0.15)


def test_clustered_interval_covers_the_truth():
    """Prompts differ in difficulty; an interval over pooled steps would cover too rarely."""
    rng = np.random.default_rng(0)
    covered = pooled = 0
    for _ in range(400):
        p = rng.beta(8, 2, size=60)
        right = torch.from_numpy(rng.random((60, 40)) < p[:, None])
        found, naive = clustered_proportion(right), wilson(float(right.sum()), right.numel())
        covered += found.low <= 0.8 <= found.high
        pooled += naive.low <= 0.8 <= naive.high
    assert 0.92 <= covered / 400 <= 0.985
    assert pooled / 400 < 0.75


def test_ratio_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(600):
        bottom = rng.normal(4, 1, size=80)
        top = 0.6 * bottom + rng.normal(0, 1, size=80)
        found = ratio(torch.from_numpy(top), torch.from_numpy(bottom))
        covered += found.low <= 0.6 <= found.high
    assert 0.925 <= covered / 600 <= 0.975


def test_ratio_to_nothing_is_an_error():
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="too little to normalise"):
        ratio(torch.ones(50), noise - noise.mean())
    with pytest.raises(ValueError, match="too little to normalise"):
        ratio(torch.ones(50), torch.zeros(50))
    with pytest.raises(ValueError, match="at least 3"):
        ratio(torch.ones(2), torch.ones(2))


def test_a_mean_is_students():
    x = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.3])
    found = mean(x)
    low, high = stats.t.interval(0.95, 4, loc=x.mean(), scale=stats.sem(x.double()))
    assert (found.value, found.low, found.high) == pytest.approx((0.38, low, high))
    assert found.df == 4


def test_a_count_that_never_varied_is_not_known_to_be_constant():
    never = torch.zeros(40)
    assert mean(never).low == mean(never).high == 0
    found = mean(never, floor=1 / 40)
    assert found.error == 1 / 40
    assert found.high == pytest.approx(stats.t.ppf(0.975, 39) / 40)
    # A floor that is below what was seen changes nothing.
    varied = torch.arange(40) % 2
    assert mean(varied, floor=1e-6) == mean(varied)


def test_a_mean_needs_three():
    with pytest.raises(ValueError, match="at least 3 prompts; got 2"):
        mean(torch.ones(2))


def test_stratified_ratio_by_hand():
    """Two strata of unlike sizes; each counts alike below, and as weighted above."""
    top, bottom = torch.tensor([1.0, 2, 3, 10, 14]), torch.tensor([4.0, 5, 6, 7, 9])
    strata = torch.tensor([0, 0, 0, 1, 1])
    found = ratio(top, bottom, strata=strata, weights=(0.5, -0.25))
    below = (5 + 8) / 2
    assert found.value == pytest.approx((0.5 * 2 - 0.25 * 12) / below)
    value = found.value
    first = [0.5 * t - value * b / 2 for t, b in ((1, 4), (2, 5), (3, 6))]
    second = [-0.25 * t - value * b / 2 for t, b in ((10, 7), (14, 9))]
    error = np.sqrt(np.var(first, ddof=1) / 3 + np.var(second, ddof=1) / 2) / below
    assert found.error == pytest.approx(error)
    assert found.df == 3
    assert found.high == pytest.approx(value + stats.t.ppf(0.975, 3) * error)


def test_without_weights_strata_count_alike_whatever_their_sizes():
    strata = torch.tensor([0] * 30 + [1] * 5)
    top = torch.where(strata == 0, 1.0, 3.0)
    assert ratio(top, torch.full((35,), 4.0), strata=strata).value == pytest.approx(0.5)
    assert ratio(top, torch.full((35,), 4.0)).value == pytest.approx((30 + 15) / 35 / 4)


def test_differences_between_strata_are_not_error():
    strata = torch.arange(60) % 3
    top, bottom = strata.double(), torch.full((60,), 2.0)
    assert ratio(top, bottom, strata=strata).error == pytest.approx(0, abs=1e-12)
    assert ratio(top, bottom).error > 0.04  # type: ignore[operator]
    assert ratio(top, bottom, strata=strata, floor=0.1).error == pytest.approx(0.05)


def test_stratified_ratio_interval_covers_the_truth():
    """Three strata of other means, sizes and spreads: the plain interval would be far too wide."""
    rng = np.random.default_rng(2)
    strata = torch.tensor([0] * 20 + [1] * 30 + [2] * 25)
    effect, spread = torch.tensor([0.0, 4.0, 8.0])[strata].numpy(), torch.tensor([0.3, 0.5, 1.0])[strata].numpy()
    truth = 0.5 * (0 + 4 + 8) / 8
    covered = plain = 0
    for _ in range(600):
        bottom = rng.normal(8, 1, size=75)
        top = effect + spread * rng.normal(size=75) + 0.2 * (bottom - 8)
        tensors = torch.from_numpy(top), torch.from_numpy(bottom)
        found = ratio(*tensors, strata=strata, weights=(0.5, 0.5, 0.5))
        covered += found.low <= truth <= found.high
        plain += (ratio(*tensors).error or 0) > 2 * (found.error or 0)
    assert 0.925 <= covered / 600 <= 0.975
    assert plain > 590


def test_strata_need_members_and_weights():
    strata = torch.tensor([0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="2 strata need as many weights; got 3"):
        ratio(torch.ones(5), torch.ones(5), strata=strata, weights=(1, 1, 1))
    with pytest.raises(ValueError, match="2 in each stratum"):
        ratio(torch.ones(4), torch.ones(4), strata=strata[:4])


def test_a_ratio_of_no_prompts_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        ratio(torch.ones(0), torch.ones(0))
