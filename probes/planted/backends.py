"""Write the matrices of a mechanism into the weights of a Hugging Face model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from probes.planted.basis import FeatureBasis
from probes.planted.codes import ROTARY_BASE, ROTARY_SIZE
from probes.planted.compiling import HEAD_SIZE, HeadMatrices, LayerMatrices

ARCHITECTURES = ("gpt2", "gpt_neox")


def empty_model(
    architecture: str, layers: tuple[LayerMatrices, ...], d_model: int, vocab_size: int, n_positions: int
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
                    n_head=d_model // HEAD_SIZE,
                    n_inner=n_units,
                    n_positions=n_positions,
                    activation_function="relu",
                    resid_pdrop=0.0,
                    embd_pdrop=0.0,
                    attn_pdrop=0.0,
                    **common,
                )
            )
        else:
            rotary = {"rotary_pct": ROTARY_SIZE / HEAD_SIZE, "rotary_emb_base": ROTARY_BASE}
            model = GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    hidden_size=d_model,
                    num_hidden_layers=len(layers),
                    num_attention_heads=d_model // HEAD_SIZE,
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


def norms_of(model: PreTrainedModel) -> list[nn.LayerNorm]:
    """Return the LayerNorms in the order in which the residual stream passes them."""
    raw: Any = model
    if raw.config.model_type == "gpt2":
        return [norm for b in raw.transformer.h for norm in (b.ln_1, b.ln_2)] + [raw.transformer.ln_f]
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
    """Fill the weights of an empty model. The heads of a layer are in random order."""
    raw: Any = model
    gpt2 = raw.config.model_type == "gpt2"
    d_model, read, write = basis.write.shape[1], basis.read, basis.write
    n_heads = d_model // HEAD_SIZE
    empty = HeadMatrices(*(torch.zeros(HEAD_SIZE, basis.size, dtype=torch.float64) for _ in range(4)))
    blocks = raw.transformer.h if gpt2 else raw.gpt_neox.layers
    for layer, block in zip(layers, blocks, strict=True):
        heads = [*layer.heads, *[empty] * (n_heads - len(layer.heads))]
        heads = [heads[i] for i in torch.randperm(n_heads, generator=gen).tolist()]
        q, k, v = (torch.stack([getattr(head, name) for head in heads]) @ read.T for name in ("q", "k", "v"))
        out = torch.cat([head.o for head in heads]) @ write  # [head*d_head d_model]
        units_in, units_out = layer.reads @ read.T, layer.writes @ write
        n_units = len(units_in)
        if gpt2:
            block.attn.c_attn.weight.copy_(torch.cat([x.flatten(0, 1) for x in (q, k, v)]).T)
            block.attn.c_proj.weight.copy_(out)
            block.mlp.c_fc.weight[:, :n_units] = units_in.T.float()
            block.mlp.c_proj.weight[:n_units] = units_out.float()
        else:
            block.attention.query_key_value.weight.copy_(torch.stack([q, k, v], dim=1).flatten(0, 2))
            block.attention.dense.weight.copy_(out.T)
            block.mlp.dense_h_to_4h.weight[:n_units] = units_in.float()
            block.mlp.dense_4h_to_h.weight[:, :n_units] = units_out.T.float()
    if gpt2:
        assert positions is not None
        raw.transformer.wte.weight.copy_(embedding @ write)
        raw.transformer.wpe.weight.copy_(positions @ write)
    else:
        raw.gpt_neox.embed_in.weight.copy_(embedding @ write)
    model.get_output_embeddings().weight.copy_(unembedding @ read.T)  # pyright: ignore[reportOptionalMemberAccess]
    for norm in norms_of(model):
        norm.weight.fill_(float(write[-1].norm()) / math.sqrt(d_model))
