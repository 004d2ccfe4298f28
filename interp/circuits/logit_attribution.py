"""What does each part of a model say to the logits, and from which layer on can the answer be read?

Direct logit attribution and the logit lens (nostalgebraist 2020), through TransformerLens's cache of a
`TransformerBridge`. Its own `direct_logit_attribution` and `logit_attrs` need compatibility mode, which folds
weights; without it they leave out the last norm's gain and every bias, and so here these are put back, and the
parts are held to the model's own margin. What a part says directly is not all that it does: later parts read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.patching.editing import SHARE
from interp.patching.metrics import logit_diff
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.tasks import Batch, Role

if TYPE_CHECKING:
    import pandas
    from transformer_lens.model_bridge import TransformerBridge

# How far the parts' sum may be from the model's margin, as a share of the sum of their absolute values.
TOLERANCE = 1e-5
_CACHED = re.compile(
    r"hook_embed|hook_pos_embed|pos_embed\.hook_out|ln_final\.hook_scale|"
    r"blocks\.\d+\.(attn\.hook_z|hook_mlp_out|hook_resid_pre|hook_resid_post)"
)


@dataclass(frozen=True, eq=False)
class MarginParts:
    """What each component adds to logit(answer) - logit(other answer), through the last norm at its own scale.

    Components, in the order in which they write: "embed", "position" (learned positions), then by layer "L0H0",
    "L0 MLP" (with its bias), and "bias": the biases of attention outputs, of the last norm and of the logits.

    Shapes:
        parts:  `[component batch step]`, in logits. They sum to `margin`.
        margin: `[batch step]`, the model's own.
        steps:  `[step]`, the step of each answer.
    """

    components: tuple[str, ...]
    parts: Float[Tensor, "component batch step"]
    margin: Float[Tensor, "batch step"]
    steps: Int[Tensor, " step"]
    role: Role

    def of(self, component: str) -> Float[Tensor, "batch step"]:
        """One component's part. Raises `ValueError`, with the components, for another name."""
        if component not in self.components:
            raise ValueError(f"no component {component!r}; there are {', '.join(self.components)}")
        return self.parts[self.components.index(component)]

    def by_step(self) -> Float[Tensor, "component step"]:
        """Means over prompts."""
        return self.parts.mean(dim=1)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The components that add or take most, averaged over steps and prompts."""
        mean = self.parts.mean(dim=(1, 2))
        return [(self.components[i], float(mean[i])) for i in mean.abs().argsort(descending=True)[:k].tolist()]

    def table(self) -> pandas.DataFrame:
        """A row for each component and step: its mean over prompts, their standard error, and their number."""
        import pandas

        columns = ["component", "role", "step", "mean", "error", "n"]
        rows = [
            (name, self.role.words, int(step), *_mean_and_error(part[:, i]), len(self.margin))
            for name, part in zip(self.components, self.parts, strict=True)
            for i, step in enumerate(self.steps)
        ]
        return pandas.DataFrame(rows, columns=columns)


@dataclass(frozen=True, eq=False)
class LayerReadouts:
    """What the model would answer if it stopped before each layer: the last norm and W_U on every residual.

    Shapes:
        margin:   `[layer+1 batch step]`, logit(answer) - logit(other answer); the last entry is the model's.
        log_prob: `[layer+1 batch step]`, of the answer, in nats, over the whole vocabulary.
        rank:     `[layer+1 batch step]`, tokens with a higher logit than the answer.
        steps:    `[step]`.
    """

    margin: Float[Tensor, "layer batch step"]
    log_prob: Float[Tensor, "layer batch step"]
    rank: Int[Tensor, "layer batch step"]
    steps: Int[Tensor, " step"]
    role: Role

    def by_step(self) -> Float[Tensor, "layer step"]:
        """Mean margins over prompts."""
        return self.margin.mean(dim=1)

    def table(self) -> pandas.DataFrame:
        """A row for each layer and step: margin and its standard error, log probability, and how often it is first."""
        import pandas

        columns = ["layer", "role", "step", "margin", "error", "log_prob", "first", "n"]
        rows = [
            (
                layer,
                self.role.words,
                int(step),
                *_mean_and_error(self.margin[layer, :, i]),
                float(self.log_prob[layer, :, i].mean()),
                float((self.rank[layer, :, i] == 0).double().mean()),
                self.margin.shape[1],
            )
            for layer in range(len(self.margin))
            for i, step in enumerate(self.steps)
        ]
        return pandas.DataFrame(rows, columns=columns)


@torch.no_grad()
def attribute_margin(
    model: TransformerBridge, batch: Batch, role: Role = Role.OUTPUT, against: Batch | None = None
) -> MarginParts:
    """The margin of every answer of a role, taken apart by component: embedding, heads, MLPs, biases.

    `model` is a run's `model`. The other answer is the other symbol (parity), or that of `against` at the same place.
    Raises `ValueError` for a raw model or where there is no other answer, and `RuntimeError` when the parts do not
    sum to the model's margin.

    >>> attribute_margin(run.model, run.sample(16, 20, seed=0)).top(2)
    [('L2 MLP', 8.1), ('L1H4', 1.2)]
    """
    bridge = _bridge(model)
    at, answers, others = _answers(batch, role, against)
    norm = bridge.ln_final
    gain, shift = norm.weight.double(), getattr(norm, "bias", None)
    names: list[str] = []
    parts, margins = [], []
    for rows, logits, cache in _cached(bridge, batch):
        towards = _directions(bridge, answers[rows]) - _directions(bridge, others[rows])  # [row step d_model]
        stack, names = cache.get_full_resid_decomposition(expand_neurons=False, return_labels=True, pos_slice=at)
        normed = cache.apply_ln_to_stack(stack.double(), layer=-1, pos_slice=at)
        part = torch.einsum("crsd,rsd->crs", normed * gain, towards)
        bias = bridge.b_U.double()
        part[names.index("bias")] += bias[answers[rows]] - bias[others[rows]]
        if shift is not None:
            part[names.index("bias")] += towards @ shift.double()
        margins.append(require_finite(_margin(logits[:, at], answers[rows], others[rows]), "the margin", rows, axis=0))
        parts.append(require_finite(part.cpu(), "a part of the margin", rows, axis=1))
    order = sorted(range(len(names)), key=lambda i: _when(names[i]))
    whole, margin = torch.cat(parts, dim=1)[order], torch.cat(margins)
    off = float(((whole.sum(dim=0) - margin).abs() / whole.abs().sum(dim=0).clamp_min(1e-12)).max())
    if not off <= _tolerance(bridge):
        raise RuntimeError(f"the parts' sum is off the model's margin by {off:.1e} of what they add and take")
    return MarginParts(tuple(_words(names[i]) for i in order), whole, margin, batch.step[at + 1], role)


@torch.no_grad()
def read_layers(
    model: TransformerBridge, batch: Batch, role: Role = Role.OUTPUT, against: Batch | None = None
) -> LayerReadouts:
    """The logit lens at every answer of a role: the residual before each layer, and after the last.

    Arguments and errors are those of `attribute_margin`. In early layers the lens can miss what is there in
    directions that W_U does not read yet.
    """
    from transformer_lens.tools.analysis import logit_lens

    bridge = _bridge(model)
    at, answers, others = _answers(batch, role, against)
    found: dict[str, list[Tensor]] = {"margin": [], "log_prob": [], "rank": []}
    for rows, _, cache in _cached(bridge, batch):
        own, other, prob = (
            logit_lens(bridge, cache=cache, positions=at, targets=targets[rows], return_type=kind).readout
            for targets, kind in ((answers, "logits"), (others, "logits"), (answers, "log_probs"))
        )
        assert own.target_ranks is not None
        for name, values in (("margin", own.values - other.values), ("log_prob", prob.values)):
            found[name].append(require_finite(values.squeeze(-1).double().cpu(), f"a layer's {name}", rows, axis=1))
        found["rank"].append(own.target_ranks.squeeze(-1).cpu())
    whole = {name: torch.cat(values, dim=1) for name, values in found.items()}
    return LayerReadouts(**whole, steps=batch.step[at + 1], role=role)


def _bridge(model: Any) -> Any:
    if not hasattr(model, "run_with_cache"):
        raise ValueError(f"readouts need a bridge, a run's `model`; got {type(model).__name__}")
    return model


def _answers(batch: Batch, role: Role, against: Batch | None) -> tuple[Tensor, Tensor, Tensor]:
    """Positions whose logits are read, and the answers and other answers there, `[batch step]`."""
    at = logit_diff(batch, against=against, role=role).positions  # its errors say what is missing
    answers = batch.tokens[:, at + 1]
    if against is not None:
        return at, answers, against.tokens[:, at + 1]
    return at, answers, batch.vocabulary.tokens(batch.format.outputs).sum() - answers


def _cached(bridge: Any, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Numbers of some prompts, their logits, and TransformerLens's cache of them."""
    if not len(batch):
        raise ValueError("the batch has no prompts")
    cfg = bridge.cfg
    floats = batch.n_pos * (cfg.n_layers * (cfg.n_heads + 5) * cfg.d_model + cfg.d_vocab)
    for rows in torch.arange(len(batch)).split(max(1, numbers(SHARE) // floats)):
        tokens = batch.tokens[rows].to(bridge.W_U.device)
        logits, cache = bridge.run_with_cache(tokens, names_filter=lambda name: _CACHED.fullmatch(name) is not None)
        yield rows, logits, cache


def _directions(bridge: Any, tokens: Int[Tensor, "row step"]) -> Float[Tensor, "row step d_model"]:
    found = bridge.tokens_to_residual_directions(tokens.to(bridge.W_U.device)).double()
    return found.reshape(*tokens.shape, -1)  # of a single token it drops the axes


def _margin(logits: Tensor, answers: Tensor, others: Tensor) -> Float[Tensor, "row step"]:
    own, other = (logits.double().cpu().gather(-1, t.unsqueeze(-1)).squeeze(-1) for t in (answers, others))
    return own - other


def _tolerance(bridge: Any) -> float:
    return TOLERANCE if bridge.cfg.dtype in (torch.float32, torch.float64) else 0.05


def _when(name: str) -> tuple[float, float, int]:
    """When a component of TransformerLens's decomposition writes."""
    match re.fullmatch(r"L(\d+)H(\d+)|(\d+)_mlp_out|(embed)|(pos_embed)|(bias)", name):
        case None:
            raise RuntimeError(f"TransformerLens names a component {name!r} that is not known here")
        case found if found[1]:
            return int(found[1]), 0, int(found[2])
        case found if found[3]:
            return int(found[3]), 1, 0
        case found:
            return (torch.inf if found[6] else -1), 0, int(bool(found[5]))


def _words(name: str) -> str:
    """A component's name as `str(Sender(...))` has it."""
    names = {"pos_embed": "position"}
    return re.sub(r"(\d+)_mlp_out", r"L\1 MLP", names.get(name, name))


def _mean_and_error(values: Float[Tensor, " batch"]) -> tuple[float, float]:
    """Mean, and standard error: NaN for one prompt."""
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(torch.nan)
    return float(values.mean()), float(error)
