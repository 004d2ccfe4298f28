"""Presence, attention: how much each head attends to labels, by kind of query. It orders what is tested."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.anatomy import Anatomy
from interp.patching.tracing import pattern_of, trace
from interp.tasks import Batch
from probes.arms.idle_heads import LABELS
from probes.arms.presence_cells import KINDS


def attention_on_labels(anatomy: Anatomy, batch: Batch) -> dict[str, Float[Tensor, "layer head"]]:
    """Return the mean attention of each head on labels, by kind of query. All prompts run at once."""
    run, labels = trace(anatomy, batch.tokens), torch.isin(batch.role, torch.tensor(LABELS))
    layers = range(len(anatomy.blocks))
    masses = [pattern_of(anatomy, run, i)[..., labels].sum(dim=-1).double().mean(dim=0).cpu() for i in layers]
    by_query = torch.stack(masses)
    kinds = {kind: batch.role == role for kind, role in KINDS.items()}
    return {kind: by_query[..., queries].mean(dim=-1) for kind, queries in kinds.items() if queries.any()}
