"""Patched runs that compute only what differs from the unpatched run.

Under a causal mask nothing changes in the layers before the first patch, or at the positions before it: keys and
values there are the unpatched run's. The last layer is computed only where the metric reads. In the first patched
layer everything before the patched site is taken from the unpatched run, and attention that is given is not computed.
`interp.patching.editing.forward_with_edits` computes all of it and is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.editing import Place, chunks, difference_from_raw, forward_with_edits
from interp.patching.metric import Metric
from interp.sites import Site
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Positions of a value: all from one on, or some.
Where = slice | Int[Tensor, " pos"]
# Takes the value at some positions, the sites of this layer computed so far, and the positions; returns a new value.
WhereEdit = Callable[[Tensor, Mapping[Site, Tensor], Where], Tensor]
# Sites whose patch changes the attention pattern of its own layer.
BEFORE_PATTERN: tuple[Site, ...] = ("resid_pre", "q", "k", "attn_scores")


@dataclass(frozen=True, eq=False)
class Changes:
    """What a patched run changes: edits by place, and patterns `[row head dest src]` by layer that replace attention.

    `start` and `first`: the first layer and position that can differ from the unpatched run.
    """

    start: int
    first: int
    edits: Mapping[Place, WhereEdit]
    patterns: Mapping[int, Callable[[Where], Tensor]] = field(default_factory=dict)


@dataclass(eq=False)
class Unpatched:
    """The unpatched run of prompts numbered `rows`: the residual after the last layer and the places of `kept`.

    `raw_difference` is that of the first chunk of prompts from the raw model's logits (see `difference_from_raw`).
    """

    rows: Int[Tensor, " row"]
    final: Float[Tensor, "row pos d_model"]
    kept: Mapping[Place, Tensor]
    raw_difference: float
    _keys: dict[int, Tensor] = field(default_factory=dict)
    _biases: dict[tuple, Tensor] = field(default_factory=dict)

    def bias(self, anatomy: Anatomy, layer: int, first: int) -> Float[Tensor, "head dest src"]:
        """Return what is added to the scores of positions from `first` on; layers of the same kind share it."""
        block = anatomy.blocks[layer]
        of = (block.window, block.key_bias, first)
        if of not in self._biases:
            src = torch.arange(self.final.shape[1], device=self.final.device)
            self._biases[of] = anatomy.bias(block, src[first:], src)
        return self._biases[of]

    def keys(self, anatomy: Anatomy, layer: int, before: int) -> Float[Tensor, "row src head d_head"]:
        """Return the keys of the positions before one, as attention uses them."""
        if layer not in self._keys:
            k = self.kept["k", layer]
            positions = torch.arange(k.shape[1], device=k.device)
            self._keys[layer] = anatomy.expand_heads(anatomy.keys(anatomy.blocks[layer], k, positions))
        return self._keys[layer][:, :before]


def reused_places(anatomy: Anatomy, starts: Mapping[int, Collection[Site]], first: int) -> set[Place]:
    """Return what patched runs take from the unpatched one.

    `starts` has the sites that are patched in each first layer, `first` is the largest first position of a run.
    """
    places: set[Place] = {("resid_pre", layer) for layer in starts}
    for layer, sites in starts.items():
        if any(site not in BEFORE_PATTERN for site in sites):
            reused: tuple[Site, ...] = ("v", "pattern", "z")
            places |= {(site, layer) for site in reused}
    if first > 0:
        prefix: tuple[Site, ...] = ("k", "v")
        places |= {(site, layer) for layer in range(min(starts), len(anatomy.blocks)) for site in prefix}
    return places


def copies_of(places: Collection[Place]) -> int:
    """Return how many copies of a layer's values the kept places take, at most: attention counts as a whole layer."""
    wide = sum(site in ("attn_scores", "pattern") for site, _ in places)
    return wide + (len(places) - wide + 3) // 4


def unpatched_runs(
    anatomy: Anatomy, prompts: Prompts, metrics: Sequence[Metric], keep: Collection[Place], copies: int = 4
) -> Iterator[Unpatched]:
    """Yield the unpatched runs of the prompts, in chunks that fit the budget with `copies` of a layer's values."""
    widest = max(metrics, key=lambda metric: len(metric.positions))
    difference: float | None = None
    for rows in chunks(anatomy, prompts, widest, copies):
        tokens = prompts.tokens[rows].to(anatomy.device)
        final, kept = forward_with_edits(anatomy, anatomy.embed(tokens), keep=keep)
        if difference is None:
            difference = difference_from_raw(anatomy, tokens, final, widest)
        yield Unpatched(rows, final, kept, difference)


def measure_unpatched(anatomy: Anatomy, run: Unpatched, metrics: Sequence[Metric]) -> list[Float[Tensor, " row"]]:
    """Return the metrics of the unpatched run, on the CPU."""
    reads = _reads(metrics).to(run.final.device)
    return _measure(anatomy, run.final[:, reads], metrics, run.rows)


@torch.no_grad()
def measure_patched(
    anatomy: Anatomy, run: Unpatched, changes: Changes, metrics: Sequence[Metric]
) -> list[Float[Tensor, " row"]]:
    """Return the metrics of a patched run, on the CPU. Raises `ValueError` for a NaN or infinite value."""
    reads = _reads(metrics).to(run.final.device)
    later = reads[reads >= changes.first]
    parts = [run.final[:, reads[reads < changes.first]]]
    if len(later):
        resid, last = run.kept["resid_pre", changes.start][:, changes.first :], len(anatomy.blocks) - 1
        for layer in range(changes.start, last + 1):
            resid = _layer(anatomy, run, changes, layer, resid, later if layer == last else None)
        parts.append(resid)
    return _measure(anatomy, torch.cat(parts, dim=1), metrics, run.rows)


def _layer(
    anatomy: Anatomy, run: Unpatched, changes: Changes, layer: int, resid: Tensor, reads: Tensor | None
) -> Float[Tensor, "row dest d_model"]:
    """Return resid_post at the positions `reads` (None: all from the first on), from resid_pre from the first on."""
    block, first = anatomy.blocks[layer], changes.first
    src = torch.arange(first + resid.shape[1], device=resid.device)
    every: Where = slice(first, None)
    where, dest = (every, src[first:]) if reads is None else (reads, reads)
    computed: dict[Site, Tensor] = {}

    def at(site: Site, value: Tensor, positions: Where) -> Tensor:
        edit = changes.edits.get((site, layer))
        computed[site] = value if edit is None else edit(value, computed, positions)
        return computed[site]

    def here(x: Tensor) -> Tensor:  # of `[row pos-from-first ...]`
        return x if reads is None else x[:, dest - first]

    resid = at("resid_pre", resid, every)
    entering = layer == changes.start and not any((site, layer) in changes.edits for site in BEFORE_PATTERN)
    own_v = entering and ("v", layer) not in changes.edits
    if entering:
        q, k, v = None, None, run.kept["v", layer][:, first:]
    else:
        q, k, v = block.project(resid)
    v = at("v", v, every)
    v = v if first == 0 else torch.cat([run.kept["v", layer][:, :first], v], dim=1)
    computed["v"] = v
    if layer in changes.patterns:
        pattern = changes.patterns[layer](where)
    elif entering:
        pattern = run.kept["pattern", layer][:, :, where]
    else:
        assert q is not None
        assert k is not None
        q, k = anatomy.queries(block, at("q", here(q), where), dest), at("k", k, every)
        keys = anatomy.expand_heads(anatomy.keys(block, k, src[first:]))
        keys = keys if first == 0 else torch.cat([run.keys(anatomy, layer, first), keys], dim=1)
        scores = block.cap(torch.einsum("rdhe,rshe->rhds", q * block.scale, keys))
        bias = run.bias(anatomy, layer, first) if reads is None else anatomy.bias(block, dest, src)
        scores, sink = scores.add_(bias), anatomy.sink(block, q, dest)
        # Scores are edited relative to the sink's logit, as in `forward_with_edits`.
        scores = at("attn_scores", scores, where) if sink is None else at("attn_scores", scores - sink, where) + sink
        pattern = anatomy.softmax(scores, sink)
    same = entering and own_v and layer not in changes.patterns and ("pattern", layer) not in changes.edits
    pattern = at("pattern", pattern, where)
    z = at("z", run.kept["z", layer][:, where] if same else anatomy.mix(pattern, v), where)
    resid = here(resid)
    mid = resid + at("attn_out", block.attn_out(z), where)
    return mid + at("mlp_out", block.mlp_out(at("mlp_in", resid if block.parallel else mid, where)), where)


def rows_of(mask: Tensor, where: Where) -> Tensor:
    """Return a mask `[head dest src]` at some destinations, whose indices may be on another device."""
    return mask[:, where if isinstance(where, slice) else where.to(mask.device)]


def pattern_from_scores(anatomy: Anatomy, layer: int, scores: Float[Tensor, "row head dest src"]) -> Tensor:
    """Return the pattern that scores give, which are relative to the sink's logit where the block has a sink."""
    block = anatomy.blocks[layer]
    if block.sink_key is None and block.sink_logit is None:
        return anatomy.softmax(scores, None)
    return anatomy.softmax(scores, torch.zeros_like(scores[..., :1]))


def _reads(metrics: Sequence[Metric]) -> Int[Tensor, " read"]:
    return torch.cat([metric.positions for metric in metrics]).unique()


def _measure(anatomy: Anatomy, resid: Tensor, metrics: Sequence[Metric], rows: Tensor) -> list[Tensor]:
    """Return each metric, from the last residual where any of them reads: it is unembedded once."""
    tokens = metrics[0].tokens if len(metrics) == 1 else None
    reads, logits = _reads(metrics), anatomy.unembed(resid, tokens)
    # A difference of two logits needs more digits than half precision has.
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    values = []
    for metric in metrics:
        own = logits
        if len(metric.positions) < len(reads):
            own = logits[:, torch.isin(reads, metric.positions).to(logits.device)]
        measured = metric.measure(own, rows) if tokens is None else metric.measure_read(own, rows)
        values.append(require_finite(measured, metric.name, rows).cpu())
    return values
