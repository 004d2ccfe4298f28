"""Direct logit attribution: what each component adds to the logits through the last norm and the unembedding.

It uses TransformerLens's cache of a `TransformerBridge`. TransformerLens's own `direct_logit_attribution` and
`logit_attrs` need compatibility mode, which folds weights; without it they leave out the gain of the last norm and all
biases. Here these are included, and the sum of the parts is checked against the model's own logits. A direct
contribution is not the whole effect of a component: later components read it too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.answers import AnswerTokens, answer_tokens, cached_chunks, mean_and_error
from interp.circuits.pairs import resolved_prompts
from interp.models.resolve import AnyModel, bridge_of
from interp.patching.answer_metrics import Answer
from interp.support.finite import require_finite
from interp.tasks import Batch, Role

if TYPE_CHECKING:
    import pandas

# Largest difference of the parts' sum from the model's value, as a share of the sum of their absolute values.
TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class LogitAttribution:
    """What each component adds to logit(answer) - logit(other), through the last norm at its own scale.

    Components, in the order in which they write: "embed", "position" (learned positions), then by layer "L0H0",
    "L0 MLP" (with its bias), and "bias": the biases of attention outputs, of the last norm and of the logits.

    Shapes:
        parts:  `[component batch read]`, in logits. They sum to `margin`.
        margin: `[batch read]`, the model's logit(answer) - logit(other), or logit(answer) without another answer.
        positions, names: `[read]`, the positions whose logits are read, and a name for each.
    """

    components: tuple[str, ...]
    parts: Float[Tensor, "component batch read"]
    margin: Float[Tensor, "batch read"]
    positions: Int[Tensor, " read"]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        top = ", ".join(f"{name} {value:+.3g}" for name, value in self.top(3))
        return f"LogitAttribution({len(self.components)} components, {len(self.margin)} prompts; largest: {top})"

    def _ipython_display_(self) -> None:
        """Show the view in a notebook."""
        from interp.views import show

        show(self)

    def of(self, component: str) -> Float[Tensor, "batch read"]:
        """Return one component's part. Raises `ValueError`, with the components, for another name."""
        if component not in self.components:
            raise ValueError(f"no component {component!r}; there are {', '.join(self.components)}")
        return self.parts[self.components.index(component)]

    def by_position(self) -> Float[Tensor, "component read"]:
        """Return means over prompts."""
        return self.parts.mean(dim=1)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k components with the largest absolute mean over positions and prompts."""
        mean = self.parts.mean(dim=(1, 2))
        return [(self.components[i], float(mean[i])) for i in mean.abs().argsort(descending=True)[:k].tolist()]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per component and position: mean over prompts, standard error, and number of prompts."""
        import pandas

        columns = ["component", "position", "name", "mean", "error", "n"]
        rows = [
            (component, int(pos), name, *mean_and_error(part[:, i]), len(self.margin))
            for component, part in zip(self.components, self.parts, strict=True)
            for i, (pos, name) in enumerate(zip(self.positions, self.names, strict=True))
        ]
        return pandas.DataFrame(rows, columns=columns)


@exclusive
@torch.no_grad()
def direct_logit_attribution(
    model: AnyModel,
    prompts: PromptsLike,
    answer: Answer | None = None,
    other: Answer | None = None,
    position: int | str = -1,
    role: Role = Role.OUTPUT,
    against: Batch | None = None,
) -> LogitAttribution:
    """Split logit(answer) - logit(other) into the parts of embedding, heads, MLPs and biases.

    - Any prompts: `answer` and `other` are strings or token ids, one for all prompts or one per prompt, read at
      `position` (an index or a span's name). Without `other`, the logit of `answer` alone is split.
    - Prompts of a task, without `answer`: every answer of `role`. The other answer is the other output symbol (parity),
      or that of `against` at the same position.

    Raises `ValueError` where there is no other answer, and for a model that TransformerLens does not support;
    `RuntimeError` where the parts do not sum to the model's value.

    >>> direct_logit_attribution(run, run.sample(16, 20, seed=0)).top(2)
    [('L2 MLP', 8.1), ('L1H4', 1.2)]
    """
    bridge: Any = bridge_of(model)
    own = resolved_prompts(model, prompts, "prompts")
    tokens = answer_tokens(model, own, answer, other, position, role, against)
    labels: list[str] = []
    parts, margins = [], []
    for rows, logits, cache in cached_chunks(bridge, own):
        part, labels = _parts(bridge, cache, tokens, rows)
        margin = tokens.difference(logits[:, tokens.positions], rows)
        margins.append(require_finite(margin, "the margin", rows, axis=0))
        parts.append(require_finite(part.cpu(), "a part of the margin", rows, axis=1))
    order = sorted(range(len(labels)), key=lambda i: _order(labels[i]))
    stacked, margin = torch.cat(parts, dim=1)[order], torch.cat(margins)
    error = float(((stacked.sum(dim=0) - margin).abs() / stacked.abs().sum(dim=0).clamp_min(1e-12)).max())
    if not error <= _tolerance(bridge):
        raise RuntimeError(f"the sum of the parts differs from the model's margin by {error:.1e} of their absolute sum")
    components = tuple(_component(labels[i]) for i in order)
    return LogitAttribution(components, stacked, margin, positions=tokens.positions, names=tokens.names)


def _parts(
    bridge: Any, cache: Any, tokens: AnswerTokens, rows: Tensor
) -> tuple[Float[Tensor, "component row read"], list[str]]:
    """Return the parts of some prompts in float64, and TransformerLens's labels of the components."""
    at, norm = tokens.positions, bridge.ln_final
    gain, shift, bias = norm.weight.double(), getattr(norm, "bias", None), bridge.b_U.double()
    direction, offset = _directions(bridge, tokens.answers[rows]), bias[tokens.answers[rows]]
    if tokens.others is not None:
        direction = direction - _directions(bridge, tokens.others[rows])
        offset = offset - bias[tokens.others[rows]]
    stack, labels = cache.get_full_resid_decomposition(expand_neurons=False, return_labels=True, pos_slice=at)
    normed = cache.apply_ln_to_stack(stack.double(), layer=-1, pos_slice=at)
    part = torch.einsum("crsd,rsd->crs", normed * gain, direction)
    part[labels.index("bias")] += offset
    if shift is not None:
        part[labels.index("bias")] += direction @ shift.double()
    return part, labels


def _directions(bridge: Any, tokens: Int[Tensor, "row read"]) -> Float[Tensor, "row read d_model"]:
    directions = bridge.tokens_to_residual_directions(tokens.to(bridge.W_U.device)).double()
    return directions.reshape(*tokens.shape, -1)  # a single token loses its axes


def _tolerance(bridge: Any) -> float:
    return TOLERANCE if bridge.cfg.dtype in (torch.float32, torch.float64) else 0.05


def _order(label: str) -> tuple[float, float, int]:
    """Return a key that sorts TransformerLens's components by when they write."""
    match re.fullmatch(r"L(\d+)H(\d+)|(\d+)_mlp_out|(embed)|(pos_embed)|(bias)", label):
        case None:
            raise RuntimeError(f"TransformerLens has a component {label!r} that is not known here")
        case groups if groups[1]:
            return int(groups[1]), 0, int(groups[2])
        case groups if groups[3]:
            return int(groups[3]), 1, 0
        case groups:
            return (torch.inf if groups[6] else -1), 0, int(bool(groups[5]))


def _component(label: str) -> str:
    """Return a component's name in the form of `str(Sender(...))`."""
    return "position" if label == "pos_embed" else re.sub(r"(\d+)_mlp_out", r"L\1 MLP", label)
