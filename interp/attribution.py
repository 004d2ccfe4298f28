"""Attribution of answers to tokens, by gradients at the input embeddings: gradient x input, integrated gradients.

A map explains the answer's margin m_i = logit(y_i) - logit(other answer) at output step i, teacher-forced, or any
metric with a gradient. Gradients are taken at the token embeddings, before any position is added. A map is
descriptive: gradient x input is blind to saturated attention (probes/README.md, Paper and formats).

LayerNorm removes scale: for an input that is read only through a LayerNorm, the sum over d of x[d] * dm/dx[d] is 0.
BLOOM applies one directly to its embeddings, so on its table every signed map is 0; `normed` embeddings are therefore
the default. The first attention layer reads its sources through a LayerNorm in every model: compare with the kind
`absolute` and with integrated gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive, pair_of, prompts_of, require_gradients
from interp.gradients import (
    Embeddings,
    chunks,
    embed,
    margins_and_gradients,
    target_of,
    values,
)
from interp.models.changed import require_evaluating
from interp.models.resolve import AnyModel, raw_of
from interp.patching.metric import MetricLike
from interp.support.finite import require_finite
from interp.tasks import Prompts, Role
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas

Kind = Literal["signed", "absolute", "l2"]


@dataclass(frozen=True, eq=False)
class Attribution(Shown):
    """How much each source position changes each answer's margin, or the metric.

    Shapes:
        values: `[batch dest src_pos]`, in logits or in the metric's unit. `signed`: the sum over d_model of input
                times gradient; `absolute`: the sum of its absolute values; `l2`: its Euclidean norm.
        dest:   `[dest]`, positions of the answers; the logits that predict them are one earlier. For a metric: the
                last position that it reads.
        margin: `[batch dest]`, m(x), the margin or metric that is explained.
        gap:    `[batch dest]`, integrated gradients only: the signed sum over source positions minus
                [m(x) - m(x')]. 0 if the path is integrated exactly; raise `n` if it is not.
    """

    values: Float[Tensor, "batch dest src_pos"]
    prompts: Prompts
    dest: Int[Tensor, " dest"]
    kind: Kind
    method: str
    margin: Float[Tensor, "batch dest"]
    gap: Float[Tensor, "batch dest"] | None = None

    def __post_init__(self) -> None:
        expected = (len(self.prompts), len(self.dest), self.prompts.n_pos)
        if tuple(self.values.shape) != expected or tuple(self.margin.shape) != expected[:2]:
            raise ValueError(f"values must be [batch dest src_pos] = {expected}; got {tuple(self.values.shape)}")

    def __repr__(self) -> str:
        return f"Attribution({self.method}, {self.kind}, [batch dest src_pos] = {tuple(self.values.shape)})"

    @property
    def steps(self) -> tuple[int, ...]:
        """The output step of each row of the map; -1 for prompts without steps."""
        step = self.prompts.step
        return tuple([-1] * len(self.dest) if step is None else step[self.dest].tolist())

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per prompt, row of the map and source position."""
        import pandas

        n, n_dest, n_pos = self.values.shape
        dest = self.dest.tolist()
        return pandas.DataFrame(
            {
                "prompt": [row for row in range(n) for _ in range(n_dest * n_pos)],
                "dest": [d for _ in range(n) for d in dest for _ in range(n_pos)],
                "src_pos": list(range(n_pos)) * (n * n_dest),
                "source": [self.prompts.name(p) for p in range(n_pos)] * (n * n_dest),
                "value": self.values.flatten().tolist(),
                "margin": self.margin.flatten().repeat_interleave(n_pos).tolist(),
            }
        )


@exclusive
def gradient_x_input(
    model: AnyModel,
    prompts: PromptsLike,
    steps: Sequence[int] | None = None,
    kind: Kind = "signed",
    against: PromptsLike | None = None,
    role: Role = Role.OUTPUT,
    embeddings: Embeddings = "normed",
    metric: MetricLike | None = None,
) -> Attribution:
    """Return g[i, j] = sum_d x[j, d] * d m_i / d x[j, d] on the input embeddings x (probes/README.md, Paper).

    For a task's batch: `steps` chooses output steps, in the order given; the default is all of `role`. The other
    answer is the other output symbol where there are two (parity), else that of `against` at the same position. For
    any prompts: `metric` is explained, as one row of the map. Costs one forward pass and one backward pass per row.
    No gradient is stored on the model's parameters.

    Raises `ValueError` for an unknown kind or step, a missing or useless other answer, a metric without a gradient, a
    model in training mode, and for margins or gradients that are NaN or infinite, naming the prompt.

    >>> from interp.models import ModelConfig, build_model
    >>> from interp.tasks import default_vocabulary, sample
    >>> model = build_model(ModelConfig("rotary", 1, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    >>> result = gradient_x_input(model, sample("parity-scratchpad", batch_size=2, length=3, seed=0), steps=[2, 3])
    >>> result.values.shape, result.dest.tolist(), result.steps
    (torch.Size([2, 2, 8]), [6, 7], (2, 3))
    """
    raw = _checked("gradient_x_input", model, kind, embeddings)
    prompts = prompts_of(model, prompts)
    target = target_of(model, prompts, metric, steps, role, against)
    maps, margins = [], []
    for rows in chunks(raw, prompts, target):
        x = embed(raw, prompts.tokens[rows], embeddings)
        margin, gradient = margins_and_gradients(raw, x, target, rows, embeddings)
        maps.append(_reduced(x.to(gradient).unsqueeze(1) * gradient, kind).cpu())
        margins.append(margin.cpu())
    return _finite(
        Attribution(
            values=torch.cat(maps),
            prompts=prompts,
            dest=target.dest,
            kind=kind,
            method="gradient x input",
            margin=torch.cat(margins),
        )
    )


@exclusive
def integrated_gradients(
    model: AnyModel,
    prompts: PromptsLike,
    other: PromptsLike,
    steps: Sequence[int] | None = None,
    n: int = 128,
    kind: Kind = "signed",
    against: PromptsLike | None = None,
    role: Role = Role.OUTPUT,
    embeddings: Embeddings = "normed",
    metric: MetricLike | None = None,
) -> Attribution:
    """Return (x - x') times the mean gradient on the straight path from x' to x (Sundararajan et al. 1703.01365).

    x are the embeddings of `prompts` and x' those of `other`, such as `swap_labels` returns. Positions at which the
    two have the same token get exactly 0. A label that selects an answer is attributed even if attention is saturated
    at both ends. Answers are those of `prompts` at both ends. The path is integrated by Gauss-Legendre quadrature with
    `n` gradients; check with `gap` that they were enough.

    Arguments, costs (n times) and errors are as in `gradient_x_input`; also raises `ValueError` for n < 1 and for an
    `other` of another layout.
    """
    raw = _checked("integrated_gradients", model, kind, embeddings)
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n, the number of gradients on the path, must be a whole number of at least 1; got {n!r}")
    prompts, other = pair_of(model, prompts, other, ("prompts", "other"))
    target = target_of(model, prompts, metric, steps, role, against)
    nodes, weights = np.polynomial.legendre.leggauss(n)
    maps, margins, gaps = [], [], []
    for rows in chunks(raw, prompts, target):
        start, end = (embed(raw, p.tokens[rows], embeddings) for p in (other, prompts))
        mean = torch.zeros(())
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            _, gradient = margins_and_gradients(raw, start.lerp(end, float(node)), target, rows, embeddings)
            mean = mean + float(weight) * gradient
        product = (end - start).to(mean).unsqueeze(1) * mean
        with torch.no_grad():
            margin, before = (values(raw, x, target, rows, embeddings) for x in (end, start))
        maps.append(_reduced(product, kind).cpu())
        margins.append(margin.cpu())
        gaps.append((product.sum(dim=(-2, -1)) - (margin - before)).cpu())
    return _finite(
        Attribution(
            values=torch.cat(maps),
            prompts=prompts,
            dest=target.dest,
            kind=kind,
            method="integrated gradients",
            margin=torch.cat(margins),
            gap=torch.cat(gaps),
        )
    )


def _checked(what: str, model: AnyModel, kind: str, embeddings: str) -> Any:
    """Return the raw model, after the checks of arguments."""
    require_gradients(what)
    if embeddings not in get_args(Embeddings):
        raise ValueError(f"unknown embeddings {embeddings!r}; choices are {', '.join(get_args(Embeddings))}")
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind {kind!r}; kinds are {', '.join(get_args(Kind))}")
    raw = raw_of(model)
    require_evaluating(raw)
    return raw


def _reduced(product: Float[Tensor, "... d_model"], kind: Kind) -> Float[Tensor, "..."]:
    match kind:
        case "signed":
            return product.sum(dim=-1)
        case "absolute":
            return product.abs().sum(dim=-1)
        case "l2":
            return product.norm(dim=-1)


def _finite(result: Attribution) -> Attribution:
    for what, numbers in {"margin": result.margin, "gradient": result.values, "gap": result.gap}.items():
        if numbers is not None:
            require_finite(numbers, f"the {what}", axis=0, batch=result.prompts)
    return result
