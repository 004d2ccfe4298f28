"""Do label positions store a result that later tokens read? (M5 of science 2.1)

The source run has the same labels and another earlier bit (addition: a lower digit, so that the carry into the
place that is read is another); the written scratchpad is kept clean. Only what stands
at the labels is taken from it, through V, with every attention score as it was: identity cannot act, content can.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange
from interp.tasks import Batch, Role
from probes.arms.m01_identity import full_effect
from probes.arms.m04_routes import answer_margin
from probes.evidence import Evidence, Interval
from probes.intervals import ratio
from probes.trials.parity import Trials


def read_stored_results(model: PreTrainedModel, trials: Trials) -> list[Evidence]:
    """M5: rho when V at labels comes from a run with another history, attention frozen.

    "labels" takes every label but the one at which the answer is read; its control has another future instead.
    Then input and output labels apart, and single layers. Last K at labels, with nothing frozen: a result can also
    be read by whether its position is attended to, and then its value may say nothing.
    """
    x = trials.batch
    sides = {
        "labels": trials.labels,
        "input labels": trials.labels & (x.role == Role.INPUT_LABEL),
        "output labels": trials.labels & (x.role == Role.OUTPUT_LABEL),
    }

    def values_from(source: Batch, at: torch.Tensor, layers: tuple[int, ...] | None = None) -> list[Interchange]:
        return [Interchange("scores", x), Interchange("v", source, at, layers)]

    entries = {name: values_from(trials.other_history, at) for name, at in sides.items() if at.any()}
    entries["control"] = values_from(trials.other_future, trials.labels)
    for layer in range(model.config.num_hidden_layers):
        entries[f"labels, L{layer}"] = values_from(trials.other_history, trials.labels, (layer,))
    entries["K"] = [Interchange("k", trials.other_history, trials.labels)]
    entries["K control"] = [Interchange("k", trials.other_future, trials.labels)]
    full = full_effect(model, trials)
    moved = dict(zip(entries, -interchange(model, x, entries, answer_margin(trials)).change, strict=True))
    rho = {name: ratio(value, full, strata=trials.strata) for name, value in moved.items()}
    control, keys, keys_control = (rho.pop(name) for name in ("control", "K", "K control"))
    question = "an earlier bit was another one, for what stands at labels alone: does the answer follow?"

    def evidence(name: str, value: Interval, control: Interval | None) -> Evidence:
        return Evidence("M5", f"history in {name}", question, trials.length, "rho", value, control, len(trials))

    found = [evidence(f"V at {name}", value, control if name == "labels" else None) for name, value in rho.items()]
    return [*found, evidence("K at labels", keys, keys_control)]
