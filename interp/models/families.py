"""Model families that differ in the positional encoding, and their random initialisation for training from scratch."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
)

from interp.models.sink import SinkBloomConfig, SinkBloomForCausalLM
from interp.support.sizes import FAMILIES, USUAL, Size, kind_of

# The largest model trained from scratch: 4 GiB in float32, and four times that with gradients and moments.
MOST_WEIGHTS = 2**30


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model to train from scratch.

    `family` is the positional encoding: alibi (BLOOM), rotary (GPT-NeoX), none (the same GPT-NeoX with
    `rotary_pct=0`), absolute (GPT-2) or alibi_sink (BLOOM with a learned key of value zero in each head, a control:
    `interp.models.sink`). `n_ctx` is the number of positions in the position table of the absolute family; the
    others have no limit. `rotary_pct` and `rotary_base` apply to the rotary family only.
    """

    family: str
    n_layers: int = USUAL.n_layers
    d_model: int = USUAL.d_model
    n_heads: int = USUAL.n_heads
    n_ctx: int = 512
    initializer_range: float = 0.08
    rotary_pct: float = 1.0
    rotary_base: float = 10_000.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}; families are {', '.join(FAMILIES)}")
        for name in ("n_layers", "d_model", "n_heads", "n_ctx"):
            if not 1 <= getattr(self, name) <= 2**16:
                raise ValueError(f"{name} must be from 1 to 65536; got {getattr(self, name)}")
        table = self.n_ctx * self.d_model * (self.family == "absolute")
        if (weights := 12 * self.n_layers * self.d_model**2 + table) > MOST_WEIGHTS:
            size = f"{self.n_layers} layers of width {self.d_model}"
            raise ValueError(f"{size} have {weights} weights; at most {MOST_WEIGHTS} can be trained")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        rotary = int(self.d_model // self.n_heads * self.rotary_pct)
        if self.family == "rotary" and (rotary < 2 or rotary % 2):
            raise ValueError(
                f"rotary rotates pairs of dimensions: {rotary} per head is not an even number of at least 2"
            )

    @property
    def kind(self) -> str:
        """The family, and layers x width x heads where they are not the usual.

        >>> ModelConfig("alibi").kind, ModelConfig("alibi", n_layers=6).kind
        ('alibi', 'alibi_6x128x8')
        """
        return kind_of(self.family, Size(self.n_layers, self.d_model, self.n_heads))

    def to_json(self) -> dict:
        """Return a plain dictionary; `ModelConfig(**data)` reverses it."""
        return asdict(self)


def build_model(config: ModelConfig, vocab_size: int, seed: int) -> PreTrainedModel:
    """Return a randomly initialised model in float32 and training mode. The global random state is not changed."""
    common = {
        "vocab_size": vocab_size,
        "initializer_range": config.initializer_range,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attn_implementation": "eager",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config.family:
            case "alibi" | "alibi_sink":
                shape = {"hidden_size": config.d_model, "n_layer": config.n_layers, "n_head": config.n_heads}
                if config.family == "alibi":
                    return BloomForCausalLM(BloomConfig(**shape, **common))
                return SinkBloomForCausalLM(SinkBloomConfig(**shape, **common))
            case "absolute":
                shape = {"n_embd": config.d_model, "n_layer": config.n_layers, "n_head": config.n_heads}
                no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
                return GPT2LMHeadModel(GPT2Config(n_positions=config.n_ctx, **shape, **no_dropout, **common))
            case _:
                # Sequential blocks, as in the other families, have a residual between attention and MLP (resid_mid).
                rotary = {
                    "rotary_pct": config.rotary_pct if config.family == "rotary" else 0.0,
                    "rotary_emb_base": config.rotary_base,
                }
                return GPTNeoXForCausalLM(
                    GPTNeoXConfig(
                        hidden_size=config.d_model,
                        num_hidden_layers=config.n_layers,
                        num_attention_heads=config.n_heads,
                        intermediate_size=4 * config.d_model,
                        max_position_embeddings=config.n_ctx,
                        use_parallel_residual=False,
                        **rotary,
                        **common,
                    )
                )


def family_of(model_type: str, rotary_fraction: float | None = None) -> str:
    """Return the family of a Hugging Face `model_type`; a type of no family is returned as it is."""
    match model_type:
        case "bloom":
            return "alibi"
        case "bloom_key_sink":
            return "alibi_sink"
        case "gpt2":
            return "absolute"
        case "gpt_neox":
            return "none" if rotary_fraction == 0 else "rotary"
        case _:
            return model_type
