"""Run a TransformerBridge in chunks of prompts, with hooks that copy activations. Each hook must fire exactly once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.models.anatomy import anatomy_of
from interp.models.changed import require_evaluating
from interp.models.resolve import AnyModel, bridge_of, raw_of
from interp.sites import ATTENTION_SITES, Site, head_count, hook_name, require_site
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Prompts
from interp.tasks.limits import is_index

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Layers to keep: a collection, or True for all.
Layers = Collection[int] | bool
Key = tuple[Site, int]
# Share of the memory budget for one forward pass: what is captured, logits and the inside of the MLP. 128 MiB of a GiB.
SHARE = 1 / 8


def evaluating_bridge(model: AnyModel) -> TransformerBridge:
    """Return the model's bridge. Raises `ValueError` in training mode."""
    bridge = bridge_of(model)
    require_evaluating(bridge)
    return bridge


def layers_at(bridge: TransformerBridge, site: Site, layers: Layers) -> list[int]:
    """Return a site's layers in rising order. Raises `ValueError` for a site or layer that does not exist."""
    require_site(site)
    n = 1 if site == "embed" else bridge.cfg.n_layers
    if isinstance(layers, bool):
        return list(range(n)) if layers else []
    if isinstance(layers, int):
        layers = [layers]
    if isinstance(layers, str):
        raise ValueError(f"layers of {site} are numbers from 0 to {n - 1}, or True for all; got {layers!r}")
    for layer in layers:
        if not is_index(layer, n):
            raise ValueError(f"{site} has layers 0 to {n - 1}; got {layer!r}")
    return sorted(set(layers))


def _hook(bridge: TransformerBridge, site: Site, layer: int, normed: Collection[Key]) -> str:
    """Return the hook's name. Raises `ValueError` with the reason if this model does not have it."""
    name = hook_name(site, layer, normed=(site, layer) in normed)
    if name in bridge.hook_dict:
        return name
    why = f"TransformerLens gives {bridge.cfg.architecture} no {name}"
    if site == "resid_mid" and bridge.cfg.parallel_attn_mlp:
        why = "its blocks run attention and MLP in parallel, both on the residual before the block"
    raise ValueError(f"this model has no {site}: {why}")


def activations(
    bridge: TransformerBridge, prompts: Prompts, keys: Collection[Key], logits: bool, device: torch.device | None
) -> Iterator[tuple[Prompts, Tensor, dict[Key, Tensor]]]:
    """Return chunks of prompts, with their logits (empty unless needed) and a copy of each activation."""
    normed, cfg = _normed_over_heads(bridge, keys), bridge.cfg
    hooks = {key: _hook(bridge, *key, normed) for key in keys}
    last = max((layer for _, layer in hooks), default=0)
    stop = None if logits or last + 1 >= cfg.n_layers else last + 1
    inside = 8 * cfg.d_model + cfg.n_heads * prompts.n_pos + (cfg.d_vocab if stop is None else 0)
    held = sum(cfg.n_heads * prompts.n_pos if site in ATTENTION_SITES else cfg.d_model for site, _ in hooks)
    own = next(bridge.parameters()).device
    size = max(1, numbers(SHARE, own) // (prompts.n_pos * (inside + held)))
    for start in range(0, len(prompts), size):
        rows = prompts.rows(slice(start, start + size))
        kept: dict[Key, Tensor] = {}
        fired = dict.fromkeys(hooks, 0)

        # What a hook receives may be storage that the model still writes to, hence the copy.
        def keep(value: Tensor, hook: Any, key: Key, kept: dict = kept, fired: dict = fired) -> None:
            if key in normed:
                value = value.unflatten(-1, (head_count(key[0], cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads), -1))
            kept[key] = value.detach().to(device or value.device, copy=True)
            fired[key] += 1

        with torch.no_grad():
            out = bridge.run_with_hooks(
                rows.tokens.to(own),
                return_type="logits" if logits else None,
                use_cache=False,
                stop_at_layer=stop,
                fwd_hooks=[(name, partial(keep, key=key)) for key, name in hooks.items()],
            )
        for key, times in fired.items():
            if times != 1:
                raise ValueError(f"{hooks[key]} fired {times} times, not once; is a flag such as use_attn_result on?")
            _require_finite(key, kept[key], start, prompts)
        if logits:
            require_finite(out, "a logit of the model", start, axis=0, batch=prompts)
        yield rows, out.detach().to(device or out.device, copy=True) if logits else torch.empty(0), kept


def _normed_over_heads(bridge: TransformerBridge, keys: Collection[Key]) -> set[Key]:
    """Return those of the sites that are normed over all heads: q and k of such models are taken after that norm.

    Patches take them there too, as before it no head's q is its own. None for an architecture that is not taken apart.
    """
    some: set[Key] = {key for key in keys if key[0] in ("q", "k")}
    if not some:
        return set()
    try:
        blocks = anatomy_of(raw_of(bridge), test=False).blocks
    except ValueError:
        return set()
    return {(site, layer) for site, layer in some if blocks[layer].is_normed_over_heads(site)}


def _require_finite(key: Key, values: Tensor, start: int, prompts: Prompts) -> None:
    site, layer = key
    if site == "attn_scores":  # the causal mask may be -inf
        values = values.masked_fill(values == -torch.inf, 0.0)
    require_finite(values, f"{site} of layer {layer}", start, axis=0, batch=prompts)
