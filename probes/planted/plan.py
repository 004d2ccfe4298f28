"""The plan of a planted model, and what is true of the model by construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch

from interp.tasks.layout import generator
from probes.planted.backends import ARCHITECTURES
from probes.planted.families import FAMILIES, MIXED, WITH_SINK
from probes.planted.mechanisms import BUILDERS, OUTSIDE_BUILDERS
from probes.planted.symbols import LONGEST

MECHANISMS: tuple[str, ...] = tuple(BUILDERS)
# Mechanisms that can be planted and are no part of the calibration.
OUTSIDE: tuple[str, ...] = tuple(OUTSIDE_BUILDERS)
ARCHITECTURES_OF: dict[str, tuple[str, ...]] = {name: ARCHITECTURES for name in (*MECHANISMS, *FAMILIES)}
# Those that the calibration draws from.
CALIBRATED = ("gpt2", "gpt_neox")
SHORTEST = 5
SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
# Mechanisms of two routes; the share is that of the first.
SHARED = ("mixture", "A1 + unused", "placeholder + unused", *(name for name in FAMILIES if " + " in name))
LENGTHS = (12, 16, 20, 30, 40)


@dataclass(frozen=True)
class Dirt:
    """Deviations of a planted model from its clean construction.

    `rotation`: a random rotation of the residual stream. `noise`: the relative standard deviation of the weights.
    `superposition`: features share dimensions. `layernorm`: LayerNorm's scale varies. The last three are upper limits:
    `plant` reduces them until the model solves the task.
    """

    rotation: bool = False
    noise: float = 0.0
    superposition: bool = False
    layernorm: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 0.5:
            raise ValueError(f"noise must be from 0 to 0.5; got {self.noise}")


@dataclass(frozen=True)
class Plan:
    """Everything that determines a planted model. `share` is the first route's where there are two, otherwise 1."""

    mechanism: str
    architecture: str
    longest: int
    share: float = 1.0
    dirt: Dirt = field(default_factory=Dirt)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mechanism not in ARCHITECTURES_OF:
            raise ValueError(f"unknown mechanism {self.mechanism!r}; mechanisms are {', '.join(ARCHITECTURES_OF)}")
        if self.architecture not in ARCHITECTURES_OF[self.mechanism]:
            choices = ", ".join(ARCHITECTURES_OF[self.mechanism])
            raise ValueError(f"{self.mechanism} can be planted in {choices}; got {self.architecture!r}")
        if not SHORTEST <= self.longest <= LONGEST:
            raise ValueError(f"longest must be from {SHORTEST} to {LONGEST}; got {self.longest}")
        if self.mechanism in SHARED and not 0.1 <= self.share <= 0.9:
            raise ValueError(f"the share of {self.mechanism} must be from 0.1 to 0.9; got {self.share}")
        if self.mechanism not in SHARED and self.share != 1.0:
            raise ValueError(f"{self.mechanism} has one route, so share must be 1; mixtures are {', '.join(SHARED)}")
        generator(self.seed)

    def to_json(self) -> dict:
        """Return a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Truth:
    """What is true by construction.

    `roles`: whether labels are anchor, placeholder, sink. `shares`: shares of the margin, for "address" and
    "content"; empty where the two act on one bit jointly or one needs a sink, so that no share belongs to either
    alone. `label`: the right verdict. `addresses`: offsets of the labels whose identity decides what step i reads (0
    is the step's own label, -1 that of the step before).
    """

    roles: Mapping[str, bool]
    shares: Mapping[str, float]
    label: str
    addresses: tuple[int, ...] = ()


def draw_plan(mechanism: str, seed: int) -> Plan:
    """Draw a random variant of a mechanism: about half are clean, the others have one or more kinds of dirt.

    Raises `ValueError` for an unknown mechanism, naming the choices.
    """
    if mechanism not in MECHANISMS:
        raise ValueError(f"unknown mechanism {mechanism!r}; mechanisms are {', '.join(MECHANISMS)}")
    # Without this, neighbouring seeds and mechanisms give similar first draws.
    gen = generator((7919 * seed + 104_729 * (1 + MECHANISMS.index(mechanism))) % 2**32)
    torch.rand(64, generator=gen)

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=gen))

    architectures = [name for name in CALIBRATED if name in ARCHITECTURES_OF[mechanism]]
    architecture, longest = architectures[pick(len(architectures))], LENGTHS[pick(len(LENGTHS))]
    share = SHARES[pick(len(SHARES))] if mechanism in SHARED else 1.0
    kinds = 1 + pick(15) if pick(2) else 0  # four kinds of dirt, as bits
    noise = (0.01, 0.02, 0.04)[pick(3)]
    dirt = Dirt(bool(kinds & 1), noise if kinds & 2 else 0.0, bool(kinds & 4), bool(kinds & 8))
    return Plan(mechanism, architecture, longest, share, dirt, seed)


def truth_of(plan: Plan) -> Truth:
    """Return what is true of the model that `plant(plan)` makes."""
    if family := FAMILIES.get(plan.mechanism):
        roles = {role: role in family.present for role in ("anchor", "placeholder", "sink")}
        return Truth(roles, family.shares(plan.share), family.label, family.addresses)
    match plan.mechanism:
        case "mixture":
            return _truth(("anchor", "placeholder"), plan.share, 1 - plan.share, MIXED)
        case "content-addressed placeholder":
            roles = {role: role != "sink" for role in ("anchor", "placeholder", "sink")}
            return Truth(roles, {}, MIXED, (0,))
        case "placeholder" | "placeholder + unused":
            return _truth(("placeholder",), 0.0, plan.share, "placeholder")
        case "A1 with sink":
            return Truth(
                {role: role != "placeholder" for role in ("anchor", "placeholder", "sink")}, {}, WITH_SINK, (0,)
            )
        case "sink" | "bias sink":
            return _truth(("sink",), 0.0, 0.0, "sink")
        case name if name.startswith("unused"):
            return _truth((), 0.0, 0.0, "unused")
        case _:
            return _truth(("anchor",), plan.share, 0.0, "anchor")


def _truth(present: tuple[str, ...], address: float, content: float, label: str) -> Truth:
    roles = {role: role in present for role in ("anchor", "placeholder", "sink")}
    return Truth(roles, {"address": address, "content": content}, label, (0,) if "anchor" in present else ())
