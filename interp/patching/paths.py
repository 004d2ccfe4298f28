"""Path patching (Wang et al. 2211.00593, section 3.1; Goldowsky-Dill et al. 2304.05969).

One component, the sender, outputs what it outputs on the source prompts. Only the receivers read that change,
through the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, pair_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import Edit, Place, chunks, difference_from_raw, forward_with_edits, measure
from interp.patching.effect import PatchEffect
from interp.patching.metric import MetricLike, bind_metric
from interp.patching.nodes import Receiver, Receivers, Sender, Senders, ends_of, why_no_path
from interp.places import positions_at
from interp.tasks import Prompts


@exclusive
@torch.no_grad()
def path_patch(
    model: AnyModel,
    base: PromptsLike,
    source: PromptsLike,
    senders: Senders,
    receivers: Receivers,
    metric: MetricLike,
    direct: bool = True,
    freeze_downstream: bool = False,
    chain: bool = False,
    grid: bool = False,
) -> PatchEffect:
    """Return the metric of the base prompts when only the receivers read each sender's source output.

    Base comes first: with `path_patch(run, clean, corrupted, ...)` corrupted outputs enter the clean run, as in Wang et
    al. `patch(run, clean, corrupted, ...)` moves clean activations into the corrupted run by default.

    A name stands for a component at all positions: senders are such as "L0H1", "L0 MLP" and "embed", receivers such as
    "L1H0 k", "L1 MLP" and "logits". Axis "sender": each sender to all receivers at once. With `grid`, axes "sender" and
    "receiver": each to each.

    - `direct=True`: heads and MLPs between sender and receivers keep their base output. A receiver reads
      resid_base + (sender_source - sender_base), through its LayerNorm. `False`: MLPs in between are recomputed
      (heads are not), as in Wang et al.
    - After the receivers everything is recomputed, except that a receiver does not read the change of another
      receiver (Wang et al. set all of them at once). With `chain=True` it does, and all receivers together give the
      plain patch. The logits always read the changes of other receivers.
    - `freeze_downstream=True`: only the receivers' direct path to the logits changes; everything else is the base's.

    Raises `ValueError` for prompts of different layouts, a component that does not exist, a receiver before its
    sender, or one at positions where the sender changes nothing. In a grid such cells equal the base and are counted
    in `details["impossible"]`. `direction` is "source into base".

    >>> effect = path_patch(run, clean, swapped, Sender("head", 0, 1), Receiver("k", 1, 0), logit_diff(clean))
    """
    anatomy = anatomy_of(raw_of(model))
    if chain and freeze_downstream:
        raise ValueError("chain=True needs receivers that see each other; freeze_downstream=True forbids it")
    base, source = pair_of(model, base, source, ("base", "source"))
    metric = bind_metric(metric, model, base)
    senders, receivers = ends_of(anatomy, base, senders, receivers)
    cells = [(s, [r]) for s in senders for r in receivers] if grid else [(s, receivers) for s in senders]
    problems = [why_no_path(anatomy, base, metric, s, r) for s, some in cells for r in some]
    if (first := next(filter(None, problems), None)) and (not grid or all(problems)):
        raise ValueError(first)
    values, baselines, sources, raw_difference = [], [], [], 0.0
    # 4 for the layer that runs, with its temporaries. Of every layer both runs keep the five sites of `_RECORDED` and
    # `_received` makes two, together less than two layers' values.
    for rows in chunks(anatomy, base, metric, copies=4 + 2 * len(anatomy.blocks)):
        runs = _Runs(anatomy, base, *(_record(anatomy, batch.tokens[rows]) for batch in (base, source)))
        if not baselines:
            raw_difference = difference_from_raw(anatomy, base.tokens[rows], runs.base[_FINAL], metric)
        baselines.append(measure(anatomy, runs.base[_FINAL], metric, rows))
        sources.append(measure(anatomy, runs.source[_FINAL], metric, rows))
        row = []
        for i, (sender, some) in enumerate(cells):
            if grid and problems[i]:
                row.append(baselines[-1])
                continue
            received = _received(runs, sender, direct)
            final = (
                _direct(runs, received, some) if freeze_downstream else _after_receivers(runs, received, some, chain)
            )
            row.append(measure(anatomy, final, metric, rows))
        values.append(torch.stack(row))
    labels: dict[str, tuple[str | int, ...]] = {"sender": tuple(map(str, senders))}
    if grid:
        labels["receiver"] = tuple(map(str, receivers))
    details = {
        "receivers": [str(r) for r in receivers],
        "direct": direct,
        "freeze_downstream": freeze_downstream,
        "chain": chain,
        "impossible": sum(map(bool, problems)),
        "raw_difference": raw_difference,
    }
    return PatchEffect(
        site="path",
        metric=metric.name,
        direction="source into base",
        axes=tuple(labels),
        labels=labels,
        values=torch.cat(values, dim=-1).unflatten(0, tuple(len(x) for x in labels.values())),
        base=torch.cat(baselines),
        source=torch.cat(sources),
        details=details,
    )


# What is recorded of a run: the residual before each layer and after the last (_FINAL), and the outputs added.
_Values = Mapping[Place, Tensor]
_FINAL: Place = ("resid_pre", -1)
_RECORDED = ("resid_pre", "z", "attn_out", "mlp_in", "mlp_out")


@dataclass(frozen=True)
class _Runs:
    """The base run and the source run of one chunk of prompts."""

    anatomy: Anatomy
    prompts: Prompts
    base: _Values
    source: _Values


def _record(anatomy: Anatomy, tokens: Tensor) -> dict[Place, Tensor]:
    places: list[Place] = [(site, layer) for site in _RECORDED for layer in range(len(anatomy.blocks))]
    final, kept = forward_with_edits(anatomy, anatomy.embed(tokens.to(anatomy.device)), keep=places)
    return kept | {_FINAL: final}


def _received(runs: _Runs, sender: Sender, direct: bool) -> dict[Place, Tensor]:
    """Return resid_pre, mlp_in and _FINAL when the sender's output is the source's and other heads' the base's."""
    anatomy, base, source = runs.anatomy, runs.base, runs.source
    at = _positions(runs, sender)
    resid, received = base["resid_pre", sender.layer or 0], {}
    if sender.kind == "embed":
        resid = _put(resid, source["resid_pre", 0], at)
    for layer in range(sender.layer or 0, len(anatomy.blocks)):
        block, own = anatomy.blocks[layer], layer == sender.layer
        received["resid_pre", layer] = resid
        attn = base["attn_out", layer]
        if own and sender.kind == "head":
            z = base["z", layer].clone()
            z[:, at, sender.head] = source["z", layer][:, at, sender.head]
            attn = block.attn_out(z)
        mid = resid + attn
        received["mlp_in", layer] = resid if block.parallel else mid
        if own and sender.kind == "mlp":
            mlp = _put(base["mlp_out", layer], source["mlp_out", layer], at)
        else:
            mlp = base["mlp_out", layer] if direct else block.mlp_out(received["mlp_in", layer])
        resid = mid + mlp
    return received | {_FINAL: resid}


def _after_receivers(
    runs: _Runs, received: _Values, receivers: Sequence[Receiver], chain: bool
) -> Float[Tensor, "row pos d_model"]:
    """Return the final residual when the receivers read `received` and everything after them is recomputed."""
    by_layer = {r.layer: [x for x in receivers if x.layer == r.layer] for r in receivers if r.layer is not None}
    final = runs.base[_FINAL]
    if by_layer:
        start = min(by_layer)
        edits: dict[Place, Edit] = {}
        for layer, some in by_layer.items():
            edits |= _edits(runs, received, layer, some, chain)
        final, _ = forward_with_edits(runs.anatomy, runs.base["resid_pre", start], start, edits=edits)
    return _at_logits(runs, received, receivers, final)


def _direct(runs: _Runs, received: _Values, receivers: Sequence[Receiver]) -> Float[Tensor, "row pos d_model"]:
    """Return the final residual when it changes only by what the receivers' own heads and MLPs add."""
    final, base = runs.base[_FINAL], runs.base
    for layer in sorted({r.layer for r in receivers if r.layer is not None}):
        here = [r for r in receivers if r.layer == layer]
        edits = _edits(runs, received, layer, [r for r in here if r.kind != "mlp"], chain=False)
        if edits:
            _, kept = forward_with_edits(
                runs.anatomy, base["resid_pre", layer], layer, layer + 1, edits, [("attn_out", layer)]
            )
            final = final + (kept["attn_out", layer] - base["attn_out", layer])
        mlp_in = base["mlp_in", layer]
        for receiver in here:
            if receiver.kind == "mlp":
                mlp_in = _put(mlp_in, received["mlp_in", layer], _positions(runs, receiver))
        final = final + (runs.anatomy.blocks[layer].mlp_out(mlp_in) - base["mlp_out", layer])
    return _at_logits(runs, received, receivers, final)


def _at_logits(runs: _Runs, received: _Values, receivers: Sequence[Receiver], final: Tensor) -> Tensor:
    at = [_positions(runs, receiver) for receiver in receivers if receiver.kind == "logits"]
    if not at:
        return final
    return _put(final, final + (received[_FINAL] - runs.base[_FINAL]), torch.cat(at).unique())


def _edits(runs: _Runs, received: _Values, layer: int, receivers: Sequence[Receiver], chain: bool) -> dict[Place, Edit]:
    """Return the edits that make one layer's receivers read `received`; one edit per kind of receiver."""
    block, base = runs.anatomy.blocks[layer], runs.base

    def projected(value: Tensor, now: Mapping, some: list[Receiver], which: int) -> Tensor:
        resid = received["resid_pre", layer]
        if chain:
            resid = now["resid_pre"] + (resid - base["resid_pre", layer])
        fresh, value = block.project(resid)[which], value.clone()
        for receiver in some:
            at = _positions(runs, receiver)
            value[:, at, receiver.head] = fresh[:, at, receiver.head]
        return value

    def mlp_reads(value: Tensor, _: Mapping, some: list[Receiver]) -> Tensor:
        resid = received["mlp_in", layer]
        if chain:
            resid = value + (resid - base["mlp_in", layer])
        return _put(value, resid, torch.cat([_positions(runs, receiver) for receiver in some]))

    edits: dict[Place, Edit] = {}
    for which, kind in enumerate(("q", "k", "v")):
        if some := [r for r in receivers if r.kind == kind]:
            edits[kind, layer] = partial(projected, some=some, which=which)
    if some := [r for r in receivers if r.kind == "mlp"]:
        edits["mlp_in", layer] = partial(mlp_reads, some=some)
    return edits


def _put(into: Tensor, new: Tensor, at: Tensor) -> Tensor:
    """Return a copy of `into` with the positions `at` of `new`."""
    into = into.clone()
    into[:, at] = new[:, at]
    return into


def _positions(runs: _Runs, node: Sender | Receiver) -> Tensor:
    return positions_at(runs.prompts, node.at).to(runs.anatomy.device)
