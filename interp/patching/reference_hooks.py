"""Hooks on a raw model's own modules that pass a site's activations through a function, for the literal loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from interp.models.anatomy import Anatomy, Block

Edit = Callable[[Tensor], Tensor]


def site_hooks(anatomy: Anatomy, block: Block, site: str, edit: Edit) -> list:
    """Register hooks on the raw model that pass a site's activations `[batch pos ...]` through `edit`."""

    def on_output(_: nn.Module, __: tuple, out: Tensor | tuple) -> Tensor | tuple:
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    match site:
        case "resid_pre":
            return [block.module.register_forward_pre_hook(on_input, with_kwargs=True)]
        case "resid_post":
            return [block.module.register_forward_hook(on_output)]
        case "attn_out":
            return _output_hooks(block, block.attn_end, edit)
        case "mlp_out":
            return _output_hooks(block, block.mlp_end, edit)
        case "mlp_pre" | "mlp_post":
            return _neuron_hooks(block, site, edit)
        case "z":

            def through_heads(_: nn.Module, args: tuple) -> tuple:
                return (edit(args[0].unflatten(-1, (anatomy.n_heads, anatomy.d_head))).flatten(-2),)

            return [block.out.register_forward_pre_hook(through_heads)]
        case "q" | "k" | "v":
            return [_projection_hook(anatomy, block, site, edit)]
        case "resid_mid":
            return _resid_mid_hooks(block, edit)
        case "pattern":
            return _pattern_hooks(anatomy, block, edit)
    raise AssertionError(site)


def _projection_hook(anatomy: Anatomy, block: Block, site: str, edit: Edit):  # type: ignore[no-untyped-def]
    which = "qkv".index(site)
    if len(block.qkv) == 3:
        return block.qkv[which].register_forward_hook(
            lambda _, __, out: edit(out.unflatten(-1, (-1, anatomy.d_head))).flatten(-2)
        )

    def fused(_: nn.Module, __: tuple, out: Tensor) -> Tensor:
        edited = edit(block.split(out)[which])
        index = block.split(torch.arange(out.shape[-1], device=out.device))[which]
        out = out.clone()
        out[..., index.flatten()] = edited.flatten(-2)
        return out

    return block.qkv[0].register_forward_hook(fused)


def _output_hooks(block: Block, module: nn.Module, edit: Edit) -> list:
    """Edit what a sublayer adds to the residual stream: a module's output, or its first, times the block's gain."""
    shapes: list[torch.Size] = []

    def keep(_: nn.Module, args: tuple, kwargs: dict) -> None:
        shapes[:] = [(args[0] if args else kwargs["hidden_states"]).shape]

    def on_output(_: nn.Module, __: tuple, out: Tensor | tuple) -> Tensor | tuple:
        added = out[0] if isinstance(out, tuple) else out
        edited = edit(added.reshape(shapes[0]) * block.gain) / block.gain  # OPT's MLP has one axis for batch and pos
        edited = edited.reshape(added.shape)
        return (edited, *out[1:]) if isinstance(out, tuple) else edited

    return [block.module.register_forward_pre_hook(keep, with_kwargs=True), module.register_forward_hook(on_output)]


def _neuron_hooks(block: Block, site: str, edit: Edit) -> list:
    """Edit the output of the MLP's first projection, or what its last projection reads."""
    shapes: list[torch.Size] = []

    def keep(_: nn.Module, args: tuple, kwargs: dict) -> None:
        shapes[:] = [(args[0] if args else kwargs["hidden_states"]).shape]

    def by_position(x: Tensor) -> Tensor:  # OPT's MLP has one axis for batch and pos
        return edit(x.reshape(*shapes[0][:-1], -1)).reshape(x.shape)

    def on_output(_: nn.Module, __: tuple, out: Tensor) -> Tensor:
        if not block.fused_gate:
            return by_position(out)
        gate, other = out.chunk(2, dim=-1)
        return torch.cat([by_position(gate), other], dim=-1)

    assert block.mlp_first is not None
    assert block.mlp_last is not None
    handles = [block.module.register_forward_pre_hook(keep, with_kwargs=True)]
    if site == "mlp_pre":
        return [*handles, block.mlp_first.register_forward_hook(on_output)]
    return [*handles, block.mlp_last.register_forward_pre_hook(lambda _, args: (by_position(args[0]), *args[1:]))]


def _resid_mid_hooks(block: Block, edit: Edit) -> list:
    """Through the attention's output: the residual after attention is resid_pre plus that output."""
    pre: list[Tensor] = []

    def keep(_: nn.Module, args: tuple, kwargs: dict) -> None:
        pre[:] = [args[0] if args else kwargs["hidden_states"]]

    def on_output(_: nn.Module, __: tuple, out: Tensor) -> Tensor:
        return (edit(pre[0] + out * block.gain) - pre[0]) / block.gain

    return [
        block.module.register_forward_pre_hook(keep, with_kwargs=True),
        block.attn_end.register_forward_hook(on_output),
    ]


def _pattern_hooks(anatomy: Anatomy, block: Block, edit: Edit) -> list:
    """Through z: the edited pattern, recomputed from this run's own q and k, times this run's own v."""
    parts: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(_: nn.Module, __: tuple, out: Tensor) -> None:
            parts[name] = out

        return hook

    def on_input(_: nn.Module, args: tuple) -> tuple:
        q, k, v = block.heads_of(*(parts[str(i)] for i in range(len(block.qkv))))
        positions = torch.arange(q.shape[1], device=q.device)
        pattern = anatomy.pattern(block, q, k, positions, positions)
        return (anatomy.mix(edit(pattern), v).flatten(-2),)

    handles = [projection.register_forward_hook(keep(str(i))) for i, projection in enumerate(block.qkv)]
    return [*handles, block.out.register_forward_pre_hook(on_input)]
