"""tracr's compiled programs as models to find circuits in, from the weights that `tracr_programs.py` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor
from transformer_lens.model_bridge.sources.native import boot
from transformer_lens.utilities import tracr

from tests.interp.circuits.tracr_programs import FOLDER


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program's parameters by name, its residual labels, its token ids by token, and its bridge."""

    parameters: dict[str, np.ndarray]
    labels: tuple[str, ...]
    tokens: dict[str, int]
    outputs: dict[str, int] | None
    bridge: Any

    def prompts(self, length: int) -> Tensor:
        """All sequences of a length, after BOS."""
        plain = [number for token, number in self.tokens.items() if token not in ("BOS", "PAD")]
        return torch.tensor([[self.tokens["BOS"], *rest] for rest in product(plain, repeat=length)])

    def weights(self, name: str) -> np.ndarray:
        """`weights("transformer/layer_0/attn/key")`."""
        return self.parameters[f"{name}/w"]


@cache
def load(program: str) -> Compiled:
    """By TransformerLens's own converter of tracr models.

    It takes categorical outputs only. `xproportion` has a numerical one, a single residual dimension: it is shown to
    the converter as a category with one value, which unembeds that dimension as the only logit.
    """
    parameters = load_file(FOLDER / f"{program}.safetensors")
    meaning = json.loads((FOLDER / f"{program}.json").read_text(encoding="utf-8"))
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, value in parameters.items():
        module, _, last = name.rpartition("/")
        params.setdefault(module, {})[last] = value
    config = meaning["config"]
    labels, output = list(meaning["residual_labels"]), meaning["output"]
    shown = [f"{x}:value" if output is None and x.startswith("frac_prevs") else x for x in labels]
    model = SimpleNamespace(
        params=params,
        residual_labels=shown,
        model_config=SimpleNamespace(**config),
        output_encoder=SimpleNamespace(encoding_map=dict(output or [["value", 0]])),
    )
    bridge = boot(tracr.make_tracr_transformer_bridge_config(model))
    # Not strict: the bridge counts a module under each name it goes by, and an output bias, which stays 0.
    found = bridge.load_state_dict(tracr.make_tracr_transformer_bridge_state_dict(model), strict=False)
    assert not found.unexpected_keys
    return Compiled(parameters, tuple(labels), dict(meaning["input"]), output and dict(output), bridge.eval())
