"""What is measured on lists: shares with their controls, all of one model's together, and groups of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.evidence import Interval
from probes.statuses import Status

# A model whose interval of accuracy reaches below this does not do the task.
COMPETENCE = 0.80
# The version of the arms and of the rules that decide, to which counts of errors belong.
RULES = "2026-11f"
# Earlier versions that differ only in when an address is ABSENT: a result without such an address is decided alike.
ALIKE_BUT_ABSENT = ("2026-11e",)


@dataclass(frozen=True)
class Share:
    """The change of the answer margin under an arm, over that of trading the answers, beside its matched control.

    0: the answer stays. 1: the answer is the target's, as if the values were traded. `excess` is arm minus control.
    `follows`: of the prompts in which the answer leads the target's value, the share in which it no longer does under
    the arm. `gained`: by how much the target's value rises over the best of all others but the answer, and over their
    mean, whichever is less, as a share of the same when the values are traded; an edit that only breaks what finds the
    answer gains nothing.
    None where they were not measured.
    """

    value: Interval
    control: Interval
    excess: Interval
    follows: float | None = None
    gained: Interval | None = None

    def __str__(self) -> str:
        gained = "" if self.gained is None else f"  gained {self.gained}"
        return f"{self.value}  control {self.control}  excess {self.excess}{gained}"

    def __repr__(self) -> str:
        return f"Share({self})"

    def to_json(self) -> dict:
        """Return three intervals, and what else was measured."""
        found: dict = {name: getattr(self, name).to_json() for name in ("value", "control", "excess")}
        if self.gained is not None:
            found["gained"] = self.gained.to_json()
        return found if self.follows is None else {**found, "follows": self.follows}


@dataclass(frozen=True)
class Binding:
    """What was measured on one model, task and number of items.

    `shares` and `sinks` are empty where the model cannot do the task, with the reason in `refusal`. `left_out` has
    the reason for each arm that the template does not have. `remainder` is 1 minus the share of all arms together.
    `accuracy` is over `posed` prompts, everything else over the first `prompts` of them, but the arms in `DEEP_ARMS`
    over `deep_prompts`. `carried` is the share of the full effect that is lost when the values of a candidate for a
    sink become their mean. `added`: what an address or a candidate adds to others (`lattice.beyond`). `queries`: the
    items asked for, `targets`: those to which edits lead; an address that finds others only is not seen. `rules`: the
    version of the arms.
    """

    task: str
    items: int
    posed: int
    prompts: int
    seed: int
    accuracy: Interval
    level: float
    shares: dict[str, Share] = field(default_factory=dict)
    sinks: dict[str, Share] = field(default_factory=dict)
    carried: dict[str, Interval] = field(default_factory=dict)
    remainder: Interval | None = None
    added: dict[str, Interval] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None
    deep_prompts: int = 0
    queries: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    rules: str = ""

    def __repr__(self) -> str:
        measured = ", ".join(f"{name} {share.value}" for name, share in {**self.shares, **self.sinks}.items())
        refused = self.refusal if self.competent else "not competent"
        said = f"; over {self.prompts}: {measured}" if measured else f"; {refused}"
        return f"Binding({self.task!r}, {self.items} items, {self.posed} prompts, accuracy {self.accuracy}{said})"

    @property
    def competent(self) -> bool:
        """Whether the model does the task: the interval of its accuracy is above the gate."""
        return self.accuracy.low >= COMPETENCE

    @property
    def is_short_of_prompts(self) -> bool:
        """Whether the accuracy is above the gate, and only its interval over too few prompts reaches below."""
        return not self.competent and self.accuracy.value >= COMPETENCE


def is_decided_alike(data: Mapping[str, Any]) -> bool:
    """Return whether a stored verdict is what `RULES` would say: of this version, or of one that is alike in it."""
    absent = any(found["status"] == Status.ABSENT for found in data["addresses"].values())
    return data.get("rules") == RULES or (data.get("rules") in ALIKE_BUT_ABSENT and not absent)


@dataclass(frozen=True, eq=False)
class Group:
    """What was measured on the prompts of one trial: a number per prompt by name, and why other arms are left out."""

    values: dict[str, Float[Tensor, " batch"]]
    left_out: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Return the numbers as lists; they are float64, which JSON keeps exactly."""
        return {"values": {name: x.tolist() for name, x in self.values.items()}, "left_out": self.left_out}

    @classmethod
    def from_json(cls, data: dict) -> Group:
        """Return the group that `to_json` wrote."""
        values = {name: torch.tensor(x, dtype=torch.float64) for name, x in data["values"].items()}
        return cls(values, data["left_out"])
