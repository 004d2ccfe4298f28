"""By which route does a label's identity reach the answer? (M4 of science 2.1)

An address works through attention: the scores of a run in which labels have traded places, put into the
original run, must move the answer as the trade itself does. Then site by site: A1 carries identity from the
label (V) to the bit, whose key changes (K); A2 is found by the label's own key.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange, Metric, interchange, margin
from interp.patching.interchanges import GraftSite
from interp.tasks import Batch, Role
from probes.arms.m01_identity import by_cell, full_effect
from probes.evidence import Evidence
from probes.intervals import ratio
from probes.trials.parity import Trials


def trace_identity(model: PreTrainedModel, trials: Trials) -> list[Evidence]:
    """M4: rho when parts of the run on traded input labels (M1), output labels for Q (M2), enter the original run.

    "attention" takes all scores and nothing else; its control those of two labels that the step does not use. The
    others take K or V at the two labels, K or V at their bits (digits), or Q at the output label, in one layer, and
    compute everything after it anew.
    """
    x, swapped, layers = trials.batch, trials.swapped_inputs, range(model.config.num_hidden_layers)
    pair = (trials.step, trials.partner)
    labels, bits = (trials.positions(role, pair) for role in (Role.INPUT_LABEL, Role.INPUT))
    reader = trials.positions(Role.OUTPUT_LABEL, (trials.step,))
    bystanders = trials.swapped_bystanders(Role.INPUT_LABEL)
    sites: dict[str, tuple[Tensor, GraftSite, Batch]] = {
        "V at label": (labels, "v", swapped),
        "K at label": (labels, "k", swapped),
        "V at bit": (bits, "v", swapped),
        "K at bit": (bits, "k", swapped),
        "Q at output label": (reader, "q", trials.swapped_outputs),
    }
    entries = {"attention": [Interchange("scores", swapped)], "control": [Interchange("scores", bystanders)]}
    entries |= {
        f"{name}, L{layer}": [Interchange(site, source, at, (layer,))]
        for name, (at, site, source) in sites.items()
        for layer in layers
    }
    full = full_effect(model, trials)
    moved = dict(zip(entries, -interchange(model, x, entries, answer_margin(trials)).change, strict=True))
    control = ratio(moved.pop("control"), full, strata=trials.strata)
    questions: Mapping[str, str] = {"attention": "does the attention alone carry what a trade of labels does?"}
    return [
        Evidence(
            "M4",
            name,
            questions.get(name, "does identity act through this site?"),
            trials.length,
            "rho",
            by_cell(value, full, trials),
            control if name == "attention" else None,
            len(trials),
        )
        for name, value in moved.items()
    ]


def answer_margin(trials: Trials) -> Metric:
    """The metric of every arm: logit(answer) - logit(other) at each prompt's step."""
    return margin(trials.batch, trials.step, trials.answer, trials.other)
