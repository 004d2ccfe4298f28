"""Edit a site in a model's own forward pass, in any number of passes, with or without a key-value cache.

The engine's passes recompute whole prompts. Hooks here act on Hugging Face's modules, or on a TransformerBridge, so
that `generate`, `predict` and any other code that runs the model sees the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.editing_passes import Chosen, Positions, Window, anatomy_now
from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.models.resolve import AnyModel, raw_of
from interp.models.run import Run
from interp.patching.reference import record
from interp.patching.reference_hooks import site_hooks
from interp.sites import NEURON_SITES, Site, head_count, hook_name, require_site
from interp.support.locks import own_thread
from interp.tasks.limits import is_index

# Sites that can be edited while the model runs. Patterns of a cached pass have no rows of earlier positions.
HOOK_SITES: tuple[Site, ...] = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "q",
    "k",
    "v",
    "z",
    *NEURON_SITES,
)
# A site and a layer, or several layers.
At = tuple[Site, int | Sequence[int]]
# Takes the site's activations `[row pos ...]` and the positions of the pass `[pos]`; returns new activations.
PassEdit = Callable[[Tensor, Int[Tensor, " pos"]], Tensor]


@contextmanager
def edited(model: AnyModel, at: At, edit: Callable[[int], PassEdit], positions: Positions = None) -> Iterator[None]:
    """Within the block, every pass of the model goes through `edit(layer)` at each layer of `at`.

    A `Run` or a Hugging Face model is edited itself; a TransformerBridge is edited by its own hooks. Functions that
    run the model in other ways raise inside the block: `capture` of a run whose raw model is edited, `patch` and
    others. The block holds the model's lock: in other threads, functions of this package wait for its end, and a plain
    pass raises.

    Raises `ValueError` for a site, layer or position that does not exist; `RuntimeError` at the end of a block in
    which no pass reached the positions, since nothing was edited then; and `ValueError` in a pass of another thread, in
    a cached pass whose rotary encoding is not that of the cached keys, and, where some positions are edited, in a pass
    whose rows begin with padding, or with a recurrent state that began before the block.
    """
    site, layers = place_of(model, at)
    chosen = Chosen(positions)
    raw = raw_of(model)
    target: Any = raw if isinstance(model, Run) or model is raw else model
    fired = 0

    def on(layer: int) -> Callable[[Tensor], Tensor]:
        own = edit(layer)

        def counted(x: Tensor) -> Tensor:
            nonlocal fired
            window.check_thread()  # a pass of another thread may have begun before the block
            now = torch.arange(x.shape[1], device=x.device) + window.start
            if not chosen.among(now).any():
                return x
            fired += 1
            return own(x, now)

        return counted

    with ExitStack() as stack:
        window = Window(raw, chosen, stack.enter_context(own_thread(raw, "steered or patched")))
        window.follow(stack, target)
        for layer in layers:
            _hook(stack, target, raw, site, layer, on(layer))
        window.passes = 0  # less those that checked the model
        yield
        if not fired:
            what = "the model did not run" if not window.passes else f"no pass had the positions {positions}"
            raise RuntimeError(
                f"nothing was edited: {what} inside the block; the block edits {_name(model, target)}, so run that"
            )


def place_of(model: AnyModel, at: At) -> tuple[Site, list[int]]:
    """Return a site and its layers. Raises `ValueError` for one that this model does not have."""
    if not isinstance(at, tuple) or len(at) != 2:
        raise ValueError(f"at is a site and a layer, such as ('resid_post', 5); got {at!r}")
    site, given = at
    require_site(site, HOOK_SITES)
    anatomy = anatomy_now(model)
    n_layers = len(anatomy.layers if isinstance(anatomy, GenericAnatomy) else anatomy.blocks)
    layers = [given] if isinstance(given, int) else list(given)
    if not layers or (bad := [x for x in layers if not is_index(x, n_layers)]):
        raise ValueError(f"{site} has layers 0 to {n_layers - 1}; got {bad[0] if layers else 'none'!r}")
    if isinstance(anatomy, GenericAnatomy):
        if site not in anatomy.sites:
            raise ValueError(f"this model has the sites {', '.join(anatomy.sites)}; got {site!r}")
    elif site == "resid_mid" and anatomy.blocks[0].parallel:
        raise ValueError("parallel blocks have no resid_mid: attention and MLP both read resid_pre; use attn_out")
    elif site in NEURON_SITES and not all(anatomy.blocks[x].has_neurons for x in layers):
        raise ValueError(f"{site}: an MLP of these layers is not taken apart into neurons")
    return site, layers


def shape_of(model: AnyModel, site: Site, layer: int) -> tuple[int, ...]:
    """Return the axes of a site after `batch pos`: (d_model,), (d_mlp,) or (head, d_head)."""
    anatomy = anatomy_now(model)
    return tuple(record(anatomy, torch.zeros(1, 1, dtype=torch.long), site, layer).shape[2:])


def positions_mask(positions: Positions, now: Int[Tensor, " pos"]) -> Bool[Tensor, " pos"]:
    """Return which positions of a pass are chosen."""
    return Chosen(positions).among(now)


def _hook(stack: ExitStack, target: Any, raw: Any, site: Site, layer: int, edit: Callable[[Tensor], Tensor]) -> None:
    if target is not raw:  # a bridge
        if site == "resid_mid":
            raise ValueError("TransformerLens's hook_resid_mid reaches the MLP alone; pass the run or the raw model")
        anatomy = anatomy_now(raw)
        if isinstance(anatomy, Anatomy) and anatomy.blocks[layer].is_normed_over_heads(site):
            heads = (head_count(site, anatomy.n_heads, anatomy.n_kv_heads), anatomy.d_head)
            hook = (hook_name(site, layer, normed=True), lambda x, hook: edit(x.unflatten(-1, heads)).flatten(-2))
        else:
            hook = (hook_name(site, layer), lambda x, hook: edit(x))
        stack.enter_context(target.hooks(fwd_hooks=[hook]))
        return
    anatomy = anatomy_now(raw)
    if isinstance(anatomy, Anatomy):
        handles = site_hooks(anatomy, anatomy.blocks[layer], site, edit)
    else:
        handles = _generic_hooks(anatomy, site, layer, edit)
    for handle in handles:
        stack.callback(handle.remove)


def _generic_hooks(anatomy: GenericAnatomy, site: Site, layer: int, edit: Callable[[Tensor], Tensor]) -> list:
    """Return the hooks of a model that is run layer by layer: on its layers, and on their attention and MLP."""

    def on_output(_: nn.Module, __: tuple, out: Any) -> Any:
        return type(out)((edit(out[0]), *out[1:])) if isinstance(out, tuple | list) else edit(out)

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    if site == "resid_pre":
        return [anatomy.layers[layer].register_forward_pre_hook(on_input, with_kwargs=True)]
    module = anatomy.layers[layer] if site == "resid_post" else anatomy.modules[site][layer]
    return [module.register_forward_hook(on_output)]


def _name(model: AnyModel, target: Any) -> str:
    return "run.raw" if isinstance(model, Run) else f"the {type(target).__name__} that was passed"
