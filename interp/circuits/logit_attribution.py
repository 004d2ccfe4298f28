"""Direct logit attribution: what each component adds to the logits through the last norm and the unembedding.

The parts are those of TransformerLens's `apply_ln_to_stack`: the last norm at the scale that it has on these prompts.
TransformerLens's own `direct_logit_attribution` and `logit_attrs` need compatibility mode, which folds weights; without
it they leave out the gain of the last norm and all biases. Here these are included, and the sum of the parts is checked
against the model's own logits. Beside each part stands what the margin loses when the component is taken out of the
last residual and the norm is computed anew. Neither is the whole effect of a component: later components read it too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import PromptsLike, exclusive
from interp.circuits.answers import answer_tokens, mean_and_error
from interp.circuits.components import component_sites, readout_of, recorded_passes, split_components
from interp.circuits.pairs import resolved_prompts
from interp.models.anatomy import anatomy_of
from interp.models.resolve import AnyModel, raw_of
from interp.patching.answer_metrics import Answer
from interp.patching.cells import chosen, require_neurons
from interp.support.exactness import Inexact
from interp.support.finite import require_finite
from interp.tasks import Batch, Role
from interp.views.shown import Shown

if TYPE_CHECKING:
    import pandas

# Largest difference of the parts' sum from the model's value, as a share of the sum of their absolute values.
TOLERANCE, HALF_TOLERANCE = 1e-5, 0.05


@dataclass(frozen=True, eq=False)
class LogitAttribution(Shown):
    """What each component adds to logit(answer) - logit(other), through the last norm at its own scale.

    Components, in the order in which they write: "embed", "position" (learned positions), then by layer "L0H0" ("L0
    attention" where a norm follows it), "L0 MLP" (with its bias) or "L0N0", ... and "L0 MLP bias", and "bias": the
    biases of attention outputs, of the last norm and of the logits.

    Shapes:
        parts:  `[component batch read]`, in logits. They sum to `margin`.
        removed: `[component batch read]`, in logits: the margin less the margin of the last residual without the
                component, whose norm is computed anew. They do not sum to it.
        margin: `[batch read]`, the model's logit(answer) - logit(other), or logit(answer) without another answer.
        positions, names: `[read]`, the positions whose logits are read, and a name for each.
    """

    components: tuple[str, ...]
    parts: Float[Tensor, "component batch read"]
    removed: Float[Tensor, "component batch read"]
    margin: Float[Tensor, "batch read"]
    positions: Int[Tensor, " read"]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        top = ", ".join(f"{name} {value:+.3g}" for name, value in self.top(3))
        return f"LogitAttribution({len(self.components)} components, {len(self.margin)} prompts; largest: {top})"

    def of(self, component: str) -> Float[Tensor, "batch read"]:
        """Return one component's part. Raises `ValueError`, with the components, for another name."""
        if component not in self.components:
            raise ValueError(f"no component {component!r}; there are {', '.join(self.components)}")
        return self.parts[self.components.index(component)]

    def by_layer(self) -> Float[Tensor, "layer batch read"]:
        """Return the sum of the parts of each layer's components."""
        layers = [int(found[1]) if (found := re.match(r"L(\d+)", name)) else -1 for name in self.components]
        index = torch.tensor(layers)
        return torch.stack([self.parts[index == layer].sum(dim=0) for layer in range(max(layers) + 1)])

    def by_position(self) -> Float[Tensor, "component read"]:
        """Return means over prompts."""
        return self.parts.mean(dim=1)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k components with the largest absolute mean over positions and prompts."""
        mean = self.parts.mean(dim=(1, 2))
        return [(self.components[i], float(mean[i])) for i in mean.abs().argsort(descending=True)[:k].tolist()]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return one row per component and position: mean over prompts, its standard error, prompts, mean `removed`."""
        import pandas

        columns = ["component", "position", "name", "mean", "error", "n", "removed"]
        rows = [
            (component, int(pos), name, *mean_and_error(part[:, i]), len(self.margin), float(removed[:, i].mean()))
            for component, part, removed in zip(self.components, self.parts, self.removed, strict=True)
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
    position: int | str | Sequence[int] = -1,
    role: Role = Role.OUTPUT,
    against: Batch | None = None,
    neurons: int | Sequence[int] = (),
) -> LogitAttribution:
    """Split logit(answer) - logit(other) into the parts of embedding, heads, MLPs or neurons, and biases.

    - Any prompts: `answer` and `other` are strings or token ids, one for all prompts or one per prompt, read at
      `position` (an index, several, or a span's name). Without `other`, the logit of `answer` alone is split.
    - Prompts of a task, without `answer`: every answer of `role`. The other answer is the other output symbol (parity),
      or that of `against` at the same position.

    `neurons` are layers whose MLP is split into its neurons. Raises `ValueError` where there is no other answer, for
    an architecture that cannot be taken apart or caps its logits, and for layers whose MLP has no neurons;
    `RuntimeError` where the parts do not sum to the model's value.

    >>> direct_logit_attribution(run, run.sample(16, 20, seed=0)).top(2)
    [('L2 MLP', 8.1), ('L1H4', 1.2)]
    """
    own = resolved_prompts(model, prompts, "prompts")
    tokens = answer_tokens(model, own, answer, other, position, role, against)
    anatomy = anatomy_of(raw_of(model), test=False)  # the sum of the parts is tested on these prompts
    split = [] if neurons == () else chosen("layer", neurons, len(anatomy.blocks))
    if split:
        require_neurons("mlp_post", anatomy, split)
    sites, names = component_sites(anatomy, split), []
    # The vectors of one layer's heads, in float64, several times.
    copies = 8 * anatomy.n_heads * anatomy.d_model + 12 * len(split) * max(map(anatomy.n_neurons, split), default=0)
    found, margins = [], []
    for rows, logits, kept in recorded_passes(anatomy, own, sites, tokens.positions, copies):
        margin = tokens.difference(logits, rows)
        margins.append(require_finite(margin, "the margin", rows, axis=0))
        readout = readout_of(anatomy, tokens, rows, kept["resid_post"][len(anatomy.blocks) - 1])
        names, parts = [], []
        for some, values in split_components(anatomy, own, rows, tokens.positions, kept, readout, split):
            names += some
            parts.append(values)
        found.append(require_finite(torch.cat(parts, dim=1).cpu(), "a part of the margin", rows, axis=2))
    (parts, removed), margin = torch.cat(found, dim=2), torch.cat(margins)
    error = float(((parts.sum(dim=0) - margin).abs() / parts.abs().sum(dim=0).clamp_min(1e-12)).max())
    if not error <= (TOLERANCE if anatomy.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE):
        raise Inexact(f"the sum of the parts differs from the model's margin by {error:.1e} of their absolute sum")
    return LogitAttribution(tuple(names), parts, removed, margin, positions=tokens.positions, names=tokens.names)
