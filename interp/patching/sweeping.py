"""Activation patching of one site, at every layer, position and head: `patch`, and `plan` to see its cost first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from interp.arguments import PromptsLike, exclusive, pair_of
from interp.models.anatomy import Anatomy, GenericAnatomy, anatomy_or_generic
from interp.models.resolve import AnyModel, raw_of
from interp.patching.cells import Cell, check_site, chosen, heads_at, neuron_groups, require_neurons
from interp.patching.effect import PatchEffect
from interp.patching.metric import MetricLike, bind_metric
from interp.patching.precision import Matmul, check_matmul
from interp.patching.sweep import Sweep
from interp.places import At, Joint, Part, patches_at
from interp.sites import NEURON_SITES
from interp.support.budget import allowed

Positions = At | Joint | Iterable[Part | Joint]
# Patches up to which a model taken apart is compared with the raw model at the end of the sweep only, on its prompts.
SHORT = 256
Direction = Literal["denoise", "noise"]
# Neurons that are patched one by one; those of a tuple together.
Neurons = int | Sequence[int | tuple[int, ...]]


@exclusive
def plan(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    site: str,
    metric: MetricLike,
    layers: int | Sequence[int] | None = None,
    positions: Positions | None = None,
    heads: int | Sequence[int] | None = None,
    direction: Direction = "denoise",
    memory: int | None = None,
    neurons: Neurons | None = None,
    matmul: Matmul = "exact",
) -> Sweep:
    """Return the sweep that `patch` would compute: see `.cost`, `.units` and `.peak_bytes`.

    Takes the arguments of `patch` and raises its `ValueError`s.
    """
    if direction not in ("denoise", "noise"):
        raise ValueError(f"direction must be 'denoise' or 'noise'; got {direction!r}")
    clean, corrupted = pair_of(model, clean, corrupted)
    if not len(clean):
        raise ValueError("there are no prompts")
    metric = bind_metric(metric, model, clean)
    anatomy = anatomy_or_generic(raw_of(model), test=False)
    if not anatomy.causal:
        raise ValueError(
            "this model attends in both directions, and a sweep skips what a causal mask leaves unchanged; "
            "path_patch, knock_out and interchange compute all positions"
        )
    check_matmul(matmul, anatomy)
    memory = allowed(anatomy.device) if memory is None else memory
    if memory < 1:
        raise ValueError(f"memory must be at least 1 byte; got {memory}")
    n_heads = _heads(anatomy, site)
    if heads is not None and not n_heads:
        raise ValueError(f"{site} has no heads; leave `heads` out")
    n_layers = len(anatomy.layers if isinstance(anatomy, GenericAnatomy) else anatomy.blocks)
    layer_list = chosen("layer", layers, n_layers)
    head_list: list[int | None] = list(chosen("head", heads, n_heads)) if n_heads else [None]
    places = patches_at(clean, positions)
    labels: dict[str, tuple[str | int, ...]] = {"layer": tuple(layer_list), "pos": tuple(name for name, _ in places)}
    if n_heads:
        labels["head"] = tuple(h for h in head_list if h is not None)
    groups = _neuron_groups(anatomy, site, layer_list, neurons)
    if groups != [None]:
        labels["neuron"] = tuple("+".join(map(str, g)) if len(g) != 1 else g[0] for g in groups if g is not None)
    parts = [(head, group) for head in head_list for group in groups]
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    sweep = Sweep(
        anatomy=anatomy,
        base=base,
        source=source,
        site=site,
        metric=metric,
        direction=direction,
        axes=("layer", *(axis for axis in ("head", "neuron") if axis in labels), "pos"),
        labels=labels,
        cells=tuple(Cell(la, at, head, group) for la in layer_list for head, group in parts for _, at in places),
        memory=memory,
        matmul=matmul,
    )
    if isinstance(anatomy, Anatomy) and len(sweep.cells) > SHORT:
        anatomy.self_test()
    if memory < sweep.minimum_bytes:
        raise ValueError(
            f"this sweep takes at least {_mebibytes(sweep.minimum_bytes)} MiB beyond the model; the budget is "
            f"{_mebibytes(memory, up=False)} MiB"
        )
    return sweep


def patch(
    model: AnyModel,
    clean: PromptsLike,
    corrupted: PromptsLike,
    site: str,
    metric: MetricLike,
    layers: int | Sequence[int] | None = None,
    positions: Positions | None = None,
    heads: int | Sequence[int] | None = None,
    direction: Direction = "denoise",
    memory: int | None = None,
    spot_cells: int = 4,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
    neurons: Neurons | None = None,
    matmul: Matmul = "exact",
) -> PatchEffect:
    """Patch a site's activations from one run into another, at each layer, position and head.

    Args:
        model: a run, a Hugging Face model, or a TransformerBridge.
        clean, corrupted: prompts with the same number of tokens: text, token ids `[batch pos]` or `Prompts`.
        site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, mlp_pre, mlp_post, q, k, v, z or pattern
            (TransformerLens's names; q and k are before rotation; a pattern is patched by destination row). Models that
            the engine does not take apart have resid_pre, resid_post and, by module, attn_out and mlp_out.
        metric: see `interp.patching.metrics`; only the positions and tokens that it declares are unembedded.
        layers, heads: all (None), one or several.
        positions: all (None); indices, span names, roles or (role, step) pairs: one patch per position. A `Joint` is
            one patch of all its positions.
        direction: "denoise" patches clean activations into the corrupted run (is the site sufficient?), "noise"
            corrupted ones into the clean run (is it necessary?).
        memory: bytes that the sweep may use beyond the model; by default `interp.support.budget.allowed()`.
        spot_cells: random cells that are recomputed by the literal loop on the raw model.
        seed: seed of these cells.
        progress: wraps the units of work, for a progress bar.
        neurons: at mlp_pre or mlp_post, a neuron or several, each patched alone; a tuple of them is patched together.
            None patches all neurons of a layer together. In a gated MLP mlp_pre is the gate.
        matmul: "exact", or coarser and faster matrix products of a float32 model: "tf32" (CUDA) or "bfloat16". The
            error is then measured on 16 cells or more, in units of the metric: `details["measured error"]`.

    Returns the metric of every patched run for every prompt, `[layer (head or neuron) pos batch]`. It differs from the
    literal loop by rounding only (`interp.support.rounding.tolerance`); `checks` holds the measured differences.
    Results of a model that is not taken apart have `details["anatomy"] == "generic"`.

    Raises `ValueError` for an unknown site, layer, head or place, naming the choices, for prompts of different
    layouts, for a model without a causal mask, and for a budget below the minimum; `RuntimeError` if a check fails.

    >>> metric = logit_diff(answer=" Mary", other=" John")
    >>> effect = patch(run, ["Mary met John and"], ["John met Mary and"], site="resid_pre", metric=metric)
    """
    sweep = plan(model, clean, corrupted, site, metric, layers, positions, heads, direction, memory, neurons, matmul)
    return sweep.run(spot_cells, seed, progress)


def _neuron_groups(
    anatomy: Anatomy | GenericAnatomy, site: str, layers: Sequence[int], neurons: Neurons | None
) -> list[tuple[int, ...] | None]:
    """Return the groups of neurons of a sweep; [None] for all together, and for a site without neurons."""
    if neurons is None:
        if site in NEURON_SITES and isinstance(anatomy, Anatomy):
            require_neurons(site, anatomy, layers)
        return [None]
    if isinstance(anatomy, GenericAnatomy):
        raise ValueError(f"{site} has no neurons; leave `neurons` out")
    return [*neuron_groups(site, anatomy, layers, neurons)]


def _heads(anatomy: Anatomy | GenericAnatomy, site: str) -> int:
    """Return how many heads a site has. Raises `ValueError` for a site that this model does not have."""
    if isinstance(anatomy, Anatomy):
        check_site(site, anatomy)
        return heads_at(site, anatomy)
    if site not in anatomy.sites:
        raise ValueError(
            f"{type(anatomy.raw).__name__} is run layer by layer and has the sites {', '.join(anatomy.sites)}; "
            f"got {site!r}"
        )
    return 0


def _mebibytes(n_bytes: int, up: bool = True) -> str:
    """Return MiB with one decimal, below one MiB with four; rounded up, so that the number given is enough, or down."""
    scale = 10 if n_bytes >= 2**20 else 10_000
    return f"{(-(-n_bytes * scale // 2**20) if up else n_bytes * scale // 2**20) / scale}"
