"""Effects of the battery's interventions on planted models, computed independently at one random step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from interp.forward import readout
from interp.models.anatomy import anatomy_of
from interp.patching import Knockout, accuracy, knock_out
from interp.patching.editing import forward_with_edits
from interp.patching.knockouts import Mode
from interp.tasks import Batch, Role, counterfactual, parity, sample
from probes.planted import Planted


@dataclass(frozen=True)
class Effects:
    """Shares of the margin: 0 is no effect, 1 is the effect of editing the bit.

    `follows_state`: how often, after the swap of input labels, the answer is the one of the partner's step.
    `removed`: accuracy by mode when outputs may not look at input labels after layer 0.
    """

    accuracy: float
    swap_inputs: float
    swap_outputs: float
    follows_state: float
    history: float
    history_at_labels: float
    rename: float
    rename_held_out: float
    removed: dict[str, float]


@torch.no_grad()
def effects(planted: Planted, length: int = 8, prompts: int = 64, seed: int = 0) -> Effects:
    x, step, partner, earlier = drawn(planted, length, prompts, seed)
    base = margin(planted, x, x, step)
    full = base - margin(planted, counterfactual.flip_input(x, step), x, step)

    def share(do: Batch) -> float:
        return float((base - margin(planted, do, x, step)).mean() / full.mean())

    swapped = counterfactual.swap_labels(x, step, partner)
    answers = parity.read(x).parities
    rows = torch.arange(len(x))
    same = answers[rows, step - 1] == answers[rows, partner - 1]
    history = counterfactual.flip_input(x, earlier)
    at_labels = margin_of(planted, final_with_values(planted, x, history), x, step)
    knockouts = {
        mode: Knockout(Role.INPUT_LABEL, Role.OUTPUT_LABEL, tuple(range(1, layers(planted))), mode=mode)
        for mode in get_args(Mode)
    }
    removed = knock_out(planted.model, x, knockouts, accuracy(x)).values.float().mean(dim=-1)
    return Effects(
        accuracy=float((base > 0).float().mean()),
        swap_inputs=share(swapped),
        swap_outputs=share(counterfactual.swap_labels(x, step, partner, role=Role.OUTPUT_LABEL)),
        follows_state=float(((margin(planted, swapped, x, step) > 0) == same).float().mean()),
        history=share(history),
        history_at_labels=float((base - at_labels).mean() / full.mean()),
        rename=share(counterfactual.rename_labels(x, seed + 1)),
        rename_held_out=share(counterfactual.rename_labels(x, seed + 1, held_out=True)),
        removed=dict(zip(knockouts, removed.tolist(), strict=True)),
    )


def drawn(planted: Planted, length: int, prompts: int, seed: int) -> tuple[Batch, Tensor, Tensor, Tensor]:
    """Return prompts, and for each a step, one with the other bit, and one before it."""
    x = sample("parity-aligned", prompts, length, seed, planted.vocabulary)
    bits, gen = parity.read(x).bits, torch.Generator().manual_seed(seed)
    step = torch.randint(2, length, (prompts,), generator=gen)
    differs = bits != bits.gather(1, step.unsqueeze(1))
    partner = torch.where(differs, torch.rand(bits.shape, generator=gen), -1.0).argmax(dim=1)
    earlier = (torch.rand(prompts, generator=gen) * step).long()
    good = differs.any(dim=1)
    return x.rows(good), step[good] + 1, partner[good] + 1, earlier[good] + 1


def layers(planted: Planted) -> int:
    return planted.model.config.num_hidden_layers


def margin(planted: Planted, batch: Batch, original: Batch, step: Tensor) -> Tensor:
    """Signed by the original answer."""
    logits = readout(planted.model, batch, batch.at(Role.OUTPUT)).logits
    return signed(logits, original, step)


@torch.no_grad()
def margin_of(planted: Planted, final: Tensor, original: Batch, step: Tensor) -> Tensor:
    """The same, from the last residual."""
    logits = anatomy_of(planted.model).unembed(final[:, original.at(Role.OUTPUT) - 1])
    return signed(logits[..., original.vocabulary.tokens(original.format.outputs)], original, step)


def signed(logits: Tensor, original: Batch, step: Tensor) -> Tensor:
    rows = torch.arange(len(original))
    sign = 2.0 * parity.read(original).parities[rows, step - 1] - 1
    return sign * (logits[rows, step - 1, 1] - logits[rows, step - 1, 0])


def final_with_values(planted: Planted, base: Batch, source: Batch) -> Tensor:
    """The last residual of `base`, with the values of input labels from `source` and attention frozen (M5)."""
    anatomy, at = anatomy_of(planted.model), base.at(Role.INPUT_LABEL)
    every = range(layers(planted))
    _, own = forward_with_edits(anatomy, anatomy.embed(base.tokens), keep=[("pattern", i) for i in every])
    _, other = forward_with_edits(anatomy, anatomy.embed(source.tokens), keep=[("v", i) for i in every])
    edits = {}
    for i in every:
        edits["pattern", i] = lambda x, _, kept=own["pattern", i]: kept.clone()
        edits["v", i] = lambda x, _, kept=other["v", i]: x.index_copy(1, at, kept[:, at])
    return forward_with_edits(anatomy, anatomy.embed(base.tokens), edits=edits)[0]
