"""M4: find the route by which a label's identity reaches the answer.

An address acts through attention: the attention scores of a run with swapped labels, patched into the original run,
must move the answer as the swap itself does. Then one site at a time. Mechanism A1 carries identity from the label
(V) to the bit, whose key changes (K). Mechanism A2 matches the label's own key (probes/README.md, Battery).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Interchange, Metric, interchange, margin
from interp.sites import Site
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.bands import layer_bands
from probes.arms.m01_identity import by_cell, full_effect
from probes.evidence import Evidence, EvidenceKey
from probes.intervals import ratio
from probes.trials.parity import Trials

ATTENTION_QUESTION = "does the attention alone carry the effect of a swap of labels?"
SITE_QUESTION = "does identity act through this site?"


def measure_routes(
    model: PreTrainedModel, trials: Trials, full: Float[Tensor, " batch"] | None = None
) -> list[Evidence]:
    """Measure M4 at one length: rho when parts of a run with swapped labels are patched into the original run.

    "attention" patches the attention scores of all layers and nothing else; its control patches those of a run in
    which two labels that the step does not use are swapped. The other pieces patch one layer, or a band of layers of
    a deep model (`layer_bands`), and everything after it is recomputed: K or V at the two labels, K or V at their bits
    (digits), from the run with swapped input labels (M1), or Q at the output label, from the run with swapped output
    labels (M2).
    """
    x, swapped, bands = trials.batch, trials.swapped_inputs, layer_bands(model.config.num_hidden_layers)
    pair = (trials.step, trials.partner)
    labels, bits = (trials.positions(role, pair) for role in (Role.INPUT_LABEL, Role.INPUT))
    reader = trials.positions(Role.OUTPUT_LABEL, (trials.step,))
    sites: dict[EvidenceKey, tuple[Tensor, Site, Batch]] = {
        keys.V_AT_LABEL: (labels, "v", swapped),
        keys.K_AT_LABEL: (labels, "k", swapped),
        keys.V_AT_BIT: (bits, "v", swapped),
        keys.K_AT_BIT: (bits, "k", swapped),
        keys.Q_AT_OUTPUT_LABEL: (reader, "q", trials.swapped_outputs),
    }
    by_site = {
        key.at(name): [Interchange(site, source, at, layers)]
        for key, (at, site, source) in sites.items()
        for name, layers in bands.items()
    }
    entries = {
        keys.ATTENTION.name: [Interchange("attn_scores", swapped)],
        "control": [Interchange("attn_scores", trials.swapped_bystanders(Role.INPUT_LABEL))],
        **{key.name: parts for key, parts in by_site.items()},
    }
    full = full_effect(model, trials) if full is None else full
    changes = -interchange(model, x, entries, answer_margin(trials)).change
    effects = dict(zip(entries, changes, strict=True))
    control = ratio(effects["control"], full, strata=trials.strata)
    return [
        Evidence(
            key=key,
            question=ATTENTION_QUESTION if key == keys.ATTENTION else SITE_QUESTION,
            length=trials.length,
            quantity="rho",
            value=by_cell(effects[key.name], full, trials),
            control=control if key == keys.ATTENTION else None,
            n=len(trials),
        )
        for key in (keys.ATTENTION, *by_site)
    ]


def answer_margin(trials: Trials) -> Metric:
    """Return the metric of every arm: logit(answer) - logit(other) at each prompt's step."""
    return margin(trials.batch, trials.step, trials.answer, trials.other)
