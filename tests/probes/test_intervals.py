import numpy as np
import pytest
import torch
from scipy import stats

from probes.intervals import clustered_proportion, ratio, wilson


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
    """Prompts differ in difficulty; pooled steps would cover far less than they promise."""
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
