"""Do label positions store a result that later tokens read? (M5 of science 2.1)

The source run has the same labels and another earlier bit; the written scratchpad is kept clean. Only what stands
at the labels is taken from it, through V, with every attention score as it was: identity cannot act, content can.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from interp.patching import Graft, transplant
from interp.tasks import Batch, Role
from probes.evidence import Evidence
from probes.identity import full_effect
from probes.intervals import ratio
from probes.routes import answer_margin
from probes.trials import Trials


def read_stored_results(model: PreTrainedModel, trials: Trials) -> list[Evidence]:
    """M5: rho when V at labels comes from a run with another history, attention frozen.

    "labels" takes every label but the one at which the answer is read; its control has another future instead.
    Then input and output labels apart, and single layers.
    """
    x = trials.batch
    sides = {
        "labels": trials.labels,
        "input labels": trials.labels & (x.role == Role.INPUT_LABEL),
        "output labels": trials.labels & (x.role == Role.OUTPUT_LABEL),
    }

    def values_from(source: Batch, at: torch.Tensor, layers: tuple[int, ...] | None = None) -> list[Graft]:
        return [Graft("scores", x), Graft("v", source, at, layers)]

    entries = {name: values_from(trials.other_history, at) for name, at in sides.items() if at.any()}
    entries["control"] = values_from(trials.other_future, trials.labels)
    for layer in range(model.config.num_hidden_layers):
        entries[f"labels, L{layer}"] = values_from(trials.other_history, trials.labels, (layer,))
    full = full_effect(model, trials)
    moved = dict(zip(entries, -transplant(model, x, entries, answer_margin(trials)).change, strict=True))
    control = ratio(moved.pop("control"), full, strata=trials.cell)
    question = "an earlier bit was another one, for what stands at labels alone: does the answer follow?"
    return [
        Evidence(
            "M5", f"history in V at {name}", question, trials.length, "rho", ratio(value, full, strata=trials.cell),
            control if name == "labels" else None, len(trials),
        )
        for name, value in moved.items()
    ]  # fmt: skip
