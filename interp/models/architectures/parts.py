"""What the builders of several architectures share: head layouts, rotations, windows and MLPs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.models.architectures.checks import dtype_of
from interp.models.architectures.steps import rope_type

Split = Callable[..., tuple[Tensor, Tensor, Tensor]]
Rotation = Callable[[Tensor, Int[Tensor, " pos"]], Tensor]
# Numbers of a piece of a tensor that fits the cache of a CPU core together with a result.
PIECE = 2**17
# 2 c of the tanh form of GELU (`_tanh_gelu`) in float32, and .044715 times that.
LINEAR = torch.tensor(2 * math.sqrt(2 / math.pi), dtype=torch.float32, device="cpu")
CUBIC = 0.044715 * float(LINEAR)


def require(raw: Any, **options: Any) -> None:
    """Raise `ValueError` naming the first option of the configuration that has another value than this one."""
    for name, wanted in options.items():
        if (value := getattr(raw.config, name, wanted)) != wanted:
            raise ValueError(f"{raw.config.model_type} with {name}={value!r} is not supported")


def separate(n_heads: int, n_kv_heads: int, d_head: int) -> Split:
    """Return the split of three projections."""

    def split(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = n_heads, n_kv_heads, n_kv_heads
        q, k, v = (x.unflatten(-1, (n, d_head)) for x, n in zip((q, k, v), heads, strict=True))
        return q, k, v

    return split


def interleaved(n_heads: int, d_head: int) -> Split:
    """Return the split of a fused projection that holds q, k and v of each head in turn (BLOOM, GPT-NeoX)."""

    def split(fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = fused.unflatten(-1, (n_heads, 3, d_head)).unbind(-2)
        return q, k, v

    return split


def grouped(n_heads: int, n_kv_heads: int, d_head: int) -> Split:
    """Return the split of a fused projection that holds, for each key-value head, its queries, then k and v
    (Falcon's new layout; with one key-value head, its multi-query layout)."""
    sharing = n_heads // n_kv_heads

    def split(fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        groups = fused.unflatten(-1, (n_kv_heads, sharing + 2, d_head))
        return groups[..., :-2, :].flatten(-3, -2), groups[..., -2, :], groups[..., -1, :]

    return split


def stacked(n_heads: int, n_kv_heads: int, d_head: int) -> Split:
    """Return the split of a fused projection that holds all of q, then k, then v (GPT-2, Phi-3, MPT)."""
    sizes = [n * d_head for n in (n_heads, n_kv_heads, n_kv_heads)]

    def split(fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (x.unflatten(-1, (-1, d_head)) for x in fused.split(sizes, dim=-1))
        return q, k, v

    return split


def rotary(raw: PreTrainedModel, module: nn.Module, layer: nn.Module, layer_type: str | None = None) -> Rotation:
    """Return the rotation by a model's own rotary `module` and its own `apply_rotary_pos_emb`.

    `layer` is any module of the same file as that function. Dimensions past those that rotate are kept.
    """
    apply = sys.modules[type(layer).__module__].apply_rotary_pos_emb
    arguments = () if layer_type is None else (layer_type,)

    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        like = torch.empty(0, dtype=raw.dtype, device=raw.device)
        cos, sin = (t[0] for t in module(like, positions.unsqueeze(0), *arguments))  # [pos rotary]
        n = cos.shape[-1]
        n = 2 * n if raw.config.model_type == "gpt_oss" else n  # its tables hold each angle once
        turned, _ = apply(x[..., :n], x[..., :0, :n], cos, sin, unsqueeze_dim=1)
        return turned if n == x.shape[-1] else torch.cat([turned, x[..., n:]], dim=-1)

    return rotate


def rotate_pairs(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Return x `[... pos head d_head]` with neighbouring dimensions rotated by `[pos rotary/2]` angles (GPT-J)."""
    n = 2 * sin.shape[-1]
    sin, cos = (t.unsqueeze(1).repeat_interleave(2, dim=-1) for t in (sin, cos))
    part = x[..., :n]
    swapped = torch.stack([-part[..., 1::2], part[..., ::2]], dim=-1).flatten(-2)
    turned = part * cos + swapped * sin
    return turned if n == x.shape[-1] else torch.cat([turned, x[..., n:]], dim=-1)


def longest(raw: Any) -> int | None:
    """Return the most positions for which the rotary encoding is that of every shorter prompt; None for no limit.

    Encodings of the types "dynamic" and "longrope" change for all positions when a prompt grows past this length.
    """
    match rope_type(raw):
        case "dynamic":
            return raw.config.max_position_embeddings - 1  # at exactly this length it keeps what a longer prompt left
        case "longrope":
            return raw.config.rope_parameters["original_max_position_embeddings"]
    return None


def window_by_type(config: Any, layer: int) -> int | None:
    """Return the sliding window of a layer, by the configuration's `layer_types`."""
    types = getattr(config, "layer_types", None)
    if types is None or types[layer] == "full_attention":
        return None
    if types[layer] != "sliding_attention":
        raise ValueError(f"{config.model_type} with layer type {types[layer]!r} is not supported")
    return config.sliding_window


def window_of_all(config: Any, _: int) -> int | None:
    """Return the sliding window that all layers share."""
    return getattr(config, "sliding_window", None)


def mlp_parts(mlp: Any) -> dict[str, Any]:
    """Return the arguments of `Block` for an MLP: its projections, or the module where it has experts."""
    names = dict(mlp.named_children())
    if {"gate_proj", "up_proj", "down_proj"} <= names.keys() and "experts" not in names:
        return gated_mlp(mlp.gate_proj, mlp.act_fn, mlp.up_proj, mlp.down_proj)
    if {"gate_up_proj", "down_proj"} <= names.keys():
        return gated_mlp(mlp.gate_up_proj, mlp.activation_fn, None, mlp.down_proj)
    if {"up_proj", "down_proj", "act_fn"} <= names.keys():
        return plain_mlp(mlp.up_proj, mlp.act_fn, mlp.down_proj)
    if {"fc1", "fc2"} <= names.keys():
        return plain_mlp(mlp.fc1, mlp.activation_fn, mlp.fc2)
    if {"c_fc", "c_proj"} <= names.keys():
        return plain_mlp(mlp.c_fc, mlp.act, mlp.c_proj)
    return {"mlp_body": partial(call_by_rows, mlp), "mlp_module": mlp}


def plain_mlp(first: nn.Module, act: Callable[[Tensor], Tensor], last: nn.Module) -> dict[str, Any]:
    """Return the arguments of `Block` for an MLP of two projections with a non-linearity between them."""
    return {
        "mlp_body": lambda x: act(first(x)),
        "mlp_last": last,
        "mlp_first": first,
        "mlp_act": lambda pre, normed: act(pre),
    }


def gated_mlp(
    gate: nn.Module, act: Callable[[Tensor], Tensor], up: nn.Module | None, last: nn.Module
) -> dict[str, Any]:
    """Return the arguments of `Block` for an MLP whose gate, after the non-linearity, multiplies another projection.

    Without `up`, `gate` gives the gate and what it multiplies, one after the other.
    """

    def body(x: Tensor) -> Tensor:
        if up is not None:
            return act(gate(x)) * up(x)
        own, other = gate(x).chunk(2, dim=-1)
        return other * act(own)

    def post(pre: Tensor, normed: Tensor) -> Tensor:
        other = gate(normed).chunk(2, dim=-1)[1] if up is None else up(normed)
        return act(pre) * other

    return {"mlp_body": body, "mlp_last": last, "mlp_first": gate, "mlp_act": post, "fused_gate": up is None}


def call_by_rows(module: nn.Module, x: Tensor) -> Tensor:
    """Return the (first) output of a module that takes `[batch pos d_model]` only, for x with any leading axes."""
    out = module(x.reshape(1, -1, x.shape[-1]))
    return (out[0] if isinstance(out, tuple) else out).reshape(x.shape)


def tanh_gelu(raw: PreTrainedModel, own: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the tanh form of GELU in few kernels; Hugging Face's takes eight, and a third of an MLP's time.

    BLOOM's constant has eight digits, so in float64 the model's own function is kept.
    """
    return own if dtype_of(raw) == torch.float64 else _tanh_gelu


def _tanh_gelu(x: Tensor) -> Tensor:
    """Return x sigmoid(2 c (x + .044715 x^3)), the tanh form of GELU with c = sqrt(2 / pi).

    torch's kernel takes the time of a matrix product on a CPU. Without gradients simple kernels on pieces that fit the
    cache take .6 of it, and differ from it by 1e-7.
    """
    if torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() < PIECE // 4:
        return F.gelu(x, approximate="tanh")
    out = torch.empty(x.shape)
    pieces = (
        [(x, out)] if x.numel() <= PIECE else zip(x.reshape(-1).split(PIECE), out.view(-1).split(PIECE), strict=True)
    )
    for part, y in pieces:
        torch.add(LINEAR, torch.mul(part, part, out=y), alpha=CUBIC, out=y)
        y.mul_(part).sigmoid_().mul_(part)
    return out


def shared_norm(norm: nn.Module) -> Callable[[Tensor, slice], Tensor]:
    """Return a norm whose weights are the same for all heads."""
    return lambda x, _: norm(x)
