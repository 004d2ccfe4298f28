"""M6, discovery: find the heads that carry nothing from labels, and those among them that need labels.

Discovery uses prompts that no arm uses. A head carries nothing where its values at labels can be replaced by their
mean without loss. M6 then measures renormalisation and bias in these heads only (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from interp.patching import Interchange, Knockout, PatchEffect, interchange, knock_out, probability
from interp.patching.knockouts import Entry, Head, Mode
from interp.tasks import Batch, Role
from probes.arms.group_search import FEWER_PROMPTS, MANY_UNITS, harmful_units, largest_harmless, longest_harmless

# A head and the side on which it attends: 0 while the input is read, 1 from `===` on.
Unit = tuple[int, Head]
LABELS = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
DIGITS = (Role.INPUT, Role.OUTPUT)
# The largest loss, as a share of the answer's probability above chance, at which heads count as carrying nothing.
HARMLESS = 0.02


@dataclass(frozen=True)
class IdleHeads:
    """Heads in which the values of `src` may be replaced by their mean, as (layer, head) pairs per attending side.

    `input_side` attends while the input is read, `output_side` from `===` on. `renormalise_loss` is the share of the
    answer's probability above chance that is lost, in discovery, when other keys share the attention on `src`.
    """

    src: tuple[Role, ...]
    input_side: tuple[Head, ...]
    output_side: tuple[Head, ...]
    renormalise_loss: float = 0.0

    def without(self, other: IdleHeads) -> IdleHeads:
        """Return these heads except the other's."""
        sides = zip((self.input_side, self.output_side), (other.input_side, other.output_side), strict=True)
        inputs, outputs = (tuple(h for h in own if h not in removed) for own, removed in sides)
        return IdleHeads(self.src, inputs, outputs)

    def knockouts(self, batch: Batch, mode: Mode) -> tuple[Knockout, ...]:
        """Return the removal of `src` from these heads; empty where there are none."""
        sides = zip(sides_of(batch), (self.input_side, self.output_side), strict=True)
        return tuple(removal(self.src, at, heads, mode) for at, heads in sides if heads)


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
    if 2 * len(all_heads(model)) > MANY_UNITS:
        batch, other = (prompts.rows(slice(FEWER_PROMPTS)) for prompts in (batch, other))
    idle = find_idle_heads(model, batch, other=other)
    none = IdleHeads(LABELS, (), ())
    if idle.renormalise_loss <= HARMLESS:
        return SortedHeads(idle=idle, counting=none, control=None)
    needing = find_heads_that_need(model, batch, idle)
    counting = find_counting_heads(model, batch, needing)
    if counting.input_side or counting.output_side:
        # Counting heads can hide the heads that need labels, so the search runs again without them.
        idle = find_idle_heads(model, batch, among=idle.without(counting), other=other)
        if idle.renormalise_loss <= HARMLESS:
            return SortedHeads(idle=idle, counting=counting, control=None)
        needing = find_heads_that_need(model, batch, idle)
    return SortedHeads(idle=idle, counting=counting, control=find_idle_heads(model, batch, DIGITS, among=needing))


def find_idle_heads(
    model: PreTrainedModel,
    batch: Batch,
    src: tuple[Role, ...] = LABELS,
    among: IdleHeads | None = None,
    other: Batch | None = None,
) -> IdleHeads:
    """Find the heads that carry nothing from `src`, jointly.

    Heads are sorted by the loss of the answer's probability above chance when their values at `src` become the mean.
    Of those that lose at most `HARMLESS` alone, bisection finds the longest list that loses at most that together.
    Where there are more than `MANY_UNITS`, groups of heads are tested instead of single ones.
    `among`: the heads to choose from (None: all). `other`: different prompts of the same layout; keys from them must
    do no harm either.
    """
    heads = (all_heads(model),) * 2 if among is None else (among.input_side, among.output_side)
    units = [(side, head) for side in (0, 1) for head in heads[side]]

    def chosen(units: Sequence[Unit]) -> IdleHeads:
        inputs, outputs = (tuple(sorted(head for s, head in units if s == side)) for side in (0, 1))
        return IdleHeads(src, inputs, outputs)

    def joint_loss(idle: IdleHeads, mode: Mode) -> float:
        parts = idle.knockouts(batch, mode)
        return _losses(model, batch, {"joint": parts})[0] if parts else 0.0

    def harms(groups: Sequence[Sequence[Unit]]) -> list[float]:
        entries = {str(k): chosen(units).knockouts(batch, "mean") for k, units in enumerate(groups)}
        return [loss / HARMLESS for loss in _losses(model, batch, entries)]

    if len(units) > MANY_UNITS:
        idle = chosen(largest_harmless(units, harms))
    else:
        losses = _losses(model, batch, {str(u): removal(src, sides_of(batch)[u[0]], [u[1]], "mean") for u in units})
        candidates = [units[k] for k in sorted(range(len(units)), key=lambda k: losses[k]) if losses[k] <= HARMLESS]
        idle = chosen(longest_harmless(candidates, harms))
    if other is not None:
        idle = _without_informative_keys(model, batch, other, idle)
    return replace(idle, renormalise_loss=joint_loss(idle, "renormalise"))


def find_heads_that_need(model: PreTrainedModel, batch: Batch, idle: IdleHeads) -> IdleHeads:
    """Return the idle heads that need `src`: renormalising one alone loses more than `HARMLESS`; if none does, all."""
    units = [(side, head) for side, heads in enumerate((idle.input_side, idle.output_side)) for head in heads]
    needing = _losing(model, batch, idle.src, units, "renormalise") or units
    inputs, outputs = (tuple(head for s, head in needing if s == side) for side in (0, 1))
    return replace(idle, input_side=inputs, output_side=outputs)


def find_counting_heads(model: PreTrainedModel, batch: Batch, needing: IdleHeads) -> IdleHeads:
    """Return those of the heads whose denominator counts tokens: they need digits as they need labels.

    A head with uniform attention computes 1 / (number of keys), a position signal of rotary and position-free models.
    Labels are no sink there: any token would do, and later layers use the result. Only the denominator counts in such
    a head, so the null sink must lose nothing, for labels and for digits.
    """
    digits = replace(needing, src=DIGITS)
    counting: list[list[Head]] = [[], []]
    units = [(side, head) for side, heads in enumerate((digits.input_side, digits.output_side)) for head in heads]
    for side, head in _losing(model, batch, DIGITS, units, "renormalise"):
        at = sides_of(batch)[side]
        entries = {
            "null": removal(DIGITS, at, [head], "null"),
            "mean": removal(DIGITS, at, [head], "mean"),
            "labels null": removal(LABELS, at, [head], "null"),
        }
        if max(_losses(model, batch, entries)) <= HARMLESS:
            counting[side].append(head)
    return replace(needing, input_side=tuple(counting[0]), output_side=tuple(counting[1]))


def sides_of(batch: Batch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions before `===`, and those from it on. In addition `===` is the second separator of three."""
    separator = int(batch.at(Role.SEPARATOR)[1 if batch.format.task == "addition" else 0])
    return tuple(range(separator)), tuple(range(separator, batch.n_pos))


def all_heads(model: PreTrainedModel) -> tuple[Head, ...]:
    """Return every (layer, head) pair of a model."""
    config = model.config
    return tuple((i, j) for i in range(config.num_hidden_layers) for j in range(config.num_attention_heads))


def removal(src: tuple[Role, ...], at: tuple[int, ...], heads: Collection[Head], mode: Mode) -> Knockout:
    """Return the removal of `src` for queries at the positions `at`, in some heads."""
    return Knockout(src, at, heads=tuple(heads), mode=mode)


def _losing(
    model: PreTrainedModel, batch: Batch, src: tuple[Role, ...], units: Sequence[Unit], mode: Mode
) -> list[Unit]:
    """Return the heads in which a removal alone loses more than `HARMLESS`; of many, by groups."""
    sides = sides_of(batch)

    def entry(some: Sequence[Unit]) -> Entry:
        by_side = {side: [head for s, head in some if s == side] for side in (0, 1)}
        return tuple(removal(src, sides[side], heads, mode) for side, heads in by_side.items() if heads)

    def harms(groups: Sequence[Sequence[Unit]]) -> list[float]:
        losses = _losses(model, batch, {str(k): entry(some) for k, some in enumerate(groups)})
        return [loss / HARMLESS for loss in losses]

    if len(units) > MANY_UNITS:
        return harmful_units(units, harms)
    singly = harms([[unit] for unit in units]) if units else []
    return [unit for unit, harm in zip(units, singly, strict=True) if harm > 1]


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
    if len(heads) > MANY_UNITS:
        rest = largest_harmless(
            heads,
            lambda groups: [
                loss / HARMLESS for loss in losses({str(k): keys_of(some) for k, some in enumerate(groups)})
            ],
        )
        informative = [head for head in heads if head not in rest]
        return idle.without(IdleHeads(idle.src, tuple(informative), tuple(informative)))
    alone = losses({f"L{i}H{j}": keys_of([(i, j)]) for i, j in heads})
    order = sorted(zip(alone, heads, strict=True))
    informative = [head for loss, head in order if loss > HARMLESS]
    rest = [head for _, head in order if head not in informative]
    while rest and losses({"rest": keys_of(rest)})[0] > HARMLESS:  # jointly informative
        informative.append(rest.pop())
    return idle.without(IdleHeads(idle.src, tuple(informative), tuple(informative)))


def _kv_heads(model: PreTrainedModel) -> int:
    return getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
