"""Erasing loses accuracy where the state is used, not where it is only decodable; controls lose none."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from concept_erasure import LeaceFitter

from interp.tasks import Batch, Role, sample
from probes.arms.m08_concepts import concept_of
from probes.arms.m08_erasers import Moments, _leace
from probes.arms.m08_erasing import Erased, erase
from probes.planted import Plan, plant


@cache
def erased(mechanism: str) -> tuple[Erased, ...]:
    planted = plant(Plan(mechanism, "gpt2", longest=8))

    def prompts(size: int, seed: int) -> Batch:
        return sample("parity-aligned", size, 8, seed, planted.vocabulary)

    return tuple(erase(planted.model, prompts(150, 0), prompts(80, 1), draws=2))


def test_a_stored_state_that_is_read_is_missed():
    found = {e.layers: e for e in erased("placeholder")}
    stored = found[1,]
    assert stored.decodable
    assert not found[0,].decodable
    assert stored.before.low > 0.94
    assert stored.left.high < 0.62
    assert stored.loss.lost.low > 0.3
    assert stored.loss.effect.value == pytest.approx(0.5, abs=0.1)
    for control in (stored.random, stored.matched):
        assert control.lost.high < 0.5 * stored.loss.lost.low
        assert control.effect.high < 0.2
    assert stored.displacement_random > 0.02


def test_a_stored_state_that_nobody_reads_is_not_missed():
    found = {e.layers: e for e in erased("unused, decodable")}
    stored = found[1,]
    assert stored.decodable
    assert stored.left.high < 0.62
    assert stored.displacement > 0.05
    for loss in (stored.loss, stored.random, stored.matched):
        assert loss.lost.high < 0.02
        assert abs(loss.effect.value) < 0.02
        assert loss.moved.high < 0.02


def test_where_nothing_is_stored_nothing_is_missed():
    for found in erased("unused"):
        assert not found.decodable
        assert found.loss.lost.high < 0.02
        assert found.loss.effect.high < 0.02


def test_results_say_what_they_are_of():
    (first, second) = erased("placeholder")
    assert (first.concept, first.role, first.length, first.n, first.draws) == ("state", "input label", 8, 80, 2)
    assert first.layers == (0,)
    assert second.to_json()["decodable"] is True


def test_leace_leaves_no_linear_trace_where_there_was_one_and_its_control_leaves_it():
    """The theorem (Belrose et al. 2306.03819): the cross-covariance is zero after the erasure, and not before."""
    batch = sample("parity-aligned", 200, 8, seed=0)
    concept = concept_of("state", batch)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, 12, generator=gen) @ torch.randn(12, 12, generator=gen)
    x[:, concept.places, 3] += 2.0 * concept.values
    fitted = _leace(Moments.of(x, concept), concept, concept.values)
    z = concept.values.double().flatten()

    def trace(features: torch.Tensor) -> float:
        flat = features[:, concept.places].double().flatten(0, 1)
        return float(((flat - flat.mean(dim=0)).T @ (z - z.mean())).abs().max()) / len(z)

    assert trace(x) > 0.2
    assert trace(fitted.eraser(x.double())) < 1e-9
    random = fitted.random(gen)
    assert random.proj_left.shape == fitted.eraser.proj_left.shape
    flat = x[:, concept.places].double().flatten(0, 1)
    assert trace(random(x.double())) > 0.05
    for eraser in (fitted.eraser, random):
        projection = eraser.proj_left @ eraser.proj_right
        assert torch.allclose(projection @ projection, projection, atol=1e-8)
        assert torch.allclose(eraser(flat).mean(dim=0), flat.mean(dim=0), atol=1e-8)
        # In the whitened space both are orthogonal projections: what is left is not correlated with what is taken.
        left, taken = eraser(flat) - flat.mean(dim=0), flat - eraser(flat)
        assert float((left.T @ taken).abs().max() / (taken.T @ taken).abs().max()) < 1e-6


def test_erasers_of_several_concepts_on_the_same_activations_are_those_of_each_alone():
    """The moments are shared; each eraser is the one that LeaceFitter fits to its own values."""
    batch = sample("parity-aligned", 120, 8, seed=0)
    concept = concept_of("state", batch)
    x = torch.randn(120, 8, 12, generator=torch.Generator().manual_seed(0)) + 0.5
    x[:, concept.places, 3] += 2.0 * concept.values
    x[..., 5] = 0  # a direction without variance
    flat, moments = x[:, concept.places].double().flatten(0, 1), Moments.of(x, concept)
    kept = [i for i in range(12) if i != 5]
    found = []
    for values in (concept.values, *concept.controls):
        found.append(_leace(moments, concept, values).eraser(flat))
        alone = LeaceFitter.fit(flat[:, kept], values.double().flatten(), shrinkage=False).eraser
        assert torch.allclose(found[-1][:, kept], alone(flat[:, kept]), atol=1e-9)
        assert torch.allclose(found[-1][:, 5], flat[:, 5], atol=1e-9)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_mistakes_are_named():
    planted = plant(Plan("placeholder", "gpt2", longest=8))

    def prompts(fmt: str, length: int = 6) -> Batch:
        return sample(fmt, 20, length, 0)

    aligned = prompts("parity-aligned")
    for fitted, batch, concept, role, words in (
        (prompts("addition-aligned", 3), aligned, "state", Role.INPUT_LABEL, "fitted is addition-aligned"),
        (aligned, prompts("parity-constant"), "state", Role.INPUT_LABEL, "do not apply to parity-constant"),
        (aligned, aligned, "slot", Role.INPUT_LABEL, "is a number"),
        (aligned, aligned, "carry", Role.INPUT_LABEL, "parity-aligned has state"),
        (aligned, aligned, "state", Role.ANSWER, "its roles are"),
    ):
        with pytest.raises(ValueError, match=words):
            erase(planted.model, fitted, batch, concept, role)
    with pytest.raises(ValueError, match="at least one draw"):
        erase(planted.model, aligned, aligned, draws=0)
