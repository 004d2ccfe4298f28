"""Along which path does a difference between two prompts reach the answer?

Path patching (Wang et al. 2211.00593, section 3.1; Goldowsky-Dill et al. 2304.05969): one component, the
sender, gives what it gives on the source prompts; only the receivers see that, through the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import Edit, Place, chunks, difference_from_raw, forward_with_edits, measure, positions_at
from interp.patching.effect import PatchEffect
from interp.patching.metrics import Metric
from interp.patching.nodes import Receiver, Sender, mistake, require_there
from interp.tasks import Batch


@torch.no_grad()
def path_patch(
    raw_model: PreTrainedModel,
    base: Batch,
    source: Batch,
    senders: Sender | Sequence[Sender],
    receivers: Receiver | Sequence[Receiver],
    metric: Metric,
    direct: bool = True,
    freeze_downstream: bool = False,
    chain: bool = False,
    grid: bool = False,
) -> PatchEffect:
    """The metric of the base prompts, with each sender's source output seen by the receivers alone.

    Axis "sender": each to all receivers at once; with `grid`, axes "sender" and "receiver": each to each.

    - `direct=True`: heads and MLPs between sender and receivers give what they give on base, so that a
      receiver reads resid_base + (sender_source - sender_base), through its LayerNorm. `False`: MLPs in
      between are computed anew (heads are not), as in Wang et al.
    - After the receivers everything is computed anew, except that a receiver does not see what another one
      changed (Wang et al. set all of them at once); with `chain=True` it sees that too, and then all
      receivers together give the plain patch. Logits always see what other receivers changed.
    - `freeze_downstream=True`: only the receivers' own direct path to the logits counts; all else is base's.

    Raises `ValueError` for prompts of two layouts, a component that is not there, a receiver before its
    sender or at positions where the sender changes nothing. In a grid such cells equal the base, without
    work, and `details["impossible"]` counts them. `direction` is "source into base".

    >>> effect = path_patch(run.raw, clean, swapped, Sender("head", 0, 1), Receiver("k", 1, 0), logit_diff(clean))
    """
    anatomy = anatomy_of(raw_of(raw_model))
    if chain and freeze_downstream:
        raise ValueError("chain=True needs receivers that see each other; freeze_downstream=True forbids it")
    if base.tokens.shape != source.tokens.shape or not (
        torch.equal(base.role, source.role) and torch.equal(base.step, source.step)
    ):
        raise ValueError("base and source must have the same number of prompts and the same roles and steps")
    senders = [senders] if isinstance(senders, Sender) else list(senders)
    receivers = [receivers] if isinstance(receivers, Receiver) else list(receivers)
    if not senders or not receivers:
        raise ValueError("give at least one sender and one receiver")
    for node in (*senders, *receivers):
        require_there(anatomy, base, node)
    cells = [(s, [r]) for s in senders for r in receivers] if grid else [(s, receivers) for s in senders]
    mistakes = [mistake(anatomy, base, metric, s, r) for s, some in cells for r in some]
    if (first := next(filter(None, mistakes), None)) and (not grid or all(mistakes)):
        raise ValueError(first)
    values, baselines, sources, raw_difference = [], [], [], 0.0
    for rows in chunks(anatomy, base, metric, copies=4 + 2 * len(anatomy.blocks)):
        runs = _Runs(anatomy, base, *(_record(anatomy, batch.tokens[rows]) for batch in (base, source)))
        if not baselines:
            raw_difference = difference_from_raw(anatomy, base.tokens[rows], runs.base[_FINAL], metric)
        baselines.append(measure(anatomy, runs.base[_FINAL], metric, rows))
        sources.append(measure(anatomy, runs.source[_FINAL], metric, rows))
        row = []
        for i, (sender, some) in enumerate(cells):
            if grid and mistakes[i]:
                row.append(baselines[-1])
                continue
            seen = _send(runs, sender, direct)
            final = _direct(runs, seen, some) if freeze_downstream else _onward(runs, seen, some, chain)
            row.append(measure(anatomy, final, metric, rows))
        values.append(torch.stack(row))
    found = torch.cat(values, dim=-1)
    labels: dict[str, tuple[str | int, ...]] = {"sender": tuple(map(str, senders))}
    if grid:
        labels["receiver"] = tuple(map(str, receivers))
    details = {
        "receivers": [str(r) for r in receivers],
        "direct": direct,
        "freeze_downstream": freeze_downstream,
        "chain": chain,
        "impossible": sum(map(bool, mistakes)),
        "raw_difference": raw_difference,
    }
    return PatchEffect(
        "path",
        metric.name,
        "source into base",
        tuple(labels),
        labels,
        found.unflatten(0, tuple(len(x) for x in labels.values())),
        torch.cat(baselines),
        torch.cat(sources),
        details=details,
    )


# What is recorded of a run: the residual before each layer and after the last (_FINAL), and the parts added.
_Seen = Mapping[Place, Tensor]
_FINAL: Place = ("resid_pre", -1)
_RECORDED = ("resid_pre", "z", "attn_out", "mlp_in", "mlp_out")


@dataclass(frozen=True)
class _Runs:
    """One chunk of prompts: the two runs that paths are made of."""

    anatomy: Anatomy
    batch: Batch
    base: _Seen
    source: _Seen


def _record(anatomy: Anatomy, tokens: Tensor) -> dict[Place, Tensor]:
    places: list[Place] = [(site, layer) for site in _RECORDED for layer in range(len(anatomy.blocks))]
    final, kept = forward_with_edits(anatomy, anatomy.embed(tokens.to(anatomy.device)), keep=places)
    return kept | {_FINAL: final}


def _send(runs: _Runs, sender: Sender, direct: bool) -> dict[Place, Tensor]:
    """What receivers read (resid_pre, mlp_in, _FINAL) when the sender is the source's and other heads are base's."""
    anatomy, base, source = runs.anatomy, runs.base, runs.source
    at = _positions(runs, sender)
    resid, seen = base["resid_pre", sender.layer or 0], {}
    if sender.kind == "embed":
        resid = _put(resid, source["resid_pre", 0], at)
    for layer in range(sender.layer or 0, len(anatomy.blocks)):
        block, own = anatomy.blocks[layer], layer == sender.layer
        seen["resid_pre", layer] = resid
        attn = base["attn_out", layer]
        if own and sender.kind == "head":
            z = base["z", layer].clone()
            z[:, at, sender.head] = source["z", layer][:, at, sender.head]
            attn = block.attn_out(z)
        mid = resid + attn
        seen["mlp_in", layer] = resid if block.parallel else mid
        if own and sender.kind == "mlp":
            mlp = _put(base["mlp_out", layer], source["mlp_out", layer], at)
        else:
            mlp = base["mlp_out", layer] if direct else block.mlp_out(seen["mlp_in", layer])
        resid = mid + mlp
    return seen | {_FINAL: resid}


def _onward(runs: _Runs, seen: _Seen, receivers: Sequence[Receiver], chain: bool) -> Float[Tensor, "row pos d_model"]:
    """The last residual when the receivers read what they saw and everything after them is computed anew."""
    by_layer = {r.layer: [x for x in receivers if x.layer == r.layer] for r in receivers if r.layer is not None}
    final = runs.base[_FINAL]
    if by_layer:
        start = min(by_layer)
        edits: dict[Place, Edit] = {}
        for layer, some in by_layer.items():
            edits |= _edits(runs, seen, layer, some, chain)
        final, _ = forward_with_edits(runs.anatomy, runs.base["resid_pre", start], start, edits=edits)
    return _at_logits(runs, seen, receivers, final)


def _direct(runs: _Runs, seen: _Seen, receivers: Sequence[Receiver]) -> Float[Tensor, "row pos d_model"]:
    """The last residual when it changes only by what the receivers' own heads and MLPs add."""
    final, base = runs.base[_FINAL], runs.base
    for layer in sorted({r.layer for r in receivers if r.layer is not None}):
        here = [r for r in receivers if r.layer == layer]
        edits = _edits(runs, seen, layer, [r for r in here if r.kind != "mlp"], chain=False)
        if edits:
            _, kept = forward_with_edits(
                runs.anatomy, base["resid_pre", layer], layer, layer + 1, edits, [("attn_out", layer)]
            )
            final = final + (kept["attn_out", layer] - base["attn_out", layer])
        mlp_in = base["mlp_in", layer]
        for receiver in here:
            if receiver.kind == "mlp":
                mlp_in = _put(mlp_in, seen["mlp_in", layer], _positions(runs, receiver))
        final = final + (runs.anatomy.blocks[layer].mlp_out(mlp_in) - base["mlp_out", layer])
    return _at_logits(runs, seen, receivers, final)


def _at_logits(runs: _Runs, seen: _Seen, receivers: Sequence[Receiver], final: Tensor) -> Tensor:
    for receiver in receivers:
        if receiver.kind == "logits":
            final = _put(final, final + (seen[_FINAL] - runs.base[_FINAL]), _positions(runs, receiver))
    return final


def _edits(runs: _Runs, seen: _Seen, layer: int, receivers: Sequence[Receiver], chain: bool) -> dict[Place, Edit]:
    """What makes one layer's receivers read what they saw; those of one kind share an edit."""
    block, base = runs.anatomy.blocks[layer], runs.base

    def projected(value: Tensor, now: Mapping, some: list[Receiver], which: int) -> Tensor:
        resid = seen["resid_pre", layer]
        if chain:
            resid = now["resid_pre"] + (resid - base["resid_pre", layer])
        fresh, value = block.project(resid)[which], value.clone()
        for receiver in some:
            at = _positions(runs, receiver)
            value[:, at, receiver.head] = fresh[:, at, receiver.head]
        return value

    def fed(value: Tensor, _: Mapping, some: list[Receiver]) -> Tensor:
        resid = seen["mlp_in", layer]
        if chain:
            resid = value + (resid - base["mlp_in", layer])
        return _put(value, resid, torch.cat([_positions(runs, receiver) for receiver in some]))

    edits: dict[Place, Edit] = {}
    for which, kind in enumerate(("q", "k", "v")):
        if some := [r for r in receivers if r.kind == kind]:
            edits[kind, layer] = partial(projected, some=some, which=which)
    if some := [r for r in receivers if r.kind == "mlp"]:
        edits["mlp_in", layer] = partial(fed, some=some)
    return edits


def _put(into: Tensor, new: Tensor, at: Tensor) -> Tensor:
    """`into` with the positions `at` of `new`."""
    into = into.clone()
    into[:, at] = new[:, at]
    return into


def _positions(runs: _Runs, node: Sender | Receiver) -> Tensor:
    return positions_at(runs.batch, node.at).to(runs.anatomy.device)
