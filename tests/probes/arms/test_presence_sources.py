"""Presence, sources: unrelated prompts, and prompts with the same labels in another order."""

import pytest
import torch

from interp.tasks import LABEL_ROLES, parity, sample
from probes.arms.idle_heads import LABELS
from probes.arms.presence_sources import SAME_LABELS, source_of, sources_by_answer, sources_by_cell


@pytest.mark.parametrize(
    ("sources_of", "same"),
    [(sources_by_cell, [True, True, False]), (sources_by_answer, [False, True, False, True, False, True, False])],
)
def test_some_sources_have_the_same_labels_and_some_are_unrelated(sources_of, same):
    batch = sample("parity-aligned", 8, 6, 8)
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    own = batch.tokens[:, labels].sort(dim=1).values
    sources = sources_of(batch, 3)
    assert [torch.equal(x.tokens[:, labels].sort(dim=1).values, own) for x in sources] == same
    assert not any(torch.equal(x.tokens[:, ~labels], batch.tokens[:, ~labels]) for x in sources)


@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-suffix", "parity-constant", "parity-nonaligned"])
@pytest.mark.parametrize("names", SAME_LABELS)
def test_a_source_has_the_same_labels_in_another_order_and_other_bits(fmt, names):
    batch = sample(fmt, 16, 8, 0)
    source = source_of(batch, 1, *names)
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    assert torch.equal(source.tokens[:, labels].sort(dim=1)[0], batch.tokens[:, labels].sort(dim=1)[0])
    assert not torch.equal(parity.read(source).bits, parity.read(batch).bits)
    if fmt == "parity-aligned":  # the sides do not agree, so no address survives
        own, other = (source.tokens[:, source.role == role] for role in LABELS)
        assert (own == other).float().mean() < 0.4
