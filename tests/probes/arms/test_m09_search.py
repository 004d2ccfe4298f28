"""Searches share runs and batches, and each gives what it gives alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp import joining
from interp.das import everything, swapped_answers
from interp.tasks import Role
from probes.arms import m09_search
from probes.arms.m09_pairs import ResidualSite, Variable, pairs_and_control_targets
from probes.arms.m09_search import prepare, search
from tests.probes.arms.test_m09_subspaces import planted, prompts

LABEL, OUT_LABEL = Role.INPUT_LABEL, Role.OUTPUT_LABEL


def test_searches_of_two_variables_share_the_runs_of_base_prompts(monkeypatch: pytest.MonkeyPatch):
    batch, model, runs = prompts("placeholder", 48, 6, 0), planted("placeholder").model, []
    wanted: list[tuple[Variable, ResidualSite]] = [
        ("pointer", ResidualSite(0, OUT_LABEL)),
        ("state", ResidualSite(1, LABEL)),
    ]
    run = joining.run_bases
    monkeypatch.setattr(joining, "run_bases", lambda *a: runs.append(len(a[1])) or run(*a))
    together = prepare(model, wanted, batch, seed=0)
    assert runs == [2, 2]  # prompts to learn from, and prompts to test on, for two variables at once
    for ready, (variable, site) in zip(together, wanted, strict=True):
        (alone,) = prepare(model, [(variable, site)], batch, seed=0)
        assert (ready.variable, ready.site) == (variable, site)
        assert (len(ready.searched.pairs), len(ready.tested.pairs)) == (32, 16)
        assert torch.equal(ready.control_targets, pairs_and_control_targets(variable, batch, site, 0)[1][32:])
        for own, other in ((ready.searched, alone.searched), (ready.tested, alone.tested)):
            assert torch.equal(own.pairs.site, other.pairs.site)
            assert torch.equal(own.pairs.target, other.pairs.target)
            found, expected = (swapped_answers(x, everything(x)) for x in (own, other))
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_attempts_end_for_each_target_at_its_own_success(monkeypatch: pytest.MonkeyPatch):
    """The best attempt of each target is kept; a target that was reached is not searched again."""
    batch, asked = prompts("placeholder", 48, 6, 0), []
    (ready,) = prepare(planted("placeholder").model, [("state", ResidualSite(1, LABEL))], batch, seed=0)
    easy, hard = ready.searched.pairs.target, 1 - ready.searched.pairs.target
    quality = {0: (easy, hard * 0), 1: (easy, easy)}

    def fits(joined: Any, rank: int, seed: int, each: list[torch.Tensor], epochs: int) -> list[torch.Tensor]:
        asked.append((seed, len(each)))
        return [torch.full((1, 1), seed + k / 2) for k in range(2 - len(each), 2)]

    def answers(joined: Any, basis: torch.Tensor) -> torch.Tensor:
        seed, k = divmod(float(basis), 1)
        return torch.nn.functional.one_hot(quality[int(seed)][int(2 * k)], 2).float()

    monkeypatch.setattr(m09_search, "fit_each", fits)
    monkeypatch.setattr(m09_search, "swapped_answers", answers)
    (first, reached), (second, share) = search(ready.searched, 1, [easy, hard], seed=0, epochs=1, attempts=2)
    assert asked == [(0, 2), (1, 1)]
    assert (float(first), reached) == (0, 1)
    assert float(second) == 0.5
    assert share == float((hard == 0).double().mean()) > 0
