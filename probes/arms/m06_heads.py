"""M6, discovery: find the heads that carry nothing from labels, and those among them that need labels.

Discovery uses prompts that no arm uses. A head carries nothing where its values at labels can be replaced by their
mean without loss. M6 then measures renormalisation and bias in these heads only (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from interp.patching import Interchange, PatchEffect, interchange, knock_out, probability
from interp.patching.knockouts import Entry, Head
from interp.tasks import Batch, Role
from probes.arms.group_search import FEWER_PROMPTS, MANY_UNITS, longest_harmless
from probes.arms.idle_heads import DIGITS, HARMLESS, LABELS, IdleHeads, Unit, all_heads, removal, sides_of
from probes.arms.m06_many import ManyHeads


@dataclass(frozen=True)
class SortedHeads:
    """The result of discovery, as M6 and the Shapley shares use it.

    `idle`: heads that carry nothing from labels, without `counting`. `counting`: heads whose denominator counts
    tokens. `control`: heads that need labels and carry nothing from digits; the control removes digits from them.
    None where no head needs labels.
    """

    idle: IdleHeads
    counting: IdleHeads
    control: IdleHeads | None


def sort_heads(model: PreTrainedModel, batch: Batch, other: Batch) -> SortedHeads:
    """Sort the heads for `measure_removal`. `batch` and `other` are different prompts that nothing else uses."""
    many = None
    if 2 * len(all_heads(model)) > MANY_UNITS:
        batch, other = (prompts.rows(slice(FEWER_PROMPTS)) for prompts in (batch, other))
        many = ManyHeads(model, batch, other)
    idle = find_idle_heads(model, batch, other=other, many=many)
    none = IdleHeads(LABELS, (), ())
    if idle.renormalise_loss <= HARMLESS:
        return SortedHeads(idle=idle, counting=none, control=None)
    needing = find_heads_that_need(model, batch, idle, many)
    counting = find_counting_heads(model, batch, needing, many)
    if counting.input_side or counting.output_side:
        # Counting heads can hide the heads that need labels, so the search runs again without them.
        idle = find_idle_heads(model, batch, among=idle.without(counting), other=other, many=many)
        if idle.renormalise_loss <= HARMLESS:
            return SortedHeads(idle=idle, counting=counting, control=None)
        needing = find_heads_that_need(model, batch, idle, many)
    control = find_idle_heads(model, batch, DIGITS, among=needing, many=many)
    return SortedHeads(idle=idle, counting=counting, control=control)


def find_idle_heads(
    model: PreTrainedModel,
    batch: Batch,
    src: tuple[Role, ...] = LABELS,
    among: IdleHeads | None = None,
    other: Batch | None = None,
    many: ManyHeads | None = None,
) -> IdleHeads:
    """Find the heads that carry nothing from `src`, jointly.

    Heads are sorted by the loss of the answer's probability above chance when their values at `src` become the mean.
    Of those that lose at most `HARMLESS` alone, bisection finds the longest list that loses at most that together.
    More than `MANY_UNITS` heads are joined in the order of a first-order estimate (`probes.arms.m06_many`).
    `among`: the heads to choose from (None: all). `other`: different prompts of the same layout; keys from them must
    do no harm either. `many`: the search among many heads of these prompts, where several share it.
    """
    units = (IdleHeads(src, all_heads(model), all_heads(model)) if among is None else among).units()

    def harms(groups: Sequence[Sequence[Unit]]) -> list[float]:
        entries = {str(k): IdleHeads.of(src, units).knockouts(batch, "mean") for k, units in enumerate(groups)}
        return [loss / HARMLESS for loss in _losses(model, batch, entries)]

    if len(units) > MANY_UNITS:
        many = ManyHeads(model, batch, other) if many is None else many
        found = many.idle(units, src)
        return replace(IdleHeads.of(src, found), renormalise_loss=many.lost(found, many.removal(src)))
    losses = _losses(model, batch, {str(u): removal(src, sides_of(batch)[u[0]], [u[1]], "mean") for u in units})
    candidates = [units[k] for k in sorted(range(len(units)), key=lambda k: losses[k]) if losses[k] <= HARMLESS]
    idle = IdleHeads.of(src, longest_harmless(candidates, harms))
    if other is not None:
        idle = _without_informative_keys(model, batch, other, idle)
    parts = idle.knockouts(batch, "renormalise")
    return replace(idle, renormalise_loss=_losses(model, batch, {"joint": parts})[0] if parts else 0.0)


def find_heads_that_need(
    model: PreTrainedModel, batch: Batch, idle: IdleHeads, many: ManyHeads | None = None
) -> IdleHeads:
    """Return the idle heads that need `src`: renormalising one alone loses more than `HARMLESS`; if none does, all."""
    units = idle.units()
    needing = IdleHeads.of(idle.src, _losing(model, batch, idle.src, units, many) or units)
    return replace(needing, renormalise_loss=idle.renormalise_loss)


def find_counting_heads(
    model: PreTrainedModel, batch: Batch, needing: IdleHeads, many: ManyHeads | None = None
) -> IdleHeads:
    """Return those of the heads whose denominator counts tokens: they need digits as they need labels.

    A head with uniform attention computes 1 / (number of keys), a position signal of rotary and position-free models.
    Labels are no sink there: any token would do, and later layers use the result. Only the denominator counts in such
    a head, so the null sink must lose nothing, for labels and for digits.
    """
    digits = replace(needing, src=DIGITS)
    counting: list[list[Head]] = [[], []]
    for side, head in _losing(model, batch, DIGITS, digits.units(), many):
        at = sides_of(batch)[side]
        entries = {
            "null": removal(DIGITS, at, [head], "null"),
            "mean": removal(DIGITS, at, [head], "mean"),
            "labels null": removal(LABELS, at, [head], "null"),
        }
        if max(_losses(model, batch, entries)) <= HARMLESS:
            counting[side].append(head)
    return replace(needing, input_side=tuple(counting[0]), output_side=tuple(counting[1]))


def _losing(
    model: PreTrainedModel, batch: Batch, src: tuple[Role, ...], units: Sequence[Unit], many: ManyHeads | None
) -> list[Unit]:
    """Return the heads in which renormalising `src` alone loses more than `HARMLESS`.

    Of many heads those are tested that move margins most to first order.
    """
    if len(units) > MANY_UNITS:
        units = (ManyHeads(model, batch) if many is None else many).most_needing(units, src)
    if not units:
        return []
    sides = sides_of(batch)
    losses = _losses(model, batch, {str(u): removal(src, sides[u[0]], [u[1]], "renormalise") for u in units})
    return [unit for unit, loss in zip(units, losses, strict=True) if loss > HARMLESS]


def _losses(model: PreTrainedModel, batch: Batch, entries: Mapping[str, Entry]) -> list[float]:
    """Return the loss of each removal, as a share of the answer's probability above chance."""
    effect = knock_out(model, batch, entries, probability(batch, among_answers=True))
    return (-effect.change.mean(dim=-1) / _above_chance(batch, effect)).tolist()


def _above_chance(batch: Batch, effect: PatchEffect) -> float:
    # A model of small margins is right with little certainty; shares make its losses comparable with other models'.
    return max(float(effect.base.mean()) - 1 / len(batch.format.outputs), 1e-3)


def _without_informative_keys(model: PreTrainedModel, batch: Batch, other: Batch, idle: IdleHeads) -> IdleHeads:
    """Return the idle heads in which keys at `src` from other prompts lose nothing.

    A constant value can still carry information through the amount of attention on it. Keys of all heads are patched
    together. Where that loses something, the heads that lose something alone are left out, then further heads until
    the rest loses nothing.
    """
    metric = probability(batch, among_answers=True)
    at = torch.isin(batch.role, torch.tensor(idle.src)).unsqueeze(0)
    kv_groups = model.config.num_attention_heads // _kv_heads(model)

    def keys_of(heads: Collection[Head]) -> list[Interchange]:
        layers = sorted({layer for layer, _ in heads})
        by_layer = {i: tuple(sorted({h // kv_groups for j, h in heads if j == i})) for i in layers}
        return [Interchange("k", other, at, (layer,), kv_heads) for layer, kv_heads in by_layer.items()]

    def losses(entries: dict[str, list[Interchange]]) -> list[float]:
        effect = interchange(model, batch, entries, metric)
        return (-effect.change.mean(dim=-1) / _above_chance(batch, effect)).tolist()

    heads = sorted({*idle.input_side, *idle.output_side})
    if not heads or losses({"all": keys_of(heads)})[0] <= HARMLESS:
        return idle
    alone = losses({f"L{i}H{j}": keys_of([(i, j)]) for i, j in heads})
    order = sorted(zip(alone, heads, strict=True))
    informative = [head for loss, head in order if loss > HARMLESS]
    rest = [head for _, head in order if head not in informative]
    while rest and losses({"rest": keys_of(rest)})[0] > HARMLESS:  # jointly informative
        informative.append(rest.pop())
    return idle.without(IdleHeads(idle.src, tuple(informative), tuple(informative)))


def _kv_heads(model: PreTrainedModel) -> int:
    return getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
