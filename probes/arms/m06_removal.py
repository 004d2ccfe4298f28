"""M6: measure what is lost when labels cannot be attended to.

Three removals telescope, in accuracy lost: (i) renormalise, (ii) null sink, (iii) values replaced by their mean.
Denominator N = (i) - (ii), constant bias B = (ii) - (iii), input-dependent value C = (iii). A sink is N + B: labels
take attention, or add a constant, and nothing that depends on the prompt.

Where labels also carry something, every removal breaks the model and N + B has no meaning. N + B is therefore
measured only in the heads that carry nothing from labels (`probes.arms.m06_heads`; probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import predict
from interp.patching import PatchEffect, accuracy, kl, knock_out, knock_out_for, lead
from interp.patching.knockouts import Mode
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.idle_heads import LABELS, IdleHeads, all_heads
from probes.arms.m06_heads import SortedHeads
from probes.arms.readings import evidence_on
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import mean, ratio

# More prompts than this do not keep all of their logits.
MANY = 512
MODES: tuple[Mode, ...] = ("renormalise", "null", "mean")
ALL = {"renormalise": keys.RENORMALISE_ALL, "null": keys.NULL_ALL, "mean": keys.MEAN_ALL}
IDLE = {"renormalise": keys.RENORMALISE_IDLE, "null": keys.NULL_IDLE, "mean": keys.MEAN_IDLE}
QUESTIONS: dict[EvidenceKey, str] = {
    key: question
    for by_mode in (ALL, IDLE)
    for key, question in zip(
        by_mode.values(),
        (
            "other keys share the attention on labels: what is lost?",
            "the attention on labels reads zero: what is lost?",
            "values at labels become their mean: what is lost?",
        ),
        strict=True,
    )
} | {
    keys.REMOVAL_TERMS: "how do denominator, bias and value share the loss?",
    keys.DENOMINATOR: "what is lost because other keys share the attention on labels, and not where it reads zero?",
    keys.MARGIN_HELD: "how much of the margin depends on attention to labels, or on a constant that they add?",
    keys.SINK: "do labels take attention, or add a constant, while they carry nothing?",
}


@dataclass(frozen=True, eq=False)
class _Removals:
    """The effects of the three removals from some heads, per prompt; `lost` and its terms are in accuracy."""

    effects: dict[str, PatchEffect]
    lost: dict[Mode, Tensor]

    @property
    def terms(self) -> dict[str, Tensor]:
        lost = self.lost
        return {"N": lost["renormalise"] - lost["null"], "B": lost["null"] - lost["mean"], "C": lost["mean"]}


def measure_removal(model: PreTrainedModel, batch: Batch, heads: SortedHeads) -> list[Evidence]:
    """Measure M6 at one length: the three removals from all heads and from idle heads, and N + B in the latter.

    Accuracy is that among the answers: chance is one half in parity and a tenth in addition. Details add the mean
    |change in margin| in logits (the answer's lead over the best other one), because removing a sink moves margins
    both ways, and for all heads the KL in nats from the original answer. "sink" is N + B in idle heads as a share of
    the accuracy above chance. Its matched control removes as many other positions, the digits, from the heads that
    need labels; it is None where no head needs labels.
    """
    n = len(batch)
    every = IdleHeads(LABELS, all_heads(model), all_heads(model))
    metrics = {"accuracy": accuracy(batch, among_answers=True), "margin": lead(batch)}
    divergence = {"KL": kl(batch, _original_logits(model, batch))}

    def evidence(key: EvidenceKey, quantity: str, value: Interval, **more) -> Evidence:
        return evidence_on(batch, key, QUESTIONS[key], quantity, value, **more)

    def losses(by_mode: dict[str, EvidenceKey], removals: _Removals) -> list[Evidence]:
        rows = zip(by_mode.values(), removals.lost.values(), strict=True)
        return [evidence(key, "accuracy lost", mean(lost, floor=1 / n)) for key, lost in rows]

    everywhere, in_idle = _remove(model, batch, (every, heads.idle), metrics | divergence)
    assert everywhere is not None
    total = mean(everywhere.terms["N"] + everywhere.terms["B"], floor=1 / n)
    removed = losses(ALL, everywhere)
    removed.append(evidence(keys.REMOVAL_TERMS, "accuracy lost", total, details=_details(everywhere, n)))
    removed.append(evidence(keys.DENOMINATOR, "accuracy lost", mean(everywhere.terms["N"], floor=1 / n)))
    if in_idle is None:
        return removed
    clean = in_idle.effects["accuracy"].base - 1 / len(batch.format.outputs)
    lost = in_idle.lost["renormalise"] - in_idle.lost["mean"]
    control = None if heads.control is None else _sink_share(model, batch, heads.control, clean)
    details = _details(in_idle, n)
    details.pop("KL")
    for name, some in (("idle heads", heads.idle), ("counting heads", heads.counting)):
        details[name] = {"input side": some.input_side, "output side": some.output_side}
    sink = ratio(lost, clean, floor=1 / n)
    return [
        *removed,
        *losses(IDLE, in_idle),
        evidence(keys.MARGIN_HELD, "share of the margin", _margin_held(in_idle)),
        evidence(keys.SINK, "share of accuracy above chance", sink, control=control, details=details),
    ]


def _original_logits(model: PreTrainedModel, batch: Batch) -> Tensor | Callable[[Tensor], Tensor]:
    """Return the unpatched logits at the answers, or what computes them for some prompts where there are many."""
    at = batch.at(Role.OUTPUT)
    if len(batch) <= MANY:
        return predict(model, batch, at, by_steps=True)
    return lambda rows: predict(model, batch.rows(rows), at, by_steps=True)


def _remove(model: PreTrainedModel, batch: Batch, sets: Sequence[IdleHeads], metrics: dict) -> list[_Removals | None]:
    """Apply the three removals to each set of heads, in runs that share what is unpatched; None for an empty set."""
    entries = {(k, mode): heads.knockouts(batch, mode) for k, heads in enumerate(sets) for mode in MODES}
    entries = {f"{k} {mode}": parts for (k, mode), parts in entries.items() if parts}
    effects = dict(zip(metrics, knock_out_for(model, batch, entries, list(metrics.values())), strict=True))
    names, removals = list(entries), list[_Removals | None]()
    for k in range(len(sets)):
        if f"{k} mean" not in entries:
            removals.append(None)
            continue
        at = [names.index(f"{k} {mode}") for mode in MODES]
        own = {name: replace(e, labels={"knockout": MODES}, values=e.values[at]) for name, e in effects.items()}
        removals.append(_Removals(own, dict(zip(MODES, -own["accuracy"].change, strict=True))))
    return removals


def _details(removals: _Removals, n: int) -> dict:
    details: dict = {term: mean(value, floor=1 / n).to_json() for term, value in removals.terms.items()}
    moved = removals.effects["margin"].change.abs().mean(dim=-1).tolist()
    details["mean |change in margin|"] = dict(zip(MODES, moved, strict=True))
    if "KL" in removals.effects:
        details["KL"] = dict(zip(MODES, removals.effects["KL"].values.mean(dim=-1).tolist(), strict=True))
    return details


def _margin_held(removals: _Removals) -> Interval:
    """Return the share of the margin that N + B moves, unsigned: a constant moves half of the margins up, half down."""
    effect = removals.effects["margin"]
    size = dict(zip(MODES, effect.change.abs(), strict=True))
    return ratio(size["renormalise"] - size["mean"], effect.base.abs())


def _sink_share(model: PreTrainedModel, batch: Batch, heads: IdleHeads, clean: Tensor) -> Interval | None:
    """Return N + B of some heads as a share of the accuracy above chance; None where there are no heads."""
    entries = {mode: parts for mode in ("renormalise", "mean") if (parts := heads.knockouts(batch, mode))}
    if not entries:
        return None
    renormalised, replaced = -knock_out(model, batch, entries, accuracy(batch, among_answers=True)).change
    return ratio(renormalised - replaced, clean, floor=1 / len(batch))
