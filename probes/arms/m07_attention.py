"""How much do labels get of the attention, and how much of what is read? (M7 of science 2.1)

Description, not evidence for a role: mass is high for anchors, placeholders, sinks and decoys alike. A sink shows
as much mass with a small share of what is written.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from transformers import PreTrainedModel

from interp.models.anatomy import anatomy_of
from interp.models.bridge import raw_of
from interp.patching.tracing import pattern_of, trace
from interp.reducers import EPSILON, attention_masses, label_value_share, value_sizes
from interp.support.finite import require_finite
from interp.tasks import LABEL_ROLES, Batch, Role
from probes.evidence import Evidence
from probes.intervals import mean


def look_at_labels(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """M7 on one length: what the head that looks at labels most gives them, where answers are read.

    "mass" is its attention on labels, against what equal attention to every earlier position would give;
    "share" that of the norm of A v W_O which comes from labels, in the same head (0 where it writes nothing at all).
    `details["heads"]` has every head (mass, share, sink rate: rows with more than 0.3 on the first token),
    `details["residual norms"]` the mean norm of the last residual at labels and elsewhere. All prompts run at once.
    """
    anatomy = anatomy_of(raw_of(model))
    layers = range(len(anatomy.blocks))
    run = trace(anatomy, batch.tokens)
    readers = batch.role == Role.OUTPUT_LABEL
    labels = torch.isin(batch.role, torch.tensor(LABEL_ROLES))
    tables: dict[str, list[Tensor]] = {"mass": [], "share": [], "sink rate": []}
    for layer in layers:
        pattern = pattern_of(anatomy, run, layer).float().cpu()
        for what, values in (("a pattern", pattern), ("a value", run.v[layer])):
            require_finite(values, f"{what} of layer {layer}", axis=0)
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
    # Keys that a reader sees, and how many of them are labels.
    seen = torch.arange(1, batch.n_pos + 1)[readers]
    equal = float((labels.cumsum(dim=0)[readers] / seen).mean())
    norms = run.resid_pre[-1].float().cpu().norm(dim=-1).mean(dim=0)
    details = {
        "head": f"L{layer}H{head}",
        "equal attention would give": equal,
        "heads": {
            f"L{i}H{j}": {name: round(float(values[:, i, j].mean()), 4) for name, values in heads.items()}
            for i in layers
            for j in range(anatomy.n_heads)
        },
        "residual norms": {"labels": float(norms[labels].mean()), "elsewhere": float(norms[~labels].mean())},
    }
    n_steps = int(readers.sum())
    mass, share = (mean(heads[name][:, layer, head].double()) for name in ("mass", "share"))
    where = f"labels in L{layer}H{head}"
    return [
        Evidence(
            "M7",
            f"attention mass on {where}",
            "where does the head look that looks at labels most?",
            n_steps,
            "share of attention",
            mass,
            None,
            len(batch),
            details=details,
        ),
        Evidence(
            "M7",
            f"share of what is written from {where}",
            "and what does it write from there?",
            n_steps,
            "share of norm(A v W_O)",
            share,
            None,
            len(batch),
        ),
    ]
