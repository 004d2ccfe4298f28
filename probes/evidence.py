"""The types of evidence: intervals, accuracies, and the effect of one arm with its matched control."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

PROMPTS, MODELS = "prompts of one model", "models"
# Details of what an address leaves of identity: by reassignments that keep the order of labels, and by others.
ORDER_KEPT, ORDER_BROKEN = "order kept", "order broken"

# Layers or heads that complete the name of a piece of evidence: "L0", "L0-L4", "L1H2", "L0H1+L2H3".
PLACE = r"L\d+-L\d+|L\d+(?:H\d+)?(?:\+L\d+(?:H\d+)?)*"


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval, both in the estimate's unit.

    `error` (the standard error) and `df` are set for t intervals, which can be computed at other levels.
    """

    value: float
    low: float
    high: float
    error: float | None = None
    df: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def at(self, level: float) -> Interval:
        """Return the same estimate at another confidence level. Raises `ValueError` without a standard error."""
        from scipy import stats

        if self.error is None or self.df is None:
            raise ValueError("this interval is not a t interval; compute it at the level that you need")
        half = float(stats.t.ppf(0.5 + level / 2, self.df) * self.error)
        return replace(self, low=self.value - half, high=self.value + half)

    def to_json(self) -> dict:
        """Return value and bounds. JSON has no infinity and no NaN: such numbers become None."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in bounds.items()}


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a model at one length, with its chance level.

    `mode` is "forced" (labels are given) or "written" (the model writes them). `metric` is "step", "exact",
    "final" or "free step" (see `probes.competence`). `n` is the number of prompts.
    """

    metric: str
    mode: str
    length: int
    estimate: Interval
    chance: float
    n: int

    def to_json(self) -> dict:
        """Return one flat row."""
        flat = {"metric": self.metric, "mode": self.mode, "length": self.length}
        return {**flat, **self.estimate.to_json(), "chance": self.chance, "n": self.n}


@dataclass(frozen=True)
class EvidenceKey:
    """What identifies a piece of evidence: the code of its arm and its name. `probes.keys` lists the known keys.

    A `template` with "{place}" stands for one piece per layer or head: `at` fills the place in.

    >>> EvidenceKey("M4", "K at bit, {place}").at("L1").name
    'K at bit, L1'
    """

    arm: str
    template: str
    place: str | None = None

    def __post_init__(self) -> None:
        if self.place is not None and ("{place}" not in self.template or not re.fullmatch(PLACE, self.place)):
            raise ValueError(f"{self.arm} {self.template!r} has no place {self.place!r}")

    @property
    def name(self) -> str:
        """The name, with its layer or head. Result files and tables show it."""
        return self.template if self.place is None else self.template.replace("{place}", self.place)

    def at(self, place: str) -> EvidenceKey:
        """Return the key for a layer ("L0"), a band ("L0-L4"), a head ("L1H2") or several heads ("L1H2+L2H0")."""
        return replace(self, place=place)

    def parse(self, name: str) -> EvidenceKey | None:
        """Return this key, with its place if it has one, when `name` is its name; None for another name."""
        before, marker, after = self.template.partition("{place}")
        if not marker:
            return self if name == self.template else None
        match = re.fullmatch(f"{re.escape(before)}({PLACE}){re.escape(after)}", name)
        return self.at(match[1]) if match else None


def parse_key(arm: str, name: str, keys: Collection[EvidenceKey]) -> EvidenceKey:
    """Return the key among `keys` with this arm and name. Raises `ValueError` that names an unknown one.

    >>> parse_key("M4", "attention", [EvidenceKey("M4", "attention")])
    EvidenceKey(arm='M4', template='attention', place=None)
    """
    own = [key for key in keys if key.arm == arm]
    for key in own:
        if (parsed := key.parse(name)) is not None:
            return parsed
    if not own:
        raise ValueError(f"unknown arm {arm!r}: arms are {', '.join(dict.fromkeys(key.arm for key in keys))}")
    raise ValueError(f"unknown evidence {name!r}: {arm} gives {'; '.join(key.template for key in own)}")


@dataclass(frozen=True)
class Evidence:
    """The result of one arm of the battery at one length.

    `quantity` is the unit of `value`: "rho" (the share of the margin that an intervention moves, 0 for none and 1
    for all), "accuracy lost", "share of steps" and so on. `control` is the same quantity under the matched control;
    None where the arm itself is a control or only describes. Intervals are at 95 % for this one value. `unit` is
    what was replicated and `n` how often.
    """

    key: EvidenceKey
    question: str
    length: int
    quantity: str
    value: Interval
    control: Interval | None
    n: int
    unit: str = PROMPTS
    details: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert "{place}" not in self.name, f"{self.key} needs a layer or head: use key.at(place)"

    @property
    def arm(self) -> str:
        """The code of the arm, such as "M1" (`probes.arms.registry`)."""
        return self.key.arm

    @property
    def name(self) -> str:
        """The name within the arm, such as "swap input labels"."""
        return self.key.name

    def to_json(self) -> dict:
        """Return a nested plain dictionary."""
        return {
            "arm": self.arm,
            "name": self.name,
            "question": self.question,
            "length": self.length,
            "quantity": self.quantity,
            "value": self.value.to_json(),
            "control": None if self.control is None else self.control.to_json(),
            "n": self.n,
            "unit": self.unit,
            "details": self.details,
        }


def find_evidence(evidence: Sequence[Evidence], key: EvidenceKey) -> Evidence | None:
    """Return the piece of evidence with this key; None where it was not measured."""
    return next((e for e in evidence if e.key == key), None)


def find_rows(rows: Sequence[dict], key: EvidenceKey) -> list[dict]:
    """Return the rows of a stored verdict (`Evidence.to_json`) with this key, in their order."""
    return [row for row in rows if (row["arm"], row["name"]) == (key.arm, key.name)]
