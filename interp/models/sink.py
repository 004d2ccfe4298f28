"""BLOOM with one more learned key in each head, whose value is zero (Gu et al. 2410.10781).

Attention to that key contributes nothing. If labels serve as attention sinks, this model does not need them
(probes/README.md, Hypotheses).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, BloomForCausalLM, BloomModel
from transformers import initialization as init
from transformers.models.bloom.modeling_bloom import BloomAttention, BloomPreTrainedModel

# A separate type: a loader of BLOOM would silently drop the sinks.
MODEL_TYPE = "bloom_key_sink"


class SinkBloomConfig(BloomConfig):
    """BLOOM's configuration under another name."""

    model_type = MODEL_TYPE


def sink_bias(alibi: Float[Tensor, "row 1 src"], first: int, n_dest: int) -> Float[Tensor, "row dest 1"]:
    """Return what is added to the sink's logit, for queries at positions from `first` on: no penalty for distance.

    BLOOM adds slope x key position. That is ALiBi's -slope x distance plus slope x query position, which is the same
    for all keys of a query. The sink gets the second term; without it the sink would weaken as the prompt grows.
    """
    return alibi[..., first : first + n_dest].mT


class KeySinkAttention(BloomAttention):
    """BLOOM's attention with `sink_key [head d_head]`, one more key in each head, whose value is zero.

    The key is initialised to zero: a logit of zero, that of a neutral token at the query's own position. The returned
    pattern has no column for the sink, so its rows sum to less than 1.
    """

    def __init__(self, config: SinkBloomConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.sink_key = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        layer_past: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return the residual after attention, and the pattern `[batch head dest src]`."""
        q, k, v = self._reshape(self.query_key_value(hidden_states))  # [batch head pos d_head]
        first = 0
        if layer_past is not None:
            first = int(layer_past.get_seq_length(self.layer_idx))
            k, v = layer_past.update(k, v, self.layer_idx)
        size, n_dest = len(q), q.shape[2]
        sink = self.sink_key.to(k.dtype).unsqueeze(1).expand(size, -1, 1, -1)
        bias = torch.cat([alibi.expand(-1, n_dest, -1), sink_bias(alibi, first, n_dest)], dim=-1)
        # One product for all keys, as in BLOOM: in mixed precision the sink is rounded as tokens are.
        keys = torch.cat([k, sink], dim=2).flatten(0, 1)
        scores = torch.baddbmm(bias, q.flatten(0, 1), keys.mT, alpha=self.inv_norm_factor)
        scores = scores.unflatten(0, (size, self.num_heads))
        if attention_mask is not None:
            scores = scores + F.pad(attention_mask, (0, 1))
        pattern = scores.softmax(dim=-1, dtype=torch.float32)[..., :-1].to(q.dtype)
        pattern = self.attention_dropout(pattern)
        out = self.dense((pattern @ v).transpose(1, 2).flatten(2))
        return residual + F.dropout(out, self.hidden_dropout, self.training), pattern


class SinkBloomModel(BloomModel):
    """BLOOM without its unembedding, with key sinks. The other weights equal BLOOM's for the same seed."""

    config_class = SinkBloomConfig

    def __init__(self, config: SinkBloomConfig) -> None:
        super().__init__(config)
        blocks: Any = self.h
        for layer, block in enumerate(blocks):
            attention, plain = KeySinkAttention(config, layer), block.self_attention
            attention.query_key_value, attention.dense = plain.query_key_value, plain.dense
            block.self_attention = attention

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, KeySinkAttention):
            init.zeros_(module.sink_key)


class SinkBloomForCausalLM(BloomForCausalLM):
    """BLOOM with key sinks; saved, loaded and called as BLOOM is."""

    config_class = SinkBloomConfig

    def __init__(self, config: SinkBloomConfig) -> None:
        BloomPreTrainedModel.__init__(self, config)  # BLOOM's constructor would draw the weights of a plain model first
        self.transformer = SinkBloomModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


# The only side effect of an import in this package: Hugging Face's loaders learn the type in config.json.
AutoConfig.register(MODEL_TYPE, SinkBloomConfig, exist_ok=True)
AutoModelForCausalLM.register(SinkBloomConfig, SinkBloomForCausalLM, exist_ok=True)
