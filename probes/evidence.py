"""One piece of evidence: a value, its interval, its matched control, and what was replicated."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval, both in the estimate's unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
        return {**flat, **asdict(self.estimate), "chance": self.chance, "n": self.n}


@dataclass(frozen=True)
class Evidence:
    """What one arm of the battery found at one length.

    `effect` is rho (science 2): the share of the margin that the intervention moves, 0 for none and 1 for
    all. `follows` is IIA: how often the most likely token is the counterfactual answer. `control` is rho of
    the matched control, None where the arm is a control itself. `unit` says what was replicated.
    """

    name: str
    question: str
    length: int
    effect: Interval
    follows: Interval
    control: Interval | None
    control_follows: Interval | None
    n: int
    unit: str = "prompts of one model"

    def to_json(self) -> dict:
        """A nested plain dictionary."""
        return asdict(self)
