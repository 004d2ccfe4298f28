"""Describes every head of a model by its attention on prompts, its output, and its weights.

The statistics of attention are averaged by the role (or place) of the attending position, beside their values for
uniform attention. The weights give copying and composition. `interp.circuits.head_descriptions` holds the result and
the rule by which heads are named.
"""

from __future__ import annotations

from collections import Counter

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.attention_stats import STATISTICS, TEXT_STATISTICS, attention_statistics
from interp.circuits.composing import (
    ROUNDING,
    compositions,
    head_weights,
    last_norm,
    ov_copying,
    unembedding_weights,
)
from interp.circuits.head_descriptions import HeadDescriptions
from interp.circuits.pairs import resolved_prompts
from interp.circuits.places import Places, PlacesBy, places_of
from interp.models.anatomy import Anatomy, anatomy_of
from interp.models.architectures.norms import NormParts
from interp.models.resolve import AnyModel, raw_of
from interp.patching.editing import SHARE, forward_with_edits
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import ANSWER_ROLES, Batch, Prompts, Role


@exclusive
@torch.no_grad()
def describe_heads(model: AnyModel, prompts: PromptsLike, places: Places | PlacesBy | None = None) -> HeadDescriptions:
    """Describe every head of a model on some prompts.

    Positions are grouped by `places`: by default by role for prompts of a task, else by span where there are spans,
    else all together. Prompts of no task get the statistics that need no roles.

    Raises `ValueError` for no prompts, for a task whose vocabulary is larger than the model's, for an architecture that
    cannot be taken apart, and for a model in training mode.

    >>> heads = describe_heads(load("parity-aligned-alibi"), run.sample(16, 20, seed=0))
    >>> heads.name(1, 0)
    'bit after the same label at output label'
    """
    own = resolved_prompts(model, prompts, "prompts")
    anatomy = anatomy_of(raw_of(model))
    is_task = isinstance(own, Batch)
    statistics = STATISTICS if is_task else TEXT_STATISTICS
    tokens = _token_choices(own)
    unembedding, norm = unembedding_weights(anatomy), last_norm(anatomy)
    if int(tokens[-1]) >= (n_vocab := len(unembedding)):
        raise ValueError(f"the task's vocabulary has token id {int(tokens[-1])}; the model has 0 to {n_vocab - 1}")
    where = _default_places(own) if places is None else places_of(own, places)
    width = anatomy.n_heads * (3 * own.n_pos + 2 * len(tokens) + (3 + len(anatomy.blocks)) * anatomy.d_model)
    chunks = torch.arange(len(own)).split(max(1, numbers(SHARE, anatomy.device) // (width * own.n_pos)))
    unembedding = unembedding[tokens.to(anatomy.device)].to(anatomy.dtype)
    rows = (_by_row(anatomy, own.rows(chunk), tokens, unembedding, norm, int(chunk[0]), statistics) for chunk in chunks)
    by_prompt = torch.cat([_by_place(values, where) for values in rows])
    n = (~by_prompt.isnan()).sum(dim=0)  # [layer head place statistic]
    mean = by_prompt.nanmean(dim=0)
    error = ((by_prompt - mean).square().nansum(dim=0) / (n - 1)).sqrt() / n.sqrt()  # NaN for one prompt
    weights = head_weights(anatomy)
    return HeadDescriptions(
        places=where.names,
        statistics=statistics,
        answered_at=_answered_at(own, where),
        after_label=_after_label(own) if is_task else "",
        mean=mean,
        error=error,
        chance=_chance(own, where, len(tokens), anatomy.causal, statistics),
        n=n[0, 0],
        ov_copying=ov_copying(anatomy, weights),
        composition=compositions(weights),
    )


def _default_places(prompts: Prompts) -> Places:
    """Return one place per role, in the order of `Role`; without roles one per span, or one place."""
    if prompts.role is None:
        return places_of(prompts, "span" if prompts.spans else "anywhere")
    roles = sorted(set(prompts.role.tolist()))
    index = torch.tensor([roles.index(role) for role in prompts.role.tolist()])
    return Places(tuple(Role(role).words for role in roles), index)


def _token_choices(prompts: Prompts) -> Int[Tensor, " token"]:
    """Return the tokens among which copying is measured: those of the task and of the prompts, sorted."""
    task = prompts.vocabulary.ids.values() if isinstance(prompts, Batch) else ()
    return torch.tensor(sorted({*task, *prompts.tokens.unique().tolist()}))


def _by_row(
    anatomy: Anatomy,
    prompts: Prompts,
    tokens: Int[Tensor, " token"],
    unembedding: Float[Tensor, "token d_model"],
    norm: NormParts,
    first: int,
    names: tuple[str, ...],
) -> Float[Tensor, "batch layer head dest statistic"]:
    """Return every statistic of every row of attention, in float32 on the CPU.

    `unembedding` are W_U's rows of `tokens`, `norm` is the norm before it, `first` is the first prompt's index.
    """
    by_layer, outputs, attended = [], [], []
    resid = anatomy.embed(prompts.tokens.to(anatomy.device))
    for layer in range(len(anatomy.blocks)):
        keep = [("pattern", layer), ("z", layer)]
        after, kept = forward_with_edits(anatomy, resid, layer, layer + 1, keep=keep)  # pyright: ignore[reportArgumentType]
        pattern, z = kept["pattern", layer].float(), kept["z", layer]
        for name, value in (("a pattern", pattern), ("z", z)):  # the mean would skip NaN
            require_finite(value, f"{name} of layer {layer}", first, axis=0)
        out = torch.einsum("bphe,hed->bhpd", z, anatomy.output_weights(layer))
        statistics = attention_statistics(pattern, prompts)
        statistics["output_share"] = out.norm(dim=-1) / resid.norm(dim=-1).unsqueeze(1)
        by_layer.append(statistics)
        outputs.append(out)
        attended.append(pattern.argmax(dim=-1))  # [batch head dest]
        resid = after
    for statistics, out, source in zip(by_layer, outputs, attended, strict=True):
        normed = out / norm.scale(resid.unsqueeze(1))
        direct = normed @ unembedding.T
        direct = direct - direct.mean(dim=-1, keepdim=True)  # [batch head dest token]
        token = prompts.tokens.to(source.device).unsqueeze(1).expand(-1, anatomy.n_heads, -1).gather(-1, source)
        index = torch.searchsorted(tokens.to(source.device), token.contiguous()).unsqueeze(-1)
        own = direct.gather(-1, index)
        statistics["copying"] = own.squeeze(-1)
        others = direct.scatter(-1, index, -torch.inf).amax(dim=-1)
        rounding = ROUNDING * normed.norm(dim=-1) * unembedding.norm(dim=-1).max()
        statistics["copying_rate"] = (own.squeeze(-1) - others > rounding).float()
    stacked = [torch.stack([s[name].float() for name in names], dim=-1) for s in by_layer]
    return torch.stack(stacked, dim=1).cpu()


def _by_place(
    rows: Float[Tensor, "batch layer head dest statistic"], where: Places
) -> Float[Tensor, "batch layer head place statistic"]:
    """Average over the positions of each place in each prompt, in float64; NaN where a statistic is not defined."""
    places = range(len(where.names))
    return torch.stack([rows[:, :, :, where.index == place].double().nanmean(dim=3) for place in places], dim=3)


def _chance(
    prompts: Prompts, where: Places, n_tokens: int, causal: bool, names: tuple[str, ...]
) -> Float[Tensor, "place statistic"]:
    """Return the statistics of uniform attention, averaged like the others."""
    uniform = torch.ones(1, 1, prompts.n_pos, prompts.n_pos)
    uniform = uniform.tril() if causal else uniform
    uniform = uniform / uniform.sum(dim=-1, keepdim=True)
    by_prompt = []
    for row in range(len(prompts)):  # one at a time, to hold one [dest src] mask per statistic
        statistics = attention_statistics(uniform, prompts.rows(slice(row, row + 1)))
        zero = torch.zeros_like(statistics["itself"])
        statistics |= {"output_share": zero * torch.nan, "copying": zero, "copying_rate": zero + 1 / n_tokens}
        stacked = torch.stack([statistics[name] for name in names], dim=-1)
        by_prompt.append(_by_place(stacked.unsqueeze(1), where))
    return torch.cat(by_prompt).nanmean(dim=0)[0, 0]


def _answered_at(prompts: Prompts, where: Places) -> str:
    """Return the place whose logits give the answers: the most common one before answers; of no task the last."""
    if not isinstance(prompts, Batch):
        return where.names[int(where.index[-1])]
    assert prompts.role is not None
    answers = torch.isin(prompts.role, torch.tensor(ANSWER_ROLES)).nonzero().flatten()
    return where.names[Counter(where.index[answers - 1].tolist()).most_common(1)[0][0]]


def _after_label(prompts: Prompts) -> str:
    """Return what follows input labels: "bit" in parity."""
    assert isinstance(prompts, Batch)
    assert prompts.role is not None
    labels = (prompts.role[:-1] == Role.INPUT_LABEL).nonzero().flatten()
    after = Role(int(prompts.role[labels[0] + 1])) if len(labels) else Role.INPUT
    match after:
        case Role.INPUT if prompts.format.task == "parity":
            return "bit"
        case Role.INPUT if prompts.format.task == "addition":
            return "digit"
        case Role.INPUT:
            return "value"
        case other:
            return other.words
