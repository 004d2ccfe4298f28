"""Capture activations of a few prompts, or reduce those of many prompts to statistics.

`capture` keeps activations; `reduce` keeps statistics only, for any number of prompts. Sites are TransformerLens's
hooks (`interp.sites`), run by `interp.recording`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, prompts_of
from interp.models.resolve import AnyModel
from interp.recording import Key, Layers, activations, evaluating_bridge, layers_at
from interp.sites import ATTENTION_SITES, SITES, Site
from interp.tasks import Prompts
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas
    from transformer_lens.model_bridge import TransformerBridge

ByLayer = dict[int, Tensor]


@dataclass(frozen=True, eq=False)
class Capture(Shown):
    """Activations of some prompts, on the CPU, by layer; only the sites that were asked for.

    Shapes:
        logits: `[batch pos d_vocab]`.
        embed, resid_pre, resid_mid, resid_post, attn_out, mlp_in, mlp_out: `[batch pos d_model]`. `embed` has the
            single layer 0.
        q, z: `[batch pos head d_head]`; k, v: `[batch pos kv_head d_head]`. q and k are before any rotation and
            before a norm of each head, but after a norm over all heads (OLMo 2), as they are patched: there they are
            TransformerLens's hook_q_normed and hook_k_normed. On OPT they are before scaling.
        attn_scores, pattern: `[batch head dest_pos src_pos]`.
        mlp_pre, mlp_post: `[batch pos d_mlp]`, before and after the non-linearity.

    >>> capture(run, prompts, pattern=[1]).pattern[1].shape
    torch.Size([1, 8, 14, 14])
    """

    prompts: Prompts
    logits: Float[Tensor, "batch pos d_vocab"] | None = None
    embed: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    resid_pre: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    resid_mid: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    resid_post: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    attn_out: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    mlp_in: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    mlp_out: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    q: dict[int, Float[Tensor, "batch pos head d_head"]] = field(default_factory=dict)
    k: dict[int, Float[Tensor, "batch pos kv_head d_head"]] = field(default_factory=dict)
    v: dict[int, Float[Tensor, "batch pos kv_head d_head"]] = field(default_factory=dict)
    z: dict[int, Float[Tensor, "batch pos head d_head"]] = field(default_factory=dict)
    attn_scores: dict[int, Float[Tensor, "batch head dest_pos src_pos"]] = field(default_factory=dict)
    pattern: dict[int, Float[Tensor, "batch head dest_pos src_pos"]] = field(default_factory=dict)
    mlp_pre: dict[int, Float[Tensor, "batch pos d_mlp"]] = field(default_factory=dict)
    mlp_post: dict[int, Float[Tensor, "batch pos d_mlp"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in SITES:
            for layer, value in getattr(self, site).items():
                pos = 2 if site in ATTENTION_SITES else 1
                if (value.shape[0], value.shape[pos]) != self.prompts.tokens.shape:
                    raise ValueError(
                        f"{site} of layer {layer} is {tuple(value.shape)}; these prompts are "
                        f"{tuple(self.prompts.tokens.shape)}"
                    )

    def __repr__(self) -> str:
        sites = [f"{site}={sorted(values)}" for site in SITES if (values := getattr(self, site))]
        sites = sites if self.logits is None else ["logits", *sites]
        return f"Capture({len(self.prompts)} prompts of {self.prompts.n_pos} tokens: {', '.join(sites)})"

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per site and layer: shape, mean, standard deviation, smallest and largest value."""
        import pandas

        values = [(site, layer, x) for site in SITES for layer, x in sorted(getattr(self, site).items())]
        values += [] if self.logits is None else [("logits", -1, self.logits)]
        rows = [
            (site, layer, tuple(x.shape), *(float(f(x.float())) for f in (torch.mean, torch.std, torch.min, torch.max)))
            for site, layer, x in values
        ]
        return pandas.DataFrame(rows, columns=["site", "layer", "shape", "mean", "std", "min", "max"])


@exclusive
def capture(
    model: AnyModel,
    prompts: PromptsLike,
    logits: bool = False,
    *,
    embed: bool = False,
    resid_pre: Layers = (),
    resid_mid: Layers = (),
    resid_post: Layers = (),
    attn_out: Layers = (),
    mlp_in: Layers = (),
    mlp_out: Layers = (),
    q: Layers = (),
    k: Layers = (),
    v: Layers = (),
    z: Layers = (),
    attn_scores: Layers = (),
    pattern: Layers = (),
    mlp_pre: Layers = (),
    mlp_post: Layers = (),
) -> Capture:
    """Run the model and keep the activations of the given layers (a collection, or True for all) at each site.

    Layers after the last one needed are not run. Values are copies: editing them changes nothing else.
    Raises `ValueError` for a layer that does not exist, a site that this architecture does not have (with the
    reason), a model in training mode, no site, and activations that are not finite, naming the prompt.
    """
    layers: dict[Site, Layers] = {
        "embed": embed,
        "resid_pre": resid_pre,
        "resid_mid": resid_mid,
        "resid_post": resid_post,
        "attn_out": attn_out,
        "mlp_in": mlp_in,
        "mlp_out": mlp_out,
        "q": q,
        "k": k,
        "v": v,
        "z": z,
        "attn_scores": attn_scores,
        "pattern": pattern,
        "mlp_pre": mlp_pre,
        "mlp_post": mlp_post,
    }
    bridge = evaluating_bridge(model)
    keys: list[Key] = [(site, layer) for site, some in layers.items() for layer in layers_at(bridge, site, some)]
    if not keys and not logits:
        raise ValueError(f"no site was given; sites are logits, {', '.join(SITES)}")
    prompts = prompts_of(model, prompts)
    if not len(prompts):
        raise ValueError("there are no prompts")
    parts = [(out, kept) for _, out, kept in activations(bridge, prompts, keys, logits, torch.device("cpu"))]
    by_site: dict[str, ByLayer] = {site: {} for site in SITES}
    for site, layer in keys:
        by_site[site][layer] = torch.cat([kept[site, layer] for _, kept in parts])
    return Capture(prompts, torch.cat([out for out, _ in parts]) if logits else None, **by_site)


class Reducer(Protocol):
    """A statistic, such as those of `interp.reducers`. Its state is as large as its result."""

    @property
    def name(self) -> str:
        """The key of the result."""
        ...

    def sites(self, model: TransformerBridge) -> Collection[Key]:
        """Return the sites and layers that it reads."""
        ...

    def add(self, state: dict, model: TransformerBridge, batch: Prompts, activations: Mapping[Key, Tensor]) -> None:
        """Add one chunk of prompts to the state, which starts as {}."""
        ...

    def result(self, state: dict) -> Any:
        """Return the statistic of all prompts added."""
        ...


@exclusive
def reduce(model: AnyModel, batches: Iterable[PromptsLike], reducers: Sequence[Reducer]) -> dict[str, Any]:
    """Return the result of each reducer over all prompts, by the reducer's name.

    Batches may have different formats and lengths. Pass a generator: each batch is run in chunks and dropped, so that
    memory does not depend on their number. Raises `ValueError` as `capture` does, and for no reducer, two of one
    name, or no batch.
    """
    names = [reducer.name for reducer in reducers]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"give one or more reducers of different names; got {names}")
    bridge = evaluating_bridge(model)
    keys = sorted({key for reducer in reducers for key in reducer.sites(bridge)})
    for site, layer in keys:
        layers_at(bridge, site, (layer,))
    states: list[dict] = [{} for _ in reducers]
    for batch in batches:
        for rows, _, kept in activations(bridge, prompts_of(model, batch), keys, False, None):
            for reducer, state in zip(reducers, states, strict=True):
                reducer.add(state, bridge, rows, kept)
            del kept  # freed before the next chunk is run
    if not all(states):
        raise ValueError("no batch was given: there is nothing to reduce")
    return {name: reducer.result(state) for name, reducer, state in zip(names, reducers, states, strict=True)}
