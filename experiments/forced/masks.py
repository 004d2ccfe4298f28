"""Bar attention by weights: a GPT-2 in which some queries cannot attend to some keys, whatever is trained.

The last dimensions of the residual stream hold flags that the position embedding writes and nothing overwrites. Each
flag is a pair (1, -1), whose difference is exactly 0 where the flag is not set, because LayerNorm subtracts one mean
from both. One dimension of each head multiplies a flag of the query with a flag of the key: the score of a barred key
falls by hundreds, and the softmax gives exactly 0. The model is an ordinary GPT-2, for one length of prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

# Head: layer and index.
Head = tuple[int, int]
# Dimensions of the residual stream per bar: a pair for queries, a pair for keys.
FLAGS = 4
# A power of two, so that the products of a pair cancel exactly, in bfloat16 too.
GAIN = 256.0
# Noise on the logits of the two bits: the dimensions that carry it, and what the head writes per unit.
NOISE_PAIR, NOISE = 2, 32.0


@dataclass(frozen=True)
class Bar:
    """Attention that cannot be: from queries at some positions to keys at others, in some heads."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: tuple[Head, ...]


@torch.no_grad()
def write_bars(raw: PreTrainedModel, bars: Sequence[Bar]) -> None:
    """Write bars into the weights of a GPT-2. After each step of the optimiser they must be written again."""
    body: Any = raw.transformer
    d_model, n_heads = raw.config.n_embd, raw.config.n_head
    d_head = d_model // n_heads
    reserved = slice(d_model - FLAGS * len(bars), d_model)
    body.wte.weight[:, reserved] = 0
    body.wpe.weight[:, reserved] = 0
    for layer, block in enumerate(body.h):
        _keep(block, reserved)
        for k, bar in enumerate(bars):
            dims = torch.arange(d_model - FLAGS * (k + 1), d_model - FLAGS * k)
            for flag, positions in ((dims[:2], bar.queries), (dims[2:], bar.keys)):
                body.wpe.weight[list(positions), flag[0]] = 1
                body.wpe.weight[list(positions), flag[1]] = -1
            for head in (head for at, head in bar.heads if at == layer):
                q = (head + 1) * d_head - 1 - k
                for column, flag, gain in ((q, dims[:2], GAIN), (d_model + q, dims[2:], -GAIN)):
                    _read(block, column, flag, gain)


@torch.no_grad()
def write_noise(raw: PreTrainedModel, head: Head, bits: Sequence[int], n_bars: int) -> None:
    """Let a head of the last layer write the bit that it attends to into the logits, and nothing else.

    `bits` are the token ids of 0 and 1. Values are 0 at all other tokens. No other part reads or writes these
    dimensions behind the embedding in that layer, so that noise from a bit which nothing else can attend to cannot be
    subtracted: the head must attend to something else.
    """
    body: Any = raw.transformer
    d_model, d_head = raw.config.n_embd, raw.config.n_embd // raw.config.n_head
    last = d_model - FLAGS * n_bars
    pair = slice(last - NOISE_PAIR, last)
    body.wpe.weight[:, pair] = 0
    body.wte.weight[:, pair] = 0
    for sign, bit in zip((-1.0, 1.0), bits, strict=True):
        body.wte.weight[bit, pair] = torch.tensor([sign, -sign])
    for block in body.h:
        _keep(block, pair)
    layer, index = head
    block = body.h[layer]
    values = slice(2 * d_model + index * d_head, 2 * d_model + (index + 1) * d_head)
    block.attn.c_attn.weight[:, values] = 0
    block.attn.c_attn.bias[values] = 0
    block.attn.c_attn.weight[pair, values.start] = torch.tensor([1.0, -1.0])
    out = slice(index * d_head, (index + 1) * d_head)
    block.attn.c_proj.weight[out] = 0
    block.attn.c_proj.weight[out.start, pair] = torch.tensor([NOISE, -NOISE])
    block.mlp.c_fc.weight[pair] = 0
    body.ln_f.weight[pair], body.ln_f.bias[pair] = 1, 0


def _keep(block: Any, dims: slice) -> None:
    """Let a layer read dimensions without gain or offset before attention, and write nothing to them."""
    block.ln_1.weight[dims], block.ln_1.bias[dims] = 1, 0
    for linear in (block.attn.c_proj, block.mlp.c_proj):
        linear.weight[:, dims] = 0
        linear.bias[dims] = 0


def _read(block: Any, column: int, flag: torch.Tensor, gain: float) -> None:
    """Let a column of the projection to q, k and v read the difference of a pair, and nothing else."""
    block.attn.c_attn.weight[:, column] = 0
    block.attn.c_attn.bias[column] = 0
    block.attn.c_attn.weight[flag, column] = torch.tensor([gain, -gain])
