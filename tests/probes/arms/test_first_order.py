"""The first-order estimate: equal to finite differences, zero where nothing moves, largest where labels matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from interp.patching import probability
from interp.patching.editing import forward_with_edits
from interp.patching.tracing import pattern_of, trace
from interp.tasks import Role, default_vocabulary, sample
from probes.arms import first_order
from probes.arms.first_order import SIGNS, moved_by_head
from probes.arms.presence_cells import KINDS
from probes.arms.presence_interchanges import Interchanges, grafted
from probes.arms.presence_metrics import leads_of
from probes.arms.presence_removals import averaged_values, counted
from tests.probes.oracle_models import planted

ROLES = (Role.OUTPUT_LABEL, Role.OUTPUT)


@pytest.fixture(scope="module")
def work() -> Interchanges:
    vocabulary = default_vocabulary()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary.ids),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    )
    model = model.double().eval()
    batch = sample("parity-aligned", 4, 5, 1, vocabulary)
    return Interchanges(model, batch, 2, probability(batch, among_answers=True))


def by_differences(work: Interchanges, layer: int, head: int, role: Role, source: int) -> float:
    """Return the estimate for one head and kind of query, by edits of z and finite differences."""
    anatomy, batch = work.anatomy, work.batch
    own, other = (trace(anatomy, x.tokens) for x in (batch, work.sources[source]))
    labels, queries = work.labels.nonzero().flatten(), (batch.role == role).nonzero().flatten()
    k, v = own.k[layer].clone(), own.v[layer].clone()
    k[:, labels], v[:, labels] = other.k[layer][:, labels], other.v[layer][:, labels]
    pattern = pattern_of(anatomy, replace(own, k=(*own.k[:layer], k, *own.k[layer + 1 :])), layer)
    moved = (anatomy.mix(pattern, v) - own.z[layer])[:, queries, head]

    def leads(step: float) -> torch.Tensor:
        def edit(z, _):
            z = z.clone()
            z[:, queries, head] += step * moved
            return z

        with torch.no_grad():
            final, _ = forward_with_edits(anatomy, anatomy.embed(batch.tokens), edits={("z", layer): edit})
            at = batch.at(Role.OUTPUT) - 1
            logits = anatomy.unembed(final[:, at])[..., batch.vocabulary.tokens(batch.format.outputs)]
        return leads_of(batch, logits, torch.arange(len(batch)))

    # Llama's norms compute in float32, so that a smaller step would measure their rounding.
    slope = (leads(1e-3) - leads(-1e-3)) / 2e-3
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randint(0, 2, (SIGNS, 1, slope.shape[1]), generator=generator) for _ in slope]
    signs = torch.cat(drawn, dim=1) * 2 - 1
    return float((slope * signs).sum(dim=-1).square().mean(dim=0).sqrt().mean())


def test_the_estimate_is_what_finite_differences_give(work: Interchanges) -> None:
    queries = torch.stack([work.batch.role == role for role in ROLES])
    changes = [grafted(work, k, work.labels) for k in range(len(work.sources))]
    found = moved_by_head(work, changes, queries, seed=7)
    assert found.shape == (3, 2, 3, 4)
    for k, (group, role) in zip((0, 2), enumerate(ROLES), strict=True):
        for layer in range(3):
            for head in range(4):
                expected = by_differences(work, layer, head, role, k)
                assert float(found[k, group, layer, head]) == pytest.approx(expected, rel=5e-3, abs=1e-3)
    # Answers are predicted before they are written: in the last layer nothing reads their queries.
    assert (found[:, 1, -1] == 0).all()
    assert (found[:, :, :-1] > 0).all()


def test_prompts_one_at_a_time_give_the_same(work: Interchanges, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = work.labels.unsqueeze(0)
    changes = [averaged_values(work, work.labels), grafted(work, 1, work.labels)]
    together = moved_by_head(work, changes, queries, seed=3)
    monkeypatch.setattr(first_order, "chunks", lambda _, batch, *__, **___: torch.arange(len(batch)).split(1))
    assert torch.allclose(moved_by_head(work, changes, queries, seed=3), together, rtol=1e-9)


def test_a_change_that_changes_nothing_moves_nothing(work: Interchanges) -> None:
    own = Interchanges(work.anatomy.raw, work.batch, 2, work.score, [work.batch])
    found = moved_by_head(own, [grafted(own, 0, own.labels), counted(own.labels, 0.0)], own.labels.unsqueeze(0), 1)
    assert found.abs().max() < 1e-12


def test_no_query_moves_nothing(work: Interchanges) -> None:
    nobody = torch.zeros(1, work.batch.n_pos, dtype=torch.bool)
    assert (moved_by_head(work, [grafted(work, 0, work.labels)], nobody, 1) == 0).all()


def test_the_head_that_matches_labels_comes_last() -> None:
    """A2 matches labels in one head, and only for output labels."""
    model = planted("A2")
    batch = sample("parity-aligned", 8, 6, 7, model.vocabulary)
    work = Interchanges(model.model, batch, 3, probability(batch, among_answers=True))
    queries = (batch.role == KINDS["output labels"]).unsqueeze(0)
    moved = moved_by_head(work, [grafted(work, k, work.labels) for k in range(2)], queries, 3).amax(dim=0)[0]
    run = trace(work.anatomy, batch.tokens)
    attending = [
        pattern_of(work.anatomy, run, layer)[:, :, queries[0]][..., work.labels].sum(dim=-1).mean(dim=(0, 2))
        for layer in range(len(work.anatomy.blocks))
    ]
    assert moved.argmax() == torch.stack(attending).argmax()
    assert (moved < 1e-3 * moved.max()).sum() == moved.numel() - 1
