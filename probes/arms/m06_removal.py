"""What is lost when labels cannot be attended to? (M6 of science 2.1)

Three removals telescope, in accuracy lost: denominator N = (i) mask and renormalise less (ii) null sink, constant
bias B = (ii) less (iii) values replaced by their mean, input-dependent value C = (iii). A sink is N + B: the
labels take attention, or add a constant, and nothing that depends on the prompt.

Where labels carry something too, their removal breaks the model in every way, and N + B means nothing. So heads
are first sorted, on prompts of their own, by whether label values can be replaced by their mean without loss;
N + B is then measured on those that carry nothing, together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import predict
from interp.patching import (
    Interchange,
    Knockout,
    PatchEffect,
    accuracy,
    interchange,
    kl,
    knock_out,
    knock_out_for,
    lead,
    probability,
)
from interp.patching.knockouts import Entry, Head, Mode
from interp.tasks import Batch, Role
from probes.evidence import Evidence, Interval
from probes.intervals import mean, ratio

LABELS = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
DIGITS = (Role.INPUT, Role.OUTPUT)
QUESTIONS: dict[Mode, str] = {
    "renormalise": "the other keys share the attention of the labels: what is lost?",
    "null": "the attention of the labels goes to nothing: what is lost?",
    "mean": "labels keep their attention and lose what depends on the prompt: what is lost?",
}
MODES = tuple(QUESTIONS)
# Share of the answer's probability above chance, in discovery, up to which heads count as carrying nothing.
HARMLESS = 0.02


@dataclass(frozen=True)
class Idle:
    """(layer, head) pairs in which the values of `src` may be replaced by their mean, by the side that attends.

    `rests`: what the answer's probability loses, in discovery, when the other keys share the attention instead.
    """

    src: tuple[Role, ...]
    input_side: tuple[Head, ...]
    output_side: tuple[Head, ...]
    rests: float = 0.0

    def without(self, other: Idle) -> Idle:
        """These heads but for the other's."""
        sides = zip((self.input_side, self.output_side), (other.input_side, other.output_side), strict=True)
        inputs, outputs = (tuple(h for h in own if h not in gone) for own, gone in sides)
        return Idle(self.src, inputs, outputs)

    def knockouts(self, batch: Batch, mode: Mode) -> tuple[Knockout, ...]:
        """The removal of `src` from these heads; empty where there are none."""
        sides = zip(sides_of(batch), (self.input_side, self.output_side), strict=True)
        return tuple(_remove(self.src, at, heads, mode) for at, heads in sides if heads)


def find_idle_heads(
    model: PreTrainedModel,
    batch: Batch,
    src: tuple[Role, ...] = LABELS,
    among: Idle | None = None,
    other: Batch | None = None,
) -> Idle:
    """Which heads carry nothing from labels (or from `src`)? Use prompts that are used for nothing else.

    Heads are sorted by what their replacement takes of the answer's probability above chance; of those that lose
    at most `HARMLESS` alone, the longest list that loses at most that together is found by bisection. `among`: the
    heads to choose from; None for all. `other`: other prompts of the same layout, whose keys must serve as well.
    """
    heads = (_all_heads(model),) * 2 if among is None else (among.input_side, among.output_side)
    units = [(side, head) for side in (0, 1) for head in heads[side]]
    entries = {str(unit): _remove(src, sides_of(batch)[unit[0]], [unit[1]], "mean") for unit in units}
    lost = _losses(model, batch, entries)
    candidates = [units[k] for k in sorted(range(len(units)), key=lambda k: lost[k]) if lost[k] <= HARMLESS]

    def first(count: int) -> Idle:
        inputs, outputs = (tuple(sorted(head for s, head in candidates[:count] if s == side)) for side in (0, 1))
        return Idle(src, inputs, outputs)

    def joint_loss(idle: Idle, mode: Mode) -> float:
        parts = idle.knockouts(batch, mode)
        return _losses(model, batch, {"joint": parts})[0] if parts else 0.0

    low, high = 0, len(candidates) + 1
    middle = len(candidates)  # all of them first: as a rule that is the answer
    while high - low > 1:
        low, high = (middle, high) if joint_loss(first(middle), "mean") <= HARMLESS else (low, middle)
        middle = (low + high) // 2
    idle = first(low)
    if other is not None:
        idle = _without_telling_keys(model, batch, other, idle)
    return replace(idle, rests=joint_loss(idle, "renormalise"))


def _losses(model: PreTrainedModel, batch: Batch, entries: Mapping[str, Entry]) -> list[float]:
    """What each removal takes of the answer's probability, as a share of what it has above chance."""
    effect = knock_out(model, batch, entries, probability(batch, among_answers=True))
    return (-effect.change.mean(dim=-1) / _above_chance(batch, effect)).tolist()


def _above_chance(batch: Batch, effect: PatchEffect) -> float:
    # A model of small margins answers right with little certainty; its shares are as large as another's.
    return max(float(effect.base.mean()) - 1 / len(batch.format.outputs), 1e-3)


def _without_telling_keys(model: PreTrainedModel, batch: Batch, other: Batch, idle: Idle) -> Idle:
    """The heads in which it does not matter whose keys stand at `src`: keys from other prompts lose nothing.

    A constant value can still tell something by how much it is attended to. The keys of all heads are taken
    together; where that loses something, heads that lose something alone are left out.
    """
    metric = probability(batch, among_answers=True)
    at = torch.isin(batch.role, torch.tensor(idle.src)).unsqueeze(0)
    kv_groups = model.config.num_attention_heads // _kv_heads(model)

    def keys(heads: Collection[Head]) -> list[Interchange]:
        layers = sorted({layer for layer, _ in heads})
        by_layer = {i: tuple(sorted({h // kv_groups for j, h in heads if j == i})) for i in layers}
        return [Interchange("k", other, at, (layer,), some) for layer, some in by_layer.items()]

    def lost(entries: dict[str, list[Interchange]]) -> list[float]:
        effect = interchange(model, batch, entries, metric)
        return (-effect.change.mean(dim=-1) / _above_chance(batch, effect)).tolist()

    heads = sorted({*idle.input_side, *idle.output_side})
    if not heads or lost({"all": keys(heads)})[0] <= HARMLESS:
        return idle
    alone = lost({f"L{i}H{j}": keys([(i, j)]) for i, j in heads})
    order = sorted(zip(alone, heads, strict=True))
    telling = [head for loss, head in order if loss > HARMLESS]
    rest = [head for _, head in order if head not in telling]
    while rest and lost({"rest": keys(rest)})[0] > HARMLESS:  # they tell it together
        telling.append(rest.pop())
    return idle.without(Idle(idle.src, tuple(telling), tuple(telling)))


def _kv_heads(model: PreTrainedModel) -> int:
    return getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads


def find_resting_heads(model: PreTrainedModel, batch: Batch, idle: Idle) -> Idle:
    """The idle heads that rest on labels: whose removal alone loses more than `HARMLESS`; else, all of them.

    Discovery, as `find_idle_heads`.
    """
    units = [(side, head) for side, heads in enumerate((idle.input_side, idle.output_side)) for head in heads]
    entries = {str(u): _remove(idle.src, sides_of(batch)[u[0]], [u[1]], "renormalise") for u in units}
    lost = _losses(model, batch, entries)
    found = [unit for unit, loss in zip(units, lost, strict=True) if loss > HARMLESS] or units
    inputs, outputs = (tuple(head for s, head in found if s == side) for side in (0, 1))
    return replace(idle, input_side=inputs, output_side=outputs)


def find_counting_heads(model: PreTrainedModel, batch: Batch, resting: Idle) -> Idle:
    """The resting heads that miss digits as they miss labels: their denominator counts tokens, whatever they are.

    A head that looks everywhere alike knows from one over the number of keys how far it has come (the position
    that rotary and position-free models compute so). Labels are no sink there: any token would do, and what the
    attention on them does is carried on. Only the denominator counts: the null sink must lose nothing, of labels or
    digits. Discovery, as `find_idle_heads`.
    """
    digits = replace(resting, src=DIGITS)
    found: list[list[Head]] = [[], []]
    for side, heads in enumerate((digits.input_side, digits.output_side)):
        for head in heads:
            at = sides_of(batch)[side]
            entries = {mode: _remove(DIGITS, at, [head], mode) for mode in MODES}
            entries["labels null"] = _remove(LABELS, at, [head], "null")
            shared, *without_denominator = _losses(model, batch, entries)
            if shared > HARMLESS and max(without_denominator) <= HARMLESS:
                found[side].append(head)
    return replace(resting, input_side=tuple(found[0]), output_side=tuple(found[1]))


@dataclass(frozen=True)
class Rest:
    """What discovery found: idle heads but for those that count; those that count; the control's heads.

    `digits`: heads that rest on labels and carry nothing from digits, from which digits are taken; None where the
    model rests on labels nowhere.
    """

    idle: Idle
    counting: Idle
    digits: Idle | None


def discover(model: PreTrainedModel, batch: Batch, other: Batch) -> Rest:
    """Sorts the heads for `remove_labels`, on prompts that are used for nothing else; `other` are as many more."""
    idle = find_idle_heads(model, batch, other=other)
    none = Idle(LABELS, (), ())
    if idle.rests <= HARMLESS:
        return Rest(idle, none, None)
    resting = find_resting_heads(model, batch, idle)
    counting = find_counting_heads(model, batch, resting)
    if counting.input_side or counting.output_side:
        # What others rest on may have been hidden behind those that count, and is looked for again.
        idle = find_idle_heads(model, batch, among=idle.without(counting), other=other)
        if idle.rests <= HARMLESS:
            return Rest(idle, counting, None)
        resting = find_resting_heads(model, batch, idle)
    return Rest(idle, counting, find_idle_heads(model, batch, DIGITS, among=resting))


def remove_labels(model: PreTrainedModel, batch: Batch, rest: Rest) -> list[Evidence]:
    """M6 on one length: the three removals from all heads, and N + B on the idle ones.

    Accuracy is that among the answers, so that chance is one half in parity and a tenth in addition. Beside it the
    mean |change in margin| in logits (the answer's lead over the best other one), because a sink's removal changes
    the margin's sign both ways, and for all heads the KL in nats from the intact answer. "sink" is N + B on idle heads
    as a share of the accuracy above chance. Its matched control takes as many other positions, the digits, away from
    the heads that rest on labels (None where none does).
    """
    idle = rest.idle
    n, above = len(batch), 1 - 1 / len(batch.format.outputs)
    steps = batch.at(Role.OUTPUT)
    sorts = {"accuracy": accuracy(batch, among_answers=True), "margin": lead(batch)}
    divergence = {"KL": kl(batch, predict(model, batch, steps))}
    everything = Idle(LABELS, _all_heads(model), _all_heads(model))

    def evidence(name: str, question: str, quantity: str, value: Interval, **more) -> Evidence:
        return Evidence(
            "M6", name, question, len(steps), quantity, value, more.get("control"), n, details=more.get("details", {})
        )

    found = []
    for name, heads, metrics in (("all heads", everything, sorts | divergence), ("idle heads", idle, sorts)):
        entries = {mode: heads.knockouts(batch, mode) for mode in MODES}
        if not entries["mean"]:
            continue
        effect = dict(zip(metrics, knock_out_for(model, batch, entries, list(metrics.values())), strict=True))
        lost = dict(zip(MODES, -effect["accuracy"].change, strict=True))
        terms = {"N": lost["renormalise"] - lost["null"], "B": lost["null"] - lost["mean"], "C": lost["mean"]}
        details: dict = {term: mean(value, floor=1 / n).to_json() for term, value in terms.items()}
        moved = effect["margin"].change.abs().mean(dim=-1).tolist()
        details["mean |change in margin|"] = dict(zip(MODES, moved, strict=True))
        if "KL" in effect:
            details["KL"] = dict(zip(MODES, effect["KL"].values.mean(dim=-1).tolist(), strict=True))
        for mode, question in QUESTIONS.items():
            value = mean(lost[mode], floor=1 / n)
            found.append(evidence(f"remove labels, {name}: {mode}", question, "accuracy lost", value))
        if heads is everything:
            found.append(
                evidence(
                    "denominator, bias, value",
                    "which removal loses what?",
                    "accuracy lost",
                    mean(terms["N"] + terms["B"], floor=1 / n),
                    details=details,
                )
            )
            continue
        clean = effect["accuracy"].base - (1 - above)
        value = ratio(lost["renormalise"] - lost["mean"], clean, floor=1 / n)
        control = None if rest.digits is None else _as_sink(model, batch, rest.digits, clean)
        margin = effect["margin"]
        # Unsigned: a constant that labels add pushes half of the prompts' margins up and half down.
        size = dict(zip(MODES, margin.change.abs(), strict=True))
        held = ratio(size["renormalise"] - size["mean"], margin.base.abs())
        question = "how much of the margin hangs on the labels' attention or on a constant of theirs?"
        found.append(evidence("margin held", question, "share of the margin", held))
        for key, some in (("idle heads", idle), ("counting heads", rest.counting)):
            details[key] = {"input side": some.input_side, "output side": some.output_side}
        question = "do labels take attention, or add a constant, and carry nothing?"
        found.append(
            evidence("sink", question, "share of accuracy above chance", value, control=control, details=details)
        )
    return found


def sides_of(batch: Batch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Positions that attend while the input is read, and from `===` on, which is not the last separator of a sum."""
    separator = int(batch.at(Role.SEPARATOR)[1 if batch.format.task == "addition" else 0])
    return tuple(range(separator)), tuple(range(separator, batch.n_pos))


def _as_sink(model: PreTrainedModel, batch: Batch, idle: Idle, clean: Tensor) -> Interval | None:
    """N + B of an idle set; None where no head is idle."""
    if not (entries := {mode: parts for mode in ("renormalise", "mean") if (parts := idle.knockouts(batch, mode))}):
        return None
    renormalised, replaced = -knock_out(model, batch, entries, accuracy(batch, among_answers=True)).change
    return ratio(renormalised - replaced, clean, floor=1 / len(batch))


def _all_heads(model: PreTrainedModel) -> tuple[Head, ...]:
    config = model.config
    return tuple((i, j) for i in range(config.num_hidden_layers) for j in range(config.num_attention_heads))


def _remove(src: tuple[Role, ...], at: tuple[int, ...], heads: Collection[Head], mode: Mode) -> Knockout:
    return Knockout(src, at, heads=tuple(heads), mode=mode)
