"""Drop-in replacements for `transformer_lens.patching`, computed by the patching engine.

    from interp.patching import grids as patching

Functions have TransformerLens's names, arguments and results, and equal it up to rounding. The model is a Run, a raw
Hugging Face model or a TransformerBridge. The clean cache is an `ActivationCache`, a `Capture`, or a mapping from hook
names to tensors: only the values of the patched site are read, as in TransformerLens. A metric is a function of logits
`[batch pos d_vocab]`, a declared metric such as `interp.logit_diff`, or a mapping of names to these.

Every grid has the keywords of TransformerLens:

- `index_df`: rows of indices; the result is then flat, one value per row. `return_index_df=True` returns it too.
- `reduce`: "scalar" (the metric returns a scalar), "mean" (it returns `[batch]`, which is averaged) or "none" (it
  returns `[batch]`; the result is a `PatchingResult`). Declared metrics have one value per prompt and fit all three.
- `baseline=True`: the result is a `PatchingResult` with the metric of the unpatched corrupted run.

Differences from TransformerLens:

- A patch of resid_mid changes the residual stream. TransformerLens's does so only under `torch.no_grad()`; with
  gradients enabled its patch reaches the MLP and not the residual stream. Parallel blocks have no resid_mid.
- OPT's patterns are patched; TransformerLens's patch has no effect there.
- A direct path starts from any head whose model is taken apart, OPT and post-norm models included.
- A metric that is NaN or infinite, and a failed check against the literal loop, raise an error.

Other names of `transformer_lens.patching`, such as `generic_activation_patch`, are TransformerLens's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike
from interp.models.resolve import AnyModel
from interp.patching.grids.caches import Cache
from interp.patching.grids.callables import GridMetric
from interp.patching.grids.direct import Component, direct_paths
from interp.patching.grids.tables import GridAxes, Metrics, grid, stack
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.patching import PatchingResult


def _grid(name: str, site: Site, *axes: str) -> Callable[..., Any]:
    """Return the function of one grid."""
    which = GridAxes(site, axes)

    def get_act_patch(
        model: AnyModel, corrupted_tokens: PromptsLike, clean_cache: Cache, patching_metric: Metrics, **options: Any
    ) -> Any:
        return grid(model, corrupted_tokens, clean_cache, patching_metric, which, **options)

    get_act_patch.__name__ = get_act_patch.__qualname__ = name
    get_act_patch.__doc__ = (
        f"Patch {site} of the clean cache into the corrupted run; return the metric, [{' '.join(axes)}].\n\n"
        "Options: index_df, return_index_df, reduce, baseline; see the module."
    )
    return get_act_patch


get_act_patch_resid_pre = _grid("get_act_patch_resid_pre", "resid_pre", "layer", "pos")
get_act_patch_resid_mid = _grid("get_act_patch_resid_mid", "resid_mid", "layer", "pos")
get_act_patch_attn_out = _grid("get_act_patch_attn_out", "attn_out", "layer", "pos")
get_act_patch_mlp_out = _grid("get_act_patch_mlp_out", "mlp_out", "layer", "pos")
get_act_patch_attn_head_out_by_pos = _grid("get_act_patch_attn_head_out_by_pos", "z", "layer", "pos", "head")
get_act_patch_attn_head_q_by_pos = _grid("get_act_patch_attn_head_q_by_pos", "q", "layer", "pos", "head")
get_act_patch_attn_head_k_by_pos = _grid("get_act_patch_attn_head_k_by_pos", "k", "layer", "pos", "head")
get_act_patch_attn_head_v_by_pos = _grid("get_act_patch_attn_head_v_by_pos", "v", "layer", "pos", "head")
get_act_patch_attn_head_pattern_by_pos = _grid(
    "get_act_patch_attn_head_pattern_by_pos", "pattern", "layer", "head_index", "dest_pos"
)
get_act_patch_attn_head_pattern_dest_src_pos = _grid(
    "get_act_patch_attn_head_pattern_dest_src_pos", "pattern", "layer", "head_index", "dest_pos", "src_pos"
)
get_act_patch_attn_head_out_all_pos = _grid("get_act_patch_attn_head_out_all_pos", "z", "layer", "head")
get_act_patch_attn_head_q_all_pos = _grid("get_act_patch_attn_head_q_all_pos", "q", "layer", "head")
get_act_patch_attn_head_k_all_pos = _grid("get_act_patch_attn_head_k_all_pos", "k", "layer", "head")
get_act_patch_attn_head_v_all_pos = _grid("get_act_patch_attn_head_v_all_pos", "v", "layer", "head")
get_act_patch_attn_head_pattern_all_pos = _grid(
    "get_act_patch_attn_head_pattern_all_pos", "pattern", "layer", "head_index"
)

_BLOCK = {site: GridAxes(site, ("layer", "pos")) for site in ("resid_pre", "attn_out", "mlp_out")}
_HEAD_SITES: dict[str, Site] = {"out": "z", "q": "q", "k": "k", "v": "v", "pattern": "pattern"}
_ALL_POS = {name: GridAxes(site, ("layer", "head")) for name, site in _HEAD_SITES.items()}
_BY_POS = {name: GridAxes(site, ("layer", "pos", "head")) for name, site in _HEAD_SITES.items()}


def get_act_patch_block_every(
    model: AnyModel, corrupted_tokens: PromptsLike, clean_cache: Cache, metric: Metrics, **options: Any
) -> Float[Tensor, "3 layer pos"] | PatchingResult:
    """Return the grids of resid_pre, attn_out and mlp_out. Options: reduce, baseline."""
    return stack(model, corrupted_tokens, clean_cache, metric, _BLOCK, ("layer", "pos"), **options)


def get_act_patch_attn_head_all_pos_every(
    model: AnyModel, corrupted_tokens: PromptsLike, clean_cache: Cache, metric: Metrics, **options: Any
) -> Float[Tensor, "5 layer head"] | PatchingResult:
    """Return the grids of heads' z, q, k, v and pattern at all positions. Options: reduce, baseline."""
    return stack(model, corrupted_tokens, clean_cache, metric, _ALL_POS, ("layer", "head"), **options)


def get_act_patch_attn_head_by_pos_every(
    model: AnyModel, corrupted_tokens: PromptsLike, clean_cache: Cache, metric: Metrics, **options: Any
) -> Float[Tensor, "5 layer pos head"] | PatchingResult:
    """Return the grids of heads' z, q, k, v and pattern by position. Options: reduce, baseline."""
    return stack(model, corrupted_tokens, clean_cache, metric, _BY_POS, ("layer", "pos", "head"), **options)


def get_act_patch_direct_path(
    model: AnyModel,
    corrupted_tokens: PromptsLike,
    clean_cache: Cache,
    corrupted_cache: Cache,
    patching_metric: GridMetric,
    src_layer: int,
    src_head: int,
    component: Component = "q",
    verbose: bool = True,
) -> Float[Tensor, "layer head"]:
    """Return the metric with the path from one head to each later head's q, k or v patched; 0 for earlier heads.

    The caches hold z of the source's layer. `verbose` does nothing: there is no progress bar. Raises `ValueError` for
    k and v where heads share key-value heads.
    """
    source = [(src_layer, src_head)]
    return direct_paths(model, corrupted_tokens, clean_cache, corrupted_cache, patching_metric, source, component)[0]


def get_act_patch_direct_path_all_sources(
    model: AnyModel,
    corrupted_tokens: PromptsLike,
    clean_cache: Cache,
    corrupted_cache: Cache,
    patching_metric: GridMetric,
    component: Component = "q",
    verbose: bool = True,
) -> Float[Tensor, "src_layer src_head layer head"]:
    """Return `get_act_patch_direct_path` of every source head."""
    paths = direct_paths(model, corrupted_tokens, clean_cache, corrupted_cache, patching_metric, None, component)
    return paths.unflatten(0, paths.shape[1:])


def __getattr__(name: str) -> Any:
    """Return TransformerLens's own object for names that are not defined here."""
    if name.startswith("__"):
        raise AttributeError(name)
    from transformer_lens import patching

    if not hasattr(patching, name):
        raise AttributeError(f"neither {__name__} nor transformer_lens.patching has {name!r}")
    return getattr(patching, name)
