"""One piece of evidence: a value, its interval, its matched control, and what was replicated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

PROMPTS, MODELS = "prompts of one model", "models"


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval, both in the estimate's unit.

    `error` (the standard error) and `df` are there for t intervals, so that they can be had at other levels.
    """

    value: float
    low: float
    high: float
    error: float | None = None
    df: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def at(self, level: float) -> Interval:
        """The same estimate at another level. Raises `ValueError` where there is no standard error."""
        from scipy import stats

        if self.error is None or self.df is None:
            raise ValueError("this interval is no t interval; compute it at the level that is wanted")
        half = float(stats.t.ppf(0.5 + level / 2, self.df) * self.error)
        return replace(self, low=self.value - half, high=self.value + half)

    def to_json(self) -> dict:
        """Value and bounds; JSON has no infinity or NaN, so those are None."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in bounds.items()}


@dataclass(frozen=True)
class Accuracy:
    """How often a model is right at one length, with the chance level beside it.

    `mode` is "forced" (labels are put there from outside) or "written" (the model writes them);
    `metric` is "step", "exact", "final" or "free step" (see `probes.competence`).
    """

    metric: str
    mode: str
    length: int
    estimate: Interval
    chance: float
    n: int

    def to_json(self) -> dict:
        """One flat row."""
        flat = {"metric": self.metric, "mode": self.mode, "length": self.length}
        return {**flat, **self.estimate.to_json(), "chance": self.chance, "n": self.n}


@dataclass(frozen=True)
class Evidence:
    """What one arm of the battery found at one length.

    `arm` is its number in science 2.1 ("M1" to "M12"). `quantity` says what `value` is: "rho" (the share of the
    margin that an intervention moves, 0 for none and 1 for all), "accuracy lost", "share of steps" and so on.
    `control` is the same quantity under the matched control, None where the arm is one itself or describes.
    Intervals are at 95 % for this one value. `unit` says what was replicated, `n` how many of it.
    """

    arm: str
    name: str
    question: str
    length: int
    quantity: str
    value: Interval
    control: Interval | None
    n: int
    unit: str = PROMPTS
    details: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        """A nested plain dictionary."""
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
