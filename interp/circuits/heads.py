"""What does each head do? Measured on prompts and on weights.

Attention by the role of the position that looks, chance beside it, and what the weights say of copying and of
composition. `interp.circuits.head_descriptions` holds the result and the rule by which a head is named.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits.attention_stats import attention_statistics
from interp.circuits.composing import (
    ROUNDING,
    compositions,
    frozen_norm,
    head_weights,
    ov_copying,
    unembedding_weights,
)
from interp.circuits.head_descriptions import STATISTICS, HeadDescriptions
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.bridge import raw_of
from interp.patching.editing import SHARE, forward_with_edits
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import ANSWER_ROLES, Batch, Role

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def describe_heads(model: TransformerBridge | PreTrainedModel, batch: Batch) -> HeadDescriptions:
    """Every head of a model, described on the prompts of a batch: a run's `raw` or its `model`.

    Raises `ValueError` for an empty batch, an architecture that cannot be taken apart, or a model in training mode.

    >>> found = describe_heads(load("parity-aligned-alibi").raw, run.sample(16, 20, seed=0))
    >>> found.name(1, 0)
    'matching label (bit) at output label'
    """
    if not len(batch):
        raise ValueError("the batch has no prompts")
    anatomy = anatomy_of(raw_of(model))
    tokens = torch.tensor(sorted({*batch.vocabulary.ids.values(), *batch.tokens.unique().tolist()}))
    roles = tuple(Role(r) for r in sorted(set(batch.role.tolist())))
    width = anatomy.n_heads * (3 * batch.n_pos + 2 * len(tokens) + (3 + len(anatomy.blocks)) * anatomy.d_model)
    chunks = torch.arange(len(batch)).split(max(1, numbers(SHARE) // (width * batch.n_pos)))
    measured = (_measured(anatomy, batch.rows(rows), tokens, int(rows[0])) for rows in chunks)
    by_prompt = torch.cat([_by_role(found, batch, roles) for found in measured])
    n = (~by_prompt.isnan()).sum(dim=0)  # [layer head role statistic]
    mean = by_prompt.nanmean(dim=0)
    error = ((by_prompt - mean).square().nansum(dim=0) / (n - 1)).sqrt() / n.sqrt()  # NaN for one prompt
    weights = head_weights(anatomy)
    return HeadDescriptions(
        roles,
        _answered_at(batch),
        _after_label(batch),
        mean,
        error,
        _chance(batch, roles, len(tokens), anatomy.causal),
        n[0, 0],
        ov_copying(anatomy, weights),
        compositions(weights),
    )


def _measured(
    anatomy: Anatomy, batch: Batch, tokens: Int[Tensor, " token"], first: int
) -> Float[Tensor, "batch layer head dest statistic"]:
    """Every statistic of every row of attention, in float32 on the CPU; `first` is the number of the first prompt."""
    found, outputs, most = [], [], []
    resid = anatomy.embed(batch.tokens.to(anatomy.device))
    for layer in range(len(anatomy.blocks)):
        keep = [("pattern", layer), ("z", layer)]
        after, kept = forward_with_edits(anatomy, resid, layer, layer + 1, keep=keep)  # pyright: ignore[reportArgumentType]
        pattern, z = kept["pattern", layer].float(), kept["z", layer]
        for name, value in (("a pattern", pattern), ("z", z)):  # a mean that leaves out NaN would hide it
            require_finite(value, f"{name} of layer {layer}", first, axis=0)
        out = torch.einsum("bphe,hed->bhpd", z, anatomy.output_weights(layer))
        statistics = attention_statistics(pattern, batch)
        statistics["output_share"] = out.norm(dim=-1) / resid.norm(dim=-1).unsqueeze(1)
        found.append(statistics)
        outputs.append(out)
        most.append(pattern.argmax(dim=-1))  # [batch head dest]
        resid = after
    unembedding = unembedding_weights(anatomy)[tokens.to(anatomy.device)].to(resid)
    for statistics, out, looked in zip(found, outputs, most, strict=True):
        normed = frozen_norm(anatomy.final_norm, out, resid.unsqueeze(1))
        direct = normed @ unembedding.T
        direct = direct - direct.mean(dim=-1, keepdim=True)  # [batch head dest token]
        seen = batch.tokens.to(looked.device).unsqueeze(1).expand(-1, anatomy.n_heads, -1).gather(-1, looked)
        index = torch.searchsorted(tokens.to(looked.device), seen.contiguous()).unsqueeze(-1)
        own = direct.gather(-1, index)
        statistics["copying"] = own.squeeze(-1)
        others = direct.scatter(-1, index, -torch.inf).amax(dim=-1)
        rounding = ROUNDING * normed.norm(dim=-1) * unembedding.norm(dim=-1).max()
        statistics["copying_rate"] = (own.squeeze(-1) - others > rounding).float()
    stacked = [torch.stack([s[name].float() for name in STATISTICS], dim=-1) for s in found]
    return torch.stack(stacked, dim=1).cpu()


def _by_role(
    rows: Float[Tensor, "batch layer head dest statistic"], batch: Batch, roles: tuple[Role, ...]
) -> Float[Tensor, "batch layer head role statistic"]:
    """Means over the positions of each role in each prompt, in float64; NaN where there are none."""
    return torch.stack([rows[:, :, :, batch.role == role].double().nanmean(dim=3) for role in roles], dim=3)


def _chance(batch: Batch, roles: tuple[Role, ...], tokens: int, causal: bool) -> Float[Tensor, "role statistic"]:
    """The statistics of uniform attention, averaged like the others, a prompt at a time."""
    uniform = torch.ones(1, 1, batch.n_pos, batch.n_pos)
    uniform = uniform.tril() if causal else uniform
    uniform = uniform / uniform.sum(dim=-1, keepdim=True)
    found = []
    for row in range(len(batch)):
        one = batch.rows(slice(row, row + 1))
        statistics = attention_statistics(uniform, one)
        nothing = torch.zeros_like(statistics["itself"])
        statistics |= {"output_share": nothing * torch.nan, "copying": nothing, "copying_rate": nothing + 1 / tokens}
        stacked = torch.stack([statistics[name] for name in STATISTICS], dim=-1)
        found.append(_by_role(stacked.unsqueeze(1), one, roles))
    return torch.cat(found).nanmean(dim=0)[0, 0]


def _answered_at(batch: Batch) -> Role:
    """The role of the positions whose logits are the answers: one before each, the commonest."""
    answers = torch.isin(batch.role, torch.tensor(ANSWER_ROLES)).nonzero().flatten()
    return Role(Counter(batch.role[answers - 1].tolist()).most_common(1)[0][0])


def _after_label(batch: Batch) -> str:
    """What stands after input labels: "bit" in parity."""
    labels = (batch.role[:-1] == Role.INPUT_LABEL).nonzero().flatten()
    after = Role(int(batch.role[labels[0] + 1])) if len(labels) else Role.INPUT
    match after:
        case Role.INPUT if batch.format.task == "parity":
            return "bit"
        case Role.INPUT if batch.format.task == "addition":
            return "digit"
        case Role.INPUT:
            return "value"
        case other:
            return other.words
