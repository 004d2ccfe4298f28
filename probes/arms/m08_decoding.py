"""M8, decoding: describe what linear probes read at labels, beside matched controls.

A probe shows what is decodable, not what is used: `probes.arms.m08_erasing` tests use. Each score has a
history-matched control (Hewitt and Liang 1909.03369, with functions of the same history instead of functions of the
token), the embedding, an untrained model and a code length. Parity only: see `probes.arms.registry`
(probes/README.md, Battery).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.das import untrained
from interp.erasure import residuals
from interp.models.resolve import raw_of
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.m08_concepts import Concept, concept_of
from probes.arms.m08_probes import Code, Standardised, online_codes, scores, split
from probes.evidence import PROMPTS, Evidence, Interval
from probes.intervals import LEVEL, clustered_proportion, mean

# Activations at the positions of a role, by layer.
Residuals = Mapping[int, Float[Tensor, "prompt place d_model"]]


@dataclass(frozen=True)
class Decoded:
    """The score of probes for one concept at the positions of a role, before one layer (n_layers: after the last).

    `measure` is "accuracy" (`chance`: share of the most common class) or "R2". `control` is the mean over matched
    controls; `selectivity` is score minus control, over the same prompts. `untrained` is the same probe on a model of
    the same configuration with random weights; None where it was not requested. Intervals are over held-out prompts.
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
        """Return a nested plain dictionary."""
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
    intact: Residuals | None = None,
) -> list[Decoded]:
    """Decode each concept at each layer, from the embedding (layer 0) to the last residual.

    `concepts` are those of `probes.arms.m08_concepts`. `baseline` adds the untrained model. Prompts are split at random
    into a training half and a held-out half; use 200 prompts or more. `intact`: the residuals at the role by layer, if
    they are known.
    Raises `ValueError` for a concept that the format does not have, and for fewer than 64 prompts.

    >>> [d.selectivity for d in decode(run.raw, run.sample(300, 20, seed=0), ["state"])]
    """
    wanted = [concept_of(name, batch, role, seed, controls) for name in concepts]
    if intact is None:
        intact = residuals(raw_of(model), batch, role, layers)
    trained = intact if layers is None else {layer: intact[layer] for layer in sorted(set(layers))}
    random = residuals(untrained(raw_of(model), seed), batch, role, layers) if baseline else None
    return _decode(trained, wanted, seed, random, level)


def measure_decoding(
    model: PreTrainedModel, batch: Batch, seed: int, intact: Residuals | None = None
) -> list[Evidence]:
    """Measure the decoding half of M8 at one length: prefix parity at input labels, in its most selective layer.

    The value is the accuracy of a probe for "state"; its control is that for the parity of random subsets of the same
    history. Decodability does not show use: see `measure_erasure`. `details` has every layer, and slot index and bit.
    `intact`: the residuals at input labels before every layer, if they are known.
    """
    intact = residuals(raw_of(model), batch, Role.INPUT_LABEL) if intact is None else intact
    decoded = decode(model, batch, layers=layers_that_vary(intact), seed=seed, intact=intact)
    best = max((d for d in decoded if d.concept == "state"), key=lambda d: d.selectivity.value)
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
        for d in decoded
    ]
    assert isinstance(best.length, int)
    return [
        Evidence(
            key=keys.DECODE_STATE,
            question=f"can a linear probe read prefix parity at input labels, before layer {best.layer}?",
            length=best.length,
            quantity=best.measure,
            value=best.score,
            control=best.control,
            n=best.prompts,
            details={"chance": best.chance, "probes": rows},
        )
    ]


def varying_layers(model: PreTrainedModel, batch: Batch, role: Role) -> list[int]:
    """Return the layers before which the residual at a role varies (0: the embedding).

    A token that is the same everywhere (`#`) has one embedding unless positions are added: nothing can be decoded or
    erased there.
    """
    return layers_that_vary(residuals(raw_of(model), batch, role))


def layers_that_vary(intact: Residuals) -> list[int]:
    """Return the layers whose residuals vary, as `varying_layers`."""
    return [
        layer for layer, x in intact.items() if float(x.flatten(0, 1).std(dim=0).max()) > 1e-6 * float(x.abs().max())
    ]


def decode_from(
    features: Mapping[int, Float[Tensor, "prompt place d_model"]],
    concept: Concept,
    seed: int = 0,
    random: Mapping[int, Float[Tensor, "prompt place d_model"]] | None = None,
    level: float = LEVEL,
) -> list[Decoded]:
    """Decode one concept from activations by layer, at every position of the concept's role; see `decode`."""
    return _decode(features, [concept], seed, random, level)


def _decode(
    features: Residuals, concepts: Sequence[Concept], seed: int, random: Residuals | None, level: float
) -> list[Decoded]:
    """Return `decode_from` of several concepts; those at the same places share standardised features."""
    size = len(concepts[0].values)
    if size < 64:
        raise ValueError(f"a probe that is split by prompt needs at least 64 prompts; got {size}")
    halves = split(size, seed)
    alike = defaultdict[tuple, list[int]](list)
    for i, concept in enumerate(concepts):
        alike[tuple(concept.places.tolist())].append(i)
    found = dict[tuple[int, int], Decoded]()
    for layer, captured in features.items():
        for numbers in alike.values():
            some, baseline = [concepts[i] for i in numbers], None if random is None else random[layer]
            for i, decoded in zip(numbers, _at_places(captured, baseline, some, layer, halves, level), strict=True):
                found[i, layer] = decoded
    return [found[i, layer] for i in range(len(concepts)) for layer in features]


def _at_places(
    captured: Tensor,
    random: Tensor | None,
    concepts: Sequence[Concept],
    layer: int,
    halves: tuple[Tensor, Tensor],
    level: float,
) -> list[Decoded]:
    """Return the scores of concepts at the same places, from residuals before one layer and an untrained model's."""
    (train, test), places = halves, concepts[0].places

    def scored(captured: Tensor, each: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return scores `[values test place]` of several values per concept, by probes on the same features."""
        x = captured[:, places]
        shared, found = Standardised.of(x[train], x[test]), dict[int, Tensor]()
        for classes in {c.classes for c in concepts}:
            which = [k for k, c in enumerate(concepts) if c.classes == classes]
            values = [(v[train], v[test]) for k in which for v in each[k]]
            own = torch.stack(scores(shared, values, classes)).split([len(each[k]) for k in which])
            found |= dict(zip(which, own, strict=True))
        return [found[k] for k in range(len(concepts))]

    own = scored(captured, [(c.values, *c.controls) for c in concepts])
    untrained_own = [None] * len(concepts) if random is None else scored(random, [(c.values,) for c in concepts])
    codes = _codes(captured[:, places], concepts)
    decoded = []
    for concept, found, baseline, code in zip(concepts, own, untrained_own, codes, strict=True):
        score, control = found[0], found[1:].mean(dim=0)
        decoded.append(
            Decoded(
                concept=concept.name,
                role=concept.role.words,
                layer=layer,
                length=concept.length,
                measure="accuracy" if concept.classes else "R2",
                score=_interval(score, concept, level),
                chance=chance_of(concept.rows(test)),
                control=_interval(control, concept, level),
                selectivity=mean((score - control).mean(dim=1), level),
                untrained=None if baseline is None else _interval(baseline[0], concept, level),
                code=code[0],
                control_code=code[1],
                prompts=len(test),
            )
        )
    return decoded


def _codes(
    features: Float[Tensor, "prompt place d_model"], concepts: Sequence[Concept]
) -> list[tuple[Code | None, Code | None]]:
    """Return the code lengths of each concept and of its first control; None for a number."""
    found = dict[int, tuple[Code | None, Code | None]]()
    for classes in {c.classes for c in concepts if c.classes}:
        which = [k for k, c in enumerate(concepts) if c.classes == classes]
        codes = online_codes(
            features, [v for k in which for v in (concepts[k].values, concepts[k].controls[0])], classes
        )
        found |= {k: (codes[2 * i], codes[2 * i + 1]) for i, k in enumerate(which)}
    return [found.get(k, (None, None)) for k in range(len(concepts))]


def chance_of(concept: Concept) -> float:
    """Return the share of the most common class; 0 for the R2 of a regression."""
    return float(concept.values.flatten().bincount().max()) / concept.values.numel() if concept.classes else 0.0


def _interval(score: Float[Tensor, "test place"], concept: Concept, level: float) -> Interval:
    """Return an interval over prompts. A mean over several controls is not a proportion, so it gets a t interval."""
    if concept.classes and ((score == 0) | (score == 1)).all():
        return clustered_proportion(score.bool(), level)
    return mean(score.mean(dim=1), level)
