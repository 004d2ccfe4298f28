"""What does the model predict, and what does it write by itself?

Models here are raw Hugging Face models: no hook is needed, and they are the reference. Forward passes run
without gradients, in chunks of prompts, on the device where the model is; results come back on the CPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from interp.tasks import Batch

# Tokens in one forward pass: small enough for a cache, large enough to fill two cores.
CHUNK_TOKENS = 8192


@torch.no_grad()
def predict(
    model: PreTrainedModel, batch: Batch, at: Int[Tensor, " predicted"]
) -> Float[Tensor, "batch predicted d_vocab"]:
    """Logits for the tokens at positions `at`, read one position earlier, teacher forced.

    Only those positions are unembedded. Raises `ValueError` for position 0, which nothing predicts.
    """
    if (at < 1).any():
        raise ValueError("position 0 is not predicted by anything")
    size = max(1, CHUNK_TOKENS // batch.n_pos)
    device = model.device
    chunks = [
        model(rows.to(device), use_cache=False, logits_to_keep=(at - 1).to(device)).logits.float().cpu()
        for rows in batch.tokens.split(size)
    ]
    logits = torch.cat(chunks)
    if not torch.isfinite(logits).all():
        row = int((~torch.isfinite(logits)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"the model's logits hold NaN or infinity, first in prompt {row}: {batch.text(row)}")
    return logits


def correct(
    model: PreTrainedModel, batch: Batch, at: Int[Tensor, " predicted"]
) -> Bool[Tensor, "batch predicted"]:
    """Whether the most likely token at each position is the one in the batch, teacher forced.

    Greedy decoding writes the batch's outputs exactly if and only if every predicted position is correct
    here, so exact match costs one forward pass (science 1.2).
    """
    return predict(model, batch, at).argmax(dim=-1) == batch.tokens[:, at]


@torch.no_grad()
def generate(model: PreTrainedModel, batch: Batch, forced: bool = True) -> Batch:
    """Greedy decoding, with a key-value cache: predicted positions are written by the model, others are given.

    `forced` is as in `Batch.predicted`. Only the tokens at predicted positions differ from `batch`.
    """
    at = batch.predicted(forced)
    written = set(at.tolist())
    start = int(at[0])
    size = max(1, CHUNK_TOKENS // batch.n_pos)
    chunks = []
    for rows in batch.tokens.split(size):
        tokens = rows.to(model.device).clone()
        cache, fed = DynamicCache(config=model.config), 0
        for position in range(start, batch.n_pos):
            if position not in written:
                continue
            out = model(
                tokens[:, fed:position], past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            tokens[:, position] = out.logits[:, -1].argmax(dim=-1)
            fed = position
        chunks.append(tokens.cpu())
    return batch.with_tokens(torch.cat(chunks))
