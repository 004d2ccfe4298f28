"""Concepts and their controls equal a brute-force computation of their table."""

from __future__ import annotations

import pytest
import torch

from interp.tasks import Role, addition, parity, sample
from probes.arms.m08_concepts import concept_of


@pytest.mark.parametrize("role", [Role.INPUT_LABEL, Role.INPUT, Role.OUTPUT_LABEL])
@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-gap2", "parity-constant", "parity-numeric"])
def test_values_by_brute_force(fmt, role):
    batch = sample(fmt, 20, 7, seed=0)
    bits = parity.read(batch).bits.tolist()
    for name, first, value in (
        ("state", 3, lambda row, s: sum(row[: s - 1]) % 2),
        ("bit", 1, lambda row, s: row[s - 1]),
        ("previous bit", 3, lambda row, s: row[s - 2]),
        ("slot", 1, lambda row, s: s),
    ):
        found = concept_of(name, batch, role)
        assert found.values.tolist() == [[value(row, s) for s in range(first, 8)] for row in bits]
        assert batch.step[batch.at(role)[found.places]].tolist() == list(range(first, 8))
        assert len(found.controls) == 3
        for control in found.controls:
            assert control.shape == found.values.shape
            assert not torch.equal(control, found.values)


def test_the_states_control_is_another_function_of_the_same_history_at_every_step():
    """It changes with some earlier bits and not with others, and never with the step's own bit or later ones."""
    batch = sample("parity-aligned", 40, 8, seed=0)
    zero, one = batch.vocabulary.tokens("01").tolist()
    base = concept_of("state", batch, seed=4)
    moves = torch.zeros(8, len(base.places), dtype=torch.bool)
    for bit in range(8):
        tokens = batch.tokens.clone()
        at = batch.at(Role.INPUT)[bit]
        tokens[:, at] = zero + one - tokens[:, at]
        edited = concept_of("state", batch.with_tokens(tokens), seed=4)
        changed = edited.controls[0] != base.controls[0]
        assert (changed == changed[:1]).all()
        moves[bit] = changed[0]
    for place, step in enumerate(range(3, 9)):
        assert not moves[step - 1 :, place].any()
        assert 0 < moves[: step - 1, place].sum() < step - 1
    assert torch.equal(base.controls[0], concept_of("state", batch, seed=4).controls[0])
    assert not torch.equal(base.controls[0], concept_of("state", batch, seed=5).controls[0])


def test_controls_are_independent_of_the_concept_and_balanced():
    batch = sample("parity-aligned", 3000, 8, seed=0)
    for name in ("state", "bit", "previous bit"):
        found = concept_of(name, batch)
        for control in found.controls:
            assert ((control == found.values).double().mean(dim=0) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("length", [4, (3, 5)])
@pytest.mark.parametrize("fmt", ["addition-aligned", "addition-nonaligned", "addition-zeropad", "addition-none"])
def test_carries_by_brute_force(fmt, length):
    batch = sample(fmt, 30, length, seed=0)
    role = Role.OUTPUT
    found = concept_of("carry", batch, role)
    content = addition.read(batch)
    steps = batch.step[batch.at(role)[found.places]].tolist()
    assert min(steps) == 2
    for row in range(30):
        numbers = [sum(int(d) * 10**k for k, d in enumerate(x[row])) for x in (content.first, content.second)]
        expected = [int(sum(number % 10 ** (s - 1) for number in numbers) >= 10 ** (s - 1)) for s in steps]
        assert found.values[row].tolist() == expected
    assert 0.2 < float(torch.stack(found.controls).double().mean()) < 0.8
    assert not torch.equal(found.controls[0], found.values)


def test_labels_are_numbered_in_the_pool():
    batch = sample("parity-aligned", 10, 6, seed=0)
    found = concept_of("label", batch)
    assert torch.equal(batch.vocabulary.pool[found.values], batch.tokens[:, batch.at(Role.INPUT_LABEL)])
    assert found.classes == len(batch.vocabulary.pool)


@pytest.mark.parametrize(
    ("fmt", "name", "role", "words"),
    [
        ("addition-aligned", "state", Role.INPUT_LABEL, "addition-aligned has carry, slot"),
        ("parity-aligned", "carry", Role.INPUT_LABEL, "parity-aligned has state, bit"),
        ("parity-aligned", "stat", Role.INPUT_LABEL, "concepts are state, bit"),
        ("recall-ordered", "slot", Role.INPUT_LABEL, "recall-ordered has none"),
        ("parity-scratchpad", "state", Role.INPUT_LABEL, "its roles are"),
        ("parity-aligned", "state", Role.SEPARATOR, "belong to no step"),
        ("parity-constant", "label", Role.INPUT_LABEL, "not drawn from a pool"),
    ],
)
def test_what_is_not_there_is_refused_with_the_choices(fmt, name, role, words):
    with pytest.raises(ValueError, match=words):
        concept_of(name, sample(fmt, 4, 5, seed=0), role)


def test_too_short_a_length_is_refused():
    with pytest.raises(ValueError, match="length of at least 4"):
        concept_of("state", sample("parity-aligned", 4, 3, seed=0))
    with pytest.raises(ValueError, match="at least one control"):
        concept_of("state", sample("parity-aligned", 4, 5, seed=0), controls=0)
