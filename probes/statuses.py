"""The status of a role, and of the sink on margins, with the reason and the effect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from probes.evidence import Interval


class Status(StrEnum):
    """The status of a role (probes/README.md, Decision)."""

    PRESENT = "PRESENT"
    ABSENT = "ABSENT"
    INDETERMINATE = "INDETERMINATE"
    NOT_APPLICABLE = "NOT APPLICABLE"
    UNRESOLVED = "UNRESOLVED"

    def __repr__(self) -> str:
        return self.value


@dataclass(frozen=True)
class OnMargins:
    """The status of the sink on margins, the reason, and the share of the margin that depends on attention to labels.

    A sink can move margins without changing an answer, so its status on answers is another one. `tests`: as those of
    `RoleFinding`.
    """

    status: Status
    reason: str
    share: Interval | None = None
    control: Interval | None = None
    tests: dict[str, dict[str, float | bool]] | None = None

    def to_json(self) -> dict:
        """Return a plain dictionary."""
        interval = None if self.share is None else self.share.to_json()
        return {
            "status": self.status.value,
            "share": interval and interval["value"],
            "ci": interval and [interval["low"], interval["high"]],
            "control": None if self.control is None else self.control.to_json(),
            "reason": self.reason,
            **({} if self.tests is None else {"tests": self.tests}),
        }


@dataclass(frozen=True)
class RoleFinding:
    """The status of one role, the reason, and rho with a 95 % interval and its matched control (None: not measured).

    `by`: by which labels an anchor is PRESENT, where that is not the step's own label; what labels hold, where a
    placeholder is PRESENT by other content than earlier bits. `margins`: the sink's status on
    margins; `status` is that on answers.

    `tests` exist only over models: for "present" (sign-flip beyond the margin and the control) and "absent" (TOST), the
    p value, the p value after Holm's correction over roles, lengths and both tests, and whether the test holds.
    """

    status: Status
    reason: str
    rho: Interval | None = None
    control: Interval | None = None
    tests: dict[str, dict[str, float | bool]] | None = None
    by: str = ""
    margins: OnMargins | None = None

    def to_json(self) -> dict:
        """Return a plain dictionary."""
        interval = None if self.rho is None else self.rho.to_json()
        return {
            "status": self.status.value,
            "rho": interval and interval["value"],
            "ci": interval and [interval["low"], interval["high"]],
            "control": None if self.control is None else self.control.to_json(),
            "reason": self.reason,
            **({} if self.tests is None else {"tests": self.tests}),
            **({"by": self.by} if self.by else {}),
            **({} if self.margins is None else {"margins": self.margins.to_json()}),
        }
