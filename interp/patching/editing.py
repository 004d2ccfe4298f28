"""The full forward pass of a model taken apart, with a function at any site of any layer.

It computes all positions of every layer. Knockouts, interchanges, path patching and circuits are built on it.
Sweeps of single sites use the engine (`interp.patching.engine`), which skips most of this work.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import require_gradients
from interp.models.anatomy import TOLERANCE, Anatomy, Block, tolerance_of
from interp.patching.metric import Metric
from interp.sites import NEURON_SITES, Site
from interp.support.budget import numbers
from interp.support.exactness import Inexact
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Sites that the pass can edit or keep. An edit of mlp_in reaches the MLP only. With a key sink, "pattern" is without
# the sink's column and "attn_scores" are relative to the sink's logit, so that they alone determine the pattern.
EDIT_SITES: tuple[Site, ...] = (
    "resid_pre",
    "q",
    "k",
    "v",
    "attn_scores",
    "pattern",
    "z",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_pre",
    "mlp_post",
    "mlp_out",
    "resid_post",
)
# A site of a layer.
Place = tuple[Site, int]
# Takes the value and the sites of this layer computed so far; returns a new value of the same shape.
Edit = Callable[[Tensor, Mapping[Site, Tensor]], Tensor]
# Share of the memory budget for one chunk of prompts: 256 MiB of a GiB.
SHARE = 1 / 4
# On a CPU a layer's values of the prompts in one chunk take this many numbers at most: more of them leave its caches,
# and a pass takes up to twice the time. Where a layer has more than half as many weights, these leave the caches
# anyway, and twice as many values share each reading of them.
CACHED = 2**21
# Largest ratio of this pass's rounding error to the raw model's own, both against float64.
ROUNDING = 10


def forward_with_edits(
    anatomy: Anatomy,
    resid: Float[Tensor, "row pos d_model"],
    start: int = 0,
    stop: int | None = None,
    edits: Mapping[Place, Edit] | None = None,
    keep: Collection[Place] = (),
    fused: bool = False,
) -> tuple[Float[Tensor, "row pos d_model"], dict[Place, Tensor]]:
    """Return the residual before layer `stop` (default: after the last layer), and the values of `keep`.

    `resid` is resid_pre of layer `start`. An edit of resid_pre, attn_out or mlp_out changes the residual stream; one
    of mlp_in changes what the MLP reads. Kept values are taken after their edit. Gradients flow unless disabled.
    `fused` computes attention by `Anatomy.attend`, without patterns: they can then be neither kept nor edited.
    Raises `ValueError` for a place outside the layers that are run, and for one that this architecture does not have.

    >>> resid, kept = forward_with_edits(anatomy, anatomy.embed(tokens), keep=[("pattern", 1)])
    """
    stop = len(anatomy.blocks) if stop is None else stop
    edits = dict(edits or {})
    for site, layer in (*edits, *keep):
        if site not in EDIT_SITES or not start <= layer < stop:
            raise ValueError(
                f"no {site!r} in layer {layer}; sites: {', '.join(EDIT_SITES)}; layers {start} to {stop - 1}"
            )
        if site == "resid_mid" and anatomy.blocks[layer].parallel:
            raise ValueError("parallel blocks have no resid_mid: attention and MLP both read resid_pre")
        if site in NEURON_SITES and not anatomy.blocks[layer].has_neurons:
            raise ValueError(f"layer {layer} of this model has no {site}: its MLP is not taken apart into neurons")
    kept: dict[Place, Tensor] = {}
    positions = torch.arange(resid.shape[-2], device=resid.device)
    biases: dict[tuple, Tensor] = {}
    for layer in range(start, stop):
        block, step = anatomy.blocks[layer], _Layer(layer, edits, set(keep), kept)
        resid = step.at("resid_pre", resid)
        q, k, v = (step.at(site, x) for site, x in zip(("q", "k", "v"), block.project(resid), strict=True))
        queries, keys = anatomy.queries(block, q, positions), anatomy.expand_heads(anatomy.keys(block, k, positions))
        if (of := (block.window, block.key_bias)) not in biases:  # blocks of the same mask and encoding share it
            biases[of] = anatomy.bias(block, positions, positions)
        sink = anatomy.sink(block, queries, positions)
        if fused:
            z = anatomy.attend(block, queries, keys, anatomy.expand_heads(v), biases[of], sink)
        else:
            scores = block.cap(torch.einsum("...dhe,...she->...hds", queries * block.scale, keys)) + biases[of]
            # The sink's logit is subtracted before the edit and added after it, so that rounding is the raw model's.
            scores = step.at("attn_scores", scores) if sink is None else step.at("attn_scores", scores - sink) + sink
            z = anatomy.mix(step.at("pattern", anatomy.softmax(scores, sink)), v)
        z = step.at("z", z)
        mid = resid + step.at("attn_out", block.attn_out(z))
        mid = mid if block.parallel else step.at("resid_mid", mid)
        mlp_in = step.at("mlp_in", resid if block.parallel else mid)
        resid = step.at("resid_post", mid + step.at("mlp_out", _mlp_out(step, block, mlp_in)))
    assert not edits, f"edits that never fired: {list(edits)}"
    return resid, kept


def _mlp_out(step: _Layer, block: Block, mlp_in: Tensor) -> Tensor:
    """Return what the MLP adds, through its neurons where these are edited or kept."""
    if not step.involves(NEURON_SITES):
        return block.mlp_out(mlp_in)
    pre = step.at("mlp_pre", block.mlp_pre(mlp_in))
    return block.mlp_write(step.at("mlp_post", block.mlp_post(pre, mlp_in)))


class _Layer:
    """One layer of one pass: applies each edit once, and keeps values."""

    def __init__(self, layer: int, edits: dict[Place, Edit], keep: set[Place], kept: dict[Place, Tensor]) -> None:
        self.layer, self.edits, self.keep, self.kept = layer, edits, keep, kept
        self.computed: dict[Site, Tensor] = {}

    def involves(self, sites: Collection[Site]) -> bool:
        """Return whether one of these sites is edited or kept in this layer."""
        return any((site, self.layer) in self.edits or (site, self.layer) in self.keep for site in sites)

    def at(self, site: Site, value: Tensor) -> Tensor:
        """Return the value after the site's edit, if there is one."""
        edit = self.edits.pop((site, self.layer), None)
        if edit is not None:
            edited = edit(value, self.computed)
            assert edited.shape == value.shape, f"an edit of {site} changed its shape"
            assert edited is not value, f"an edit of {site} must return a new value"
            value = edited
        self.computed[site] = value
        if (site, self.layer) in self.keep:
            self.kept[site, self.layer] = value
        return value


def read(anatomy: Anatomy, resid: Float[Tensor, "row pos d_model"], metric: Metric, rows: Tensor) -> Tensor:
    """Return the metric `[row]` of prompts numbered `rows`, with its gradient, from the residual after the last layer.

    Raises `ValueError` for a NaN or infinite value, naming the prompt, and for a metric of the wrong shape.
    """
    logits = anatomy.unembed(resid[:, metric.positions.to(resid.device)], metric.tokens)
    return require_finite(metric.measure_read(logits, rows), metric.name, rows)


@torch.no_grad()
def measure(anatomy: Anatomy, resid: Float[Tensor, "row pos d_model"], metric: Metric, rows: Tensor) -> Tensor:
    """Return the same as `read`, on the CPU and without a gradient."""
    return read(anatomy, resid, metric, rows).cpu()


def read_for_gradient(
    anatomy: Anatomy, resid: Float[Tensor, "row pos d_model"], metric: Metric, rows: Tensor
) -> Float[Tensor, ""]:
    """Return the sum of `read` over prompts. Raises `ValueError` for a metric without a gradient."""
    require_gradients(f"the gradient of {metric.name}")
    total = read(anatomy, resid, metric, rows).sum()
    if not total.requires_grad:
        raise ValueError(f"{metric.name} has no gradient; use logit_diff, margin, probability or kl")
    return total


@torch.no_grad()
def difference_from_raw(
    anatomy: Anatomy, tokens: Tensor, resid: Tensor, metric: Metric, expected: Tensor | None = None
) -> float:
    """Return `difference_where_read` of the residual after the last layer `[row pos d_model]`; raise its errors."""
    return difference_where_read(anatomy, [tokens], resid[:, metric.positions.to(resid.device)], metric, expected)


@torch.no_grad()
def difference_where_read(
    anatomy: Anatomy,
    tokens: Sequence[Int[Tensor, "row pos"]],
    resid: Float[Tensor, "row read d_model"],
    metric: Metric,
    expected: Tensor | None,
) -> float:
    """Return the largest difference of the unedited pass from the raw model's logits, relative to their spread.

    Only positions that the metric reads are compared. `tokens` are the first prompts, in parts; `expected` the raw
    model's logits there, if they are known.
    Raises `RuntimeError` if the difference is larger than rounding explains: the pass is further from the raw model
    in float64 than `ROUNDING` times the raw model in float32.
    """
    raw: Any = anatomy.raw
    positions = metric.positions.to(resid.device)
    if expected is None:
        expected = cast(
            Tensor, raw(torch.cat([*tokens]).to(resid.device), use_cache=False, logits_to_keep=positions).logits
        )
    logits = anatomy.unembed(resid)
    largest = float((logits - expected).abs().max())
    if not isfinite(largest):
        require_finite(expected, "a logit of the model", axis=0)
    difference = largest / max(float(expected.std(correction=0)), 1e-6)
    if difference > TOLERANCE and anatomy.dtype == torch.float32:  # rounding or a mistake? see Anatomy.self_test
        double: Any = copy.deepcopy(raw).double()
        exact = double(torch.cat([*tokens]).to(resid.device), use_cache=False, logits_to_keep=positions).logits
        ours, theirs = (float((x - exact).abs().max()) for x in (logits, expected))
        difference = difference if ours > ROUNDING * theirs else TOLERANCE
    if not difference <= tolerance_of(anatomy.dtype):
        raise Inexact(
            f"the model taken apart differs from the raw model by {difference:.1e} of its logits' spread on these "
            "prompts; does the model have hooks or options that act on them only?"
        )
    return difference


def chunks(
    anatomy: Anatomy,
    prompts: Prompts,
    metric: Metric,
    copies: int,
    kept: int = 0,
    share: float = SHARE,
    part: float = 1,
) -> Iterator[Int[Tensor, " row"]]:
    """Return the numbers of the prompts to run together, so that `copies` of a layer's values fit a budget.

    It is `share` of what one pass may take. `kept`: numbers that are held per prompt besides. On a CPU fewer prompts
    run together, so that a layer's values fit its caches; a pass computes `part` of the positions.
    Raises `ValueError` without prompts, and for a metric that reads a position which the prompts do not have.
    """
    if not len(prompts):
        raise ValueError("there are no prompts")
    metric.require_positions(prompts.n_pos)
    width = anatomy.n_heads * (prompts.n_pos + 3 * anatomy.d_head) + 6 * anatomy.raw.config.hidden_size
    itemsize = anatomy.dtype.itemsize
    logits = len(metric.positions) * anatomy.raw.config.vocab_size * max(1, 4 // itemsize)  # read in float32 at least
    most = numbers(share, anatomy.device, itemsize) // (copies * prompts.n_pos * width + kept + logits)
    if anatomy.device.type == "cpu":
        weights = sum(x.numel() for x in anatomy.blocks[0].module.parameters())
        most = min(most, int(max(CACHED, 2 * weights) / (part * prompts.n_pos * width)))
    yield from torch.arange(len(prompts)).split(max(1, most))
