"""M1, M2 and M3: test whether a label's identity is an address, by edits of tokens alone.

M1 swaps the labels of two input bits, M2 the labels of two output steps. M3 renames labels consistently.
If identity is an address, the answer follows the label in M1 and M2 and does not change in M3. The three arms share
their trials and their denominator, so one function measures them (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import Readout, readout
from interp.patching import Metric, interchange, margin
from interp.patching.interchange_parts import Intervention
from interp.patching.token_edits import readouts
from interp.tasks import Batch, Role, counterfactual
from probes import keys
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import ratio, wilson
from probes.trials.parity import NEITHER_DIFFERS, Trials

# Entries of `interchange` by name.
Entries = Mapping[str, Sequence[Intervention]]
# Weights of the four cells of parity trials that isolate each answer map. In addition a label leads to digits only.
MAPS = {"bit": (0.5, -0.5, 0.5, -0.5), "state": (-0.5, 0.5, 0.5, -0.5), "state before": (0.5, 0.5, -0.5, -0.5)}
QUESTIONS = {
    keys.SWAP_INPUTS: "two input labels are swapped: does the answer follow the label?",
    keys.SWAP_OUTPUTS: "two output labels are swapped: does the answer follow the label?",
    keys.EITHER_SIDE: "mean of M1 and M2: how much of the margin follows the label?",
    keys.SAME_UNDER_BOTH: "bit and state are the same under both labels: does the swap change the answer?",
    keys.RENAME: "every label is renamed consistently: does the answer change?",
    keys.RENAME_HELD_OUT: "as M3, with labels that no prompt of the task contains: does the answer change?",
}


def measure_swaps(
    model: PreTrainedModel, trials: Trials, seed: int, full: Float[Tensor, " batch"] | None = None
) -> list[Evidence]:
    """Measure M1, M2 and M3 at one length: how much of the margin, and how often the answer, follows the label.

    rho = [m(x) - m(do)] / [m(x) - m(x~)]. m is the teacher-forced margin of the original answer at the step that is
    read; x~ is the prompt with that step's bit edited and the written scratchpad kept. Cells of trials are weighted so
    that a label that leads to the bit, to a stored state, or to both counts 1; `details["maps"]` has the parts
    (parity). The matched control swaps two labels that the step does not use. "either side" is the mean of M1 and M2
    in each prompt. "whatever is found" is its effect where bit and state are the same under both labels, so that an
    answer that follows the label does not change. `full`: the full effect, if it is known (here and in M4, M5).
    """
    x = trials.batch
    full = full_effect(model, trials) if full is None else full
    renamings: dict[EvidenceKey, Batch] = {}
    if x.format.labels == "pool":
        renamings[keys.RENAME] = counterfactual.rename_labels(x, seed + 1)
        if x.format.labels_needed(x.length) <= len(x.vocabulary.held_out):
            renamings[keys.RENAME_HELD_OUT] = counterfactual.rename_labels(x, seed + 2, held_out=True)
    edits = {keys.SWAP_INPUTS.name: trials.swapped_inputs, keys.SWAP_OUTPUTS.name: trials.swapped_outputs}
    sides = {keys.SWAP_INPUTS: Role.INPUT_LABEL, keys.SWAP_OUTPUTS: Role.OUTPUT_LABEL}
    edits |= {f"control of {key.name}": trials.swapped_bystanders(role) for key, role in sides.items()}
    edits |= {key.name: renamed for key, renamed in renamings.items()}
    moved = effects_of_edits(model, trials, edits)
    evidence, effects, controls = [], [], []
    for key in sides:
        effect, follows = moved[key.name]
        control, control_follows = moved[f"control of {key.name}"]
        effects.append(effect)
        controls.append(control)
        maps = MAPS if x.format.task == "parity" else {}
        details = {
            **({"maps": {m: by_cell(effect, full, trials, w).to_json() for m, w in maps.items()}} if maps else {}),
            # Over trials in which every answer map says that the answer changes.
            "follows": asdict(_share(follows[trials.all_differ])),
            "control follows": asdict(_share(control_follows)),
        }
        matched = ratio(control, full, strata=trials.strata)
        evidence.append(_evidence(key, trials, by_cell(effect, full, trials), matched, details))
    effect, control = (torch.stack(both).mean(dim=0) for both in (effects, controls))
    matched = ratio(control, full, strata=trials.strata)
    evidence.append(_evidence(keys.EITHER_SIDE, trials, by_cell(effect, full, trials), matched))
    same = trials.cell == NEITHER_DIFFERS
    evidence.append(_evidence(keys.SAME_UNDER_BOTH, trials.rows(same), ratio(effect[same], full[same])))
    for key in renamings:
        effect, _ = moved[key.name]
        evidence.append(_evidence(key, trials, ratio(effect, full, strata=trials.strata)))
    return evidence


def full_effect(model: PreTrainedModel, trials: Trials) -> Float[Tensor, " batch"]:
    """Return m(x) - m(x~) of each prompt: the effect of editing the bit itself, the denominator of every rho."""
    return effects_of_edits(model, trials, {"edited": trials.edited})["edited"][0]


def by_cell(
    effect: Float[Tensor, " batch"],
    full: Float[Tensor, " batch"],
    trials: Trials,
    weights: tuple[float, ...] | None = None,
) -> Interval:
    """Return rho of an intervention on identity from its effects in the cells; `weights` default to the trials'."""
    return ratio(effect, full, strata=trials.strata, weights=trials.weights if weights is None else weights)


def effects_of_edits(
    model: PreTrainedModel, trials: Trials, edited: Mapping[str, Batch]
) -> dict[str, tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]]:
    """Return m(x) - m(edited) at each prompt's step, and whether `other` is the most likely token after the edit.

    m is logit(answer) - logit(other), teacher-forced. By the names of the edits, which change tokens only.
    """
    at, rows = trials.batch.at(Role.OUTPUT), torch.arange(len(trials))
    base, outputs = readouts(model, trials.batch, edited, at, own=at[trials.step - 1])
    answer, other = answers_of(trials)

    def margin_of(found: Readout) -> Float[Tensor, " batch"]:
        return found.logits[rows, 0, answer] - found.logits[rows, 0, other]

    clean = margin_of(base)
    return {name: (clean - margin_of(x), x.likeliest[:, 0] == trials.other) for name, x in outputs.items()}


def margins(
    model: PreTrainedModel, batch: Batch, trials: Trials
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Return logit(answer) - logit(other) at each prompt's step, and whether `other` is the most likely token.

    The reference of `effects_of_edits`: every position of every prompt is computed.
    """
    at, rows, column = batch.at(Role.OUTPUT), torch.arange(len(trials)), trials.step - 1
    outputs = readout(model, batch, at)
    answer, other = answers_of(trials)
    logits = outputs.logits[rows, column]
    return logits[rows, answer] - logits[rows, other], outputs.likeliest[rows, column] == trials.other


def effects_of_entries(model: PreTrainedModel, trials: Trials, entries: Entries) -> dict[str, Float[Tensor, " trial"]]:
    """Return m(x) - m(entry) at each prompt's step, by the names of the entries of an interchange."""
    changes = -interchange(model, trials.batch, entries, answer_margin(trials)).change
    return dict(zip(entries, changes, strict=True))


def answer_margin(trials: Trials) -> Metric:
    """Return the metric of every arm: logit(answer) - logit(other) at each prompt's step."""
    return margin(trials.batch, trials.step, trials.answer, trials.other)


def answers_of(trials: Trials) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Return the answer and the other answer as indices among the format's output symbols."""
    symbols = trials.batch.vocabulary.tokens(trials.batch.format.outputs)
    answer, other = ((t.unsqueeze(1) == symbols).long().argmax(dim=1) for t in (trials.answer, trials.other))
    return answer, other


def _share(hits: Bool[Tensor, " prompt"]) -> Interval:
    return wilson(int(hits.sum()), len(hits))


def _evidence(
    key: EvidenceKey, trials: Trials, value: Interval, control: Interval | None = None, details: dict | None = None
) -> Evidence:
    return Evidence(
        key=key,
        question=QUESTIONS[key],
        length=trials.length,
        quantity="rho",
        value=value,
        control=control,
        n=len(trials),
        details=details or {},
    )
