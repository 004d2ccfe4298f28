"""What can be read off linearly at labels, and is it more than any such probe would find? (M8 of science 2.1)

A probe alone shows what is decodable, never what is used: `probes.arms.m08_erasing` asks the second question. Its score
stands beside a history-matched control (Hewitt and Liang 1909.03369, with functions of the same history in place of
labels keyed to the token, which score .99 everywhere), the embedding, an untrained model, and a code length.
For parity alone: `probes.batteries` leaves it out for addition, and says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.das import untrained
from interp.erasure import residuals
from interp.models.bridge import raw_of
from interp.tasks import Batch, Role
from interp.tasks.layout import generator
from probes.arms.m08_concepts import Concept, concept_of
from probes.evidence import PROMPTS, Evidence, Interval
from probes.intervals import LEVEL, clustered_proportion, mean

# Shares of the prompts after which the probe is fitted anew, each portion coded by the probe before it.
PORTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Weight of the uniform code mixed into every probability: a class not seen yet must cost a finite number of bits.
UNIFORM_SHARE = 1e-3
REGULARISATION = 1.0
# Least spread of a dimension, as a share of the largest, that is more than rounding in float32.
FAINTEST = 1e-6


@dataclass(frozen=True)
class Code:
    """Online code length (Voita and Titov 2003.12298) of `labels` values, and that of the uniform code, in bits."""

    bits: float
    uniform: float
    labels: int

    @property
    def compression(self) -> float:
        """How many times shorter than the uniform code; 1 where nothing is learned."""
        return self.uniform / self.bits


@dataclass(frozen=True)
class Decoded:
    """How well one concept is decoded at the positions of a role before one layer (n_layers: after the last).

    `measure` is "accuracy" (`chance`: share of the commonest class) or "R2". `control` is the mean over matched
    controls, functions of the same history; `selectivity` is score less control, over the same prompts.
    `untrained` is the same probe on a model of the same configuration with random weights, None where it was
    not asked for. Intervals are over held-out prompts.
    """

    concept: str
    role: str
    layer: int
    length: int | tuple[int, int]
    measure: str
    score: Interval
    chance: float
    control: Interval
    selectivity: Interval
    untrained: Interval | None
    code: Code | None
    control_code: Code | None
    prompts: int
    unit: str = PROMPTS

    def to_json(self) -> dict:
        """A nested plain dictionary."""
        return asdict(self)


def decode(
    model: PreTrainedModel,
    batch: Batch,
    concepts: Sequence[str] = ("state", "bit", "previous bit", "slot"),
    role: Role = Role.INPUT_LABEL,
    layers: Collection[int] | None = None,
    seed: int = 0,
    controls: int = 3,
    baseline: bool = True,
    level: float = LEVEL,
) -> list[Decoded]:
    """Each concept at each layer, embedding (layer 0) and last residual included.

    `concepts` are those of `probes.arms.m08_concepts`. `baseline` adds the untrained model. Prompts are split at random
    into a training half and a held-out half. 200 prompts or more are wanted.
    Raises `ValueError` for a concept that the format does not have, and for fewer than 64 prompts.

    >>> [d.selectivity for d in decode(run.raw, run.sample(300, 20, seed=0), ["state"])]
    """
    wanted = [concept_of(name, batch, role, seed, controls) for name in concepts]
    held = residuals(raw_of(model), batch, role, layers)
    random = residuals(untrained(raw_of(model), seed), batch, role, layers) if baseline else None
    return [found for concept in wanted for found in decode_from(held, concept, seed, random, level)]


def decode_labels(model: PreTrainedModel, batch: Batch, seed: int) -> list[Evidence]:
    """M8 on one length, its decoding half: prefix parity at input labels, where it is most selective.

    "state" is the probe's accuracy, its control that for the parity of random subsets of the same history. That it
    is decodable shows no use of it: `erase_labels` does. `details` has every layer, slot index and bit too.
    """
    layers = varying_layers(model, batch, Role.INPUT_LABEL)
    found = decode(model, batch, layers=layers, seed=seed)
    best = max((d for d in found if d.concept == "state"), key=lambda d: d.selectivity.value)
    question = f"can prefix parity be read off input labels, before layer {best.layer} of all?"
    rows = [
        {
            "concept": d.concept,
            "layer": d.layer,
            "measure": d.measure,
            "score": d.score.value,
            "chance": d.chance,
            "control": d.control.value,
            "untrained": d.untrained and d.untrained.value,
            "compression": d.code and d.code.compression,
        }
        for d in found
    ]
    assert isinstance(best.length, int)
    return [
        Evidence(
            "M8",
            "state at input labels",
            question,
            best.length,
            best.measure,
            best.score,
            best.control,
            best.prompts,
            details={"chance": best.chance, "probes": rows},
        )
    ]


def varying_layers(model: PreTrainedModel, batch: Batch, role: Role) -> list[int]:
    """Layers before which the residual at a role is not one and the same vector (0: the embedding).

    A token that is the same everywhere (`#`) is embedded alike everywhere unless positions are added: there is
    nothing to decode or erase there.
    """
    held = residuals(raw_of(model), batch, role)
    return [layer for layer, x in held.items() if float(x.flatten(0, 1).std(dim=0).max()) > 1e-6 * float(x.abs().max())]


def decode_from(
    features: Mapping[int, Float[Tensor, "prompt place d_model"]],
    concept: Concept,
    seed: int = 0,
    random: Mapping[int, Float[Tensor, "prompt place d_model"]] | None = None,
    level: float = LEVEL,
) -> list[Decoded]:
    """One concept from activations by layer, at every position of the concept's role; see `decode`."""
    size = len(concept.values)
    if size < 64:
        raise ValueError(f"a probe that is split by prompt needs at least 64 prompts; got {size}")
    train, test = split(size, seed)
    found = []
    for layer, captured in features.items():

        def score_of(values: Tensor, captured: Tensor = captured) -> Tensor:
            x = captured[:, concept.places]
            return held_out(x[train], values[train], x[test], values[test], concept.classes)

        score = score_of(concept.values)
        rival = torch.stack([score_of(values) for values in concept.controls]).mean(dim=0)
        other = None if random is None else score_of(concept.values, random[layer])
        codes: list[Code | None] = [None, None]
        if concept.classes:
            x = captured[:, concept.places]
            codes = [online_code(x, values, concept.classes) for values in (concept.values, concept.controls[0])]
        found.append(
            Decoded(
                concept.name,
                concept.role.words,
                layer,
                concept.length,
                "accuracy" if concept.classes else "R2",
                _interval(score, concept, level),
                chance_of(concept.rows(test)),
                _interval(rival, concept, level),
                mean((score - rival).mean(dim=1), level),
                None if other is None else _interval(other, concept, level),
                codes[0],
                codes[1],
                len(test),
            )
        )
    return found


def split(size: int, seed: int) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """Prompts in two random halves."""
    order = torch.randperm(size, generator=generator(seed))
    return order[: size // 2].sort().values, order[size // 2 :].sort().values


def held_out(
    fitted: Float[Tensor, "train place d_model"],
    values: Tensor,
    tested: Float[Tensor, "test place d_model"],
    true: Tensor,
    classes: int,
) -> Float[Tensor, "test place"]:
    """What a probe fitted on some prompts scores on others: 1 or 0 for right or wrong, or a share of R2.

    A regression's share is 1 - error^2 / variance, whose mean over prompts is R2.
    """
    probe = _fit(fitted, values, classes)
    guess = torch.from_numpy(probe.estimator.predict(probe.standardised(tested))).reshape(true.shape).double()
    if classes:
        return (guess == true).double()
    return 1 - (guess - true) ** 2 / true.double().var(unbiased=False)


def chance_of(concept: Concept) -> float:
    """The share of the commonest class; 0 for a regression's R2."""
    return float(concept.values.flatten().bincount().max()) / concept.values.numel() if concept.classes else 0.0


def online_code(
    features: Float[Tensor, "prompt place d_model"], values: Int[Tensor, "prompt place"], classes: int
) -> Code:
    """The bits that it takes to send the values to someone who has the features, by a probe that learns on the way.

    The first portion of the prompts is sent by the uniform code, each later one by the probe fitted on all before.

    >>> online_code(noise, coin_flips, classes=2).compression  # about 1
    """
    ends = sorted({max(1, round(share * len(values))) for share in PORTIONS})
    uniform = float(np.log2(classes))
    bits = uniform * values[: ends[0]].numel()
    for start, end in pairwise(ends):
        before, now = values[:start], values[start:end]
        if len(before.unique()) < 2:
            bits += uniform * now.numel()
            continue
        probe = _fit(features[:start], before, classes)
        known = {int(c): column for column, c in enumerate(probe.estimator.classes_)}
        p = probe.estimator.predict_proba(probe.standardised(features[start:end]))
        columns = [known.get(v, -1) for v in now.flatten().tolist()]
        right = np.where(np.array(columns) < 0, 0.0, p[np.arange(len(p)), columns])
        bits -= float(np.log2((1 - UNIFORM_SHARE) * right + UNIFORM_SHARE / classes).sum())
    return Code(bits, uniform * values.numel(), values.numel())


@dataclass(frozen=True, eq=False)
class _Probe:
    """A fitted estimator behind the standardisation that it was fitted with."""

    estimator: Any
    mean: Float[np.ndarray, " d_model"]
    scale: Float[np.ndarray, " d_model"]

    def standardised(self, features: Float[Tensor, "prompt place d_model"]) -> Float[np.ndarray, "row d_model"]:
        return (_rows(features) - self.mean) * self.scale


def _fit(features: Tensor, values: Tensor, classes: int) -> _Probe:
    from sklearn.linear_model import LogisticRegression, Ridge

    x, y = _rows(features), values.flatten().numpy()
    if classes and len(np.unique(y)) < 2:
        raise ValueError("all values to decode are the same: there is nothing to learn")
    spread = x.std(axis=0)
    # Rounding must not be blown up to a feature, as scikit-learn's StandardScaler does after an erasure.
    scale = np.where(spread > FAINTEST * spread.max(), 1 / np.maximum(spread, 1e-300), 0.0)
    # Newton's method needs few steps and never stops early on separable data; its matrix grows with the classes.
    solver = "newton-cholesky" if classes == 2 else "lbfgs"
    made = LogisticRegression(C=REGULARISATION, solver=solver, max_iter=1000, tol=1e-3) if classes else Ridge()
    probe = _Probe(made, x.mean(axis=0), scale)
    made.fit(probe.standardised(features), y)
    return probe


def _rows(features: Tensor) -> np.ndarray:
    return features.double().flatten(0, 1).numpy()


def _interval(score: Float[Tensor, "test place"], concept: Concept, level: float) -> Interval:
    """Over prompts; a mean of several controls is no proportion of one set of trials."""
    if concept.classes and ((score == 0) | (score == 1)).all():
        return clustered_proportion(score.bool(), level)
    return mean(score.mean(dim=1), level)
