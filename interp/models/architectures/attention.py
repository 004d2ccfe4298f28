"""Attention of a model taken apart: queries, keys, scores, patterns and z, as the architecture computes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.models.architectures.block import Block
from interp.models.architectures.checks import device_of, dtype_of


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The attention of every block of a model.

    softmax_dtype: the dtype in which eager attention computes patterns; None for that of the scores.
    """

    raw: PreTrainedModel
    n_heads: int
    n_kv_heads: int
    softmax_dtype: torch.dtype | None = torch.float32
    causal: bool = True

    @cached_property
    def device(self) -> torch.device:
        """The device of the weights; with accelerate's `device_map`, the main one of those that compute."""
        where = getattr(getattr(self.raw, "_hf_hook", None), "execution_device", None)
        return device_of(self.raw) if where is None else torch.device(where)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return dtype_of(self.raw)

    def queries(
        self, block: Block, q: Tensor, positions: Int[Tensor, " pos"], heads: slice = slice(None)
    ) -> Float[Tensor, "... pos head d_head"]:
        """Return q after its norm and position encoding, from q `[... pos head d_head]` of `heads` at `positions`."""
        return block.encode(block.query_norm, q, positions, heads)

    def keys(
        self, block: Block, k: Tensor, positions: Int[Tensor, " pos"], heads: slice = slice(None)
    ) -> Float[Tensor, "... pos kv_head d_head"]:
        """Return k after its norm and position encoding, from k `[... pos kv_head d_head]` of the key-value `heads`."""
        return block.encode(block.key_norm, k, positions, heads)

    def bias(
        self, block: Block, dest: Int[Tensor, " dest"], src: Int[Tensor, " src"]
    ) -> Float[Tensor, "head dest src"]:
        """Return what is added to the scores: the causal mask, the sliding window, and ALiBi. `[1 dest src]` without
        ALiBi."""
        mask = torch.zeros(len(dest), len(src), dtype=self.dtype, device=self.device)
        distance = dest.unsqueeze(1) - src.unsqueeze(0)
        if self.causal:
            mask = mask.masked_fill(distance < 0, torch.finfo(self.dtype).min)
        if block.window is not None:
            mask = mask.masked_fill(distance >= block.window, torch.finfo(self.dtype).min)
        if block.key_bias is None:
            return mask.unsqueeze(0)
        return mask + block.key_bias(src).to(self.dtype).T.unsqueeze(1)

    def sink(
        self,
        block: Block,
        q: Float[Tensor, "... dest head d_head"],
        dest: Int[Tensor, "... dest"],
        heads: slice = slice(None),
    ) -> Float[Tensor, "... head dest 1"] | None:
        """Return the score of a block's sink, from q after rotation (of `heads` alone); None without a sink."""
        if block.sink_logit is not None:
            logit = block.sink_logit[heads].to(q.dtype)
            return logit.view(-1, 1, 1).expand(*q.shape[:-3], -1, q.shape[-3], 1)
        if block.sink_key is None:
            return None
        assert block.key_bias is not None, "key sinks are added to BLOOM only"
        logit = torch.einsum("...dhe,he->...dh", q, block.sink_key[heads]) * block.scale
        return (logit + block.key_bias(dest)[..., heads].to(self.dtype)).mT.unsqueeze(-1)

    def softmax(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        """Return the pattern, computed in the architecture's dtype, without the share of the sink."""
        n_src = scores.shape[-1]
        if sink is not None:
            scores = torch.cat([scores, sink], dim=-1)
            if self.softmax_dtype is None:  # as gpt-oss does, which in half precision rounds once more
                scores = scores - scores.amax(dim=-1, keepdim=True)
        return torch.softmax(scores, dim=-1, dtype=self._pattern_dtype)[..., :n_src].to(self.dtype)

    @property
    def _pattern_dtype(self) -> torch.dtype | None:
        # torch's scaled_dot_product_attention keeps float64, which eager attention rounds to float32.
        if self.dtype == torch.float64 and getattr(self.raw.config, "_attn_implementation", None) == "sdpa":
            return None
        return self.softmax_dtype

    def expand_heads(self, x: Tensor) -> Tensor:
        """Return k or v `[... head d_head]`, with each key-value head repeated for the query heads that share it."""
        return x if self.n_kv_heads == self.n_heads else x.repeat_interleave(self.n_heads // self.n_kv_heads, dim=-2)

    def pattern(
        self,
        block: Block,
        q: Float[Tensor, "... dest head d_head"],
        k: Float[Tensor, "... src kv_head d_head"],
        dest: Int[Tensor, " dest"],
        src: Int[Tensor, " src"],
    ) -> Float[Tensor, "... head dest src"]:
        """Return the attention pattern, from q and k before rotation."""
        q, k = self.queries(block, q, dest), self.expand_heads(self.keys(block, k, src))
        scores = block.cap(torch.einsum("...dhe,...she->...hds", q, k) * block.scale)
        return self.softmax(scores + self.bias(block, dest, src), self.sink(block, q, dest))

    def mix(self, pattern: Float[Tensor, "... head dest src"], v: Tensor) -> Float[Tensor, "... dest head d_head"]:
        """Return z, from a pattern and v `[... src kv_head d_head]`."""
        return torch.einsum("...hds,...she->...dhe", pattern, self.expand_heads(v))

    def attend(
        self,
        block: Block,
        q: Float[Tensor, "... dest head d_head"],
        k: Float[Tensor, "... src head d_head"],
        v: Float[Tensor, "... src head d_head"],
        bias: Float[Tensor, "*row head dest src"],
        sink: Float[Tensor, "... head dest 1"] | None = None,
    ) -> Float[Tensor, "... dest head d_head"]:
        """Return z of some heads, from q and k as attention uses them, all with as many heads, and the sink's score.

        On a CPU without gradients one kernel computes it and stores no pattern, in a third of the time.
        """
        if sink is None and self.is_fused(block, q):
            q, k, v = (x.transpose(-2, -3) for x in (q, k, v))
            mask = bias if bias.ndim == 4 else bias.unsqueeze(0)  # with three axes the kernel is not used
            return nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=block.scale).transpose(-2, -3)
        if q.dtype in (torch.float16, torch.bfloat16):  # rounds as raw models do, which scale the product
            scores = torch.einsum("...dhe,...she->...hds", q, k) * block.scale
        else:
            scores = torch.einsum("...dhe,...she->...hds", q * block.scale, k)
        return torch.einsum("...hds,...she->...dhe", self.softmax(block.cap(scores) + bias, sink), v)

    def is_fused(self, block: Block, q: Tensor) -> bool:
        """Return whether torch's attention kernel rounds as the architecture does."""
        plain = block.score_cap is None and block.score_dtype is None and self._pattern_dtype in (None, q.dtype)
        return plain and q.ndim == 4 and q.device.type == "cpu" and not torch.is_grad_enabled()
