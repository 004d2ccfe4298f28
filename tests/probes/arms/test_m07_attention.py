"""M7: masses and shares, against loops over the raw model's own attention."""

import json
from typing import Any

import pytest
import torch

from interp.tasks import LABEL_ROLES, Role
from probes.arms.m07_attention import measure_attention
from tests.probes.oracle_models import planted_run, random_run


@torch.no_grad()
def by_hand(raw: Any, batch, layer: int, head: int) -> tuple[float, float, float]:
    """Mass on labels, share of norm(A v W_O) from labels, sink rate, at output labels: GPT-2, in loops."""
    out = raw(batch.tokens, output_attentions=True, output_hidden_states=True)
    pattern, block = out.attentions[layer][:, head], raw.transformer.h[layer]
    d = raw.config.n_embd // raw.config.n_head
    v = block.attn.c_attn(block.ln_1(out.hidden_states[layer]))[..., 2 * raw.config.n_embd :]
    written = v[..., head * d : (head + 1) * d] @ block.attn.c_proj.weight[head * d : (head + 1) * d]
    size = written.norm(dim=-1)
    labels = [p for p in range(batch.n_pos) if int(batch.role[p]) in LABEL_ROLES]
    masses, shares, sinks = [], [], []
    for row in range(len(batch)):
        for dest in batch.at(Role.OUTPUT_LABEL).tolist():
            weights = [float(pattern[row, dest, s]) for s in range(dest + 1)]
            amounts = [w * float(size[row, s]) for s, w in enumerate(weights)]
            masses.append(sum(weights[s] for s in labels if s <= dest))
            shares.append(sum(amounts[s] for s in labels if s <= dest) / sum(amounts))
            sinks.append(weights[0] > 0.3)
    return tuple(sum(x) / len(x) for x in (masses, shares, sinks))  # type: ignore[return-value]


def test_every_head_is_what_a_loop_finds():
    run = random_run()
    batch = run.sample(5, 6, seed=0)
    mass, share = measure_attention(run.raw, batch)
    heads = mass.details["heads"]
    assert len(heads) == 4
    for layer in range(2):
        for head in range(2):
            expected = by_hand(run.raw, batch, layer, head)
            assert tuple(heads[f"L{layer}H{head}"].values()) == pytest.approx(expected, abs=1e-4)
    top = max(heads, key=lambda name: heads[name]["mass"])
    assert mass.details["head"] == top
    assert mass.name.endswith(top)
    assert share.name.endswith(top)
    assert mass.value.value == pytest.approx(heads[top]["mass"], abs=1e-4)
    assert share.value.value == pytest.approx(heads[top]["share"], abs=1e-4)
    assert (mass.length, mass.n, mass.control) == (6, 5, None)


def test_equal_attention_counts_the_labels_that_are_seen():
    run = random_run()
    batch = run.sample(4, 6, seed=0)
    # Output label i stands at position 2i + 12 (from 0) and sees 6 + i labels, itself among them.
    expected = sum((6 + i) / (2 * i + 13) for i in range(1, 7)) / 6
    assert batch.at(Role.OUTPUT_LABEL).tolist() == [2 * i + 12 for i in range(1, 7)]
    assert measure_attention(run.raw, batch)[0].details["equal attention would give"] == pytest.approx(expected)


def test_norms_of_the_last_residual():
    run = random_run()
    batch = run.sample(4, 6, seed=0)
    raw: Any = run.raw
    last = []
    handle = raw.transformer.ln_f.register_forward_pre_hook(lambda _, args: last.append(args[0]))
    with torch.no_grad():
        raw(batch.tokens)
    handle.remove()
    norms = last[0].norm(dim=-1)
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    found = measure_attention(run.raw, batch)[0].details["residual norms"]
    expected = {"labels": float(norms[:, labels].mean()), "elsewhere": float(norms[:, ~labels].mean())}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mechanism", "mass", "share"), [("A2", 1.0, 1.0), ("placeholder", 1.0, 1.0), ("sink", 1.0, 0.0)]
)
def test_mass_is_high_for_all_and_the_share_is_not_a_sinks(mechanism, mass, share):
    run = planted_run(mechanism)
    found = measure_attention(run.raw, run.sample(6, 10, seed=0))
    assert [e.value.value for e in found] == pytest.approx([mass, share], abs=0.01)
    assert [e.quantity for e in found] == ["share of attention", "share of norm(A v W_O)"]


def test_heads_that_write_nothing_go_to_json():
    run = planted_run("unused, massive attention")
    for e in measure_attention(run.raw, run.sample(6, 10, seed=0)):
        json.dumps(e.to_json(), allow_nan=False)
