"""Scores of weights equal the definition computed the long way, and TransformerLens's where it has them."""

import copy
from typing import Any

import pytest
import torch

from interp.circuits.composing import chance_composition, compositions, head_weights, ov_copying
from interp.models import boot_bridge
from interp.models.anatomy import anatomy_of
from tests.interp.patching.models import tiny


def noisy(architecture: str) -> Any:
    """A tiny model whose norms have gains and biases, too."""
    model = copy.deepcopy(tiny(architecture, torch.float64))
    gen = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.3 * torch.randn(weight.shape, generator=gen, dtype=weight.dtype)
    return model


@pytest.mark.parametrize("architecture", ["alibi", "absolute", "parallel"])
def test_compositions_equal_those_of_transformer_lens_with_folded_norms(architecture):
    """Compatibility mode folds norms and takes the mean direction out of what is written."""
    found = compositions(head_weights(anatomy_of(noisy(architecture))))
    bridge = boot_bridge(noisy(architecture))
    bridge.enable_compatibility_mode()
    chance = chance_composition(16)
    for kind, mode in enumerate("QKV"):
        theirs = bridge.all_composition_scores(mode).scores.double().permute(2, 3, 0, 1)
        defined = found[kind].isfinite()
        assert defined.any()
        assert torch.equal(defined, theirs != 0)
        assert torch.allclose(found[kind][defined] + chance, theirs[defined].detach(), atol=1e-6)


def test_compositions_of_grouped_queries_equal_those_of_transformer_lens():
    """An RMS norm of gain 1 has nothing to fold, so here compatibility mode is not needed."""
    found = compositions(head_weights(anatomy_of(tiny("grouped"))))
    bridge = boot_bridge(copy.deepcopy(tiny("grouped")))
    for kind, mode in enumerate("QKV"):
        theirs = bridge.all_composition_scores(mode).scores.double().permute(2, 3, 0, 1).detach()
        defined = found[kind].isfinite()
        assert torch.allclose(found[kind][defined] + chance_composition(16), theirs[defined], atol=1e-6)


def test_chance_of_composition_is_that_of_random_matrices():
    gen = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2000, 32, 8, generator=gen) @ torch.randn(2000, 8, 32, generator=gen) for _ in range(2))
    scores = (a @ b).flatten(1).norm(dim=-1) / a.flatten(1).norm(dim=-1) / b.flatten(1).norm(dim=-1)
    assert float(scores.mean()) == pytest.approx(chance_composition(32), rel=0.01)
    assert float(scores.square().mean().sqrt()) == pytest.approx(chance_composition(32), rel=0.005)


@pytest.mark.parametrize("architecture", ["rotary", "grouped", "alibi", "alibi_sink"])
def test_ov_copying_equals_the_whole_matrix(architecture):
    """The eigenvalues of d_vocab x d_vocab, once, the slow way; the raw weights' own norms are folded by hand."""
    model = noisy(architecture)
    anatomy = anatomy_of(model)
    weights, found = head_weights(anatomy), ov_copying(anatomy)
    tokens = torch.arange(model.config.vocab_size)
    embedded = anatomy.embed(tokens.unsqueeze(1))[:, 0]
    table = model.get_output_embeddings().weight.double()
    unembedding = table * anatomy.final_norm.weight
    if architecture != "grouped":
        unembedding = unembedding - unembedding.mean(dim=-1, keepdim=True)
    unembedding = unembedding - unembedding.mean(dim=0)
    for layer, head in ((0, 0), (1, 3)):
        whole = (embedded @ weights.v[layer, head] @ weights.o[layer, head] @ unembedding.T).detach()
        eigenvalues = torch.linalg.eigvals(whole)
        assert float(found[layer, head]) == pytest.approx(
            float(eigenvalues.real.sum() / eigenvalues.abs().sum()), abs=1e-4
        )


def test_a_head_that_negates_its_token_has_a_score_of_minus_1():
    model: Any = copy.deepcopy(tiny("grouped", torch.float64))
    anatomy = anatomy_of(model)
    gen = torch.Generator().manual_seed(1)
    code = torch.randn(model.config.vocab_size, 4, generator=gen, dtype=torch.float64)
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            table.zero_()[:, :4] = code - code.mean(dim=0)
        layer = model.model.layers[0].self_attn
        layer.v_proj.weight.zero_()[:4, :4] = torch.eye(4)  # key-value head 0, of query heads 0 and 1
        layer.o_proj.weight.zero_()[:4, :4] = torch.eye(4)
        layer.o_proj.weight[:4, 4:8] = -torch.eye(4)
    found = ov_copying(anatomy)
    assert found[0, :2].tolist() == pytest.approx([1, -1])
    assert found[0, 2:].isnan().all()
