"""Anatomy: a raw model as steps between TransformerLens's sites.

The steps call the model's own modules on the model's own weights. They accept any leading axes and any subset of
positions, which is what the patching engine needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.architectures.attention import Attention
from interp.models.architectures.block import Block
from interp.models.architectures.checks import (
    TOLERANCE,
    in_double,
    is_rounding,
    random_tokens,
    tolerance_of,
)
from interp.support.finite import difference_of_finite


@dataclass(frozen=True, kw_only=True)
class Anatomy(Attention):
    """A model as steps.

    start: resid_pre of layer 0 from tokens `[batch pos]`.
    before_head: what stands between the final norm and the unembedding (OPT's projection).
    finish: what the architecture does to the logits: scale, soft cap.
    longest: the most positions for which the rotary encoding does not depend on the prompt's length.
    rounds_to: the dtype in which the architecture multiplies matrices whatever its weights' dtype is (scores of GPT-J,
        routers of some experts). With float64 weights the steps agree with it to that dtype's precision only.
    rebuild: takes another copy of the same model apart.
    """

    generic: ClassVar[bool] = False

    blocks: tuple[Block, ...]
    d_head: int
    final_norm: nn.Module
    start: Callable[[Tensor], Tensor]
    before_head: nn.Module | None = None
    finish: Callable[[Tensor], Tensor] | None = None
    longest: int | None = None
    rounds_to: torch.dtype | None = None
    rebuild: Callable[[Any], Anatomy] | None = None

    @cached_property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.raw.config.hidden_size

    @cached_property
    def head(self) -> nn.Module:
        """The unembedding."""
        head: Any = self.raw.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head

    @property
    def arithmetic(self) -> torch.dtype:
        """The coarser of the weights' dtype and `rounds_to`, on which the tolerance of exactness depends."""
        coarse = self.rounds_to
        return self.dtype if coarse is None or torch.finfo(coarse).eps < torch.finfo(self.dtype).eps else coarse

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """Return resid_pre of layer 0.

        Raises `ValueError` for prompts longer than `longest`.
        """
        if self.longest is not None and tokens.shape[1] > self.longest:
            raise ValueError(
                f"these prompts have {tokens.shape[1]} positions; with more than {self.longest} the rotary encoding "
                f"of this model (rope_type {rope_type(self.raw)!r}) depends on the prompt's length, which is not "
                "supported"
            )
        return self.start(tokens)

    def block_at(
        self, block: Block, resid: Float[Tensor, "... pos d_model"], at: Int[Tensor, " dest"] | None = None
    ) -> Float[Tensor, "... dest d_model"]:
        """Return resid_post of a block at some positions (None: all), from its resid_pre at all."""
        (q, k, v), positions = block.project(resid), torch.arange(resid.shape[-2], device=resid.device)
        if at is not None:
            q, resid = q[..., at, :, :], resid[..., at, :]
        dest = positions if at is None else at
        q, k = self.queries(block, q, dest), self.expand_heads(self.keys(block, k, positions))
        z = self.attend(block, q, k, self.expand_heads(v), self.bias(block, dest, positions), self.sink(block, q, dest))
        mid = resid + block.attn_out(z)
        return mid + block.mlp_out(resid if block.parallel else mid)

    @torch.no_grad()
    def n_neurons(self, layer: int) -> int:
        """Return how many neurons the MLP of a layer has; 0 where it is not taken apart into neurons."""
        block = self.blocks[layer]
        if not block.has_neurons:
            return 0
        return block.mlp_pre(torch.zeros(1, self.d_model, dtype=self.dtype, device=self.device)).shape[-1]

    @torch.no_grad()
    def output_weights(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """Return W_O of each head, which takes its z to what it adds to the residual.

        Raises `ValueError` where a norm follows: attn_out is not a sum over heads then.
        """
        block = self._block_with_linear_output(layer)
        width = self.n_heads * self.d_head
        basis = torch.eye(width, dtype=self.dtype, device=self.device).unflatten(-1, (self.n_heads, self.d_head))
        return (block.attn_out(basis) - block.attn_out(torch.zeros_like(basis[:1]))).unflatten(
            0, (self.n_heads, self.d_head)
        )

    @torch.no_grad()
    def output_bias(self, layer: int) -> Float[Tensor, "1 d_model"]:
        """Return what attention adds when every head's z is zero. Raises as `output_weights`."""
        nothing = torch.zeros(1, self.n_heads, self.d_head, dtype=self.dtype, device=self.device)
        return self._block_with_linear_output(layer).attn_out(nothing)

    def _block_with_linear_output(self, layer: int) -> Block:
        block = self.blocks[layer]
        if not block.linear_output:
            raise ValueError(
                f"{self.raw.config.model_type} norms the output of attention, so that it is not a sum over heads"
            )
        return block

    @torch.no_grad()
    def input_weights(self, layer: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return (weight, bias) of q, of k and of v: `[d_model head d_head]` and `[head d_head]`, as `project` applies
        them to the normed residual. k and v have key-value heads.

        Raises `ValueError` where q, k and v are clipped, or normed over all heads.
        """
        block = self.blocks[layer]
        if not block.linear_inputs:
            raise ValueError(
                f"{self.raw.config.model_type} clips q, k and v, or norms them over all heads: they are not linear in "
                "the normed residual"
            )
        basis = torch.eye(self.d_model, dtype=self.dtype, device=self.device)
        outputs = block.split(*(projection(basis) for projection in block.qkv))
        bias = block.split(*(projection(torch.zeros_like(basis[:1])) for projection in block.qkv))
        return tuple((w - b, b[0]) for w, b in zip(outputs, bias, strict=True))

    def unembed(
        self, resid: Float[Tensor, "... d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> Float[Tensor, "... d_vocab"]:
        """Return the logits from the last resid_post; with `tokens`, `[... token]`, of these tokens only."""
        head = self.head
        normed = self.final_norm(resid)
        normed = normed if self.before_head is None else self.before_head(normed)
        if tokens is None:
            logits = head(normed)
        elif _is_plain(head):
            tokens = tokens.to(head.weight.device, non_blocking=True)
            bias = None if head.bias is None else head.bias[tokens]
            logits = nn.functional.linear(normed, head.weight[tokens], bias)
        else:
            logits = head(normed)[..., tokens.to(normed.device, non_blocking=True)]
        return logits if self.finish is None else self.finish(logits)  # elementwise in every architecture

    def forward(
        self, tokens: Int[Tensor, "batch pos"], at: Int[Tensor, " read"] | None = None
    ) -> Float[Tensor, "batch read d_vocab"]:
        """Return the logits of an unedited run, step by step, at some positions (None: all).

        The last layer computes these positions only.
        """
        resid = self.embed(tokens)
        for block in self.blocks[:-1]:
            resid = self.block_at(block, resid)
        return self.unembed(self.block_at(self.blocks[-1], resid, at))

    @torch.no_grad()
    def difference_on(self, tokens: Int[Tensor, "batch pos"]) -> float:
        """Return the largest difference of the steps from the raw model's logits, over their standard deviation."""
        tokens = tokens.to(self.device)
        return difference_of_finite(self.forward(tokens), self.raw(tokens, use_cache=False).logits)

    def difference(self) -> float:
        """Return `difference_on` two random prompts, longer than a short sliding window."""
        return self.difference_on(self._random_tokens())

    def self_test(self) -> None:
        """Check the steps on random prompts; see `check_on`."""
        self.check_on(self._random_tokens())

    @torch.no_grad()
    def check_on(self, tokens: Int[Tensor, "batch pos"]) -> float:
        """Return `difference_on` these prompts, after checking that it is rounding.

        A model whose norms see a large constant rounds by more than the tolerance in float32. There the steps must
        round as the raw model does, and agree with it in float64.

        Raises `RuntimeError` where the steps do not give the raw model's logits, as with a hook or an option of the
        configuration that they do not know.
        """
        tokens = tokens.to(self.device)
        difference = self.difference_on(tokens)
        rounds = difference > TOLERANCE and self.dtype == torch.float32 and is_rounding(self.raw, self.forward, tokens)
        if rounds and self.rebuild is not None:
            difference = self.rebuild(in_double(self.raw)).difference_on(tokens)
        if not difference <= tolerance_of(self.dtype):
            raise RuntimeError(
                f"{type(self.raw).__name__} taken apart differs from the raw model by {difference:.1e} of its "
                "logits' spread; this configuration is not supported"
            )
        return difference

    def _random_tokens(self) -> Int[Tensor, "2 pos"]:
        return random_tokens(self.raw, [b.window for b in self.blocks if b.window is not None], self.longest)


def rope_type(raw: Any) -> str:
    """Return the type of a model's rotary encoding, as its configuration names it; the first that is not static."""
    parameters = getattr(raw.config, "rope_parameters", None) or {}
    nested = [p for p in parameters.values() if isinstance(p, dict)] or [parameters]
    types = [p.get("rope_type") or "default" for p in nested]
    return next((t for t in types if t in ("dynamic", "longrope")), types[0])


def _is_plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether logits of some tokens are a product with their rows of the weights. What a hook or another module
    returns is known for the whole vocabulary only; accelerate's hooks load weights as the module is called."""
    hooked = bool(head._forward_hooks or head._forward_pre_hooks) or hasattr(head, "_hf_hook")
    return type(head) is nn.Linear and not hooked
