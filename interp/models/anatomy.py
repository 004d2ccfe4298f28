"""What does each block compute, step by step and at some positions only?

A raw Hugging Face model, taken apart into the steps between TransformerLens's sites, on the model's own
modules and weights. The patching engine runs these steps on few positions and many patches at once; a
self-test holds them to the raw model's logits before they are used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.support.finite import difference_of_finite

SUPPORTED = ("bloom", "bloom_key_sink", "gpt_neox", "gpt2", "llama", "native")
# Largest difference of the self-test from the raw logits, relative to their spread.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Block:
    """The modules of one block. `out` is the attention's output projection, `mlp_last` the MLP's.

    `split` turns the output of `qkv` (one fused projection, or three) into q, k and v, each
    `[... pos head d_head]`. `parallel` blocks feed the MLP from resid_pre and have no resid_mid. Without `has_mlp`
    there is no MLP in the model, and here one that adds zero. `sink_key` is one more key in each head, whose value is
    zero (see `interp.models.sink`).
    """

    module: nn.Module
    ln1: nn.Module
    ln2: nn.Module
    qkv: tuple[nn.Module, ...]
    split: Callable[..., tuple[Tensor, Tensor, Tensor]]
    out: nn.Module
    mlp_body: Callable[[Tensor], Tensor]
    mlp_last: nn.Module
    parallel: bool
    has_mlp: bool = True
    sink_key: Float[Tensor, "head d_head"] | None = None

    def project(self, resid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v (before any rotation), each `[... pos head d_head]`, from resid_pre `[... pos d_model]`."""
        normed = self.ln1(resid)
        return self.split(*(projection(normed) for projection in self.qkv))

    def attn_out(self, z: Tensor) -> Tensor:
        """The attention's output `[... pos d_model]` from z `[... pos head d_head]`."""
        return self.out(z.flatten(-2).contiguous())  # Conv1D of GPT-2 takes views

    def mlp_out(self, resid: Tensor) -> Tensor:
        """The MLP's output from the residual that feeds it: resid_mid, or resid_pre in parallel blocks."""
        return self.mlp_last(self.mlp_body(self.ln2(resid)))


@dataclass(frozen=True)
class Anatomy:
    """A model as steps. `softmax_dtype` is the type that this architecture computes patterns in."""

    raw: PreTrainedModel
    blocks: tuple[Block, ...]
    n_heads: int
    n_kv_heads: int
    d_head: int
    scale: float
    slopes: Float[Tensor, " head"] | None
    rotation: Callable[[Int[Tensor, " pos"]], tuple[Tensor, Tensor]] | None
    softmax_dtype: torch.dtype | None
    final_norm: nn.Module
    start: Callable[[Tensor], Tensor]
    causal: bool = True

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.raw.device

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.raw.config.hidden_size

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.raw.dtype

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """resid_pre of layer 0."""
        return self.start(tokens)

    def rotate(self, x: Tensor, positions: Int[Tensor, " pos"]) -> Tensor:
        """q or k `[... pos head d_head]` as attention uses it; the same where the encoding is not rotary."""
        if self.rotation is None:
            return x
        cos, sin = (t.unsqueeze(1) for t in self.rotation(positions))  # [pos 1 rotary]
        n = cos.shape[-1]
        turned, rest = x[..., :n], x[..., n:]
        half = n // 2
        swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        return torch.cat([turned * cos + swapped * sin, rest], dim=-1)

    def bias(self, dest: Int[Tensor, " dest"], src: Int[Tensor, " src"]) -> Float[Tensor, "head dest src"]:
        """What is added to the scores: the causal mask, if any, and, for ALiBi, the slopes times the key's position."""
        mask = torch.zeros(len(dest), len(src), dtype=self.dtype, device=self.device)
        if self.causal:
            mask = mask.masked_fill(src.unsqueeze(0) > dest.unsqueeze(1), torch.finfo(self.dtype).min)
        if self.slopes is None:
            return mask.unsqueeze(0)
        return mask + (self.slopes.unsqueeze(1) * src).to(self.dtype).unsqueeze(1)

    def sink(
        self,
        block: Block,
        q: Float[Tensor, "... dest head d_head"],
        dest: Int[Tensor, "... dest"],
        heads: slice = slice(None),
    ) -> Float[Tensor, "... head dest 1"] | None:
        """The logit of a block's key sink, from q after rotation (of `heads` alone); None where there is no sink."""
        if block.sink_key is None:
            return None
        assert self.slopes is not None, "key sinks are BLOOM's here"
        logit = torch.einsum("...dhe,he->...dh", q, block.sink_key[heads]) * self.scale
        return (logit + (self.slopes[heads] * dest.unsqueeze(-1)).to(self.dtype)).mT.unsqueeze(-1)

    def softmax(self, scores: Tensor, sink: Tensor | None) -> Tensor:
        """The pattern, in the type in which the architecture computes it. What goes to the sink is left out."""
        n_src = scores.shape[-1]
        scores = scores if sink is None else torch.cat([scores, sink], dim=-1)
        return torch.softmax(scores, dim=-1, dtype=self.softmax_dtype)[..., :n_src].to(self.dtype)

    def expand_heads(self, x: Tensor) -> Tensor:
        """k or v with each key-value head repeated for the query heads that share it, `[... head d_head]`."""
        return x if self.n_kv_heads == self.n_heads else x.repeat_interleave(self.n_heads // self.n_kv_heads, dim=-2)

    def pattern(
        self,
        block: Block,
        q: Float[Tensor, "... dest head d_head"],
        k: Float[Tensor, "... src kv_head d_head"],
        dest: Int[Tensor, " dest"],
        src: Int[Tensor, " src"],
    ) -> Float[Tensor, "... head dest src"]:
        """Attention from q and k before rotation."""
        q, k = self.rotate(q, dest), self.expand_heads(self.rotate(k, src))
        scores = torch.einsum("...dhe,...she->...hds", q, k) * self.scale
        return self.softmax(scores + self.bias(dest, src), self.sink(block, q, dest))

    def mix(self, pattern: Float[Tensor, "... head dest src"], v: Tensor) -> Float[Tensor, "... dest head d_head"]:
        """z from a pattern and v `[... src kv_head d_head]`."""
        return torch.einsum("...hds,...she->...dhe", pattern, self.expand_heads(v))

    @torch.no_grad()
    def output_weights(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """W_O of each head: what its z adds to the residual."""
        width = self.n_heads * self.d_head
        basis = torch.eye(width, dtype=self.dtype, device=self.device)
        out = self.blocks[layer].out
        return (out(basis) - out(torch.zeros_like(basis[:1]))).unflatten(0, (self.n_heads, self.d_head))

    @torch.no_grad()
    def input_weights(self, layer: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """(weight, bias) of q, of k and of v: `[d_model head d_head]` and `[head d_head]`, as `project` applies them
        to the normed residual. k and v have key-value heads."""
        block = self.blocks[layer]
        basis = torch.eye(self.d_model, dtype=self.dtype, device=self.device)
        whole = block.split(*(projection(basis) for projection in block.qkv))
        bias = block.split(*(projection(torch.zeros_like(basis[:1])) for projection in block.qkv))
        return tuple((w - b, b[0]) for w, b in zip(whole, bias, strict=True))

    def unembed(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        """Logits from the last resid_post."""
        head = self.raw.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head(self.final_norm(resid))

    @torch.no_grad()
    def self_test(self) -> None:
        """Raises `RuntimeError` unless the steps give the raw model's logits.

        A model whose LayerNorms see a large constant rounds by more than the tolerance in float32: there the steps
        must be right in float64.
        """
        difference = self.difference()
        if difference > TOLERANCE and self.dtype == torch.float32:
            difference = anatomy_of(copy.deepcopy(self.raw).double()).difference()
        # Half precision rounds differently in a different order of operations.
        if not difference <= (TOLERANCE if self.dtype in (torch.float32, torch.float64) else 0.1):
            raise RuntimeError(
                f"{type(self.raw).__name__} taken apart differs from the raw model by {difference:.1e} of its "
                "logits' spread; this configuration is not supported"
            )

    @torch.no_grad()
    def difference(self) -> float:
        """Largest difference of the steps from the raw model's logits on random tokens, in their spread."""
        gen = torch.Generator().manual_seed(0)
        n_pos = min(7, getattr(self.raw.config, "max_position_embeddings", 7))
        tokens = torch.randint(self.raw.config.vocab_size, (2, n_pos), generator=gen).to(self.device)
        resid, positions = self.embed(tokens), torch.arange(n_pos, device=self.device)
        for block in self.blocks:
            q, k, v = block.project(resid)
            mid = resid + block.attn_out(self.mix(self.pattern(block, q, k, positions, positions), v))
            resid = mid + block.mlp_out(resid if block.parallel else mid)
        expected = self.raw(tokens, use_cache=False).logits
        return difference_of_finite(self.unembed(resid), expected)


def anatomy_of(raw: PreTrainedModel) -> Anatomy:
    """Takes a raw model apart, and proves that the parts make the whole.

    Raises `ValueError` for an architecture that is not among `SUPPORTED`, or for a model in training mode.
    """
    if raw.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    match raw.config.model_type:
        case "bloom" | "bloom_key_sink":
            found = _bloom(raw)
        case "gpt_neox":
            found = _gpt_neox(raw)
        case "gpt2":
            found = _gpt2(raw)
        case "llama":
            found = _llama(raw)
        case "native":
            found = _native(raw)
        case other:
            raise ValueError(f"patching knows the architectures {', '.join(SUPPORTED)}; this model is {other!r}")
    found.self_test()
    return found


def _interleaved(n_heads: int, d_head: int) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The fused layout of BLOOM and GPT-NeoX: for each head its q, k and v in turn."""

    def split(fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = fused.unflatten(-1, (n_heads, 3, d_head)).unbind(-2)
        return q, k, v

    return split


def _bloom(raw: Any) -> Anatomy:
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    config, body = raw.config, raw.transformer
    if config.apply_residual_connection_post_layernorm:
        raise ValueError("BLOOM with apply_residual_connection_post_layernorm is not supported")
    d_head = config.hidden_size // config.n_head
    act = _tanh_gelu(raw, body.h[0].mlp.gelu_impl)
    blocks = tuple(
        Block(
            b,
            b.input_layernorm,
            b.post_attention_layernorm,
            (b.self_attention.query_key_value,),
            _interleaved(config.n_head, d_head),
            b.self_attention.dense,
            lambda x, mlp=b.mlp: act(mlp.dense_h_to_4h(x)),
            b.mlp.dense_4h_to_h,
            False,
            sink_key=getattr(b.self_attention, "sink_key", None),
        )
        for b in body.h
    )
    return Anatomy(
        raw,
        blocks,
        config.n_head,
        config.n_head,
        d_head,
        d_head**-0.5,
        _get_alibi_slopes(config.n_head, raw.device),
        None,
        torch.float32,
        body.ln_f,
        lambda tokens: body.word_embeddings_layernorm(body.word_embeddings(tokens)),
    )


def _gpt_neox(raw: Any) -> Anatomy:
    config, body = raw.config, raw.gpt_neox
    d_head = config.hidden_size // config.num_attention_heads
    blocks = tuple(
        Block(
            b,
            b.input_layernorm,
            b.post_attention_layernorm,
            (b.attention.query_key_value,),
            _interleaved(config.num_attention_heads, d_head),
            b.attention.dense,
            lambda x, mlp=b.mlp: mlp.act(mlp.dense_h_to_4h(x)),
            b.mlp.dense_4h_to_h,
            config.use_parallel_residual,
        )
        for b in body.layers
    )
    return Anatomy(
        raw,
        blocks,
        config.num_attention_heads,
        config.num_attention_heads,
        d_head,
        d_head**-0.5,
        None,
        _rotation(raw, body.rotary_emb),
        torch.float32,
        body.final_layer_norm,
        body.embed_in,
    )


def _gpt2(raw: Any) -> Anatomy:
    config, body = raw.config, raw.transformer
    if config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn or config.add_cross_attention:
        raise ValueError("GPT-2 with scaling by layer, upcast attention or cross-attention is not supported")
    n_heads = config.n_head
    d_head = config.n_embd // n_heads

    def split(fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = fused.unflatten(-1, (3, n_heads, d_head)).unbind(-3)
        return q, k, v

    own = body.h[0].mlp.act
    act = _tanh_gelu(raw, own) if config.activation_function in ("gelu_new", "gelu_pytorch_tanh") else own
    blocks = tuple(
        Block(
            b,
            b.ln_1,
            b.ln_2,
            (b.attn.c_attn,),
            split,
            b.attn.c_proj,
            lambda x, mlp=b.mlp: act(mlp.c_fc(x)),
            b.mlp.c_proj,
            False,
        )
        for b in body.h
    )

    def start(tokens: Tensor) -> Tensor:
        return body.wte(tokens) + body.wpe(torch.arange(tokens.shape[1], device=tokens.device))

    scale = d_head**-0.5 if config.scale_attn_weights else 1.0
    return Anatomy(raw, blocks, n_heads, n_heads, d_head, scale, None, None, None, body.ln_f, start)


def _llama(raw: Any) -> Anatomy:
    config, body = raw.config, raw.model
    n_heads, n_kv, d_head = config.num_attention_heads, config.num_key_value_heads, config.head_dim

    def split(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q.unflatten(-1, (n_heads, d_head)), k.unflatten(-1, (n_kv, d_head)), v.unflatten(-1, (n_kv, d_head))

    blocks = tuple(
        Block(
            b,
            b.input_layernorm,
            b.post_attention_layernorm,
            (b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj),
            split,
            b.self_attn.o_proj,
            lambda x, mlp=b.mlp: mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x),
            b.mlp.down_proj,
            False,
        )
        for b in body.layers
    )
    return Anatomy(
        raw,
        blocks,
        n_heads,
        n_kv,
        d_head,
        d_head**-0.5,
        None,
        _rotation(raw, body.rotary_emb),
        torch.float32,
        body.norm,
        body.embed_tokens,
    )


def _native(raw: Any) -> Anatomy:
    body, config = raw.body, raw.config
    n_heads, n_kv, d_head = config.num_attention_heads, config.num_key_value_heads, body.cfg.d_head

    def split(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q.unflatten(-1, (n_heads, d_head)), k.unflatten(-1, (n_kv, d_head)), v.unflatten(-1, (n_kv, d_head))

    def block(b: Any) -> Block:
        qkv = b.attn.q, b.attn.k, b.attn.v
        if body.cfg.attn_only:
            none = nn.Linear(1, raw.config.hidden_size, bias=False, device="meta")
            none.weight = nn.Parameter(torch.zeros(none.weight.shape, dtype=raw.dtype, device=raw.device))
            return Block(b, b.ln1, nn.Identity(), qkv, split, b.attn.o, lambda x: x[..., :1], none, False, False)
        mlp = b.mlp
        return Block(b, b.ln1, b.ln2, qkv, split, b.attn.o, lambda x: mlp.act(mlp.fc_in(x)), mlp.fc_out, False)

    def start(tokens: Tensor) -> Tensor:
        return body.tok_embed(tokens) + body.pos(torch.arange(tokens.shape[1], device=tokens.device))

    attention = body.layers[0].attn
    return Anatomy(
        raw,
        tuple(map(block, body.layers)),
        n_heads,
        n_kv,
        d_head,
        1 / attention.scale,
        None,
        None,
        None,
        body.ln_out,
        start,
        attention.causal,
    )


def _tanh_gelu(raw: PreTrainedModel, own: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The tanh form of GELU in one pass over memory; Hugging Face's takes eight and a third of an MLP's time.

    BLOOM's constant has eight digits, so in float64 the model's own function is kept.
    """
    return own if raw.dtype == torch.float64 else partial(F.gelu, approximate="tanh")


def _rotation(raw: PreTrainedModel, rotary: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
        like = torch.empty(0, dtype=raw.dtype, device=raw.device)
        cos, sin = rotary(like, positions.unsqueeze(0))
        return cos[0], sin[0]

    return rotation
