"""Patched runs that compute only what differs from the unpatched run.

Under a causal mask nothing changes in the layers before the first patch, or at the positions before it: keys and
values there are the unpatched run's. The last layer is computed only where the metric reads, and nothing after the last
position that any prompt of a chunk reads. In the first patched layer everything before the patched site is taken from
the unpatched run, and attention that is given is not computed. Patterns are stored only where an edit needs them.
`interp.patching.editing.forward_with_edits` computes all of it and is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.attention_changes import AttentionChange, attend_with
from interp.patching.editing import Place, chunks
from interp.patching.metric import Metric
from interp.patching.unpatched import Unpatched, compare_with_raw, run_unpatched
from interp.sites import Site
from interp.support.finite import require_finite
from interp.tasks import Prompts

# Positions of a value: all from one on, or some.
Where = slice | Int[Tensor, " pos"]
# Takes the value at some positions, the sites of this layer computed so far, and the positions; returns a new value.
WhereEdit = Callable[[Tensor, Mapping[Site, Tensor], Where], Tensor]
# Sites whose patch changes the attention pattern of its own layer.
BEFORE_PATTERN: tuple[Site, ...] = ("resid_pre", "q", "k", "attn_scores")
# Sites whose edit needs the pattern in memory.
OF_PATTERN: tuple[Site, ...] = ("attn_scores", "pattern", "z")


@dataclass(frozen=True, eq=False)
class Changes:
    """What a patched run changes: edits by place, and patterns `[row head dest src]` by layer that replace attention.

    `attention` has, by layer, changes that need no pattern; such a layer has no edits of `OF_PATTERN`. `start` and
    `first`: the first layer and position that can differ from the unpatched run.
    """

    start: int
    first: int
    edits: Mapping[Place, WhereEdit]
    patterns: Mapping[int, Callable[[Where], Tensor]] = field(default_factory=dict)
    attention: Mapping[int, AttentionChange] = field(default_factory=dict)


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
    """Yield the unpatched runs of the prompts, in chunks that fit the budget with `copies` of a layer's values.

    Prompts that each read one position of their own (`Metric.own`) come in the order of these positions, and their
    runs end there: restore the order by `in_order`.
    """
    widest = max(metrics, key=lambda metric: len(metric.positions))
    own = metrics[0].own if len(metrics) == 1 and anatomy.causal else None
    order = torch.arange(len(prompts)) if own is None else own.argsort(stable=True)
    difference: float | None = None
    for numbers in chunks(anatomy, prompts, widest, copies):
        rows = order[numbers]
        here = list(metrics) if own is None else [metrics[0].of_rows(rows)]
        reads = reads_of(here)
        tokens = prompts.tokens[rows] if own is None else prompts.tokens[rows, : int(reads[-1]) + 1]
        run = run_unpatched(anatomy, rows, tokens.to(anatomy.device), reads, keep)
        if difference is None:
            difference = compare_with_raw(anatomy, tokens, run, max(here, key=lambda m: len(m.positions)))
        run.raw_difference, run.metrics = difference, here
        yield run


def in_order(rows: Sequence[Int[Tensor, " row"]], values: Sequence[Float[Tensor, "*entry row"]]) -> Tensor:
    """Return values of chunks of prompts, `[*entry batch]`, in the order of the prompts."""
    return torch.cat(list(values), dim=-1)[..., torch.cat(list(rows)).argsort()]


def measure_unpatched(anatomy: Anatomy, run: Unpatched, metrics: Sequence[Metric]) -> list[Float[Tensor, " row"]]:
    """Return the metrics of the unpatched run, on the CPU."""
    reads = reads_of(metrics).to(run.final.device)
    return _measure(anatomy, run.final_at(reads), metrics, run.rows)


@torch.no_grad()
def measure_patched(
    anatomy: Anatomy, run: Unpatched, changes: Changes, metrics: Sequence[Metric]
) -> list[Float[Tensor, " row"]]:
    """Return the metrics of a patched run, on the CPU. Raises `ValueError` for a NaN or infinite value."""
    reads = reads_of(metrics).to(run.final.device)
    return _measure(anatomy, final_patched(anatomy, run, changes, reads), metrics, run.rows)


@torch.no_grad()
def final_patched(
    anatomy: Anatomy, run: Unpatched, changes: Changes, reads: Int[Tensor, " read"]
) -> Float[Tensor, "row read d_model"]:
    """Return the residual of a patched run after the last layer, at some of the positions that `run` reads."""
    later = reads[reads >= changes.first]
    parts = [run.final_at(reads[reads < changes.first])]
    if len(later):
        resid, last = run.kept["resid_pre", changes.start][:, changes.first :], len(anatomy.blocks) - 1
        for layer in range(changes.start, last + 1):
            resid = _layer(anatomy, run, changes, layer, resid, later if layer == last else None)
        parts.append(resid)
    return torch.cat(parts, dim=1)


def _layer(
    anatomy: Anatomy, run: Unpatched, changes: Changes, layer: int, resid: Tensor, reads: Tensor | None
) -> Float[Tensor, "row dest d_model"]:
    """Return resid_post at the positions `reads` (None: all from the first on), from resid_pre from the first on."""
    block, first = anatomy.blocks[layer], changes.first
    src = torch.arange(first + resid.shape[1], device=resid.device)
    every: Where = slice(first, len(src))
    where, dest = (every, src[first:]) if reads is None else (reads, reads)
    computed: dict[Site, Tensor] = {}

    def at(site: Site, value: Tensor, positions: Where) -> Tensor:
        edit = changes.edits.get((site, layer))
        computed[site] = value if edit is None else edit(value, computed, positions)
        return computed[site]

    def here(x: Tensor) -> Tensor:  # of `[row pos-from-first ...]`
        return x if reads is None else x[:, dest - first]

    resid = at("resid_pre", resid, every)
    enters = layer == changes.start and layer not in changes.attention
    entering = enters and not any((site, layer) in changes.edits for site in BEFORE_PATTERN)
    own_v = entering and ("v", layer) not in changes.edits
    if entering:
        q, k, v = None, None, run.kept["v", layer][:, first:]
    else:
        q, k, v = block.project(resid)
    v = at("v", v, every)
    v = v if first == 0 else torch.cat([run.kept["v", layer][:, :first], v], dim=1)
    computed["v"] = v
    if layer in changes.patterns or entering:
        given = layer in changes.patterns
        pattern = changes.patterns[layer](where) if given else run.at("pattern", layer, where)
        same = own_v and not given and ("pattern", layer) not in changes.edits
        pattern = at("pattern", pattern, where)
        z = run.at("z", layer, where) if same else anatomy.mix(pattern, v)
    else:
        assert q is not None
        assert k is not None
        q, k = anatomy.queries(block, at("q", here(q), where), dest), at("k", k, every)
        keys = anatomy.expand_heads(anatomy.keys(block, k, src[first:]))
        keys = keys if first == 0 else torch.cat([run.keys(anatomy, layer, first), keys], dim=1)
        bias = run.bias(anatomy, layer, first) if reads is None else anatomy.bias(block, dest, src)
        if any((site, layer) in changes.edits for site in OF_PATTERN):
            scores = block.cap(torch.einsum("rdhe,rshe->rhds", q * block.scale, keys))
            scores, sink = scores.add_(bias), anatomy.sink(block, q, dest)
            # Scores are edited relative to the sink's logit, as in `forward_with_edits`.
            edited = at("attn_scores", scores if sink is None else scores - sink, where)
            scores = edited if sink is None else edited + sink
            z = anatomy.mix(at("pattern", anatomy.softmax(scores, sink), where), v)
        else:
            v = anatomy.expand_heads(v)
            z = attend_with(anatomy, block, changes.attention.get(layer), q, keys, v, bias, dest)
    z, resid = at("z", z, where), here(resid)
    mid = resid + at("attn_out", block.attn_out(z), where)
    return mid + at("mlp_out", block.mlp_out(at("mlp_in", resid if block.parallel else mid, where)), where)


def rows_of(mask: Tensor, where: Where, n_src: int | None = None) -> Tensor:
    """Return a mask `[head dest src]` at some destinations, whose indices may be on another device.

    `n_src`: the positions of the run, which may end before the prompts do (None: all).
    """
    return mask[:, where if isinstance(where, slice) else where.to(mask.device)][..., :n_src]


def pattern_from_scores(anatomy: Anatomy, layer: int, scores: Float[Tensor, "row head dest src"]) -> Tensor:
    """Return the pattern that scores give, which are relative to the sink's logit where the block has a sink."""
    block = anatomy.blocks[layer]
    if block.sink_key is None and block.sink_logit is None:
        return anatomy.softmax(scores, None)
    return anatomy.softmax(scores, torch.zeros_like(scores[..., :1]))


def reads_of(metrics: Sequence[Metric]) -> Int[Tensor, " read"]:
    """Return the positions that any of the metrics reads."""
    return torch.cat([metric.positions for metric in metrics]).unique()


def _measure(anatomy: Anatomy, resid: Tensor, metrics: Sequence[Metric], rows: Tensor) -> list[Tensor]:
    """Return each metric, from the last residual where any of them reads: it is unembedded once."""
    tokens = metrics[0].tokens if len(metrics) == 1 else None
    reads, logits = reads_of(metrics), anatomy.unembed(resid, tokens)
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
