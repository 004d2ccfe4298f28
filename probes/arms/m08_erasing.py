"""Is what can be decoded at labels used? It is erased there, and the answers tell. (M8 of science 2.1, causal half)

LEACE (Belrose et al. 2306.03819) changes activations as little as it can so that no linear probe finds the concept.
It is held against two controls: as many random directions of the whitened space in the same affine form, which keeps
the mean, and LEACE itself on functions of the same history that are of no use (`probes.arms.m08_concepts`).
For parity alone: `probes.batteries` leaves it out for addition, and says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.erasure import Eraser, answers_without, residuals
from interp.models.bridge import raw_of
from interp.patching import accuracy, margin
from interp.tasks import Batch, Role, counterfactual
from interp.tasks.layout import generator
from probes.arms.m08_concepts import Concept, concept_of
from probes.arms.m08_decoding import chance_of, held_out, varying_layers
from probes.evidence import PROMPTS, Evidence, Interval
from probes.intervals import LEVEL, clustered_proportion, mean, ratio

# Least share of the largest variance for a direction that LEACE may use (below, float32 rounding is amplified), and
# for one that a control may erase (below, it would move nothing).
SUPPORT, VARIES = 1e-10, 1e-6


@dataclass(frozen=True)
class Loss:
    """What an erasure does to the answers, over prompts.

    `lost` is step accuracy lost. `effect` is rho (science 2): of an answer that is undone altogether, and not
    turned round, about .5. `moved` is the mean absolute change of the margin in the same unit: what moves the
    margin both ways shows here alone.
    """

    lost: Interval
    effect: Interval
    moved: Interval


@dataclass(frozen=True)
class Erased:
    """What erasing a concept at the positions of a role before some layers does.

    `before` and `left` are a probe's accuracies on held-out prompts, intact and erased (of several layers, at the
    last); `chance` is the commonest class's share. `loss` is the concept's, `random` that of random directions and
    `matched` that of the concept's history-matched controls, both means over draws. `displacement` is how far
    activations at the last of the layers are moved, in units of their spread, by LEACE and by random erasure.

    Where the concept is not decodable, LEACE erases noise, and a loss beyond `random` says nothing: that is what
    `matched` is for.
    """

    concept: str
    role: str
    layers: tuple[int, ...]
    length: int
    before: Interval
    left: Interval
    chance: float
    loss: Loss
    random: Loss
    matched: Loss
    displacement: float
    displacement_random: float
    draws: int
    n: int
    unit: str = PROMPTS

    @property
    def decodable(self) -> bool:
        """Whether the intact run has the concept, by the whole interval."""
        return self.before.low > self.chance

    def to_json(self) -> dict:
        """A nested plain dictionary."""
        return {**asdict(self), "decodable": self.decodable}


def erase_labels(model: PreTrainedModel, fitted: Batch, batch: Batch, seed: int) -> list[Evidence]:
    """M8 on one length, its causal half: prefix parity is erased (LEACE) at input labels, where it hurts most.

    Accuracy lost, against erasing as many random directions; `details` has every layer and the erasure of
    history-matched controls.
    """
    inner = range(raw_of(model).config.num_hidden_layers)
    layers = [layer for layer in varying_layers(model, fitted, Role.INPUT_LABEL) if layer in inner]
    found = erase(model, fitted, batch, layers=layers, seed=seed)
    worst = max(found, key=lambda e: e.loss.lost.value)
    where = ", ".join(map(str, worst.layers))
    question = f"is anything lost when prefix parity is erased at input labels before layer {where}?"
    rows = [
        {
            "layers": list(e.layers),
            "decodable": e.decodable,
            "before": e.before.value,
            "left": e.left.value,
            "lost": e.loss.lost.value,
            "random": e.random.lost.value,
            "matched": e.matched.lost.value,
        }
        for e in found
    ]
    return [
        Evidence(
            "M8",
            "erase state at input labels",
            question,
            worst.length,
            "accuracy lost",
            worst.loss.lost,
            worst.random.lost,
            worst.n,
            details={"erasures": rows},
        )
    ]


def erase(
    model: PreTrainedModel,
    fitted: Batch,
    batch: Batch,
    concept: str = "state",
    role: Role = Role.INPUT_LABEL,
    layers: Collection[int] | None = None,
    draws: int = 3,
    seed: int = 0,
    level: float = LEVEL,
) -> list[Erased]:
    """Erasers fitted on the prompts of `fitted` are applied to those of `batch`, other prompts of the same format.

    One result for each layer (None: all). Where the concept is decodable at several of them, one more for all of
    those in one run, whose erasers are fitted layer after layer with those before in place, lest the concept be
    computed anew. Erasers act at the positions of the role at every step; they are fitted on those at which the
    concept has a value. rho is at one random step of each prompt.
    Raises `ValueError` for a format that is not parity or lacks the concept, for a concept that is a number, and
    where the model ignores the bits.

    >>> erase(run.raw, run.sample(300, 20, seed=0), run.sample(200, 20, seed=1))[1].loss.lost
    """
    for name, prompts in (("fitted", fitted), ("batch", batch)):
        if prompts.format.task != "parity" or "direct" in prompts.format.name:
            raise ValueError(f"erasing needs the steps of parity, whose margin is defined; {name} is {prompts.format}")
    if str(fitted.format) != str(batch.format):
        raise ValueError(f"erasers fitted on {fitted.format} say nothing of {batch.format}")
    if draws < 1:
        raise ValueError(f"at least one draw of the controls is needed; got {draws}")
    raw = raw_of(model)
    wanted = sorted(range(raw.config.num_hidden_layers) if layers is None else set(layers))
    train = concept_of(concept, fitted, role, seed, controls=draws)
    test = concept_of(concept, batch, role, seed, controls=draws)
    if train.classes == 0:
        raise ValueError(f"{concept!r} is a number, not a class; erase one of state, bit, previous bit or label")
    here, there = residuals(raw, fitted, role, wanted), residuals(raw, batch, role, wanted)
    before = {layer: _probe(here[layer], there[layer], train, test, level) for layer in wanted}
    chance = chance_of(test)
    arms = [(layer,) for layer in wanted]
    decodable = tuple(layer for layer in wanted if before[layer].low > chance)
    arms += [decodable] if len(decodable) > 1 else []
    gen = generator(seed)
    fits = {arm: _fit(raw, fitted, role, arm, here, train, train.values) for arm in arms}
    runs: dict[str, Mapping[int, Eraser]] = {}
    for arm, fit in fits.items():
        runs[f"{arm} loss"] = {layer: f.eraser for layer, f in fit.items()}
        for i, values in enumerate(train.controls):
            runs[f"{arm} random {i}"] = {layer: f.random(gen) for layer, f in fit.items()}
            rival = _fit(raw, fitted, role, arm, here, train, values)
            runs[f"{arm} matched {i}"] = {layer: f.eraser for layer, f in rival.items()}
    measured = _measured(raw, batch, role, runs, gen)
    found = []
    for arm in arms:
        losses = {
            kind: _loss([m for name, m in measured.items() if name.startswith(f"{arm} {kind}")], level)
            for kind in ("loss", "random", "matched")
        }
        last, eraser = arm[-1], fits[arm][arm[-1]].eraser
        x, y = here[last], there[last]
        if len(arm) > 1:  # what the last eraser meets, where others act before it
            earlier = {layer: fits[arm][layer].eraser for layer in arm[:-1]}
            x, y = (residuals(raw, b, role, [last], earlier)[last] for b in (fitted, batch))
        others = [runs[f"{arm} random {i}"][last] for i in range(draws)]
        found.append(
            Erased(
                concept,
                role.words,
                arm,
                int(batch.step.max()),
                before[last],
                _probe(eraser(x.double()), eraser(y.double()), train, test, level),
                chance,
                losses["loss"],
                losses["random"],
                losses["matched"],
                displacement=_displacement(eraser, y),
                displacement_random=sum(_displacement(other, y) for other in others) / draws,
                draws=draws,
                n=len(batch),
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class _Fitted:
    """LEACE's eraser, and the directions in which activations vary (columns) with their standard deviations."""

    eraser: Any
    directions: Float[Tensor, "d_model varying"]
    spread: Float[Tensor, " varying"]

    def random(self, gen: torch.Generator) -> Any:
        """Erases as many random directions of the whitened space: LEACE's formula, with others for the concept's."""
        from concept_erasure import LeaceEraser

        rank = int(torch.linalg.matrix_rank(self.eraser.proj_right))
        u = torch.linalg.qr(torch.randn(len(self.spread), rank, generator=gen, dtype=self.spread.dtype)).Q
        colour, whiten = self.directions * self.spread, self.directions / self.spread
        return LeaceEraser(colour @ u, (whiten @ u).mT, self.eraser.bias)


def _fit(
    raw: PreTrainedModel,
    fitted: Batch,
    role: Role,
    layers: Sequence[int],
    intact: Mapping[int, Tensor],
    concept: Concept,
    values: Tensor,
) -> dict[int, _Fitted]:
    """Erasers of each layer in turn, on activations that the earlier ones have acted on."""
    found: dict[int, _Fitted] = {}
    for layer in layers:
        erasers = {earlier: f.eraser for earlier, f in found.items()}
        features = residuals(raw, fitted, role, [layer], erasers)[layer] if erasers else intact[layer]
        found[layer] = _leace(features, concept, values)
    return found


def _leace(features: Float[Tensor, "prompt place d_model"], concept: Concept, values: Tensor) -> _Fitted:
    from concept_erasure import LeaceEraser, LeaceFitter

    x, y = features[:, concept.places].double().flatten(0, 1), values.flatten()
    z = y.double() if concept.classes == 2 else torch.nn.functional.one_hot(y, concept.classes).double()
    variance, directions = torch.linalg.eigh(x.T.cov())
    # Shrinkage would leave a trace of the concept, which a probe that standardises finds again.
    support = directions[:, variance > SUPPORT * variance[-1]]
    inner = LeaceFitter.fit(x @ support, z, shrinkage=False).eraser
    eraser = LeaceEraser(support @ inner.proj_left, inner.proj_right @ support.mT, x.mean(dim=0))
    varies = variance > VARIES * variance[-1]
    return _Fitted(eraser, directions[:, varies], variance[varies].sqrt())


def _measured(
    raw: PreTrainedModel, batch: Batch, role: Role, runs: Mapping[str, Mapping[int, Eraser]], gen: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    """Per prompt of each run: accuracy lost, and the change of the margin with what it is to be divided by."""
    n = int(batch.step.max())
    step = torch.randint(1, n + 1, (len(batch),), generator=gen)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    answer = batch.tokens[torch.arange(len(batch)), torch.stack([batch.at(Role.OUTPUT, int(s))[0] for s in step])]
    metrics = [accuracy(batch), margin(batch, step, answer, symbols.sum() - answer)]
    found = answers_without(raw, batch, role, runs, metrics)
    right, clean = found.pop("intact")
    # What an answer is held against: the same prompt with that step's bit flipped, the scratchpad kept.
    edited = answers_without(raw, counterfactual.flip_input(batch, step), role, {}, metrics)["intact"][1]
    return {
        name: {"lost": right - ours, "change": clean - margins, "full": clean - edited}
        for name, (ours, margins) in found.items()
    }


def _loss(runs: Sequence[Mapping[str, Tensor]], level: float) -> Loss:
    """Over prompts, after a mean over the draws."""
    lost, change = (torch.stack([run[what] for run in runs]) for what in ("lost", "change"))
    full = runs[0]["full"]
    effect, moved = (ratio(x.mean(dim=0), full, level) for x in (change, change.abs()))
    return Loss(mean(lost.mean(dim=0), level), effect, moved)


def _probe(train: Tensor, test: Tensor, fitted: Concept, tried: Concept, level: float) -> Interval:
    """Accuracy on the test prompts of a probe fitted on the others."""
    right = held_out(train[:, fitted.places], fitted.values, test[:, tried.places], tried.values, fitted.classes)
    return clustered_proportion(right.bool(), level)


def _displacement(eraser: Eraser, features: Float[Tensor, "prompt place d_model"]) -> float:
    x = features.double()
    moved = (eraser(x) - x).square().sum(dim=-1).mean()
    return float((moved / (x - x.mean(dim=(0, 1))).square().sum(dim=-1).mean()).sqrt())
