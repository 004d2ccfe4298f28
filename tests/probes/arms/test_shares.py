"""Shapley shares on planted models: each factor gets its planted share, and all sum to one."""

import pytest

from interp.tasks import sample
from probes.arms.idle_heads import LABELS, IdleHeads
from probes.arms.m06_heads import find_idle_heads
from probes.arms.shares import FACTORS, measure_shares
from probes.trials.parity import BOTH_DIFFER, choose
from tests.probes.oracle_models import planted

NO_SINK = IdleHeads(LABELS, (), ())


def shares(
    mechanism: str, architecture: str = "gpt2", idle: IdleHeads | None = NO_SINK, address: bool = True, size: int = 12
):
    model = planted(mechanism, architecture)
    trials = choose(sample("parity-aligned", 300, 10, 0, model.vocabulary), 0, size, (BOTH_DIFFER,))
    if idle is None:
        idle = find_idle_heads(model.model, sample("parity-aligned", 24, 10, 5, model.vocabulary))
    found = measure_shares(model.model, trials, idle, address)
    assert [e.name for e in found] == [*FACTORS, "interaction", "remainder"]
    assert {e.n for e in found} == {size}
    return {e.name: e.value for e in found}


@pytest.mark.parametrize(
    ("mechanism", "architecture", "address", "content", "interaction"),
    [
        ("A1", "gpt2", 1.0, 0.0, 0.0),
        ("A2", "gpt_neox", 1.0, 0.0, 0.0),
        ("placeholder", "gpt2", 0.0, 1.0, 0.0),
        ("mixture", "gpt2", 0.5, 0.5, 0.0),
        ("A1 + unused", "gpt2", 0.5, 0.0, 0.0),
        ("placeholder + unused", "gpt2", 0.0, 0.5, 0.0),
        # Each alone flips the answer; after a swap the earlier bit does not matter, so both together do no more.
        ("content-addressed placeholder", "gpt2", 0.5, 0.5, -1.0),
        ("unused, massive attention", "gpt2", 0.0, 0.0, 0.0),
    ],
)
def test_shares_are_what_was_built(mechanism, architecture, address, content, interaction):
    found = shares(mechanism, architecture)
    expected = {
        "address": address,
        "content": content,
        "normalisation": 0.0,
        "interaction": interaction,
        "remainder": 1 - address - content,
    }
    assert {name: x.value for name, x in found.items()} == {n: pytest.approx(v, abs=0.02) for n, v in expected.items()}


@pytest.mark.parametrize("mechanism", ["sink", "mixture", "placeholder"])
def test_shares_and_remainder_sum_to_one(mechanism):
    found = shares(mechanism, idle=None)
    assert sum(found[name].value for name in (*FACTORS, "remainder")) == pytest.approx(1, abs=1e-6)
    for x in found.values():
        assert x.low <= x.value <= x.high


def test_a_sink_has_a_share_and_the_others_none():
    """Removing it flips about half of the answers; without idle heads nothing changes (the "before" half)."""
    found = shares("sink", idle=None, size=30)
    assert 0.1 < found["normalisation"].value < 0.9
    assert found["address"].value == pytest.approx(0, abs=0.02)
    assert found["content"].value == pytest.approx(0, abs=0.02)
    assert shares("sink")["normalisation"].value == 0


def test_normalisation_is_no_factor_where_no_head_needs_labels():
    heads = tuple((i, j) for i in range(2) for j in range(planted("sink").model.config.num_attention_heads))
    assert shares("sink", idle=IdleHeads(LABELS, heads, heads, renormalise_loss=0.0))["normalisation"].error == 0
    assert shares("sink", idle=IdleHeads(LABELS, heads, heads, renormalise_loss=0.5))["normalisation"].error > 0.1  # type: ignore[operator]


def test_labels_that_cannot_be_swapped_have_no_address():
    found = shares("A1", address=False)
    assert found["address"].value == 0
    assert found["remainder"].value == pytest.approx(1, abs=0.02)
