"""Assemble the weights of a model from a mechanism: directions, matrices, and an architecture that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probes.planted.backends import GROUP, empty_model, write_weights
from probes.planted.basis import FeatureBasis, build_basis, slices_of, width
from probes.planted.codes import head_layout
from probes.planted.compiling import Space, code_dimensions, compile_layers
from probes.planted.parts import Mechanism, features_of
from probes.planted.plan import Dirt
from probes.planted.symbols import positions

# Length of the constant in units of a usual feature vector: LayerNorm's scale then varies by 1 / (2 x its square).
FEATURE_LENGTH = 3.0
# The features of every token, from the dimensions of each feature and their number.
Rows = Callable[[Mapping[str, slice], int], Float[Tensor, "token feature"]]


@dataclass(frozen=True)
class Frame:
    """What a mechanism is put into: the model's type and sizes, the codes of places, and the dirt.

    `kept`: share of dimensions under superposition. `constant`: in lengths of a usual residual.
    """

    architecture: str
    n_positions: int
    frequencies: Float[Tensor, " pair"]
    dirt: Dirt
    kept: float
    constant: float


def assemble(
    circuit: Mechanism, frame: Frame, tokens: Sequence[str], embed: Rows, unembed: Rows, gen: torch.Generator
) -> tuple[PreTrainedModel, FeatureBasis]:
    """Return the model of a mechanism, and its directions. `tokens`: features that the token embedding writes."""
    gpt2 = frame.architecture == "gpt2"
    names = features_of(circuit, gpt2, tokens)
    slices = slices_of(names)
    size = 1 + max(place.stop for place in slices.values())
    head = head_layout(frame.architecture, code_dimensions(circuit, learned_positions=gpt2))
    layers = compile_layers(circuit, Space(slices, size, frame.frequencies, head))
    rotated = frame.dirt.rotation or frame.dirt.superposition
    centred = frame.architecture != "llama"
    needed = width(names, not rotated, frame.kept, centred)
    most_heads = max(len(layer.heads) for layer in layers)
    if frame.architecture == "llama":  # the head size does not depend on the width
        d_model = -(-needed // (GROUP * most_heads)) * GROUP * most_heads
    else:
        d_model = max(most_heads, -(-needed // head.size)) * head.size
    basis = build_basis(names, d_model, frame.constant * FEATURE_LENGTH, gen, rotated, frame.kept, centred)
    embedding, unembedding = embed(slices, size), unembed(slices, size)
    model = empty_model(frame.architecture, layers, d_model, head.size, len(embedding), frame.n_positions)
    places = positions(slices, size, frame.n_positions, frame.frequencies) if gpt2 else None
    write_weights(model, layers, basis, gen, embedding, places, unembedding)
    return model, basis
