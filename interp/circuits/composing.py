"""Scores of heads from their weights alone: OV copying, and composition with earlier heads.

Both scores are those of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". They use
TransformerLens's `FactoredMatrix`, so that no d_vocab x d_vocab or d_model x d_model matrix per head is formed. Norms
are folded into the weights: the gain multiplies the weights that read the norm, and the mean direction, which no
LayerNorm reads, is removed. The scale of a norm is one positive number per position and cancels in both scores. Biases,
rotation of queries and keys, and ALiBi are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.anatomy import Anatomy
from interp.models.architectures.norms import NormParts, norm_parts

Kind = Literal["q", "k", "v"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Products smaller than this share of their factors are rounding errors.
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """Weights of every query head in float64, with norms folded in.

    Shapes:
        q, k, v: `[layer head d_model d_head]`; k and v repeat where query heads share a key-value head.
        o:       `[layer head d_head d_model]`.
    """

    q: Float[Tensor, "layer head d_model d_head"]
    k: Float[Tensor, "layer head d_model d_head"]
    v: Float[Tensor, "layer head d_model d_head"]
    o: Float[Tensor, "layer head d_head d_model"]


@torch.no_grad()
def head_weights(anatomy: Anatomy) -> HeadWeights:
    """Return the weights of every head, with norms folded in."""
    stacks: dict[str, list[Tensor]] = {"q": [], "k": [], "v": [], "o": []}
    for layer, block in enumerate(anatomy.blocks):
        norm = _parts(anatomy, block.ln1)
        for kind, (weight, _) in zip(KINDS, anatomy.input_weights(layer), strict=True):
            weight = weight if kind == "q" else anatomy.expand_heads(weight)
            stacks[kind].append(_centred(weight.permute(1, 0, 2).double() * norm.gain.unsqueeze(-1), norm, axis=-2))
        stacks["o"].append(_centred(anatomy.output_weights(layer).double(), norm, axis=-1))
    return HeadWeights(**{name: torch.stack(weights) for name, weights in stacks.items()})


def ov_copying(anatomy: Anatomy, weights: HeadWeights | None = None) -> Float[Tensor, "layer head"]:
    """Return how much a head that attends to a token raises that token's own logit, from -1 to 1.

    The sum of the eigenvalues of W_E W_V W_O W_U over the sum of their absolute values (Elhage et al. 2021): 1 where
    every direction of tokens is copied, about 0 for random weights, NaN where the head's values do not reach the
    logits. W_E is the token's embedding (with BLOOM's LayerNorm of embeddings, without learned positions), so the score
    is of the direct path only. W_U is centred over the vocabulary: a constant added to all logits has no effect.

    Shapes: `[layer head]`.
    """
    from transformer_lens import FactoredMatrix

    weights = weights or head_weights(anatomy)
    embedding = token_embeddings(anatomy)
    unembedding = unembedding_weights(anatomy)
    scores = torch.full(weights.v.shape[:2], torch.nan, dtype=torch.float64)
    for layer, (v, o) in enumerate(zip(weights.v, weights.o, strict=True)):
        into, out = embedding @ v, o @ unembedding.T  # [head d_vocab d_head] and [head d_head d_vocab]
        eigenvalues = FactoredMatrix(into, out).eigenvalues
        sizes, total = eigenvalues.abs().sum(dim=-1), eigenvalues.real.sum(dim=-1)
        most = _size(v) * _size(o) * embedding.norm() * unembedding.norm()
        scores[layer] = torch.where(sizes > ROUNDING * most, total / sizes, torch.nan).cpu()
    return scores


def compositions(weights: HeadWeights) -> Float[Tensor, "kind layer head writer_layer writer_head"]:
    """Return how much a head's q, k or v reads of what an earlier head writes, above chance.

    norm(W_OV M) / (norm(W_OV) norm(M)) with Frobenius norms, where W_OV is the writer's and M is the reader's W_QK for
    q, its transpose for k, and its W_OV for v (Elhage et al. 2021). `chance_composition` is subtracted. NaN where the
    writer is in the same or a later layer, and where a head reads or writes nothing.

    Shapes: `[kind layer head writer_layer writer_head]`, kinds in the order of `KINDS`.
    """
    from transformer_lens import FactoredMatrix

    writes = FactoredMatrix(weights.v, weights.o)
    queries = FactoredMatrix(weights.q, weights.k.transpose(-1, -2))
    written = writes.collapse_l()  # [layer head d_head d_model]
    n_layers, n_heads = weights.o.shape[:2]
    scores = torch.full((len(KINDS), n_layers, n_heads, n_layers, n_heads), torch.nan, dtype=torch.float64)
    for kind, reads in enumerate((queries, queries.T, writes)):
        read = reads.collapse_r()  # [layer head d_model d_head]
        for layer in range(1, n_layers):  # one layer at a time, to bound memory
            product = torch.einsum("lwed,rdf->rlwef", written[:layer], read[layer]).flatten(-2).norm(dim=-1)
            sizes = _size(read[layer])[:, None, None] * _size(written[:layer])
            scores[kind, layer, :, :layer] = (product / sizes - chance_composition(weights.o.shape[-1])).cpu()
    return scores


def _size(matrices: Tensor) -> Tensor:
    return matrices.flatten(-2).norm(dim=-1)


def chance_composition(d_model: int) -> float:
    """Return the composition of two unrelated heads, 1 / sqrt(d_model).

    This is the root mean square of the score of any two matrices when one is rotated at random (Haar). The mean, which
    Elhage et al. sample, is lower by less than 1 % for d_head of 8 or more.
    """
    return d_model**-0.5


def token_embeddings(anatomy: Anatomy) -> Float[Tensor, "d_vocab d_model"]:
    """Return what each token adds to the residual stream, in float64 and without learned positions."""
    table = project_embeddings(anatomy, _table(anatomy.raw.get_input_embeddings()))
    if hasattr(anatomy.raw.base_model, "word_embeddings_layernorm"):  # BLOOM
        table = anatomy.embed(torch.arange(len(table), device=table.device).unsqueeze(1)).squeeze(1).detach()
    return table.double()


def project_embeddings(anatomy: Anatomy, table: Float[Tensor, "... d_embed"]) -> Float[Tensor, "... d_model"]:
    """Return embeddings after the projection to the residual's width, which OPT has."""
    project: Any = getattr(getattr(anatomy.raw.base_model, "decoder", None), "project_in", None)
    return table if project is None else project(table)


def unembedding_weights(anatomy: Anatomy) -> Float[Tensor, "d_vocab d_model"]:
    """Return W_U in float64 with the last norm folded in, centred over the vocabulary."""
    table = _table(anatomy.raw.get_output_embeddings()).double()
    if anatomy.before_head is not None:  # OPT's projection
        table = table @ _table(anatomy.before_head).double()
    norm = last_norm(anatomy)
    table = _centred(table * norm.gain, norm, axis=-1)
    return table - table.mean(dim=0)


def last_norm(anatomy: Anatomy) -> NormParts:
    """Return the parts of the norm before the unembedding.

    `x / last_norm(anatomy).scale(at)` is that norm with its scale fixed at the residual `at`, which is linear in x; its
    gain, and a LayerNorm's subtraction of the mean, are folded into `unembedding_weights`.
    """
    return _parts(anatomy, anatomy.final_norm)


def _parts(anatomy: Anatomy, norm: nn.Module) -> NormParts:
    return norm_parts(norm, anatomy.d_model, anatomy.dtype, anatomy.device)


def _centred(weight: Tensor, norm: NormParts, axis: int) -> Tensor:
    """Return weights without the mean direction of the residual (`axis`), if the norm subtracts the mean."""
    return weight - weight.mean(dim=axis, keepdim=True) if norm.centres else weight


def _table(module: object) -> Tensor:
    weight = getattr(module, "weight", None)
    assert isinstance(weight, Tensor)
    return weight.detach()
