"""Write the matrices of a mechanism into the weights of a Hugging Face model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from probes.planted.basis import FeatureBasis
from probes.planted.codes import LLAMA_THETA, ROTARY_BASE, ROTARY_SIZE
from probes.planted.compiling import HeadMatrices, LayerMatrices

ARCHITECTURES = ("gpt2", "gpt_neox", "llama")
# Query heads that share keys and values in Llama.
GROUP = 2


def empty_model(
    architecture: str,
    layers: tuple[LayerMatrices, ...],
    d_model: int,
    head_size: int,
    vocab_size: int,
    n_positions: int,
) -> PreTrainedModel:
    """Return a model of the architecture with all weights 0, in evaluation mode."""
    n_units = max(8, *(len(layer.reads) for layer in layers))
    common = {
        "vocab_size": vocab_size,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attn_implementation": "eager",
        "tie_word_embeddings": False,
        "use_cache": True,
    }
    with torch.random.fork_rng(devices=[]):
        if architecture == "gpt2":
            model: PreTrainedModel = GPT2LMHeadModel(
                GPT2Config(
                    n_embd=d_model,
                    n_layer=len(layers),
                    n_head=d_model // head_size,
                    n_inner=n_units,
                    n_positions=n_positions,
                    activation_function="relu",
                    resid_pdrop=0.0,
                    embd_pdrop=0.0,
                    attn_pdrop=0.0,
                    **common,
                )
            )
        elif architecture == "llama":
            groups = max(len(layer.heads) for layer in layers)
            model = LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=d_model,
                    num_hidden_layers=len(layers),
                    num_attention_heads=GROUP * groups,
                    num_key_value_heads=groups,
                    head_dim=head_size,
                    intermediate_size=n_units,
                    hidden_act="relu",
                    max_position_embeddings=n_positions,
                    rope_parameters={"rope_type": "default", "rope_theta": LLAMA_THETA},
                    **common,
                )
            )
        else:
            rotary = {"rotary_pct": ROTARY_SIZE / head_size, "rotary_emb_base": ROTARY_BASE}
            model = GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    hidden_size=d_model,
                    num_hidden_layers=len(layers),
                    num_attention_heads=d_model // head_size,
                    intermediate_size=n_units,
                    hidden_act="relu",
                    max_position_embeddings=n_positions,
                    use_parallel_residual=False,
                    **rotary,
                    **common,
                )
            )
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    return model.eval()


def norms_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the norms in the order in which the residual stream passes them."""
    raw: Any = model
    if raw.config.model_type == "gpt2":
        return [norm for b in raw.transformer.h for norm in (b.ln_1, b.ln_2)] + [raw.transformer.ln_f]
    if raw.config.model_type == "llama":
        inner = [norm for b in raw.model.layers for norm in (b.input_layernorm, b.post_attention_layernorm)]
        return [*inner, raw.model.norm]
    body = raw.gpt_neox
    inner = [norm for b in body.layers for norm in (b.input_layernorm, b.post_attention_layernorm)]
    return [*inner, body.final_layer_norm]


@torch.no_grad()
def write_weights(
    model: PreTrainedModel,
    layers: tuple[LayerMatrices, ...],
    basis: FeatureBasis,
    gen: torch.Generator,
    embedding: Tensor,
    positions: Tensor | None,
    unembedding: Tensor,
) -> None:
    """Fill the weights of an empty model. The heads of a layer are in random order.

    Llama's MLP is gated: the gate is the unit and the other factor is the constant. Each head of the mechanism is a
    group of `GROUP` query heads with the same query and shared keys and values, each of which writes its part.
    """
    raw: Any = model
    kind = raw.config.model_type
    d_model, read, write = basis.write.shape[1], basis.read, basis.write
    n_heads = raw.config.num_key_value_heads if kind == "llama" else raw.config.num_attention_heads
    head_size = raw.config.head_dim if kind == "llama" else d_model // n_heads
    empty = HeadMatrices(*(torch.zeros(head_size, basis.size, dtype=torch.float64) for _ in range(4)))
    body = {"gpt2": "transformer", "llama": "model", "gpt_neox": "gpt_neox"}[kind]
    blocks = getattr(raw, body).h if kind == "gpt2" else getattr(raw, body).layers
    for layer, block in zip(layers, blocks, strict=True):
        heads = [*layer.heads, *[empty] * (n_heads - len(layer.heads))]
        heads = [heads[i] for i in torch.randperm(n_heads, generator=gen).tolist()]
        q, k, v = (torch.stack([getattr(head, name) for head in heads]) @ read.T for name in ("q", "k", "v"))
        out = torch.cat([head.o for head in heads]) @ write  # [head*d_head d_model]
        units_in, units_out = layer.reads @ read.T, layer.writes @ write
        n_units = len(units_in)
        if kind == "gpt2":
            block.attn.c_attn.weight.copy_(torch.cat([x.flatten(0, 1) for x in (q, k, v)]).T)
            block.attn.c_proj.weight.copy_(out)
            block.mlp.c_fc.weight[:, :n_units] = units_in.T.float()
            block.mlp.c_proj.weight[:n_units] = units_out.float()
        elif kind == "llama":
            parts = torch.cat([head.o for head in heads for _ in range(GROUP)]) @ write / GROUP
            block.self_attn.q_proj.weight.copy_(q.repeat_interleave(GROUP, dim=0).flatten(0, 1))
            block.self_attn.k_proj.weight.copy_(k.flatten(0, 1))
            block.self_attn.v_proj.weight.copy_(v.flatten(0, 1))
            block.self_attn.o_proj.weight.copy_(parts.T)
            block.mlp.gate_proj.weight[:n_units] = units_in.float()
            block.mlp.up_proj.weight[:n_units] = read[:, -1].float()
            block.mlp.down_proj.weight[:, :n_units] = units_out.T.float()
        else:
            block.attention.query_key_value.weight.copy_(torch.stack([q, k, v], dim=1).flatten(0, 2))
            block.attention.dense.weight.copy_(out.T)
            block.mlp.dense_h_to_4h.weight[:n_units] = units_in.float()
            block.mlp.dense_4h_to_h.weight[:, :n_units] = units_out.T.float()
    if kind == "gpt2":
        assert positions is not None
        raw.transformer.wte.weight.copy_(embedding @ write)
        raw.transformer.wpe.weight.copy_(positions @ write)
    elif kind == "llama":
        raw.model.embed_tokens.weight.copy_(embedding @ write)
    else:
        raw.gpt_neox.embed_in.weight.copy_(embedding @ write)
    model.get_output_embeddings().weight.copy_(unembedding @ read.T)  # pyright: ignore[reportOptionalMemberAccess]
    for norm in norms_of(model):
        norm.get_parameter("weight").fill_(float(write[-1].norm()) / math.sqrt(d_model))
