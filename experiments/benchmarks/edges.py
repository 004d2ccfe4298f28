"""Benchmark: edge attribution against TransformerLens's, in alternating rounds, with equal scores."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from experiments.benchmarks.small_models import family_model
from interp.circuits import EdgeScores, edge_scores
from interp.models import boot_bridge
from interp.patching import logit_diff
from interp.patching.nodes import Receiver, Sender
from interp.tasks import Batch, counterfactual, sample

# Pairs that TransformerLens is timed on per round. It processes pairs one by one, so the cost per pair is constant.
LOOP_PAIRS = 2


@dataclass(frozen=True)
class EdgeCase:
    """One row: a model with random weights, and pairs of unrelated prompts."""

    family: str
    n_layers: int
    d_model: int
    bits: int
    prompts: int
    n_heads: int = 4

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"edges-{self.family}-{self.n_layers}x{self.d_model}-{4 * self.bits + 2}-b{self.prompts}"


DEFAULT = (
    EdgeCase("alibi", 4, 128, 20, 64),
    EdgeCase("rotary", 4, 128, 20, 64),
    EdgeCase("absolute", 4, 128, 20, 64),
    EdgeCase("alibi", 4, 128, 20, 8),
    EdgeCase("alibi", 4, 128, 20, 1),
    EdgeCase("alibi", 3, 128, 20, 64, n_heads=8),
    EdgeCase("alibi", 6, 256, 20, 16),
)


def run_case(case: EdgeCase, rounds: int) -> dict:
    """Return median milliseconds per pair, their ratio, and the largest relative difference of a score."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    model = family_model(case.family, case.n_layers, case.d_model, case.n_heads)
    device = model.device.type
    bridge: Any = boot_bridge(copy.deepcopy(model))
    clean = sample("parity-aligned", case.prompts, case.bits, seed=0)
    corrupted = counterfactual.redraw(clean, seed=1)
    few = min(LOOP_PAIRS, case.prompts)

    def theirs() -> list[Any]:
        found = []
        for i in range(few):
            one, other = (b.rows(slice(i, i + 1)) for b in (clean, corrupted))
            metric = logit_diff(one)
            found.append(
                attribution_patch(
                    bridge,
                    one.tokens.to(device),
                    other.tokens.to(device),
                    lambda logits, m=metric: m.compute(logits[:, m.positions.to(device)], torch.arange(1)).sum(),
                    EdgeAttributionConfig(granularity="edge"),
                )
            )
        return found

    def ours(first: Batch, second: Batch) -> EdgeScores:
        return edge_scores(model, first, second, logit_diff(first), "eap")

    times: dict[str, list[float]] = {"ours": [], "transformer_lens": []}
    reference: list[Any] = []
    for _ in range(rounds):
        began = time.perf_counter()
        ours(clean, corrupted)
        times["ours"].append((time.perf_counter() - began) / case.prompts)
        began = time.perf_counter()
        reference = theirs()
        times["transformer_lens"].append((time.perf_counter() - began) / few)
    scores = ours(clean.rows(slice(0, few)), corrupted.rows(slice(0, few)))
    ms = {name: 1000 * median(found) for name, found in times.items()}
    return {
        "case": asdict(case),
        "tokens": clean.n_pos,
        "edges": len(scores.graph),
        "ms_a_pair": ms,
        "ratio": ms["transformer_lens"] / ms["ours"],
        "difference": difference(scores, reference),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "device": device,
    }


def difference(scores: EdgeScores, reference: list[Any]) -> float:
    """Return the largest difference from TransformerLens's scores, summed over positions, mean over pairs."""
    expected = torch.zeros_like(scores.values, dtype=torch.float64)
    graph = scores.graph
    kinds: dict = {
        "attn_head_out": "head",
        "mlp_out": "mlp",
        "q_input": "q",
        "k_input": "k",
        "v_input": "v",
        "mlp_in": "mlp",
        "embed": "embed",
        "logits": "logits",
    }
    for result in reference:
        for (writer, reader), score in result.edge_scores.items():
            layer = None if reader.kind == "logits" else reader.layer
            sender = Sender(kinds[writer.kind], writer.layer, writer.head)
            receiver = Receiver(kinds[reader.kind], layer, reader.head)
            expected[0, graph.numbers[receiver], graph.numbers[sender]] += score / len(reference)
    return float((scores.values.double() - expected).abs().max() / expected.abs().max())
