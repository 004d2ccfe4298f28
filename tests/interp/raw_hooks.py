"""Literal hooks on raw models of five architectures, written out by hand: the reference of steering and ablation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

FIVE = ("alibi", "rotary", "absolute", "parallel", "grouped")
N_HEADS = 4


def layer_of(model: Any, layer: int) -> Any:
    """The decoder layer of BLOOM, GPT-NeoX, GPT-2 or Llama."""
    body = model.base_model
    return (body.h if hasattr(body, "h") else body.layers)[layer]


def modules(model: Any, layer: int) -> dict[str, tuple[Any, str]]:
    """The module of each site, and whether the site is its input or its output."""
    block = layer_of(model, layer)
    match type(block).__name__:
        case "BloomBlock":
            out, first, last = block.self_attention.dense, block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h
        case "GPTNeoXLayer":
            out, first, last = block.attention.dense, block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h
        case "GPT2Block":
            out, first, last = block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj
        case _:
            out, first, last = block.self_attn.o_proj, block.mlp.gate_proj, block.mlp.down_proj
    return {
        "resid_pre": (block, "input"),
        "resid_post": (block, "output"),
        "attn_out": (out, "output"),
        "mlp_out": (last, "output"),
        "z": (out, "input"),
        "mlp_pre": (first, "output"),
        "mlp_post": (last, "input"),
    }


@contextmanager
def hooked(model: Any, edits: dict[tuple[str, int], Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Within the block, the model's own pass goes through each edit; z is `[batch pos head d_head]`."""
    with ExitStack() as stack:
        for (site, layer), edit in edits.items():
            module, end = modules(model, layer)[site]

            def through(x: Tensor, edit: Any = edit, site: str = site) -> Tensor:
                return edit(x.unflatten(-1, (N_HEADS, -1))).flatten(-2) if site == "z" else edit(x)

            def on_output(_: Any, __: Any, out: Any, through: Any = through) -> Any:
                return (through(out[0]), *out[1:]) if isinstance(out, tuple) else through(out)

            def on_input(_: Any, args: tuple, kwargs: dict, through: Any = through) -> tuple[tuple, dict]:
                if args:
                    return (through(args[0]), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": through(kwargs["hidden_states"])}

            if end == "output":
                handle = module.register_forward_hook(on_output)
            else:
                handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def seen(model: Any, tokens: Tensor, site: str, layer: int) -> Tensor:
    """A site's activations in the model's own pass."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.clone())
        return x

    with hooked(model, {(site, layer): keep}):
        model(tokens, use_cache=False)
    return kept[0].detach()
