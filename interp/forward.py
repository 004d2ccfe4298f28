"""What does the model predict, and what does it write by itself?

Models here are raw Hugging Face models: no hook is needed, and they are the reference. Forward passes run
without gradients, in chunks of prompts, on the device where the model is; results come back on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Batch

# Tokens in one forward pass, at most: small enough for a cache, large enough to fill two cores.
CHUNK_TOKENS = 8192
# Of the budget, for the logits, what a layer holds inside, and the cache of keys and values: 256 MiB of a GiB. With a
# vocabulary of 250,000 the logits set the chunk.
SHARE = 1 / 4


@dataclass(frozen=True)
class Readout:
    """What a model predicts at some positions, teacher forced.

    Shapes:
        likeliest: `[batch predicted]`, the token with the highest logit of the whole vocabulary.
        logits:    `[batch predicted symbol]`, logits of the format's output symbols, in their order.
    """

    likeliest: Int[Tensor, "batch predicted"]
    logits: Float[Tensor, "batch predicted symbol"]


def predict(
    model: PreTrainedModel, batch: Batch, at: Int[Tensor, " predicted"]
) -> Float[Tensor, "batch predicted d_vocab"]:
    """Logits for the tokens at positions `at`, read one position earlier, teacher forced.

    Only those positions are unembedded. Raises `ValueError` for position 0, which nothing predicts, and for
    logits that are not finite, naming the prompt.
    """
    return torch.cat([logits.cpu() for logits in _logits(model, batch, at)])


def readout(model: PreTrainedModel, batch: Batch, at: Int[Tensor, " predicted"]) -> Readout:
    """As `predict`, keeping only the likeliest token and the logits of the output symbols.

    The whole vocabulary's logits exist for one chunk of prompts at a time.
    """
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    found = [(x.argmax(dim=-1).cpu(), x[..., symbols.to(x.device)].cpu()) for x in _logits(model, batch, at)]
    return Readout(torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]))


@torch.no_grad()
def _logits(model: PreTrainedModel, batch: Batch, at: Tensor) -> Iterator[Float[Tensor, "chunk predicted d_vocab"]]:
    if not len(at) or (at < 1).any():
        raise ValueError(f"predicted positions must be at least 1, and at least one; got {at.tolist()}")
    size = _prompts_a_pass(model, batch.n_pos, len(at))
    keep = (at - 1).to(model.device)
    for start in range(0, len(batch), size):
        rows = batch.tokens[start : start + size].to(model.device)
        logits = model(rows, use_cache=False, logits_to_keep=keep).logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        yield require_finite(logits, "a logit of the model", start, axis=0, batch=batch)


def _prompts_a_pass(model: PreTrainedModel, n_pos: int, n_read: int, n_cached: int = 0) -> int:
    """How many prompts fit, at least one; `n_cached` layers keep their keys and values."""
    config = model.config
    width = config.hidden_size
    inside = 24 * width + 4 * config.num_attention_heads * n_pos  # the MLP and its non-linearity; scores and weights
    floats = n_pos * (inside + 2 * width * n_cached) + n_read * config.vocab_size
    return max(1, min(CHUNK_TOKENS // n_pos, numbers(SHARE) // floats))


def correct(model: PreTrainedModel, batch: Batch, at: Int[Tensor, " predicted"]) -> Bool[Tensor, "batch predicted"]:
    """Whether the most likely token at each position is the one in the batch, teacher forced.

    Greedy decoding writes the batch's outputs exactly if and only if every predicted position is correct
    here, so exact match costs one forward pass (science 1.2).
    """
    return readout(model, batch, at).likeliest == batch.tokens[:, at]


@torch.no_grad()
def generate(model: PreTrainedModel, batch: Batch, forced: bool = True) -> Batch:
    """Greedy decoding, with a key-value cache: predicted positions are written by the model, others are given.

    `forced` is as in `Batch.predicted`. Only the tokens at predicted positions differ from `batch`. Raises
    `ValueError` for logits that are not finite, naming the prompt.
    """
    at = batch.predicted(forced)
    written = set(at.tolist())
    start = int(at[0])
    size = _prompts_a_pass(model, batch.n_pos, 1, model.config.num_hidden_layers)
    chunks = []
    for first in range(0, len(batch), size):
        tokens = batch.tokens[first : first + size].to(model.device).clone()
        cache, fed = DynamicCache(config=model.config), 0
        for position in range(start, batch.n_pos):
            if position not in written:
                continue
            out = model(tokens[:, fed:position], past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = require_finite(out.logits[:, -1], "a logit of the model", first, axis=0, batch=batch)
            tokens[:, position] = logits.argmax(dim=-1)
            fed = position
        chunks.append(tokens.cpu())
    return batch.with_tokens(torch.cat(chunks))
