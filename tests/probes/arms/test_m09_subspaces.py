"""DAS finds the variable where it was planted and nothing elsewhere, and detects an illusion."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from interp.das import everything, join, join_layers, swapped_answers
from interp.models.anatomy import anatomy_of
from interp.rowspace import part_of, read_directions
from interp.tasks import Batch, Prompts, Role, parity, sample
from probes.arms import m09_subspaces
from probes.arms.m09_pairs import ResidualSite, Variable, pairs_for
from probes.arms.m09_scores import own_answers, score
from probes.arms.m09_subspaces import Subspace, find_subspaces, measure_subspaces
from probes.evidence import Evidence
from probes.planted import Plan, Planted, plant

LABEL, OUT_LABEL = Role.INPUT_LABEL, Role.OUTPUT_LABEL


@cache
def planted(mechanism: str) -> Planted:
    return plant(Plan(mechanism, "gpt2", longest=8))


def prompts(mechanism: str, size: int, length: int, seed: int) -> Batch:
    return sample("parity-aligned", size, length, seed, planted(mechanism).vocabulary)


@cache
def found(
    mechanism: str, variable: Variable, site: ResidualSite, rank: int, size: int, controls: bool = False
) -> Subspace:
    batch, longer = prompts(mechanism, size, 6, 0), prompts(mechanism, 100, 8, 1)
    (one,) = find_subspaces(planted(mechanism).model, variable, site, batch, longer, (rank,), controls=controls)
    return one


def task_batch(prompts: Prompts) -> Batch:
    assert isinstance(prompts, Batch)
    return prompts


@pytest.mark.slow
def test_a_stored_state_is_one_direction_at_lengths_not_searched_too():
    one = found("placeholder", "state", ResidualSite(1, LABEL), 1, 360, controls=True)
    assert one.longer is not None
    assert one.untrained is not None
    assert one.arbitrary is not None
    assert one.answers == 1
    assert min(one.held_out.effect.low, one.longer.effect.low, one.read.effect.low) > 0.8
    assert one.fitted > 0.95
    assert one.arbitrary < 0.65
    for nothing in (one.placebo, one.unread, one.rival):
        assert nothing.effect.high < 0.25
    assert one.untrained.effect.high < 0.5
    assert (one.length, one.longer_length, one.n) == (6, 8, 120)


@pytest.mark.parametrize("mechanism", ["unused, decodable", "A1"])
def test_a_state_that_is_not_used_is_not_found_even_where_it_stands(mechanism):
    one = found(mechanism, "state", ResidualSite(1, LABEL), 4, 240)
    assert one.whole.effect.high < 0.1
    assert abs(one.held_out.effect.value) < 0.05
    assert one.held_out.keeps.value == 1


@pytest.mark.slow
def test_an_anchors_pointer_is_found_at_the_output_label():
    one = found("A2", "pointer", ResidualSite(2, OUT_LABEL), 16, 1500)
    assert one.longer is not None
    assert one.held_out.effect.low > 0.8
    assert one.placebo.effect.high < 0.2
    assert one.rival.effect.high < 0.3
    # The bit's own labels and the written parity come along with all of the residual, and they are of other bits.
    assert one.whole.effect.value < one.held_out.effect.low
    first = found("A1", "pointer", ResidualSite(0, OUT_LABEL), 16, 1500)
    assert first.longer is not None
    assert min(first.held_out.effect.low, first.longer.effect.low) > 0.7
    assert first.rival.effect.high < 0.3
    assert first.read.effect.low > 0.6
    assert first.unread.effect.high < 0.1


@pytest.mark.slow
def test_no_pointer_is_found_where_labels_are_not_used():
    batch = sample("parity-aligned", 600, 8, 0, planted("unused").vocabulary)
    (one,) = find_subspaces(
        planted("unused").model, "pointer", ResidualSite(0, OUT_LABEL), batch, ranks=(16,), attempts=1, controls=False
    )
    assert one.whole.effect.value == 0
    # Scrambled activations read any slot, the right one among them: no more than they read a slot nobody named.
    assert one.held_out.effect.low < one.rival.effect.high
    assert one.fitted < 0.7
    assert one.longer is None


@pytest.mark.slow
def test_lengths_share_a_search(monkeypatch: pytest.MonkeyPatch):
    """DAS learns at one length: a second length repeats no search, and its numbers are those of a search of its own."""
    mechanism, searches, found = "placeholder", [], {}
    model, learned = planted(mechanism).model, prompts(mechanism, 96, 6, 0)
    search = m09_subspaces._find
    monkeypatch.setattr(m09_subspaces, "_find", lambda *a, **k: searches.append(a[1].variable) or search(*a, **k))

    def measured(length: int, found: m09_subspaces.Searches | None) -> list[Evidence]:
        return measure_subspaces(model, learned, prompts(mechanism, 64, length, 1), seed=0, pointer=False, found=found)

    measured(7, found)
    shared = measured(8, found)
    assert searches == ["state"]
    assert shared == measured(8, None)
    assert searches == ["state", "state"]
    assert shared != measured(7, found)


def test_joining_layers_together_is_joining_each():
    mechanism, batch = "placeholder", prompts("placeholder", 12, 6, 0)
    model = planted(mechanism).model
    pairs = pairs_for("state", batch, ResidualSite(0, LABEL), seed=0)
    (together,) = join_layers(model, (1, 0), [pairs])
    for layer in (0, 1):
        alone = join(model, layer, pairs)
        assert torch.equal(together[layer].source, alone.source)
        found, expected = (swapped_answers(x, everything(x)) for x in (together[layer], alone))
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        # Runs that end at the answers and the sites.
        ended = join_layers(model, (0, 1), [pairs], to_search=False)[0][layer]
        assert torch.allclose(ended.source, alone.source, rtol=1e-5, atol=1e-5)
        for basis in (everything(ended), None):
            found, expected = (swapped_answers(x, basis) for x in (ended, alone))
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    # The state stands at labels before the last layer, not in the embedding: the layers are told apart.
    assert not torch.allclose(together[0].source, together[1].source)


def test_joining_pairs_of_one_base_is_joining_each():
    mechanism, batch = "placeholder", prompts("placeholder", 12, 6, 0)
    model = planted(mechanism).model
    both = [pairs_for("state", batch, ResidualSite(0, LABEL), seed=seed) for seed in (0, 1)]
    assert not torch.equal(both[0].answer, both[1].answer)
    for pairs, joined in zip(both, join_layers(model, (0, 1), both, to_search=False), strict=True):
        for layer in (0, 1):
            alone = join(model, layer, pairs)
            for basis in (everything(alone), None):
                found, expected = (swapped_answers(x, basis) for x in (joined[layer], alone))
                assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    other = pairs_for("state", prompts(mechanism, 12, 6, 1), ResidualSite(0, LABEL), seed=0)
    with pytest.raises(ValueError, match="the same base prompts"):
        join_layers(model, (0,), [both[0], other])


def test_the_illusion_is_seen_through():
    """Half along a state that nothing reads, half along a direction that is read and always zero (2311.17030)."""
    mechanism = "unused, dormant direction"
    model, site = planted(mechanism).model, ResidualSite(1, LABEL)
    batch = prompts(mechanism, 200, 8, 0)
    joined = join(model, 1, pairs_for("state", batch, site, seed=0))
    flips = joined.pairs.target != own_answers(joined.pairs)
    base = joined.tail.kept["resid_pre", 1][torch.arange(200), joined.pairs.site[:, 0]]
    difference = (joined.source - base)[flips]
    difference *= torch.sign(difference @ difference[0]).unsqueeze(1)
    stored = torch.nn.functional.normalize(difference.mean(dim=0), dim=0)
    # V of the last layer reads bits and the dormant direction.
    values = read_directions(model, layers=[1], readers=["v"])
    ids = batch.vocabulary.tokens("01")
    table: Any = anatomy_of(model).raw.get_input_embeddings()
    embedded = table.weight.detach()[ids]
    bit = embedded[1] - embedded[0]
    rest = values - torch.outer(bit, bit @ values) / bit.square().sum()
    dormant = torch.linalg.svd(rest, full_matrices=False).U[:, :1]
    reads = read_directions(model, layers=[1])
    candidates = [(stored + sign * dormant[:, 0]).unsqueeze(1) / 2**0.5 for sign in (1, -1)]
    assert all(float(c.norm()) == pytest.approx(1, abs=0.1) for c in candidates)
    basis = max(candidates, key=lambda c: score(joined, c, 0.95).effect.value)
    assert score(joined, basis, 0.95).effect.low > 0.25
    assert score(joined, stored.unsqueeze(1), 0.95).effect.value == 0
    for inside in (True, False):
        assert abs(score(joined, part_of(basis, reads, inside), 0.95).effect.value) < 0.1


@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-gap2", "parity-constant"])
def test_pairs_for_the_state_change_history_alone(fmt):
    batch = sample(fmt, 300, 7, seed=0)
    for shift in (0, 1):
        pairs = pairs_for("state", batch, ResidualSite(1, LABEL, shift), seed=0)
        bits, others = parity.read(batch).bits, parity.read(task_batch(pairs.source)).bits
        place = batch.step[pairs.site[:, 0]]
        step = batch.step[pairs.answer]
        assert (place == step + shift).all()
        differs = bits != others
        assert not (differs & (torch.arange(1, 8) >= place.unsqueeze(1))).any()
        other = batch.role != Role.INPUT
        assert torch.equal(pairs.source.tokens[:, other], batch.tokens[:, other])
        odd = differs.sum(dim=1) % 2 == 1
        assert torch.equal(pairs.target != own_answers(pairs), odd)
        assert 0.35 < float(odd.double().mean()) < 0.65
        assert (differs.sum(dim=1)[~odd] > 0).any()


@pytest.mark.parametrize("role", [Role.OUTPUT_LABEL, Role.INPUT, Role.INPUT_LABEL])
def test_pairs_for_the_pointer_trade_labels_and_draw_other_bits(role):
    batch = sample("parity-aligned", 300, 7, seed=0)
    pairs = pairs_for("pointer", batch, ResidualSite(0, role), seed=0)
    side = Role.OUTPUT_LABEL if role == Role.OUTPUT_LABEL else Role.INPUT_LABEL
    rows = torch.arange(300)
    step = batch.step[pairs.answer]
    label_at = batch.at(side)
    traded = batch.tokens[:, label_at] != pairs.source.tokens[:, label_at]
    assert (traded.sum(dim=1) == 2).all()
    assert traded[rows, step - 1].all()
    other = traded.clone()
    other[rows, step - 1] = False
    partner = other.long().argmax(dim=1) + 1
    bits = parity.read(batch).bits
    expected = parity.read(batch).parities[rows, step - 1] ^ bits[rows, step - 1] ^ bits[rows, partner - 1]
    assert torch.equal(pairs.target, expected)
    assert float((parity.read(task_batch(pairs.source)).bits != bits).double().mean()) == pytest.approx(0.5, abs=0.05)
    steps_of_site = batch.step[pairs.site]
    if role == Role.OUTPUT_LABEL:
        assert (partner > step).all()
        assert torch.equal(steps_of_site[:, 0], step)
        source_label = pairs.source.tokens[rows, pairs.site[:, 0]]
        assert torch.equal(source_label, batch.tokens[rows, batch.at(Role.INPUT_LABEL)[partner - 1]])
    else:
        assert torch.equal(steps_of_site, torch.stack([step, partner], dim=1).sort(dim=1).values)
    assert (batch.role[pairs.site] == role).all()


@pytest.mark.parametrize(
    ("fmt", "variable", "site", "words"),
    [
        ("parity-aligned", "bit", ResidualSite(0, LABEL), "variables are pointer, state"),
        ("parity-scratchpad", "state", ResidualSite(0, Role.INPUT), "parity format with labels"),
        ("addition-aligned", "state", ResidualSite(0, LABEL), "parity format with labels"),
        ("parity-constant", "pointer", ResidualSite(0, OUT_LABEL), "repeats labels"),
        ("parity-aligned", "pointer", ResidualSite(0, OUT_LABEL, 1), "without a shift"),
        ("parity-aligned", "pointer", ResidualSite(0, Role.OUTPUT), "a site at inputs"),
        ("parity-aligned", "state", ResidualSite(0, Role.OUTPUT), "before the answer"),
    ],
)
def test_what_cannot_be_sought_is_refused_with_a_reason(fmt, variable, site, words):
    with pytest.raises(ValueError, match=words):
        pairs_for(variable, sample(fmt, 8, 6, seed=0), site, seed=0)


def test_too_few_prompts_ranks_or_bits_are_refused():
    model = planted("A1").model
    with pytest.raises(ValueError, match="32 prompts"):
        find_subspaces(model, "pointer", ResidualSite(0, OUT_LABEL), prompts("A1", 8, 6, 0))
    with pytest.raises(ValueError, match="one rank or more"):
        find_subspaces(model, "pointer", ResidualSite(0, OUT_LABEL), prompts("A1", 64, 6, 0), ranks=())
    with pytest.raises(ValueError, match="at least 4"):
        pairs_for("state", sample("parity-aligned", 8, 3, seed=0), ResidualSite(0, LABEL), seed=0)
