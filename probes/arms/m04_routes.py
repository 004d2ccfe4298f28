"""M4: find the route by which a label's identity reaches the answer.

An address acts through attention: the attention scores of a run with swapped labels, patched into the original run,
must move the answer as the swap itself does. Then one site at a time. Mechanism A1 carries identity from the label
(V) to the bit, whose key changes (K). Mechanism A2 matches the label's own key (probes/README.md, Battery).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange
from interp.sites import Site
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.bands import layer_bands
from probes.arms.by_layer import effects_by_entry
from probes.arms.m01_identity import Entries, by_cell, full_effect
from probes.evidence import Evidence, EvidenceKey, Interval
from probes.intervals import ratio
from probes.trials.parity import Trials

ATTENTION_QUESTION = "does the attention alone carry the effect of a swap of labels?"
SITE_QUESTION = "does identity act through this site?"
CONTROL = "control"
# Patched in single layers or bands of them, in this order.
SITES = (keys.V_AT_LABEL, keys.K_AT_LABEL, keys.V_AT_BIT, keys.K_AT_BIT, keys.Q_AT_OUTPUT_LABEL)


def measure_routes(
    model: PreTrainedModel, trials: Trials, full: Float[Tensor, " batch"] | None = None
) -> list[Evidence]:
    """Measure M4 at one length: rho when parts of a run with swapped labels are patched into the original run.

    "attention" patches the attention scores of all layers and nothing else; its control patches those of a run in
    which two labels that the step does not use are swapped. The other pieces patch one layer, or a band of layers of
    a deep model (`layer_bands`), and everything after it is recomputed: K or V at the two labels, K or V at their bits
    (digits), from the run with swapped input labels (M1), or Q at the output label, from the run with swapped output
    labels (M2). A deep model is patched at these on about 24 of the trials.
    """
    bands = layer_bands(model.config.num_hidden_layers)

    def entries_of(some: Trials) -> tuple[Entries, Entries]:
        swapped = some.swapped_inputs  # entries that share a source share its run
        pair = (some.step, some.partner)
        labels, bits = (some.positions(role, pair) for role in (Role.INPUT_LABEL, Role.INPUT))
        reader = some.positions(Role.OUTPUT_LABEL, (some.step,))
        places: tuple[tuple[Tensor, Site, Batch], ...] = (
            (labels, "v", swapped),
            (labels, "k", swapped),
            (bits, "v", swapped),
            (bits, "k", swapped),
            (reader, "q", some.swapped_outputs),
        )
        attention = {
            keys.ATTENTION.name: [Interchange("attn_scores", swapped)],
            CONTROL: [Interchange("attn_scores", some.swapped_bystanders(Role.INPUT_LABEL))],
        }
        return attention, {
            key.at(name).name: [Interchange(site, source, at, layers)]
            for key, (at, site, source) in zip(SITES, places, strict=True)
            for name, layers in bands.items()
        }

    effects, rows = effects_by_entry(model, trials, entries_of)
    full = full_effect(model, trials) if full is None else full
    some = trials.rows(rows)

    def evidence(key: EvidenceKey, question: str, on: Trials, full: Tensor, control: Interval | None) -> Evidence:
        return Evidence(
            key=key,
            question=question,
            length=on.length,
            quantity="rho",
            value=by_cell(effects[key.name], full, on),
            control=control,
            n=len(on),
        )

    control = ratio(effects[CONTROL], full, strata=trials.strata)
    return [
        evidence(keys.ATTENTION, ATTENTION_QUESTION, trials, full, control),
        *(evidence(key.at(name), SITE_QUESTION, some, full[rows], None) for key in SITES for name in bands),
    ]
