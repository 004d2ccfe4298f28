"""M7: describe how much attention labels get, and how much of what heads write comes from them.

A description, not evidence for a role: mass is high for anchors, placeholders, sinks and decoys alike. A sink has
high mass and a small share of what is written (probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import anatomy_of
from interp.models.resolve import raw_of
from interp.patching.tracing import pattern_of, trace
from interp.reducers import EPSILON, attention_masses, label_value_share, value_sizes
from interp.support.finite import require_finite
from interp.tasks import LABEL_ROLES, Batch, Role
from probes import keys
from probes.evidence import Evidence
from probes.intervals import mean


def measure_attention(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """Measure M7 at one length, at output labels, in the head with the most attention on labels.

    "mass" is its attention on labels; `details` has the mass that uniform attention would give. "share" is the part of
    the norm of A v W_O that comes from labels in the same head (0 where the head writes nothing). `details["heads"]`
    has mass, share and sink rate (rows with more than 0.3 on the first token) of every head;
    `details["residual norms"]` has the mean norm of the last residual at labels and elsewhere. All prompts run at
    once.
    """
    anatomy = anatomy_of(raw_of(model))
    layers = range(len(anatomy.blocks))
    run = trace(anatomy, batch.tokens)
    readers = batch.role == Role.OUTPUT_LABEL
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    tables: dict[str, list[Tensor]] = {"mass": [], "share": [], "sink rate": []}
    for layer in layers:
        pattern = pattern_of(anatomy, run, layer).float().cpu()
        for name, values in (("a pattern", pattern), ("a value", run.v[layer])):
            require_finite(values, f"{name} of layer {layer}", axis=0)
        sizes = value_sizes(run.v[layer].float().cpu(), anatomy.output_weights(layer).float().cpu())
        masses = attention_masses(pattern, batch)
        columns = {
            "mass": masses["labels"],
            "share": label_value_share(pattern, sizes, batch).nan_to_num(0.0),
            "sink rate": (masses["first_token"] > EPSILON).float(),
        }
        for name, values in columns.items():
            tables[name].append(values[..., readers].mean(dim=-1))
    heads = {name: rearrange(values, "layer batch head -> batch layer head") for name, values in tables.items()}
    top = int(heads["mass"].mean(dim=0).flatten().argmax())
    layer, head = divmod(top, anatomy.n_heads)
    # Share of labels among the keys that each query sees.
    visible = torch.arange(1, batch.n_pos + 1)[readers]
    uniform = float((labels.cumsum(dim=0)[readers] / visible).mean())
    norms = run.resid_pre[-1].float().cpu().norm(dim=-1).mean(dim=0)
    details = {
        "head": f"L{layer}H{head}",
        "equal attention would give": uniform,
        "heads": {
            f"L{i}H{j}": {name: round(float(values[:, i, j].mean()), 4) for name, values in heads.items()}
            for i in layers
            for j in range(anatomy.n_heads)
        },
        "residual norms": {"labels": float(norms[labels].mean()), "elsewhere": float(norms[~labels].mean())},
    }
    n_steps = int(readers.sum())
    mass, share = (mean(heads[name][:, layer, head].double()) for name in ("mass", "share"))
    return [
        Evidence(
            key=keys.ATTENTION_MASS.at(f"L{layer}H{head}"),
            question="how much attention does the head with the most attention on labels give them?",
            length=n_steps,
            quantity="share of attention",
            value=mass,
            control=None,
            n=len(batch),
            details=details,
        ),
        Evidence(
            key=keys.VALUE_SHARE.at(f"L{layer}H{head}"),
            question="how much of what this head writes comes from labels?",
            length=n_steps,
            quantity="share of norm(A v W_O)",
            value=share,
            control=None,
            n=len(batch),
        ),
    ]
