"""M8, erasing: test whether what is decodable at labels is used, by erasing it there.

LEACE (`probes.arms.m08_erasers`) erases the concept at label positions. Two controls: as many random directions of
the whitened space in the same affine form, which keeps the mean, and LEACE on functions of the same history that are
of no use (`probes.arms.m08_concepts`). Parity only: see `probes.arms.registry` (probes/README.md, Battery).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interp.erasure import Eraser, answers_without, residuals
from interp.models.resolve import raw_of
from interp.patching import accuracy, margin
from interp.tasks import Batch, Role, counterfactual
from interp.tasks.layout import generator
from probes import keys
from probes.arms.m08_concepts import Concept, concept_of
from probes.arms.m08_decoding import Residuals, chance_of, layers_that_vary
from probes.arms.m08_erasers import Moments, displacement, fit_erasers
from probes.arms.m08_probes import held_out
from probes.evidence import PROMPTS, Evidence, Interval
from probes.intervals import LEVEL, clustered_proportion, mean, ratio


@dataclass(frozen=True)
class Loss:
    """The effect of an erasure on the answers, over prompts.

    `lost` is the step accuracy lost. `effect` is rho: about .5 for a margin that becomes zero, 1 for one that
    reverses. `moved` is the mean absolute change of the margin in the same unit; it also shows changes that cancel.
    """

    lost: Interval
    effect: Interval
    moved: Interval


@dataclass(frozen=True)
class Erased:
    """The result of erasing a concept at the positions of a role before some layers.

    `before` and `left` are a probe's accuracies on held-out prompts, before and after the erasure (of several layers,
    at the last); `chance` is the share of the most common class. `loss` is the effect of erasing the concept; `random`
    that of random directions and `matched` that of the history-matched controls, both means over draws.
    `displacement` and `displacement_random` are how far LEACE and random erasure move the activations at the last of
    the layers, in units of their spread.

    Where the concept is not decodable, LEACE erases noise and a loss beyond `random` is not informative; compare with
    `matched` there.
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
        """Whether a probe decodes the concept before the erasure, by its whole interval."""
        return self.before.low > self.chance

    def to_json(self) -> dict:
        """Return a nested plain dictionary."""
        return {**asdict(self), "decodable": self.decodable}


def measure_erasure(
    model: PreTrainedModel, fitted: Batch, batch: Batch, seed: int, intact: Residuals | None = None
) -> list[Evidence]:
    """Measure the causal half of M8 at one length: erase prefix parity at input labels, where that loses most.

    The value is the accuracy lost; its control is the loss from erasing as many random directions. `details` has every
    layer and the erasure of history-matched controls. `intact`: the residuals of `fitted` at input labels before every
    layer, if they are known.
    """
    n_layers = raw_of(model).config.num_hidden_layers
    intact = residuals(raw_of(model), fitted, Role.INPUT_LABEL) if intact is None else intact
    layers = [layer for layer in layers_that_vary(intact) if layer < n_layers]
    erased = erase(model, fitted, batch, layers=layers, seed=seed, intact=intact)
    worst = max(erased, key=lambda e: e.loss.lost.value)
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
        for e in erased
    ]
    return [
        Evidence(
            key=keys.ERASE_STATE,
            question=f"prefix parity is erased at input labels before layer {', '.join(map(str, worst.layers))}: "
            "what is lost?",
            length=worst.length,
            quantity="accuracy lost",
            value=worst.loss.lost,
            control=worst.random.lost,
            n=worst.n,
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
    intact: Residuals | None = None,
) -> list[Erased]:
    """Fit erasers on the prompts of `fitted` and apply them to those of `batch`, other prompts of the same format.

    Return one result per layer (None: all). Where the concept is decodable at several layers, one more result erases
    at all of those in one run; their erasers are fitted in order with the earlier ones applied, so that the concept is
    not recomputed. Erasers act at the positions of the role at every step; they are fitted on those at which the
    concept has a value. rho is at one random step of each prompt. `intact`: the residuals of `fitted` at the role by
    layer, if they are known.
    Raises `ValueError` for a format that is not parity or lacks the concept, for a concept that is a number, and
    for a model that ignores the bits.

    >>> erase(run.raw, run.sample(300, 20, seed=0), run.sample(200, 20, seed=1))[1].loss.lost
    """
    for name, prompts in (("fitted", fitted), ("batch", batch)):
        if prompts.format.task != "parity" or "direct" in prompts.format.name:
            raise ValueError(f"erasing needs the steps of parity, whose margin is defined; {name} is {prompts.format}")
    if str(fitted.format) != str(batch.format):
        raise ValueError(f"erasers fitted on {fitted.format} do not apply to {batch.format}")
    if draws < 1:
        raise ValueError(f"at least one draw of the controls is needed; got {draws}")
    raw = raw_of(model)
    wanted = sorted(range(raw.config.num_hidden_layers) if layers is None else set(layers))
    train = concept_of(concept, fitted, role, seed, controls=draws)
    test = concept_of(concept, batch, role, seed, controls=draws)
    if train.classes == 0:
        raise ValueError(f"{concept!r} is a number, not a class; erase one of state, bit, previous bit or label")
    fitted_by = residuals(raw, fitted, role, wanted) if intact is None else intact
    tested_by = residuals(raw, batch, role, wanted)
    before = {layer: _probe(fitted_by[layer], tested_by[layer], train, test, level) for layer in wanted}
    chance = chance_of(test)
    groups = [(layer,) for layer in wanted]
    decodable = tuple(layer for layer in wanted if before[layer].low > chance)
    groups += [decodable] if len(decodable) > 1 else []
    gen = generator(seed)
    moments = {layer: Moments.of(fitted_by[layer], train) for layer in wanted}
    fits = {group: fit_erasers(raw, fitted, role, group, moments, train, train.values) for group in groups}
    runs: dict[str, Mapping[int, Eraser]] = {}
    for group, fit in fits.items():
        runs[f"{group} loss"] = {layer: f.eraser for layer, f in fit.items()}
        for i, values in enumerate(train.controls):
            runs[f"{group} random {i}"] = {layer: f.random(gen) for layer, f in fit.items()}
            control = fit_erasers(raw, fitted, role, group, moments, train, values)
            runs[f"{group} matched {i}"] = {layer: f.eraser for layer, f in control.items()}
    effects = _effects(raw, batch, role, runs, gen)
    erased = []
    for group in groups:
        losses = {
            kind: _loss([e for name, e in effects.items() if name.startswith(f"{group} {kind}")], level)
            for kind in ("loss", "random", "matched")
        }
        last, eraser = group[-1], fits[group][group[-1]].eraser
        x, y = fitted_by[last], tested_by[last]
        if len(group) > 1:  # the last eraser acts on activations that the others changed
            earlier = {layer: fits[group][layer].eraser for layer in group[:-1]}
            x, y = (residuals(raw, b, role, [last], earlier)[last] for b in (fitted, batch))
        others = [runs[f"{group} random {i}"][last] for i in range(draws)]
        erased.append(
            Erased(
                concept=concept,
                role=role.words,
                layers=group,
                length=int(batch.step.max()),
                before=before[last],
                left=_probe(eraser(x.double()), eraser(y.double()), train, test, level),
                chance=chance,
                loss=losses["loss"],
                random=losses["random"],
                matched=losses["matched"],
                displacement=displacement(eraser, y),
                displacement_random=sum(displacement(other, y) for other in others) / draws,
                draws=draws,
                n=len(batch),
            )
        )
    return erased


def _effects(
    raw: PreTrainedModel, batch: Batch, role: Role, runs: Mapping[str, Mapping[int, Eraser]], gen: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    """Return per run and prompt: accuracy lost, change of the margin, and the full effect that normalises it."""
    n = int(batch.step.max())
    step = torch.randint(1, n + 1, (len(batch),), generator=gen)
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    answer = batch.tokens[torch.arange(len(batch)), torch.stack([batch.at(Role.OUTPUT, int(s))[0] for s in step])]
    metrics = [accuracy(batch), margin(batch, step, answer, symbols.sum() - answer)]
    by_run = answers_without(raw, batch, role, runs, metrics)
    right, clean = by_run.pop("intact")
    # The reference edit: the same prompt with that step's bit flipped and the scratchpad kept.
    edited = answers_without(raw, counterfactual.flip_input(batch, step), role, {}, metrics)["intact"][1]
    return {
        name: {"lost": right - erased, "change": clean - margins, "full": clean - edited}
        for name, (erased, margins) in by_run.items()
    }


def _loss(runs: Sequence[Mapping[str, Tensor]], level: float) -> Loss:
    """Return the mean over draws, with intervals over prompts."""
    lost, change = (torch.stack([run[name] for run in runs]) for name in ("lost", "change"))
    full = runs[0]["full"]
    effect, moved = (ratio(x.mean(dim=0), full, level) for x in (change, change.abs()))
    return Loss(mean(lost.mean(dim=0), level), effect, moved)


def _probe(train: Tensor, test: Tensor, fitted: Concept, tried: Concept, level: float) -> Interval:
    """Return the accuracy on `test` of a probe that is fitted on `train`."""
    right = held_out(train[:, fitted.places], fitted.values, test[:, tried.places], tried.values, fitted.classes)
    return clustered_proportion(right.bool(), level)
