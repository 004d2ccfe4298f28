"""Find the layers of a decoder that no builder knows, and check that they can be run one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.architectures.checks import TOLERANCE, random_tokens
from interp.models.architectures.generic import GenericAnatomy, first_of
from interp.support.finite import difference_of_finite

# Names of a layer's attention and MLP.
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "ffn", "ff", "block_sparse_moe", "moe", "feedforward")


def generic_of(raw: Any) -> GenericAnatomy:
    """Find the layers of a decoder, and check that they can be run one by one.

    Raises `ValueError` with the reason where they cannot.
    """
    n_layers = getattr(raw.config, "num_hidden_layers", 0)
    lists = [m for m in raw.modules() if isinstance(m, nn.ModuleList) and n_layers and len(m) == n_layers]
    if not lists:
        raise ValueError(f"it has no list of {n_layers} layers")
    layers, modules = tuple(lists[0]), {}
    for site, names in (("attn_out", ATTENTION), ("mlp_out", MLP)):
        named = [
            next((getattr(b, n) for n in names if isinstance(getattr(b, n, None), nn.Module)), None) for b in layers
        ]
        if all(m is not None for m in named):
            modules[site] = tuple(named)
    calls, outputs = _calls(raw, layers, modules)
    if calls != list(range(n_layers)):
        raise ValueError("its layers do not run once each, in order, from residual stream to residual stream")
    anatomy = GenericAnatomy(raw=raw, layers=layers, outputs=outputs, modules=modules)
    try:
        anatomy.check_on(random_tokens(raw))
    except (RuntimeError, TypeError, AttributeError, KeyError, IndexError):
        anatomy = replace(anatomy, reads_tokens=True)
        try:
            anatomy.check_on(random_tokens(raw))
        except (RuntimeError, TypeError, AttributeError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"its layers cannot be run one by one: {reason}") from error
    return replace(anatomy, causal=_is_causal(raw))


@torch.no_grad()
def _calls(raw: Any, layers: tuple[nn.Module, ...], modules: dict[str, Any]) -> tuple[list[int], int]:
    """Return which layers ran, in order, and how many values they return; drop sites whose modules are not usable."""
    calls: list[int] = []
    sizes: set[int] = set()
    tokens = random_tokens(raw)
    shape = (*tokens.shape, raw.config.hidden_size)
    fired: dict[str, int] = dict.fromkeys(modules, 0)
    with ExitStack() as stack:

        def ran(i: int) -> Callable:
            def hook(_: nn.Module, __: tuple, out: Any) -> None:
                usable = isinstance(first_of(out), Tensor) and first_of(out).shape == shape
                calls.append(i if usable else -1)
                sizes.add(len(out) if isinstance(out, tuple | list) else 0)

            return hook

        def counted(site: str) -> Callable:
            def hook(_: nn.Module, __: tuple, out: Any) -> None:
                fired[site] += int(isinstance(first_of(out), Tensor) and first_of(out).shape == shape)

            return hook

        for i, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(ran(i)).remove)
            for site, found in modules.items():
                stack.callback(found[i].register_forward_hook(counted(site)).remove)
        raw(tokens, use_cache=False)
    for site, count in fired.items():
        if count != len(layers):
            del modules[site]
    return (calls, sizes.pop()) if len(sizes) == 1 else ([-1], 0)


@torch.no_grad()
def _is_causal(raw: Any) -> bool:
    tokens = random_tokens(raw)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % raw.config.vocab_size
    before, after = (raw(t, use_cache=False).logits[:, :-1] for t in (tokens, changed))
    return difference_of_finite(after, before) <= TOLERANCE
