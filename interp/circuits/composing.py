"""What do the weights of a head say of it, with no prompt: does it copy, and which earlier heads does it read?

Both are of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", through TransformerLens's
`FactoredMatrix`, so that no matrix of d_vocab x d_vocab or of d_model x d_model a head is ever formed. Weights
are taken as the residual stream sees them: a LayerNorm's gain goes into the weights that read it, and the mean
direction, which no LayerNorm reads, is taken out of what is read and written; its scale, one positive number a
position, cancels in both scores. Biases, rotation of queries and keys, and ALiBi are left out, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.anatomy import Anatomy

Kind = Literal["q", "k", "v"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Products smaller than this share of their factors are rounding of weights that do not meet.
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """What each query head of all layers reads and writes, in float64, norms folded in.

    Shapes:
        q, k, v: `[layer head d_model d_head]`; those of key and value repeat where query heads share them.
        o:       `[layer head d_head d_model]`.
    """

    q: Float[Tensor, "layer head d_model d_head"]
    k: Float[Tensor, "layer head d_model d_head"]
    v: Float[Tensor, "layer head d_model d_head"]
    o: Float[Tensor, "layer head d_head d_model"]


@torch.no_grad()
def head_weights(anatomy: Anatomy) -> HeadWeights:
    """The weights of every head, as the residual stream sees them."""
    found: dict[str, list[Tensor]] = {"q": [], "k": [], "v": [], "o": []}
    for layer, block in enumerate(anatomy.blocks):
        gain = _gain(block.ln1).unsqueeze(-1)
        for kind, (weight, _) in zip(KINDS, anatomy.input_weights(layer), strict=True):
            weight = weight if kind == "q" else anatomy.expand_heads(weight)
            found[kind].append(_centred(weight.permute(1, 0, 2).double() * gain, block.ln1, axis=-2))
        found["o"].append(_centred(anatomy.output_weights(layer).double(), block.ln1, axis=-1))
    return HeadWeights(**{name: torch.stack(weights) for name, weights in found.items()})


def ov_copying(anatomy: Anatomy, weights: HeadWeights | None = None) -> Float[Tensor, "layer head"]:
    """How much a head that attends to a token raises that token's own logit: from -1 to 1.

    The sum of the eigenvalues of W_E W_V W_O W_U over the sum of their absolute values (Elhage et al. 2021):
    1 where every direction of tokens is copied, about 0 for random weights, NaN where the head's values do not
    reach the logits at all. W_E is the token's own embedding (with BLOOM's LayerNorm of embeddings, without
    learned positions), whatever earlier layers add to it, so the score speaks of the direct path alone. The
    same number added to all logits changes nothing, so W_U is centred over the vocabulary.

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
    """How much of what a head's q, k or v can read is what an earlier head can write, above chance.

    norm(W_OV of the writer, times what reads it) / (norm(W_OV) norm(what reads it)), Frobenius norms; what reads
    is W_QK for q, its transpose for k, W_OV for v (Elhage et al. 2021). `chance_composition` is subtracted. NaN
    where the writer is in the same layer or a later one, and where a head reads or writes nothing.

    Shapes: `[kind layer head writer_layer writer_head]`, kinds in the order of `KINDS`.
    """
    from transformer_lens import FactoredMatrix

    writes = FactoredMatrix(weights.v, weights.o)
    looks = FactoredMatrix(weights.q, weights.k.transpose(-1, -2))
    written = writes.collapse_l()  # [layer head d_head d_model], of the same products as the whole matrix
    n_layers, n_heads = weights.o.shape[:2]
    scores = torch.full((len(KINDS), n_layers, n_heads, n_layers, n_heads), torch.nan, dtype=torch.float64)
    for kind, reads in enumerate((looks, looks.T, writes)):
        read = reads.collapse_r()  # [layer head d_model d_head]
        for layer in range(1, n_layers):  # all pairs at once would be the largest tensor of the whole run
            product = torch.einsum("lwed,rdf->rlwef", written[:layer], read[layer]).flatten(-2).norm(dim=-1)
            sizes = _size(read[layer])[:, None, None] * _size(written[:layer])
            scores[kind, layer, :, :layer] = (product / sizes - chance_composition(weights.o.shape[-1])).cpu()
    return scores


def _size(matrices: Tensor) -> Tensor:
    return matrices.flatten(-2).norm(dim=-1)


def chance_composition(d_model: int) -> float:
    """What two heads that know nothing of each other score: 1 / sqrt(d_model).

    The root of the mean squared score of two matrices, whatever they are, when one is turned at random (Haar)
    against the other. The mean itself, which Elhage et al. sample, is below it by less than 1 % from d_head = 8 on.
    """
    return d_model**-0.5


def token_embeddings(anatomy: Anatomy) -> Float[Tensor, "d_vocab d_model"]:
    """What each token adds to the residual stream, in float64 and without learned positions."""
    table = _table(anatomy.raw.get_input_embeddings())
    if hasattr(anatomy.raw.base_model, "word_embeddings_layernorm"):  # it stands behind the table (BLOOM)
        table = anatomy.embed(torch.arange(len(table), device=table.device).unsqueeze(1)).squeeze(1).detach()
    return table.double()


def unembedding_weights(anatomy: Anatomy) -> Float[Tensor, "d_vocab d_model"]:
    """W_U in float64 with the last norm folded in, centred over the vocabulary."""
    table = _table(anatomy.raw.get_output_embeddings()).double()
    table = _centred(table * _gain(anatomy.final_norm), anatomy.final_norm, axis=-1)
    return table - table.mean(dim=0)


def frozen_norm(norm: nn.Module, x: Float[Tensor, "... d_model"], at: Float[Tensor, "... d_model"]) -> Tensor:
    """`x / scale`, where scale is the norm's own at the residual `at`: linear in x.

    The gain, and for a LayerNorm the mean that it takes away, are folded into `unembedding_weights`.
    """
    spread = at.var(dim=-1, unbiased=False, keepdim=True) if _centres(norm) else at.square().mean(dim=-1, keepdim=True)
    return x / (spread + _epsilon(norm)).sqrt()


def _centres(norm: nn.Module) -> bool:
    return isinstance(norm, nn.LayerNorm)


def _centred(weight: Tensor, norm: nn.Module, axis: int) -> Tensor:
    """Weights without the mean direction of the residual (`axis`), if the norm takes it away."""
    return weight - weight.mean(dim=axis, keepdim=True) if _centres(norm) else weight


def _gain(norm: nn.Module) -> Float[Tensor, " d_model"]:
    return _table(norm).double()


def _table(module: object) -> Tensor:
    weight = getattr(module, "weight", None)
    assert isinstance(weight, Tensor)
    return weight.detach()


def _epsilon(norm: nn.Module) -> float:
    return float(getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", 0.0))
