"""Is a label's identity an address? Interventions M1, M2 and M3 of science 2.1, on tokens alone.

M1 trades the labels of two input bits, M2 the labels of two output steps, M3 renames labels consistently.
If identity is an address, the answer follows the label in M1 and M2 and does not care in M3.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import readout
from interp.tasks import Batch, Role, counterfactual
from probes.evidence import Evidence, Interval
from probes.intervals import ratio, wilson
from probes.trials.parity import Trials

# Parity's answer maps, by cell; in addition the digits are all that is found under a label.
MAPS = {"bit": (0.5, -0.5, 0.5, -0.5), "state": (-0.5, 0.5, 0.5, -0.5), "state before": (0.5, 0.5, -0.5, -0.5)}
SAME_UNDER_BOTH = 3


def follow_the_label(model: PreTrainedModel, trials: Trials, seed: int) -> list[Evidence]:
    """M1, M2 and M3 on one length: how much of the margin, and how often the answer, follows the label.

    rho = [m(x) - m(do)] / [m(x) - m(x~)], where m is the teacher-forced margin of the original answer at
    the step read and x~ is the prompt with that step's bit edited and the written scratchpad kept. The
    cells of trials are weighted so that a label which leads to the bit, to a stored state, or to both counts 1;
    `details["maps"]` has the parts (parity). The matched control trades two labels that the step does not use. "either
    side" is the mean of M1 and M2 in each prompt; "whatever is found" its effect where the bit and the state
    under both labels are the same, so that an answer which follows the label does not change.
    """
    x = trials.batch
    full = full_effect(model, trials)
    before, _ = margins(model, x, trials)

    def moved(do: Batch) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
        margin, follows = margins(model, do, trials)
        return before - margin, follows

    found, values, controls = [], [], []
    for arm, role, side, do in (
        ("M1", Role.INPUT_LABEL, "input", trials.swapped_inputs),
        ("M2", Role.OUTPUT_LABEL, "output", trials.swapped_outputs),
    ):
        value, follows = moved(do)
        control, control_follows = moved(trials.swapped_bystanders(role))
        values.append(value)
        controls.append(control)
        maps = MAPS if x.format.task == "parity" else {}
        details = {
            **({"maps": {m: by_cell(value, full, trials, w).to_json() for m, w in maps.items()}} if maps else {}),
            # Where every map says that the answer changes.
            "follows": asdict(_share(follows[trials.all_differ])),
            "control follows": asdict(_share(control_follows)),
        }
        question = f"two {side} labels trade places: does the answer follow the label?"
        effect, matched = by_cell(value, full, trials), ratio(control, full, strata=trials.strata)
        found.append(_evidence(arm, f"swap {side} labels", question, trials, effect, matched, details))
    question = "M1 and M2 in one number: how much of the margin follows the label?"
    mean, matched = (torch.stack(both).mean(dim=0) for both in (values, controls))
    found.append(
        _evidence(
            "M1",
            "either side",
            question,
            trials,
            by_cell(mean, full, trials),
            ratio(matched, full, strata=trials.strata),
        )
    )
    same = trials.cell == SAME_UNDER_BOTH
    question = "the same is found under both labels: does the trade change the answer all the same?"
    found.append(_evidence("M1", "whatever is found", question, trials.rows(same), ratio(mean[same], full[same])))
    question = "every label gets another name, the same wherever it stands: does anything change?"
    if x.format.labels == "pool":
        value, _ = moved(counterfactual.rename_labels(x, seed + 1))
        found.append(_evidence("M3", "rename labels", question, trials, ratio(value, full, strata=trials.strata)))
        if x.format.labels_needed(x.length) <= len(x.vocabulary.held_out):
            value, _ = moved(counterfactual.rename_labels(x, seed + 2, held_out=True))
            question = "as M3, with names that no prompt of the task ever contained in training"
            effect = ratio(value, full, strata=trials.strata)
            found.append(_evidence("M3", "rename to held-out labels", question, trials, effect))
    return found


def full_effect(model: PreTrainedModel, trials: Trials) -> Float[Tensor, " batch"]:
    """m(x) - m(x~) of each prompt: what the edited bit itself does, the denominator of every rho."""
    (clean, _), (edited, _) = (margins(model, batch, trials) for batch in (trials.batch, trials.edited))
    return clean - edited


def by_cell(
    moved: Float[Tensor, " batch"],
    full: Float[Tensor, " batch"],
    trials: Trials,
    weights: tuple[float, ...] | None = None,
) -> Interval:
    """rho of an intervention on identity, from its effects in the cells; `weights` as `Trials.weights` has them."""
    return ratio(moved, full, strata=trials.strata, weights=trials.weights if weights is None else weights)


def margins(
    model: PreTrainedModel, batch: Batch, trials: Trials
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """logit(answer) - logit(other) at each prompt's step; whether the other one is the likeliest token."""
    at = trials.batch.at(Role.OUTPUT)
    rows, column = torch.arange(len(trials)), trials.step - 1
    found = readout(model, batch, at)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    logits = found.logits[rows, column]
    answer, other = ((t.unsqueeze(1) == symbols).long().argmax(dim=1) for t in (trials.answer, trials.other))
    return logits[rows, answer] - logits[rows, other], found.likeliest[rows, column] == trials.other


def _share(hits: Bool[Tensor, " prompt"]) -> Interval:
    return wilson(int(hits.sum()), len(hits))


def _evidence(
    arm: str,
    name: str,
    question: str,
    trials: Trials,
    value: Interval,
    control: Interval | None = None,
    details: dict | None = None,
) -> Evidence:
    return Evidence(arm, name, question, trials.length, "rho", value, control, len(trials), details=details or {})
