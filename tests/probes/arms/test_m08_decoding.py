"""A probe finds what is encoded, its controls show what any probe finds, and neither finds what is absent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.tasks import Role, parity, sample
from probes.arms.m08_concepts import concept_of
from probes.arms.m08_decoding import decode, decode_from
from probes.arms.m08_probes import held_out, online_code, split
from probes.planted import Plan, plant

LENGTH = 8
BATCH = sample("parity-aligned", 240, LENGTH, seed=0)
SHAPE = (240, LENGTH, 24)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def written(value: Tensor, seed: int = 0, strength: float = 3.0) -> Tensor:
    """Return noise plus `[prompt place]` numbers along one random direction."""
    x = noise(seed)
    direction = torch.nn.functional.normalize(torch.randn(24, generator=torch.Generator().manual_seed(9)), dim=0)
    return x + strength * value.unsqueeze(-1) * direction


def states() -> Tensor:
    bits = parity.read(BATCH).bits
    return ((bits.cumsum(dim=1) - bits) % 2).float()


def test_a_state_that_is_there_is_found_and_its_control_is_not():
    (found,) = decode_from({1: written(2 * states() - 1, strength=4)}, concept_of("state", BATCH), random={1: noise(5)})
    assert found.score.low > 0.96
    assert found.control.high < 0.6
    assert found.selectivity.low > 0.4
    assert found.untrained is not None
    assert found.untrained.high < 0.57
    assert found.code is not None
    assert found.control_code is not None
    assert found.code.compression > 4
    assert found.control_code.compression < 1.02
    assert found.code.uniform == found.code.labels == 240 * 6


def test_a_state_that_is_not_there_is_not_found():
    (found,) = decode_from({0: noise()}, concept_of("state", BATCH))
    assert found.score.low < 0.5 < found.score.high
    assert found.selectivity.low < 0 < found.selectivity.high
    assert found.code is not None
    assert found.code.compression < 1.02
    assert found.untrained is None


def test_bits_that_are_there_make_no_state():
    """All earlier bits are encoded one by one, but not their parity; the previous bit is decodable."""
    bits = parity.read(BATCH).bits.float()
    before = torch.tril(torch.ones(LENGTH, LENGTH), diagonal=-1)
    held = noise()
    held[:, :, :LENGTH] = 0.1 * held[:, :, :LENGTH] + bits.unsqueeze(1) * before
    (state,) = decode_from({1: held}, concept_of("state", BATCH))
    assert state.selectivity.high < 0.1
    slots = torch.eye(LENGTH).expand(240, LENGTH, LENGTH) * (2 * bits - 1).roll(1, dims=1).unsqueeze(-1)
    (previous,) = decode_from({1: torch.cat([noise(), slots], dim=2)}, concept_of("previous bit", BATCH))
    assert previous.score.low > 0.96
    assert previous.selectivity.low > 0.4


def test_identity_of_tokens_is_no_selectivity():
    """Each label has its own vector: what a probe reads from it does not depend on the history."""
    table = torch.randn(400, 24, generator=torch.Generator().manual_seed(2))
    (found,) = decode_from({0: table[BATCH.tokens[:, BATCH.at(Role.INPUT_LABEL)] % 400]}, concept_of("state", BATCH))
    assert found.selectivity.low < 0.02
    assert found.score.high < 0.58


def test_a_slot_is_a_number_and_its_control_has_another_order():
    steps = torch.arange(1, LENGTH + 1).float().expand(240, LENGTH)
    there, absent = decode_from({0: written(steps), 1: noise()}, concept_of("slot", BATCH))
    assert there.measure == "R2"
    assert there.score.low > 0.95
    assert there.control.high < 0.6
    assert there.code is None
    assert absent.score.high < 0.02
    assert absent.selectivity.low < 0.02


def test_layers_are_independent_and_in_order():
    features = {0: noise(), 2: written(states(), strength=9)}
    found = decode_from(features, concept_of("state", BATCH))
    assert [d.layer for d in found] == [0, 2]
    assert found[0].score.high < 0.58
    assert found[1].score.low > 0.96


def test_concepts_that_share_features_are_decoded_as_each_alone():
    """State and previous bit have the same places, bit and slot others; a number and classes share features too."""
    features = {0: written(states()), 2: noise(3)}
    concepts = [concept_of(name, BATCH) for name in ("state", "bit", "previous bit", "slot")]
    model = plant(Plan("placeholder", "gpt2", longest=8)).model
    together = decode(model, BATCH, [c.name for c in concepts], layers=[2, 0], baseline=False, intact=features)
    assert [(d.concept, d.layer) for d in together] == [(c.name, layer) for c in concepts for layer in (0, 2)]
    alone = [decoded for concept in concepts for decoded in decode_from(features, concept)]
    for one, other in zip(together, alone, strict=True):
        assert one.score.value == pytest.approx(other.score.value, abs=1e-9)
        assert one.control.value == pytest.approx(other.control.value, abs=1e-9)
        for code, expected in ((one.code, other.code), (one.control_code, other.control_code)):
            assert (code and code.bits) == (expected and pytest.approx(expected.bits, rel=1e-9))


def test_a_code_costs_what_is_not_known():
    gen = torch.Generator().manual_seed(0)
    coins = torch.randint(2, (200, 10), generator=gen)
    blind = torch.randn(200, 10, 4, generator=gen)
    unknown = online_code(blind, coins, classes=2)
    assert unknown.uniform == 2000
    assert unknown.bits == pytest.approx(2000, rel=0.02)
    seen = online_code(torch.cat([blind, coins.unsqueeze(-1) * 8.0], dim=2), coins, classes=2)
    first = round(200 / 32) * 10
    assert first < seen.bits < first + 60
    four = online_code(blind, torch.randint(4, (200, 10), generator=gen), classes=4)
    assert four.uniform == 4000
    assert four.compression == pytest.approx(1, abs=0.03)


def test_a_class_that_comes_late_costs_a_finite_number_of_bits():
    values = torch.zeros(64, 3, dtype=torch.long)
    values[8:, 1] = 1
    values[40:, 2] = 2
    code = online_code(torch.randn(64, 3, 2, generator=torch.Generator().manual_seed(0)), values, classes=3)
    assert 0 < code.bits < 10 * code.uniform


def test_prompts_are_split_and_no_prompt_is_in_both():
    train, test = split(101, seed=3)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(101))
    assert not torch.equal(split(101, seed=4)[0], train)


def test_held_out_prompts_are_not_learned_by_heart():
    gen = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 2, 200, generator=gen), torch.randint(2, (40, 2), generator=gen)
    assert held_out(x[:20], y[:20], x[:20], y[:20], 2).mean() > 0.99
    assert held_out(x[:20], y[:20], x[20:], y[20:], 2).mean() < 0.75


@pytest.mark.parametrize(
    ("mechanism", "there"), [("placeholder", True), ("unused, decodable", True), ("unused", False), ("A1", False)]
)
def test_planted_states_are_decoded_where_they_are(mechanism, there):
    planted = plant(Plan(mechanism, "gpt2", longest=8))
    batch = sample("parity-aligned", 160, 8, seed=1, vocabulary=planted.vocabulary)
    found = {d.layer: d for d in decode(planted.model, batch, ["state"], controls=2)}
    assert found[0].score.high < 0.6
    baseline, code = found[1].untrained, found[1].code
    assert baseline is not None
    assert code is not None
    assert baseline.high < 0.65
    if there:
        assert found[1].score.low > 0.94
        assert found[1].selectivity.low > 0.3
        assert code.compression > 4
    else:
        assert found[1].score.high < 0.6
        assert found[1].selectivity.high < 0.1
        assert code.compression < 1.05


def test_mistakes_are_named():
    planted = plant(Plan("A1", "gpt2", longest=8))
    few = sample("parity-aligned", 20, 8, seed=1, vocabulary=planted.vocabulary)
    with pytest.raises(ValueError, match="at least 64 prompts"):
        decode(planted.model, few, ["state"], baseline=False)
    with pytest.raises(ValueError, match="concepts are state, bit"):
        decode(planted.model, few, ["parity"])
