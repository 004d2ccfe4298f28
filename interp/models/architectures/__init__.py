"""Builders of anatomies, one per architecture, by the `model_type` of the configuration.

To add an architecture: write a builder (most are `decoder` with options), enter it in `BUILDERS`, add a case to
`tests/interp/models/architecture_cases.py`, run `pytest tests/interp/models -m "slow or not slow" -k CASE`, and write
the support table with `python -m tests.interp.models.support`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interp.models.architectures.alibi import bloom, falcon, mpt
from interp.models.architectures.gpt import codegen, gpt2, gpt_neo, gpt_neox, gptj
from interp.models.architectures.llama_types import (
    apertus,
    ernie4_5_moe,
    exaone4,
    gemma,
    gemma2,
    gemma3,
    glm,
    glm4_moe,
    gpt_oss,
    granite,
    hunyuan,
    llama,
    mistral,
    nanochat,
    olmo,
    olmo2,
    phi3,
    qwen3,
    qwen3_moe,
    smollm3,
    vaultgemma,
    wide_qk_norm,
)
from interp.models.architectures.native_models import native
from interp.models.architectures.opt_types import opt, xglm
from interp.models.architectures.parallel import cohere, phi, stablelm
from interp.models.architectures.steps import Anatomy

Builder = Callable[[Any], Anatomy]

BUILDERS: dict[str, Builder] = {
    "apertus": apertus,
    "arcee": llama,
    "bloom": bloom,
    "bloom_key_sink": bloom,
    "codegen": codegen,
    "cohere": cohere,
    "cohere2": cohere,
    "cwm": llama,
    "dots1": glm4_moe,
    "ernie4_5": llama,
    "ernie4_5_moe": ernie4_5_moe,
    "exaone4": exaone4,
    "falcon": falcon,
    "flex_olmo": wide_qk_norm,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "glm": glm,
    "glm4": glm,
    "glm4_moe": glm4_moe,
    "gpt2": gpt2,
    "gpt_bigcode": gpt2,
    "gpt_neo": gpt_neo,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": granite,
    "granitemoe": granite,
    "helium": llama,
    "hunyuan_v1_dense": hunyuan,
    "jais2": llama,
    "llama": llama,
    "minimax_m2": wide_qk_norm,
    "ministral": llama,
    "mistral": mistral,
    "mixtral": mistral,
    "mpt": mpt,
    "nanochat": nanochat,
    "native": native,
    "nemotron": llama,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo2,
    "olmoe": olmo,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "phimoe": mistral,
    "qwen2": llama,
    "qwen2_moe": llama,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "seed_oss": llama,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": mistral,
    "vaultgemma": vaultgemma,
    "xglm": xglm,
}
SUPPORTED = tuple(sorted(BUILDERS))
