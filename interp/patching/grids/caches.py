"""Clean activations from a cache: TransformerLens's `ActivationCache`, a `Capture`, or a mapping of hook names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.models.resolve import AnyModel, bridge_of
from interp.patching.tracing import Trace, pattern_of, trace
from interp.sites import ATTENTION_SITES, Site, hook_name
from interp.tasks import Prompts

# An `ActivationCache`, a mapping from hook names to tensors, or a `Capture`, which is known by its dicts per site:
# `interp.capturing` is above this package.
Cache: TypeAlias = Any

# Largest difference between a hook of the bridge and the engine's value on the same prompt, relative to the largest.
SAME, SAME_HALF = 1e-4, 0.1


def cached_values(
    cache: Cache, anatomy: Anatomy, prompts: Prompts, site: Site, layers: Collection[int]
) -> dict[int, Tensor]:
    """Return a site's cached values by layer, on the model's device. A cache of one prompt serves every prompt.

    Raises `ValueError` for a layer that the cache lacks, and for values of another shape than the corrupted run's.
    """
    values = {}
    for layer in layers:
        value = _cached(cache, site, layer).detach().to(anatomy.device, anatomy.dtype)
        expected = _shape(anatomy, prompts, site)
        if value.ndim != len(expected) or value.shape[0] not in (1, len(prompts)) or value.shape[1:] != expected[1:]:
            raise ValueError(
                f"the cache has {hook_name(site, layer)} of shape {list(value.shape)}; the corrupted run has "
                f"{list(expected)}: clean and corrupted prompts must have the same number of tokens"
            )
        values[layer] = value.expand(expected)
    return values


def _cached(cache: Cache, site: Site, layer: int) -> Tensor:
    by_layer = getattr(cache, site, None)
    if isinstance(by_layer, dict):
        if layer not in by_layer:
            raise ValueError(f"the capture has no {site} of layer {layer}; make it with capture(..., {site}=True)")
        return by_layer[layer]
    try:
        return cache[hook_name(site, layer)]
    except KeyError:
        raise ValueError(
            f"the cache has no {hook_name(site, layer)}; make it with run_with_cache and a names_filter that keeps it"
        ) from None


def _shape(anatomy: Anatomy, prompts: Prompts, site: Site) -> tuple[int, ...]:
    n, n_pos = len(prompts), prompts.n_pos
    if site in ATTENTION_SITES:
        return (n, anatomy.n_heads, n_pos, n_pos)
    if site in ("q", "z"):
        return (n, n_pos, anatomy.n_heads, anatomy.d_head)
    if site in ("k", "v"):
        return (n, n_pos, anatomy.n_kv_heads, anatomy.d_head)
    return (n, n_pos, anatomy.d_model)


@torch.no_grad()
def require_same_hooks(
    model: AnyModel, cache: Cache, anatomy: Anatomy, prompts: Prompts, site: Site, layers: Collection[int]
) -> None:
    """Check that a hook of the bridge has the value that the engine computes for the site, on the first prompt.

    Raises `ValueError` where they differ: a cached value would then be patched in at another place than it came from.
    """
    bridge: Any = getattr(cache, "model", None)
    bridge = bridge if hasattr(bridge, "run_with_cache") else bridge_of(model)
    names = {layer: hook_name(site, layer) for layer in layers}
    tokens = prompts.tokens[:1].to(anatomy.device)
    _, theirs = bridge.run_with_cache(tokens, names_filter=list(names.values()), return_type=None)
    ours = trace(anatomy, tokens)
    allowed = SAME_HALF if anatomy.dtype in (torch.float16, torch.bfloat16) else SAME
    for layer, name in names.items():
        value = pattern_of(anatomy, ours, layer) if site == "pattern" else ours.site(site, layer)
        normed = anatomy.blocks[layer].is_normed_over_heads(site)
        after = ", which is taken after the norm over all heads" if normed else ""
        difference = float((value - theirs[name].to(value)).abs().max() / value.abs().max().clamp_min(1e-6))
        if not difference <= allowed:
            raise ValueError(
                f"{name} of this bridge differs by {difference:.1e} from the engine's {site}{after}; use "
                "interp.patch(model, clean, corrupted, site, metric), which needs no cache"
            )


def snapped(value: Tensor, base: Tensor) -> Tensor:
    """Return `value`, with the base's own numbers at positions `[batch pos]` where they differ by rounding only.

    A patch that changes no number is not computed. The bridge rounds in another order than the engine, so that equal
    activations differ in the last bits.
    """
    scale = base.abs().flatten(2).amax(dim=2)
    same = (value - base).abs().flatten(2).amax(dim=2) <= 8 * torch.finfo(base.dtype).eps * scale
    return torch.where(same.view(*same.shape, *(1,) * (base.ndim - 2)), base, value)


def with_site(run: Trace, site: str, values: Mapping[int, Tensor]) -> Trace:
    """Return the run with other values of a site in some layers."""
    kept = list(getattr(run, site))
    for layer, value in values.items():
        kept[layer] = value
    return replace(run, **{site: tuple(kept)})  # type: ignore[arg-type]
