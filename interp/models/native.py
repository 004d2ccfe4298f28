"""Raw models for TransformerLens's native models, which are not Hugging Face models.

`TransformerBridge.boot_native(cfg)` builds small models of any shape: without norms, without MLPs, bidirectional,
with another vocabulary at the output. Hand-written and compiled (tracr) transformers are loaded into them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

SUPPORTED = "learned positions, plain MLPs (not gated, not solu_ln) or none, and no soft caps"


@dataclass(frozen=True)
class NativeConfig:
    """The fields of a Hugging Face configuration that this package reads. `vocab_size` is that of the input."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    model_type: str = "native"


class NativeRaw(nn.Module):
    """A native model without the bridge's hooks, on the same weights. `body` is TransformerLens's module.

    Always in evaluation mode: these models have no dropout.
    """

    def __init__(self, body: nn.Module, cfg: Any) -> None:
        super().__init__()
        self.body = body
        heads = cfg.n_key_value_heads or cfg.n_heads
        self.config = NativeConfig(cfg.d_model, cfg.n_layers, cfg.n_heads, heads, cfg.d_vocab, cfg.n_ctx)
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.body.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the weights."""
        return next(self.body.parameters()).dtype

    def get_output_embeddings(self) -> nn.Module:
        """Return the unembedding."""
        head = self.body.head
        assert isinstance(head, nn.Module)
        return head

    def forward(self, input_ids: Tensor, use_cache: bool = False, logits_to_keep: int | Tensor = 0) -> CausalLMOutput:
        """Return logits `[batch pos d_vocab_out]`; with `logits_to_keep`, of the last or the listed positions only.

        Raises `ValueError` for `use_cache=True`, because native models have no cache.
        """
        if use_cache:
            raise ValueError("native models have no cache; leave use_cache out")
        logits = self.body(input_ids)
        if isinstance(logits_to_keep, int):
            logits = logits[:, -logits_to_keep:] if logits_to_keep else logits
        else:
            logits = logits[:, logits_to_keep]
        return CausalLMOutput(logits=logits)


def native_of(bridge: Any) -> NativeRaw | None:
    """Return the raw model that shares a native bridge's weights; None for a bridge around another model.

    Raises `ValueError` for a configuration that is not supported.
    """
    from transformer_lens.model_bridge.sources.native import NativeModel

    wrapped = getattr(bridge, "original_model", None)
    if not isinstance(wrapped, NativeModel):
        return None
    cfg = copy.deepcopy(wrapped.cfg)
    act = (cfg.act_fn or "").lower()
    if wrapped.pos is None or cfg.gated_mlp or act == "solu_ln" or _capped(cfg):
        raise ValueError(
            f"native models are supported with {SUPPORTED}; this one has positions "
            f"{cfg.positional_embedding_type!r}, gated_mlp={cfg.gated_mlp}, act_fn={cfg.act_fn!r}, soft caps "
            f"{cfg.attn_scores_soft_cap} and {cfg.output_logits_soft_cap}"
        )
    with torch.random.fork_rng(devices=[]):  # its initial weights are replaced below
        body = NativeModel(cfg)
    weights = {name.replace("._original_component", ""): p for name, p in wrapped.named_parameters()}
    for name, old in list(body.named_parameters()):
        owner, _, last = name.rpartition(".")
        assert weights[name].shape == old.shape, f"{name} is not where TransformerLens 4.3 keeps it"
        setattr(body.get_submodule(owner), last, weights[name])
    return NativeRaw(body.to(next(iter(weights.values())).device), cfg)


def _capped(cfg: Any) -> bool:
    return cfg.attn_scores_soft_cap > 0 or cfg.output_logits_soft_cap > 0
