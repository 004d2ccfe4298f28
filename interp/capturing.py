"""What did the model compute on these prompts, and where did its heads look?

`capture` keeps activations of a few prompts; `reduce` runs over any number of them and keeps statistics only.
Models are TransformerBridges; sites are TransformerLens's hooks, each checked to have fired exactly once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Layers = Collection[int] | bool
Key = tuple[str, int]
# TransformerLens's hook of each site. `resid` is before the block; one more stands after the last block.
SITES = {
    "patterns": "attn.hook_pattern",
    "resid": "hook_resid_pre",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "resid_mid": "hook_resid_mid",
}
# Of the budget, for what one forward pass holds: what is captured, logits and the MLP's inside. 128 MiB of a GiB.
SHARE = 1 / 8


@dataclass(frozen=True, eq=False)
class Capture:
    """Activations of a batch, on the CPU, by layer; only what was asked for.

    Shapes:
        logits:   `[batch pos d_vocab]`.
        patterns: `[batch head dest_pos src_pos]` of each layer.
        resid:    `[batch pos d_model]`, the residual before each layer; number n_layers is after the last.
        q, z:     `[batch pos head d_head]`; k, v: `[batch pos kv_head d_head]`. q and k are before any
                  rotation, and on OPT before scaling.
        attn_out, mlp_out, resid_mid: `[batch pos d_model]`.
    """

    batch: Batch
    logits: Float[Tensor, "batch pos d_vocab"] | None = None
    patterns: dict[int, Float[Tensor, "batch head dest_pos src_pos"]] = field(default_factory=dict)
    resid: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    q: dict[int, Float[Tensor, "batch pos head d_head"]] = field(default_factory=dict)
    k: dict[int, Float[Tensor, "batch pos kv_head d_head"]] = field(default_factory=dict)
    v: dict[int, Float[Tensor, "batch pos kv_head d_head"]] = field(default_factory=dict)
    z: dict[int, Float[Tensor, "batch pos head d_head"]] = field(default_factory=dict)
    attn_out: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    mlp_out: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    resid_mid: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in fields(self)[2:]:
            for layer, value in getattr(self, site.name).items():
                start = value.shape[:1] + (value.shape[2:3] if site.name == "patterns" else value.shape[1:2])
                if start != self.batch.tokens.shape:
                    raise ValueError(f"{site.name} of layer {layer} is {tuple(value.shape)}: not of this batch")


def capture(
    model: TransformerBridge,
    batch: Batch,
    logits: bool = False,
    patterns: Layers = (),
    resid: Layers = (),
    q: Layers = (),
    k: Layers = (),
    v: Layers = (),
    z: Layers = (),
    attn_out: Layers = (),
    mlp_out: Layers = (),
    resid_mid: Layers = (),
) -> Capture:
    """Runs the model on a batch and keeps what is asked for: collections of layers, or True for all of them.

    Layers after the last one asked for are not run. Values are copies: editing them changes nothing else.
    Raises `ValueError` for a layer that is not there, a site that this architecture does not have (saying
    why), a model that is no TransformerBridge or is in training mode, when nothing is asked for, and for
    activations that are not finite, naming the prompt.
    """
    asked = {
        "patterns": patterns,
        "resid": resid,
        "q": q,
        "k": k,
        "v": v,
        "z": z,
        "attn_out": attn_out,
        "mlp_out": mlp_out,
        "resid_mid": resid_mid,
    }
    _check(model)
    keys = [(site, layer) for site, layers in asked.items() for layer in _layers(model, site, layers)]
    if not keys and not logits:
        raise ValueError(f"nothing was asked for; sites are logits, {', '.join(SITES)}")
    parts = [(out, got) for _, out, got in _run(model, batch, keys, logits, torch.device("cpu"))]
    by_site: dict[str, dict[int, Tensor]] = {site: {} for site in SITES}
    for site, layer in keys:
        by_site[site][layer] = torch.cat([got[site, layer] for _, got in parts])
    return Capture(batch, torch.cat([out for out, _ in parts]) if logits else None, **by_site)


def _check(model: Any) -> None:
    if not hasattr(model, "hook_dict"):
        raise ValueError(f"activations come from a TransformerBridge, such as run.model; got {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode; call model.eval() first")


def _layers(model: TransformerBridge, site: str, layers: Layers) -> list[int]:
    if site not in SITES:
        raise ValueError(f"unknown site {site!r}; sites are {', '.join(SITES)}")
    n = model.cfg.n_layers + (site == "resid")
    if isinstance(layers, bool):
        return list(range(n)) if layers else []
    for layer in layers:
        if layer not in range(n):
            raise ValueError(f"{site} has layers 0 to {n - 1}; got {layer!r}")
    return sorted(set(layers))


def _hook(model: TransformerBridge, site: str, layer: int) -> str:
    """The hook's name, or a `ValueError` that says why this model has none."""
    last = model.cfg.n_layers - 1
    name = f"blocks.{last}.hook_resid_post" if (site, layer) == ("resid", last + 1) else f"blocks.{layer}.{SITES[site]}"
    if name in model.hook_dict:
        return name
    why = f"TransformerLens gives {model.cfg.architecture} no {name}"
    if site == "resid_mid" and model.cfg.parallel_attn_mlp:
        why = "its blocks run attention and MLP in parallel, both on the residual before the block"
    raise ValueError(f"this model has no {site}: {why}")


def _run(
    model: TransformerBridge, batch: Batch, keys: Collection[Key], logits: bool, device: torch.device | None
) -> Iterator[tuple[Batch, Tensor, dict[Key, Tensor]]]:
    """Chunks of prompts, with their logits (empty unless asked for) and a copy of each activation."""
    hooks = {key: _hook(model, *key) for key in keys}
    cfg = model.cfg
    last = max((layer for _, layer in hooks), default=0)
    stop = None if logits or last + 1 >= cfg.n_layers else last + 1
    inside = 8 * cfg.d_model + cfg.n_heads * batch.n_pos + (cfg.d_vocab if stop is None else 0)
    held = sum(cfg.n_heads * batch.n_pos if site == "patterns" else cfg.d_model for site, _ in hooks)
    size = max(1, numbers(SHARE) // (batch.n_pos * (inside + held)))
    for start in range(0, len(batch), size):
        rows = batch.rows(slice(start, start + size))
        got: dict[Key, Tensor] = {}
        fired = dict.fromkeys(hooks, 0)

        # What a hook sees may be live storage that the model still writes to, hence the copy.
        def keep(value: Tensor, hook: Any, key: Key, got: dict = got, fired: dict = fired) -> None:
            got[key] = value.detach().to(device or value.device, copy=True)
            fired[key] += 1

        with torch.no_grad():
            out = model.run_with_hooks(
                rows.tokens.to(next(model.parameters()).device),
                return_type="logits" if logits else None,
                use_cache=False,
                stop_at_layer=stop,
                fwd_hooks=[(name, partial(keep, key=key)) for key, name in hooks.items()],
            )
        for key, times in fired.items():
            if times != 1:
                raise ValueError(f"{hooks[key]} fired {times} times, not once; is a flag such as use_attn_result on?")
            require_finite(got[key], f"{key[0]} of layer {key[1]}", start, axis=0, batch=batch)
        if logits:
            require_finite(out, "a logit of the model", start, axis=0, batch=batch)
        yield rows, out.detach().to(device or out.device, copy=True) if logits else torch.empty(0), got


class Reducer(Protocol):
    """A description of a statistic, such as those of `interp.reducers`. Its state is as large as its result."""

    @property
    def name(self) -> str:
        """The key of the result."""
        ...

    def sites(self, model: TransformerBridge) -> Collection[Key]:
        """Sites and layers that it reads."""
        ...

    def add(self, state: dict, model: TransformerBridge, batch: Batch, got: Mapping[Key, Tensor]) -> None:
        """Takes in one chunk of prompts; the state starts as {}."""
        ...

    def result(self, state: dict) -> Any:
        """The statistic of every prompt taken in."""
        ...


def reduce(model: TransformerBridge, batches: Iterable[Batch], reducers: Sequence[Reducer]) -> dict[str, Any]:
    """The result of each reducer over all prompts, by the reducer's name.

    Batches may be of various formats and lengths, and are best a generator: each is run in chunks and
    dropped, so that memory does not depend on their number. Raises `ValueError` as `capture` does, and for no
    reducer, two of one name, or no batch.
    """
    _check(model)
    names = [reducer.name for reducer in reducers]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"give one or more reducers of different names; got {names}")
    keys = sorted({key for reducer in reducers for key in reducer.sites(model)})
    for site, layer in keys:
        _layers(model, site, (layer,))
    states: list[dict] = [{} for _ in reducers]
    for batch in batches:
        for rows, _, got in _run(model, batch, keys, False, None):
            for reducer, state in zip(reducers, states, strict=True):
                reducer.add(state, model, rows, got)
            del got  # or this chunk would be alive while the next one is run
    if not all(states):
        raise ValueError("no batch was given: there is nothing to reduce")
    return {name: reducer.result(state) for name, reducer, state in zip(names, reducers, states, strict=True)}
