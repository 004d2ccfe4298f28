"""Estimate to first order how far a change of attention in one head moves the margins, for all heads at once.

The change of z is exact, so a saturated attention pattern does not hide it. Its effect on later layers is linearised
(as in AtP*, Kramar et al. 2403.00745). A search over many heads tests the smallest estimates first; only tests decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.arguments import exclusive, require_gradients
from interp.patching.attention_changes import AttentionChange, attend_with
from interp.patching.editing import Place, chunks, forward_with_edits
from interp.patching.metric import precise
from interp.patching.unpatched import Unpatched
from probes.arms.presence_interchanges import Interchanges
from probes.arms.presence_metrics import leads_of
from probes.arms.presence_sharing import ChangeOf

# Random signs of the steps' margins: each takes a backward pass, which gives one signed sum over steps.
SIGNS = 4
# Copies of a layer's values that a backward pass keeps, per layer.
GRAPH = 3


def moved_by_head(
    work: Interchanges, changes: Sequence[ChangeOf], queries: Bool[Tensor, "group pos"], seed: int
) -> Float[Tensor, "change group layer head"]:
    """Estimate how far each change moves the margins if it is made in one head, for one group of queries.

    In logits: over prompts, the mean of the root of the summed squares over steps, itself estimated from `SIGNS` random
    signs drawn with `seed`. Raises `ValueError` under `torch.inference_mode()`.
    """
    require_gradients("the first order of a change of attention")
    anatomy = work.anatomy
    total = torch.zeros(len(changes), len(queries), len(anatomy.blocks), anatomy.n_heads, dtype=torch.float64)
    signs = _signs(len(work.batch), work.lead.shape[1], seed)
    for rows in work.chunks():
        run = work.unpatched(rows)
        for some in chunks(anatomy, work.batch.rows(rows), work.score, copies=GRAPH * len(anatomy.blocks)):
            gradients = _gradients(anatomy.raw, work, rows[some], signs[:, rows[some]])
            for layer, gradient in gradients.items():
                everywhere = torch.ones(anatomy.n_heads, work.batch.n_pos, dtype=torch.bool)
                made = [_of_rows(change_of(layer, everywhere, rows), some) for change_of in changes]
                for k, moved in enumerate(_changes_of_z(work, run, layer, made, some)):
                    products = torch.einsum("rphe,srphe->sphr", moved, gradient).double().cpu()
                    grouped = torch.einsum("gp,sphr->sghr", queries.double(), products)
                    total[k, :, layer] += grouped.square().mean(dim=0).sqrt().sum(dim=-1)
    return total / len(work.batch)


def _signs(n_prompts: int, n_steps: int, seed: int) -> Int[Tensor, "sign prompt step"]:
    """Return random signs, drawn prompt by prompt: they do not depend on how many prompts run together."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(0, 2, (SIGNS, 1, n_steps), generator=generator) for _ in range(n_prompts)]
    return torch.cat(drawn, dim=1) * 2 - 1


@exclusive
def _gradients(
    model: PreTrainedModel, work: Interchanges, rows: Int[Tensor, " row"], signs: Int[Tensor, "sign row step"]
) -> Mapping[int, Float[Tensor, "sign row pos head d_head"]]:
    """Return by layer the gradients at z of the signed sums of some prompts' margins."""
    del model  # locked
    anatomy, layers = work.anatomy, range(len(work.anatomy.blocks))
    places: list[Place] = [("z", layer) for layer in layers]
    with torch.enable_grad():
        resid = anatomy.embed(work.batch.tokens[rows].to(anatomy.device)).detach().requires_grad_()
        final, kept = forward_with_edits(anatomy, resid, keep=places)
        at = work.reads[work.answered].to(final.device)
        logits = precise(anatomy.unembed(final[:, at], work.score.tokens))[..., work.symbols]
        leads = leads_of(work.batch, logits, rows)
        sums = [(leads * some.to(leads.device)).sum() for some in signs]
        by_sign = [torch.autograd.grad(x, [kept[p] for p in places], retain_graph=True) for x in sums]
    return {layer: torch.stack([found[layer] for found in by_sign]) for layer in layers}


@torch.no_grad()
def _changes_of_z(
    work: Interchanges, run: Unpatched, layer: int, changes: Sequence[AttentionChange], some: Int[Tensor, " row"]
) -> list[Float[Tensor, "row pos head d_head"]]:
    """Return what each change of one layer's attention adds to its z, for some prompts of a run."""
    anatomy, block = work.anatomy, work.anatomy.blocks[layer]
    positions = torch.arange(run.n_pos, device=anatomy.device)
    q, k, v = (run.kept[site, layer][some] for site in ("q", "k", "v"))
    q, k = anatomy.queries(block, q, positions), anatomy.expand_heads(anatomy.keys(block, k, positions))
    v, bias = anatomy.expand_heads(v), run.bias(anatomy, layer, slice(None))
    own, *new = (attend_with(anatomy, block, x, q, k, v, bias, positions) for x in (None, *changes))
    return [z - own for z in new]


def _of_rows(change: AttentionChange, some: Int[Tensor, " row"]) -> AttentionChange:
    """Return a change for some of its prompts."""
    keys, values = (x if x is None or len(x) == 1 else x[some] for x in (change.keys, change.values))
    return replace(change, keys=keys, values=values)
