"""M5: test whether label positions store a result that later tokens read.

The source run has the same labels and another earlier bit (addition: a lower digit, so that the carry into the place
that is read differs); its written scratchpad is kept. Only V at the labels is patched from it, with every attention
score as in the original run. Identity cannot act then; content can (probes/README.md, Battery).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.bands import layer_bands
from probes.arms.by_layer import effects_by_entry
from probes.arms.m01_identity import Entries, full_effect
from probes.evidence import Evidence, EvidenceKey
from probes.intervals import ratio
from probes.trials.parity import Trials

QUESTIONS = {
    keys.STEP_BIT_V: "V at labels comes from a run in which the step's own bit differs: does the answer follow it?",
    keys.STEP_BIT_K: "K at labels comes from a run in which the step's own bit differs: does the answer follow it?",
}
# Entries from a run with another future, the matched controls.
FUTURE_V, FUTURE_K = "another future in V", "another future in K"
CONTROLS = {
    keys.HISTORY_V: FUTURE_V,
    keys.HISTORY_K: FUTURE_K,
    keys.STEP_BIT_V: FUTURE_V,
    keys.STEP_BIT_K: FUTURE_K,
}
# V at all labels, at input labels and at output labels.
OF_VALUES = (keys.HISTORY_V, keys.HISTORY_V_INPUTS, keys.HISTORY_V_OUTPUTS)
QUESTION = "label positions come from a run with another earlier bit: does the answer follow that history?"


def measure_history(
    model: PreTrainedModel, trials: Trials, full: Float[Tensor, " batch"] | None = None
) -> list[Evidence]:
    """Measure M5 at one length: rho when V at labels comes from a run with another history, attention frozen.

    First every label but the one at which the answer is read; its control comes from a run with another future. Then
    input labels, output labels and single layers (in a deep model, bands of layers on about 24 of the trials). Then K
    at labels with nothing frozen: a result can also be read by whether its position is attended to, while its value is
    constant. Last, V and K from the run in which the step's own bit is edited: labels can hold a copy of it.
    """
    bands = {keys.HISTORY_V_LAYER.at(n): layers for n, layers in layer_bands(model.config.num_hidden_layers).items()}

    def entries_of(some: Trials) -> tuple[Entries, Entries]:
        x, history, future, edited = some.batch, some.other_history, some.other_future, some.edited
        sides = (some.labels & (x.role == role) for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL))
        positions = zip(OF_VALUES, (some.labels, *sides), strict=True)

        def values_from(source: Batch, at: Tensor, layers: tuple[int, ...] | None = None) -> list[Interchange]:
            return [Interchange("attn_scores", x), Interchange("v", source, at, layers)]

        by_key = {key: values_from(history, at) for key, at in positions if at.any()}
        by_key[keys.HISTORY_K] = [Interchange("k", history, some.labels)]
        by_key[keys.STEP_BIT_V] = values_from(edited, some.labels)
        by_key[keys.STEP_BIT_K] = [Interchange("k", edited, some.labels)]
        on_all = {key.name: parts for key, parts in by_key.items()}
        on_all[FUTURE_V] = values_from(future, some.labels)
        on_all[FUTURE_K] = [Interchange("k", future, some.labels)]
        by_layer = {key.name: values_from(history, some.labels, layers) for key, layers in bands.items()}
        return on_all, by_layer

    effects, rows = effects_by_entry(model, trials, entries_of)
    full = full_effect(model, trials) if full is None else full

    def evidence(key: EvidenceKey) -> Evidence:
        on, of = (trials.rows(rows), full[rows]) if key in bands else (trials, full)
        control = effects[CONTROLS[key]] if key in CONTROLS else None
        return Evidence(
            key=key,
            question=QUESTIONS.get(key, QUESTION),
            length=on.length,
            quantity="rho",
            value=ratio(effects[key.name], of, strata=on.strata),
            control=None if control is None else ratio(control, of, strata=on.strata),
            n=len(on),
        )

    order = (*OF_VALUES, *bands, keys.HISTORY_K, keys.STEP_BIT_V, keys.STEP_BIT_K)
    return [evidence(key) for key in order if key.name in effects]
