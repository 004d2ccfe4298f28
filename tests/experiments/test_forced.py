"""Trained models whose labels cannot be told apart."""

import pytest
import torch

from experiments import load
from experiments.forced import TIED, tie_labels
from interp.forward import correct
from interp.tasks import Batch, Role, sample

LENGTH, PROMPTS = 8, 48


def relabelled(batch: Batch) -> torch.Tensor:
    """Return the tokens with all label positions of a prompt in another order."""
    tokens = batch.tokens.clone()
    at = torch.cat([batch.at(role) for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL)])
    tokens[:, at] = tokens[:, at[torch.randperm(len(at), generator=torch.Generator().manual_seed(0))]]
    return tokens


@pytest.mark.parametrize("name", TIED)
def test_tied_labels_have_no_identity(name):
    run = load(name)
    tied = tie_labels(run)
    own = sample("parity-constant", PROMPTS, LENGTH, 1, run.vocabulary)
    batch = sample("parity-aligned", PROMPTS, LENGTH, 1, run.vocabulary)
    accuracy = correct(tied.raw, batch, batch.predicted(forced=True)).float().mean()
    assert accuracy == correct(run.raw, own, own.predicted(forced=True)).float().mean() >= 0.99
    with torch.no_grad():
        assert torch.equal(tied.raw(relabelled(batch)).logits, tied.raw(batch.tokens).logits)
        # Without the tie, labels that were never trained are told apart.
        assert not torch.allclose(run.raw(relabelled(batch)).logits, run.raw(batch.tokens).logits, atol=1e-2)


def test_what_cannot_be_tied_is_refused():
    with pytest.raises(ValueError, match="one label throughout"):
        tie_labels(load("parity-aligned-alibi"))
    with pytest.raises(ValueError, match="no random labels"):
        tie_labels(load(TIED[0]), "parity-scratchpad")
