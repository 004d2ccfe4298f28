"""What is lost when labels cannot be attended to? (M6 of science 2.1)

Three removals telescope, in accuracy lost: denominator N = (i) mask and renormalise less (ii) null sink, constant
bias B = (ii) less (iii) values replaced by their mean, input-dependent value C = (iii). A sink is N + B: the
labels take attention, or add a constant, and nothing that depends on the prompt.

Where labels carry something too, their removal breaks the model in every way, and N + B means nothing. So heads
are first sorted, on prompts of their own, by whether label values can be replaced by their mean without loss;
N + B is then measured on those that carry nothing, together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import predict
from interp.patching import Knockout, accuracy, kl, knock_out, knock_out_for, logit_diff, probability
from interp.patching.knockouts import Head, Mode
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
# Share of the answer's probability, in discovery, up to which heads count as carrying nothing.
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

    def knockouts(self, batch: Batch, mode: Mode) -> tuple[Knockout, ...]:
        """The removal of `src` from these heads; empty where there are none."""
        sides = zip(sides_of(batch), (self.input_side, self.output_side), strict=True)
        return tuple(_remove(self.src, at, heads, mode) for at, heads in sides if heads)


def find_idle_heads(
    model: PreTrainedModel, batch: Batch, src: tuple[Role, ...] = LABELS, among: Idle | None = None
) -> Idle:  # fmt: skip
    """Which heads carry nothing from labels (or from `src`)? Use prompts that are used for nothing else.

    Heads are sorted by what their replacement takes from the answer's probability; of those that lose at most
    `HARMLESS` alone, the longest list that loses at most that together is found by bisection. `among`: the heads
    to choose from; None for all.
    """
    metric = probability(batch, among_answers=True)
    heads = (_all_heads(model),) * 2 if among is None else (among.input_side, among.output_side)
    units = [(side, head) for side in (0, 1) for head in heads[side]]
    entries = {str(unit): _remove(src, sides_of(batch)[unit[0]], [unit[1]], "mean") for unit in units}
    lost = (-knock_out(model, batch, entries, metric).change.mean(dim=-1)).tolist()
    candidates = [units[k] for k in sorted(range(len(units)), key=lambda k: lost[k]) if lost[k] <= HARMLESS]

    def first(count: int) -> Idle:
        inputs, outputs = (tuple(sorted(head for s, head in candidates[:count] if s == side)) for side in (0, 1))
        return Idle(src, inputs, outputs)

    def joint_loss(idle: Idle, mode: Mode) -> float:
        parts = idle.knockouts(batch, mode)
        return -float(knock_out(model, batch, {"joint": parts}, metric).change.mean()) if parts else 0.0

    low, high = 0, len(candidates) + 1
    middle = len(candidates)  # all of them first: as a rule that is the answer
    while high - low > 1:
        low, high = (middle, high) if joint_loss(first(middle), "mean") <= HARMLESS else (low, middle)
        middle = (low + high) // 2
    idle = first(low)
    return replace(idle, rests=joint_loss(idle, "renormalise"))


def find_resting_heads(model: PreTrainedModel, batch: Batch, idle: Idle) -> Idle:
    """The idle heads that rest on labels: whose removal alone loses more than `HARMLESS`; else, all of them.

    Discovery, as `find_idle_heads`.
    """
    metric = probability(batch, among_answers=True)
    units = [(side, head) for side, heads in enumerate((idle.input_side, idle.output_side)) for head in heads]
    entries = {str(u): _remove(idle.src, sides_of(batch)[u[0]], [u[1]], "renormalise") for u in units}
    lost = (-knock_out(model, batch, entries, metric).change.mean(dim=-1)).tolist()
    found = [unit for unit, loss in zip(units, lost, strict=True) if loss > HARMLESS] or units
    inputs, outputs = (tuple(head for s, head in found if s == side) for side in (0, 1))
    return replace(idle, input_side=inputs, output_side=outputs)


def remove_labels(
    model: PreTrainedModel, batch: Batch, idle: Idle, digits_there: Idle | None = None
) -> list[Evidence]:  # fmt: skip
    """M6 on one length: the three removals from all heads, and N + B on the idle ones.

    Accuracy is that among the answers, so that chance is one half in parity. Beside it the mean |change in margin|
    in logits, because a sink's removal changes the margin's sign both ways, and for all heads the KL in nats from
    the intact answer. "sink" is N + B on idle heads as a share of the accuracy above chance. Its matched control
    takes as many other positions, the digits, away from the heads that rest on labels and carry nothing from
    digits either (`digits_there`; None where there is no such head): a head that counts by its denominator would
    miss those as well.
    """
    n, above = len(batch), 1 - 1 / len(batch.format.outputs)
    steps = batch.at(Role.OUTPUT)
    sorts = {"accuracy": accuracy(batch, among_answers=True), "margin": logit_diff(batch)}
    divergence = {"KL": kl(batch, predict(model, batch, steps))}
    everything = Idle(LABELS, _all_heads(model), _all_heads(model))

    def evidence(name: str, question: str, quantity: str, value: Interval, **more) -> Evidence:
        return Evidence("M6", name, question, len(steps), quantity, value, more.get("control"), n,
                        details=more.get("details", {}))  # fmt: skip

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
            found.append(evidence("denominator, bias, value", "which removal loses what?", "accuracy lost",
                                  mean(terms["N"] + terms["B"], floor=1 / n), details=details))  # fmt: skip
            continue
        clean = effect["accuracy"].base - (1 - above)
        value = ratio(lost["renormalise"] - lost["mean"], clean, floor=1 / n)
        control = None if digits_there is None else _as_sink(model, batch, digits_there, clean)
        details["idle heads"] = {"input side": idle.input_side, "output side": idle.output_side}
        question = "do labels take attention, or add a constant, and carry nothing?"
        found.append(evidence("sink", question, "share of accuracy above chance", value,
                              control=control, details=details))  # fmt: skip
    return found


def sides_of(batch: Batch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Positions that attend while the input is read, and from the last separator on."""
    separator = int(batch.at(Role.SEPARATOR)[-1])
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
