"""What the tests of circuits share: pairs of prompts for `tiny` models, and a model small enough to compute by hand."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import boot

from interp.circuits.edge_forward import EdgeModel
from interp.circuits.pairs import prepare
from interp.circuits.places import Places, places_of
from interp.patching.metrics import Metric
from interp.tasks import Batch, counterfactual, sample
from tests.interp.patching.test_knockouts import tiny

CLEAN = sample("parity-aligned", 3, 3, 0)
CORRUPTED = counterfactual.redraw(CLEAN, 1)


@cache
def model(kind: str, double: bool = False, n_layers: int = 2) -> Any:
    raw: Any = tiny(kind, n_layers)
    return raw.double() if double else raw


def edge_model_of(raw: Any, metric: Metric, places: Any = "anywhere", clean: Batch | Tensor = CLEAN) -> EdgeModel:
    return prepare(raw, clean, clean, metric, places).edge_model


def role_places(batch: Batch = CLEAN) -> Places:
    return places_of(batch, "role")


def measured(edge_model: EdgeModel, metric: Metric, tokens: Tensor, replacement: Tensor | None, kept: Tensor) -> Tensor:
    """The metric of each prompt `[row]` when edges outside of `kept` carry `replacement`."""
    with torch.no_grad():
        final, _ = edge_model.forward(tokens, replacement, kept)
        logits = edge_model.anatomy.unembed(final[:, metric.positions])
        return metric.compute(logits, torch.arange(len(tokens))).double()


def cut(edge_model: EdgeModel, index: tuple[int, ...]) -> Tensor:
    """Every edge but one."""
    kept = torch.ones_like(edge_model.graph.possible)
    kept[index] = False
    return kept


# By hand. Two layers of one head of width 1, no MLPs, no norms, residual (x, m, h): a token is its number x.
# L0H0 attends evenly and writes the mean of x so far to m. L1H0 attends by 2 to the power of x and writes that mean
# of m to h. The logit is x + 2 m + 30 h. At the last of three positions:
#   clean     x = 0 1 1   m = 0 1/2 2/3   weights 1 2 2 of 5   h =  7/15
#   corrupted x = 1 0 0   m = 1 1/2 1/3   weights 2 1 1 of 4   h = 17/24
HAND_CLEAN, HAND_CORRUPTED = torch.tensor([[0, 1, 1]]), torch.tensor([[1, 0, 0]])
HAND_METRIC = Metric("logit", torch.tensor([2]), lambda logits, rows: logits[..., 0, 0])
# What the logit loses when an edge alone is corrupted; all others lose nothing.
HAND_EXACT = {
    "embed -> logits": 1.0,
    "L0H0 -> logits": 2 / 3,
    "L1H0 -> logits": 30 * (7 / 15 - 17 / 24),
    "L0H0 -> L1H0 v": 30 * (7 / 15 - 8 / 15),
    "embed -> L0H0 v": 2 / 3 + 30 * (7 / 15 - 8 / 15),
    "embed -> L1H0 k": 30 * (7 / 15 - 7 / 24),
}
# Gradients are exact along edges that are linear; a key's is ln 2 times p_j (m_j - h), with x changed by -1 1 1.
HAND_EAP = {  # p = 1/2 1/4 1/4, and m changed by -1 0 1/3
    **HAND_EXACT,
    "L0H0 -> L1H0 v": -12.5,
    "embed -> L0H0 v": 2 / 3 - 12.5,
    "embed -> L1H0 k": -8.75 * math.log(2),
}
HAND_EAP_CLEAN = {**HAND_EXACT, "embed -> L1H0 k": 5.6 * math.log(2)}  # p = 1/5 2/5 2/5


@cache
def by_hand() -> Any:
    bridge: Any = boot(
        TransformerBridgeConfig(
            n_layers=2,
            d_model=3,
            d_head=1,
            n_heads=1,
            n_ctx=3,
            d_vocab=2,
            d_vocab_out=1,
            attn_only=True,
            normalization_type=None,
            act_fn="relu",
        )
    )
    bridge.double()  # first, so that ln 2 is no float32
    weights = {name.replace("_original_component.", ""): p for name, p in bridge.original_model.named_parameters()}
    with torch.no_grad():
        for parameter in weights.values():
            parameter.zero_()
        weights["tok_embed.weight"][1, 0] = 1
        weights["layers.0.attn.v.weight"][0, 0] = weights["layers.0.attn.o.weight"][1, 0] = 1
        weights["layers.1.attn.v.weight"][0, 1] = weights["layers.1.attn.o.weight"][2, 0] = 1
        weights["layers.1.attn.q.bias"][0] = 1
        weights["layers.1.attn.k.weight"][0, 0] = math.log(2)
        weights["head.weight"][0] = torch.tensor([1.0, 2.0, 30.0])
    return bridge
