"""EAP-IG on activations as Hanna et al. define it, against hooks on the raw model."""

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from interp.circuits import edge_scores
from interp.patching.nodes import Receiver
from tests.interp.circuits.small import CLEAN, CORRUPTED, edge_model_of, model
from tests.interp.patching.test_knockouts import probe

METRIC, STEPS = probe(CLEAN), 3


def outputs(raw: Any, modules: list[Any], tokens: Tensor) -> list[Tensor]:
    """The output of each module."""
    kept: list[Tensor] = []
    with ExitStack() as stack, torch.no_grad():
        for module in modules:
            stack.enter_context(module.register_forward_hook(lambda m, args, out: kept.append(out)))
        raw(tokens, use_cache=False)
    return kept


def gradients(raw: Any, readers: list[Any], moved: Any, value: Tensor) -> list[Tensor]:
    """Gradients at the input of each norm, on that branch alone, where the output of `moved` is replaced."""
    kept: list[Tensor] = []

    def branch(module, args):
        kept.append(args[0].view_as(args[0]))
        return (kept[-1],)

    with ExitStack() as stack, torch.enable_grad():
        stack.enter_context(moved.register_forward_hook(lambda m, args, out: value.clone().requires_grad_()))
        for norm in readers:
            stack.enter_context(norm.register_forward_pre_hook(branch))
        logits = raw(CLEAN.tokens, use_cache=False, logits_to_keep=METRIC.positions).logits
        total = METRIC.compute(logits, torch.arange(len(CLEAN))).sum()
        found = torch.autograd.grad(total, kept, allow_unused=True)
    return [torch.zeros_like(k) if g is None else g for k, g in zip(kept, found, strict=True)]


def test_activation_scores_average_the_gradients_of_all_moved_nodes():
    raw: Any = copy.deepcopy(model("absolute")).double()
    scores = edge_scores(raw, CLEAN, CORRUPTED, METRIC, "eap-ig-activations", STEPS)
    blocks = list(raw.transformer.h)
    moved = [raw.transformer.drop, *(m for b in blocks for m in (b.attn.c_proj, b.mlp.c_proj))]
    readers = [*(b.ln_2 for b in blocks), raw.transformer.ln_f]
    clean, corrupted = (outputs(raw, moved, batch.tokens) for batch in (CLEAN, CORRUPTED))
    runs = [
        gradients(raw, readers, module, b + step / STEPS * (a - b))
        for module, a, b in zip(moved, clean, corrupted, strict=True)
        for step in range(1, STEPS + 1)
    ]
    edge_model = edge_model_of(raw, METRIC)
    difference = edge_model.writer_outputs(CLEAN.tokens) - edge_model.writer_outputs(CORRUPTED.tokens)
    largest = float(scores.values.abs().max())
    names = [*(Receiver("mlp", layer) for layer in range(len(blocks))), Receiver("logits")]
    for i, reader in enumerate(names):
        mean = torch.stack([run[i] for run in runs]).mean(dim=0)
        expected = torch.einsum("wrpd,rpd->w", difference, mean) / len(CLEAN)
        number = scores.graph.numbers[reader]
        expected = expected * scores.graph.possible[0, number]
        torch.testing.assert_close(scores.values[0, number], expected, rtol=0, atol=1e-6 * largest)
    other = edge_scores(raw, CLEAN, CORRUPTED, METRIC, "eap-ig-writers", STEPS)
    assert (other.values - scores.values).abs().max() > 1e-3 * largest


def test_of_a_linear_edge_both_variants_give_the_exact_loss():
    """Into the logits of a model without norms the gradient is the same at every point."""
    from tests.interp.circuits.small import HAND_CLEAN, HAND_CORRUPTED, HAND_EXACT, HAND_METRIC, by_hand

    for method in ("eap-ig-activations", "eap-ig-writers"):
        scores = edge_scores(by_hand(), HAND_CLEAN, HAND_CORRUPTED, HAND_METRIC, method, n=4)
        found = {str(e): float(scores.values[scores.graph.index(e)]) for e in scores.graph.edges()}
        for name in ("embed -> logits", "L0H0 -> logits", "L1H0 -> logits"):
            assert abs(found[name] - HAND_EXACT[name]) < 1e-5
