"""The sites of a transformer, by TransformerLens's names: axes, heads and hook of each.

Patching, capturing, interchange, circuits and attribution all use these names. A module that serves only some
sites keeps a tuple of them and calls `require_site` with that tuple.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

Site = Literal[
    "embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_in",
    "mlp_out",
    "q",
    "k",
    "v",
    "z",
    "attn_scores",
    "pattern",
    "mlp_pre",
    "mlp_post",
]
SITES: tuple[Site, ...] = get_args(Site)

_STREAM = ("batch", "pos", "d_model")
# q and k are taken before any rotation, and after a norm over all heads. attn_scores include the causal mask and any
# position bias.
AXES: dict[Site, tuple[str, ...]] = {
    "embed": _STREAM,
    "resid_pre": _STREAM,
    "resid_mid": _STREAM,
    "resid_post": _STREAM,
    "attn_out": _STREAM,
    "mlp_in": _STREAM,
    "mlp_out": _STREAM,
    "q": ("batch", "pos", "head", "d_head"),
    "k": ("batch", "pos", "kv_head", "d_head"),
    "v": ("batch", "pos", "kv_head", "d_head"),
    "z": ("batch", "pos", "head", "d_head"),
    "attn_scores": ("batch", "head", "dest_pos", "src_pos"),
    "pattern": ("batch", "head", "dest_pos", "src_pos"),
    "mlp_pre": ("batch", "pos", "d_mlp"),
    "mlp_post": ("batch", "pos", "d_mlp"),
}
# Sites with one value per key-value head; with grouped queries these are fewer than the query heads.
KV_SITES: tuple[Site, ...] = ("k", "v")
# Sites with one value per head.
HEAD_SITES: tuple[Site, ...] = ("q", "k", "v", "z", "attn_scores", "pattern")
# Sites in the residual stream, or added to it.
RESID_SITES: tuple[Site, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
# Sites with one value per neuron of the MLP. In a gated MLP mlp_pre is the gate before its non-linearity.
NEURON_SITES: tuple[Site, ...] = ("mlp_pre", "mlp_post")
# Sites that a sweep of patches can patch.
PATCH_SITES: tuple[Site, ...] = (*RESID_SITES, "q", "k", "v", "z", "pattern", *NEURON_SITES)
# Sites indexed by destination and source position.
ATTENTION_SITES: tuple[Site, ...] = ("attn_scores", "pattern")

_HOOKS: dict[Site, str] = {
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "attn_scores": "attn.hook_attn_scores",
    "pattern": "attn.hook_pattern",
    "mlp_pre": "mlp.hook_pre",
    "mlp_post": "mlp.hook_post",
}


def require_site(site: str, choices: Collection[str] = SITES, user: str = "") -> None:
    """Raise `ValueError` unless `site` is one of `choices`; the message names them.

    `user`: the function that has these sites, for the message on a site that only others have.

    >>> require_site("scores", ("q", "k"))
    Traceback (most recent call last):
    ValueError: unknown site 'scores'; sites are q, k
    """
    if site in SITES and site not in choices:
        who = f"{user} does" if user else "this function does"
        raise ValueError(f"unknown site {site!r}: capture takes it, {who} not; sites are {', '.join(choices)}")
    if site not in choices:
        raise ValueError(f"unknown site {site!r}; sites are {', '.join(choices)}")


def hook_name(site: Site, layer: int, normed: bool = False) -> str:
    """Return the name of TransformerLens's hook for a site.

    `normed`: of q and k after a norm over all heads, whose value has no axis of heads.

    >>> hook_name("pattern", 1), hook_name("resid_pre", 0), hook_name("embed", 0)
    ('blocks.1.attn.hook_pattern', 'blocks.0.hook_resid_pre', 'hook_embed')
    """
    return "hook_embed" if site == "embed" else f"blocks.{layer}.{_HOOKS.get(site, f'hook_{site}')}{'_normed' * normed}"


def head_count(site: str, n_heads: int, n_kv_heads: int) -> int:
    """Return how many heads a site has; 0 for a site without heads."""
    return 0 if site not in HEAD_SITES else n_kv_heads if site in KV_SITES else n_heads
