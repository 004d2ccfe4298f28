"""Attention patterns as people have them: a capture, a mapping by layer or an array, with a batch or with tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.tasks.limits import is_index
from interp.views.patterns.packing import checked
from interp.views.patterns.prompt import Prompt, prompt_of, prompt_of_tokens

if TYPE_CHECKING:
    from interp.tasks import Prompts

# The layer of an array that is given without one.
UNNAMED = ""


@dataclass(frozen=True, eq=False)
class Shown:
    """The patterns of one prompt: `values [layer head dest_pos src_pos]` with their layers' and heads' numbers.

    `layers` is ("",) for an array that is given without a layer.
    """

    prompt: Prompt
    values: Float[Tensor, "layer head dest_pos src_pos"]
    layers: list[int | str]
    heads: list[int]

    @property
    def where(self) -> str:
        """The layers in words: "layer 1", "layers 0 to 3", or "" for an array without a layer."""
        if self.layers == [UNNAMED]:
            return ""
        numbers = [int(layer) for layer in self.layers]
        if len(numbers) == 1:
            return f"layer {numbers[0]}"
        in_row = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 2
        return f"layers {numbers[0]} to {numbers[-1]}" if in_row else f"layers {', '.join(map(str, numbers))}"


def shown_patterns(
    source: Any,
    layer: int | Sequence[int] | None,
    prompt: int,
    heads: Sequence[int] | None,
    prompts: Prompts | None,
    tokens: Sequence[str] | None,
) -> Shown:
    """Return the patterns of one prompt from a source, some layers and some heads. Raises `ValueError` as `attention`.

    `source` is a `Capture` (with `pattern` and `prompts`), a mapping from layers to arrays, a list of arrays by layer,
    or one array. Arrays are `[batch head dest_pos src_pos]`, `[head dest_pos src_pos]` or `[dest_pos src_pos]`, in
    numpy, torch or lists.
    """
    prompts = prompts if prompts is not None else getattr(source, "prompts", None)
    if tokens is not None:
        one = prompt_of_tokens(tokens)
    elif prompts is not None:
        one = prompt_of(prompts, prompt)
    else:
        raise ValueError("the tokens are missing: give tokens= (strings), batch= (prompts), or a Capture")
    by_layer = _by_layer(getattr(source, "pattern", source), layer)
    layers = _chosen(by_layer, layer)
    arrays = {name: _of_prompt(by_layer[name], name, prompt, len(one.tokens)) for name in layers}
    n_heads = {len(array) for array in arrays.values()}
    numbers = list(range(min(n_heads))) if heads is None else list(heads)
    if len(n_heads) > 1 or not numbers or any(not is_index(head, min(n_heads)) for head in numbers):
        raise ValueError(f"heads are 0 to {min(n_heads) - 1}, as many in each layer; got {numbers}")
    values = [checked(array[numbers], _named(name)) for name, array in arrays.items()]
    return Shown(prompt=one, values=torch.stack(values), layers=layers, heads=numbers)


def _by_layer(patterns: Any, layer: int | Sequence[int] | None) -> Mapping[int | str, Any]:
    if isinstance(patterns, Mapping):
        return patterns
    if isinstance(patterns, list | tuple) and patterns and all(getattr(x, "ndim", 0) > 2 for x in patterns):
        return dict(enumerate(patterns))
    if layer is not None and not isinstance(layer, int):
        raise ValueError("one array has one layer; give patterns by layer, {0: ..., 1: ...}, for several")
    return {UNNAMED if layer is None else layer: patterns}


def _chosen(by_layer: Mapping[int | str, Any], layer: int | Sequence[int] | None) -> list[int | str]:
    """Return the layers to show: all by default."""
    chosen = by_layer if layer is None else [layer] if isinstance(layer, int) else layer
    layers = sorted(chosen) if layer is None else list(chosen)
    if not by_layer:
        raise ValueError("there are no patterns; capture them with pattern=True")
    if len(set(layers)) < len(layers):
        raise ValueError(f"the same layer is given twice: {', '.join(map(str, layers))}")
    if not layers or not set(layers) <= set(by_layer):
        present = ", ".join(map(str, sorted(by_layer)))
        raise ValueError(f"no patterns of layers {layers}; patterns are of layers: {present}")
    return layers


def _of_prompt(values: Any, layer: int | str, prompt: int, n: int) -> Float[Tensor, "head dest_pos src_pos"]:
    tensor = tensor_of(values, _named(layer))
    shape = tuple(tensor.shape)
    if tensor.ndim not in (2, 3, 4) or shape[-2:] != (n, n) or (tensor.ndim == 4 and prompt not in range(shape[0])):
        raise ValueError(
            f"{_named(layer)} must be [batch head {n} {n}], with prompt {prompt} in the batch, or [head {n} {n}]; "
            f"got {shape}"
        )
    return tensor[prompt] if tensor.ndim == 4 else tensor if tensor.ndim == 3 else tensor[None]


def _named(layer: int | str) -> str:
    return "patterns" if layer == UNNAMED else f"patterns of layer {layer}"


def tensor_of(values: Any, what: str) -> Tensor:
    """Return numbers as a tensor: torch, numpy or nested lists, any dtype. Raises `ValueError` for anything else."""
    if isinstance(values, Tensor):
        return values.detach()
    try:
        return torch.from_numpy(np.array(values, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be an array of numbers; got {type(values).__name__}") from error
