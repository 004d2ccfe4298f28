"""Benchmark: whole sweeps of resid_pre against the best loop written by hand on plain Hugging Face.

The loop skips the layers before the patch, runs patches of one layer as a batch, and unembeds one position. Its parts
are prepared, and its batch size is chosen, before it is timed. It has no checks; our sweep's are part of its time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from experiments.benchmarks.scaling import seconds_of
from interp.patching import logit_diff, plan

# Two tokens whose logits are compared, and the batch sizes of the loop that are tried.
ANSWER, OTHER = 3, 4
BATCHES = (4, 8, 16, 32)
# Times that each of these is tried.
TRIALS = 3


@dataclass(frozen=True)
class LoopCase:
    """A shape with random weights, and a pair of random prompts that differ at every position.

    `n_layers` may be fewer than the shape's own, `layers_of`, where memory or time demand it.
    """

    title: str
    model_type: str
    n_layers: int
    d_model: int
    n_heads: int
    vocabulary: int
    tokens: int
    n_kv_heads: int | None = None
    d_mlp: int | None = None
    layers_of: int | None = None

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"{self.model_type}-{self.n_layers}x{self.d_model}-{self.tokens}"


DEFAULT = (
    LoopCase("small", "bloom", 2, 64, 4, 416, 14),
    LoopCase("small", "bloom", 4, 128, 4, 416, 82),
    LoopCase("GPT-2 small", "gpt2", 12, 768, 12, 50_257, 14),
    LoopCase("BLOOM-560M", "bloom", 4, 1024, 16, 250_880, 14, layers_of=24),
    LoopCase("SmolLM2-135M (Llama)", "llama", 8, 576, 9, 49_152, 14, 3, 1536, 30),
    LoopCase("Qwen2.5-0.5B", "qwen2", 4, 896, 14, 151_936, 14, 2, 4864, 24),
)


def run_case(case: LoopCase, rounds: int) -> dict:
    """Return one row: median milliseconds of whole sweeps, and the largest difference of the values."""
    model = model_of(case)
    clean, corrupted = (prompt_of(case, seed) for seed in (0, 1))
    metric = logit_diff(ANSWER, OTHER)
    tails = [tail_of(model, layer) for layer in range(case.n_layers)]
    sizes = tuple(b for b in BATCHES if b < 2 * case.tokens) or BATCHES[:1]  # up to all patches of a layer at once
    batch = min(
        TRIALS * sizes,
        key=lambda b: seconds_of(lambda: loop_by_hand(model, tails, clean, corrupted, b), model.device.type),
    )
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: plan(model, clean, corrupted, "resid_pre", metric).run().values[..., 0],
        "hand": lambda: loop_by_hand(model, tails, clean, corrupted, batch),
    }
    values = {name: way().double().cpu() for name, way in ways.items()}  # and warms both up
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, way in list(ways.items())[:: 1 if turn % 2 else -1]:
            times[name].append(seconds_of(way, model.device.type))
    ms = {name: 1000 * median(found) for name, found in times.items()}
    scale = max(1.0, float(values["hand"].abs().max()))
    return {
        "case": asdict(case),
        "ms": ms,
        "ratio": ms["hand"] / ms["ours"],
        "batch": batch,
        "difference": float((values["ours"] - values["hand"]).abs().max()) / scale,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
    }


def model_of(case: LoopCase) -> Any:
    """Return the model of a case in evaluation mode, on a GPU where there is one."""
    sizes = {"hidden_size": case.d_model, "num_attention_heads": case.n_heads, "num_hidden_layers": case.n_layers}
    sizes |= {"vocab_size": case.vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if case.n_kv_heads is not None:
        sizes["num_key_value_heads"] = case.n_kv_heads
    if case.d_mlp is not None:
        sizes["intermediate_size"] = case.d_mlp
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.model_type, **sizes))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def prompt_of(case: LoopCase, seed: int) -> Tensor:
    """Return token ids `[1 pos]`; even for seed 0, odd for seed 1, so that no position is alike."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(5, case.vocabulary // 2, (1, case.tokens), generator=generator) + seed


@torch.no_grad()
def loop_by_hand(model: Any, tails: list[Any], clean: Tensor, corrupted: Tensor, batch: int) -> Tensor:
    """Return logit(ANSWER) - logit(OTHER) after each patch of the clean run into the corrupted one, `[layer pos]`."""
    both = torch.cat([corrupted, clean]).to(model.device)
    states = model(both, output_hidden_states=True, use_cache=False, logits_to_keep=1).hidden_states
    found = []
    for layer, tail in enumerate(tails):
        base, source = states[layer]
        for some in torch.arange(clean.shape[1], device=model.device).split(batch):
            resid = base.repeat(len(some), 1, 1)
            resid[torch.arange(len(some)), some] = source[some]
            logits = tail(inputs_embeds=resid, use_cache=False, logits_to_keep=1).logits[:, -1]
            found.append(logits[:, ANSWER] - logits[:, OTHER])
    return torch.cat(found).unflatten(0, (len(tails), -1))


class _NoPositions(nn.Module):
    """Adds nothing: what is embedded has its positions already."""

    def forward(self, positions: Tensor) -> Tensor:
        return torch.zeros(1, device=positions.device)


def tail_of(model: Any, layer: int) -> Any:
    """Return the model from a layer on, which takes resid_pre of that layer as `inputs_embeds`; weights are shared."""

    def shallow(module: nn.Module) -> Any:
        twin = copy.copy(module)
        twin._modules = dict(module._modules)
        return twin

    tail = shallow(model)
    body = tail._modules[model.base_model_prefix] = shallow(model.base_model)
    blocks = "h" if "h" in body._modules else "layers"
    body._modules[blocks] = nn.ModuleList(list(body._modules[blocks])[layer:])
    if "wpe" in body._modules:  # GPT-2 adds positions to what is embedded
        body._modules["wpe"] = _NoPositions()
    if "word_embeddings_layernorm" in body._modules:  # BLOOM norms it
        body._modules["word_embeddings_layernorm"] = nn.Identity()
    return tail
