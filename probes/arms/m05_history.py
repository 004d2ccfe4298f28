"""M5: test whether label positions store a result that later tokens read.

The source run has the same labels and another earlier bit (addition: a lower digit, so that the carry into the place
that is read differs); its written scratchpad is kept. Only V at the labels is patched from it, with every attention
score as in the original run. Identity cannot act then; content can (probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.bands import layer_bands
from probes.arms.m01_identity import full_effect
from probes.arms.m04_routes import answer_margin
from probes.evidence import Evidence
from probes.intervals import ratio
from probes.trials.parity import Trials

QUESTIONS = {
    keys.STEP_BIT_V: "V at labels comes from a run in which the step's own bit differs: does the answer follow it?",
    keys.STEP_BIT_K: "K at labels comes from a run in which the step's own bit differs: does the answer follow it?",
}
QUESTION = "label positions come from a run with another earlier bit: does the answer follow that history?"


def measure_history(
    model: PreTrainedModel, trials: Trials, full: Float[Tensor, " batch"] | None = None
) -> list[Evidence]:
    """Measure M5 at one length: rho when V at labels comes from a run with another history, attention frozen.

    First every label but the one at which the answer is read; its control comes from a run with another future. Then
    input labels, output labels and single layers (bands of them in a deep model). Then K at labels with nothing
    frozen: a result can also be read by whether its position is attended to, while its value is constant. Last, V and
    K from the run in which the step's own bit is edited: labels can hold a copy of it.
    """
    x = trials.batch
    # Entries that share a source share its run.
    history, future, edited = trials.other_history, trials.other_future, trials.edited
    positions = {
        keys.HISTORY_V: trials.labels,
        keys.HISTORY_V_INPUTS: trials.labels & (x.role == Role.INPUT_LABEL),
        keys.HISTORY_V_OUTPUTS: trials.labels & (x.role == Role.OUTPUT_LABEL),
    }

    def values_from(source: Batch, at: torch.Tensor, layers: tuple[int, ...] | None = None) -> list[Interchange]:
        return [Interchange("attn_scores", x), Interchange("v", source, at, layers)]

    by_key = {key: values_from(history, at) for key, at in positions.items() if at.any()}
    for name, layers in layer_bands(model.config.num_hidden_layers).items():
        by_key[keys.HISTORY_V_LAYER.at(name)] = values_from(history, trials.labels, layers)
    by_key[keys.HISTORY_K] = [Interchange("k", history, trials.labels)]
    by_key[keys.STEP_BIT_V] = values_from(edited, trials.labels)
    by_key[keys.STEP_BIT_K] = [Interchange("k", edited, trials.labels)]
    control_of = {keys.STEP_BIT_V: keys.HISTORY_V, keys.STEP_BIT_K: keys.HISTORY_K}
    controls = {
        keys.HISTORY_V: values_from(future, trials.labels),
        keys.HISTORY_K: [Interchange("k", future, trials.labels)],
    }
    entries = {key.name: parts for key, parts in by_key.items()}
    entries |= {f"control of {key.name}": parts for key, parts in controls.items()}
    full = full_effect(model, trials) if full is None else full
    changes = -interchange(model, x, entries, answer_margin(trials)).change
    rho = {name: ratio(c, full, strata=trials.strata) for name, c in zip(entries, changes, strict=True)}
    return [
        Evidence(
            key=key,
            question=QUESTIONS.get(key, QUESTION),
            length=trials.length,
            quantity="rho",
            value=rho[key.name],
            control=rho.get(f"control of {control_of.get(key, key).name}"),
            n=len(trials),
        )
        for key in by_key
    ]
