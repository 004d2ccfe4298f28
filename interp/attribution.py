"""Which tokens does an answer depend on, by the gradient at the input embeddings?

Maps of the answer's margin m_i = logit(y_i) - logit(other answer) at output step i, teacher forced, on the
token embeddings (before any position is added). A map describes, it decides nothing: gradient x input is
blind to saturated attention (science 1.3). Models are raw Hugging Face models.

The trap of LayerNorm: what is read only through one does not change when it is scaled, so x * dm/dx sums to 0.
BLOOM normalises its embeddings at once: on its table every signed map is 0, which is why `normed` embeddings
are the default. Every first attention reads its sources so: compare with `absolute` and integrated gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import ANSWER_ROLES, Batch, Role

Kind = Literal["signed", "absolute", "l2"]
# `raw`: the output of the embedding table. `normed`: after the LayerNorm right behind it, where there is one (BLOOM).
Embeddings = Literal["normed", "raw"]
# Tokens in one forward pass whose graph is kept.
CHUNK_TOKENS = 2048
# Of the budget, for what is held at once in logits, or in gradients [chunk dest src_pos d_model]: 64 MiB of a GiB.
SHARE = 1 / 16


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each source position moves the margin of each answer.

    Shapes:
        values: `[batch dest src_pos]`, in logits. `signed`: the sum over d_model of input times gradient;
                `absolute`: the sum of its absolute values; `l2`: its Euclidean norm.
        dest:   `[dest]`, positions of the answers; the logits that predict them stand one earlier.
        margin: `[batch dest]`, m(x), the margin that is explained.
        gap:    `[batch dest]`, integrated gradients only: the signed sum over source positions minus
                [m(x) - m(x')]. 0 where the path was integrated exactly; raise `n` where it is not.
    """

    values: Float[Tensor, "batch dest src_pos"]
    batch: Batch
    dest: Int[Tensor, " dest"]
    kind: Kind
    method: str
    margin: Float[Tensor, "batch dest"]
    gap: Float[Tensor, "batch dest"] | None = None

    def __post_init__(self) -> None:
        expected = (len(self.batch), len(self.dest), self.batch.n_pos)
        if tuple(self.values.shape) != expected or tuple(self.margin.shape) != expected[:2]:
            raise ValueError(f"values must be [batch dest src_pos] = {expected}; got {tuple(self.values.shape)}")

    @property
    def steps(self) -> tuple[int, ...]:
        """The output step of each row of the map."""
        return tuple(self.batch.step[self.dest].tolist())


def gradient_x_input(
    model: PreTrainedModel,
    batch: Batch,
    steps: Sequence[int] | None = None,
    kind: Kind = "signed",
    against: Batch | None = None,
    role: Role = Role.OUTPUT,
    embeddings: Embeddings = "normed",
) -> Attribution:
    """g[i, j] = sum_d x[j, d] * d m_i / d x[j, d] on the input embeddings x (science 1.3).

    `steps` chooses output steps, in the order given; without it all of `role`, in the order of
    `batch.at(role)`. The other answer is the other output symbol where there are two (parity), else that of
    `against` at the same place (an answer that both share has a margin of zero). Costs one forward pass and
    one backward pass a step. The model is left as it was: no gradient is stored on its parameters.

    Raises `ValueError` for an unknown kind or step, a missing or useless other answer, a model in training
    mode, and for margins or gradients that are NaN or infinite, naming the prompt.

    >>> from interp.models import ModelConfig, build_model
    >>> from interp.tasks import default_vocabulary, sample
    >>> model = build_model(ModelConfig("rotary", 1, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    >>> found = gradient_x_input(model, sample("parity-scratchpad", batch_size=2, length=3, seed=0), steps=[2, 3])
    >>> found.values.shape, found.dest.tolist(), found.steps
    (torch.Size([2, 2, 8]), [6, 7], (2, 3))
    """
    _check(model, kind, embeddings)
    dest, pairs = _answers(batch, steps, role, against)
    values, margins = [], []
    for rows in _chunks(model, batch, len(dest)):
        x = _embed(model, batch.tokens[rows], embeddings)
        margin, gradient = _gradients(model, x, dest, pairs[rows], embeddings)
        values.append(_reduced(x.to(gradient).unsqueeze(1) * gradient, kind).cpu())
        margins.append(margin.cpu())
    found = Attribution(torch.cat(values), batch, dest, kind, "gradient x input", torch.cat(margins))
    return _require_finite(found)


def integrated_gradients(
    model: PreTrainedModel,
    batch: Batch,
    other: Batch,
    steps: Sequence[int] | None = None,
    n: int = 128,
    kind: Kind = "signed",
    against: Batch | None = None,
    role: Role = Role.OUTPUT,
    embeddings: Embeddings = "normed",
) -> Attribution:
    """(x - x') times the mean gradient on the straight path from x' to x (Sundararajan et al. 1703.01365).

    x are the embeddings of `batch` and x' those of `other`, such as `swap_labels` gives: positions at which
    the two hold the same token get exactly 0, and the label that selects an answer gets its due although
    attention is saturated at both ends. Answers are those of `batch` at both ends. The path is integrated by
    Gauss-Legendre quadrature with `n` gradients; look at `gap` to see whether they were enough.

    Arguments, costs (n times) and errors are as in `gradient_x_input`; also raises `ValueError` for n < 1 and
    for an `other` of another layout.
    """
    _check(model, kind, embeddings)
    if n < 1:
        raise ValueError(f"n, the number of gradients on the path, must be at least 1; got {n}")
    _require_same_layout(batch, other, "other")
    dest, pairs = _answers(batch, steps, role, against)
    nodes, weights = np.polynomial.legendre.leggauss(n)
    values, margins, gaps = [], [], []
    for rows in _chunks(model, batch, len(dest)):
        start, end = (_embed(model, b.tokens[rows], embeddings) for b in (other, batch))
        mean = torch.zeros(())
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            _, gradient = _gradients(model, start.lerp(end, float(node)), dest, pairs[rows], embeddings)
            mean = mean + float(weight) * gradient
        product = (end - start).to(mean).unsqueeze(1) * mean
        with torch.no_grad():
            margin, before = (_margins(model, x, dest, pairs[rows], embeddings) for x in (end, start))
        values.append(_reduced(product, kind).cpu())
        margins.append(margin.cpu())
        gaps.append((product.sum(dim=(-2, -1)) - (margin - before)).cpu())
    found = Attribution(
        torch.cat(values), batch, dest, kind, "integrated gradients", torch.cat(margins), torch.cat(gaps)
    )
    return _require_finite(found)


def _check(model: PreTrainedModel, kind: str, embeddings: str) -> None:
    if embeddings not in get_args(Embeddings):
        raise ValueError(f"unknown embeddings {embeddings!r}; there are {', '.join(get_args(Embeddings))}")
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind {kind!r}; kinds are {', '.join(get_args(Kind))}")
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")


def _answers(
    batch: Batch, steps: Sequence[int] | None, role: Role, against: Batch | None
) -> tuple[Int[Tensor, " dest"], Int[Tensor, "batch dest 2"]]:
    """Positions of the answers, and for each the tokens of the answer and of the other one."""
    if role not in ANSWER_ROLES:
        raise ValueError(f"an answer's role is one of {', '.join(r.name for r in ANSWER_ROLES)}; got {Role(role).name}")
    if steps is not None and not len(steps):
        raise ValueError("no step was chosen; leave `steps` out for all of them")
    dest = batch.at(role) if steps is None else torch.cat([batch.at(role, step) for step in steps])
    answers = batch.tokens[:, dest]
    if against is not None:
        _require_same_layout(batch, against, "against")
        others = against.tokens[:, dest]
        if (others == answers).all():
            raise ValueError("`against` has the same answers at these steps: their difference is always zero")
        return dest, torch.stack([answers, others], dim=-1)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    if len(symbols) != 2:
        raise ValueError(f"{batch.format} has {len(symbols)} answers; say against which batch's answer")
    if not torch.isin(answers, symbols).all():
        row = int((~torch.isin(answers, symbols)).any(dim=1).nonzero()[0])
        raise ValueError(f"prompt {row} holds no answer at some step: {batch.text(row)}")
    return dest, torch.stack([answers, symbols.sum() - answers], dim=-1)


def _require_same_layout(batch: Batch, other: Batch, name: str) -> None:
    same = other.tokens.shape == batch.tokens.shape
    if not (same and torch.equal(other.role, batch.role) and torch.equal(other.step, batch.step)):
        wanted, got = (f"{len(b)} of {b.format}, length {b.length}" for b in (batch, other))
        raise ValueError(f"`{name}` must have the prompts, roles and steps of `batch`: {wanted}; got {got}")


def _chunks(model: PreTrainedModel, batch: Batch, n_dest: int) -> list[slice]:
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    width = table.embedding_dim
    largest = n_dest * max(model.config.vocab_size, batch.n_pos * width)
    size = max(1, min(CHUNK_TOKENS // batch.n_pos, numbers(SHARE) // largest))
    return [slice(start, start + size) for start in range(0, len(batch), size)]


def _norm(model: PreTrainedModel, embeddings: Embeddings) -> nn.Module | None:
    return getattr(model.base_model, "word_embeddings_layernorm", None) if embeddings == "normed" else None


@torch.no_grad()
def _embed(
    model: PreTrainedModel, tokens: Int[Tensor, "chunk pos"], embeddings: Embeddings
) -> Float[Tensor, "chunk pos d_model"]:
    x = model.get_input_embeddings()(tokens.to(model.device))
    return x if (norm := _norm(model, embeddings)) is None else norm(x)


def _margins(
    model: PreTrainedModel, x: Tensor, dest: Tensor, pairs: Tensor, embeddings: Embeddings
) -> Float[Tensor, "chunk dest"]:
    """Margins at the answers, in float32 or better; only the positions that are read are unembedded."""
    keep = (dest - 1).to(x.device)
    norm = _norm(model, embeddings)
    # Hugging Face takes embeddings before the LayerNorm only, so what it gives out is replaced.
    handle = None if norm is None else norm.register_forward_hook(lambda module, args, out: x)
    try:
        logits = model(inputs_embeds=x, use_cache=False, logits_to_keep=keep).logits
    finally:
        if handle is not None:
            handle.remove()
    answer, other = logits.gather(-1, pairs.to(x.device)).to(_precise(logits)).unbind(-1)
    return answer - other


def _gradients(
    model: PreTrainedModel, x: Tensor, dest: Tensor, pairs: Tensor, embeddings: Embeddings
) -> tuple[Float[Tensor, "chunk dest"], Float[Tensor, "chunk dest src_pos d_model"]]:
    """Margins and their gradients at x. One backward pass a step: prompts do not touch each other."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        margins = _margins(model, x, dest, pairs, embeddings)
        # `grad` and not `backward`: nothing is written to the parameters.
        gradients = [torch.autograd.grad(m.sum(), x, retain_graph=True)[0] for m in margins.unbind(dim=1)]
    return margins.detach(), torch.stack(gradients, dim=1).to(margins.dtype)


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _reduced(product: Float[Tensor, "... d_model"], kind: Kind) -> Float[Tensor, "..."]:
    match kind:
        case "signed":
            return product.sum(dim=-1)
        case "absolute":
            return product.abs().sum(dim=-1)
        case "l2":
            return product.norm(dim=-1)


def _require_finite(found: Attribution) -> Attribution:
    for what, values in {"margin": found.margin, "gradient": found.values, "gap": found.gap}.items():
        if values is not None:
            require_finite(values, f"the {what}", axis=0, batch=found.batch)
    return found
