"""Error rates of the verdict over planted models: confusion, false statuses, share errors, coverage and nulls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probes.findings import MARGINS, ROLES, Status
from probes.intervals import wilson
from probes.planted import MECHANISMS

# Thresholds may be tuned on these mechanisms only.
TUNED_ON = ("A1", "A2", "placeholder", "sink", "unused", "mixture")
OPEN = ("undecided", "unresolved", "not-applicable")
# Targets, fixed beforehand: the largest rates and errors, and the bounds of coverage.
TARGETS = {
    "false present": 0.05,
    "false absent": 0.05,
    "wrong confident label": 0.02,
    "decoys called present": 0.0,
    "undecided, clean": 0.10,
    "share error, linear": 0.05,
    "share error, non-linear": 0.10,
}
COVERAGE = (0.93, 0.97)


@dataclass(frozen=True)
class Rate:
    """A count with its target, the largest rate allowed; None without a target."""

    hits: int
    n: int
    target: float | None

    def to_json(self) -> dict:
        """Return the rate with its 95 % interval; `met` is None without a target or without cases."""
        interval = wilson(self.hits, self.n).to_json() if self.n else None
        rate = self.hits / self.n if self.n else None
        met = None if rate is None or self.target is None else rate <= self.target
        return {"hits": self.hits, "n": self.n, "rate": rate, "interval": interval, "target": self.target, "met": met}


def tally(cases: Collection[Mapping], repetitions: Collection[Mapping] = ()) -> dict:
    """Return confusion, error rates, share errors, coverage, and the largest effects among nulls.

    Rates count cases, not roles: a case with two false PRESENTs counts once. `cases` come from
    `probes.calibration.judge`, `repetitions` from `probes.calibration.repeat`. Raises `ValueError` without a case.
    """
    if not cases:
        raise ValueError("no case has been judged")
    confusion: dict[str, Counter] = {}
    for case in cases:
        confusion.setdefault(case["mechanism"], Counter())[case["label"]] += 1
    order = [m for m in MECHANISMS if m in confusion]
    decoys = [c for c in cases if c["mechanism"].startswith("unused,")]
    clean = [c for c in cases if is_clean(c)]
    rates = {
        "false present": Rate(sum(map(_false_present, cases)), len(cases), TARGETS["false present"]),
        "false absent": Rate(sum(map(_false_absent, cases)), len(cases), TARGETS["false absent"]),
        "wrong confident label": Rate(sum(map(_wrong, cases)), len(cases), TARGETS["wrong confident label"]),
        "decoys called present": Rate(sum(map(_false_present, decoys)), len(decoys), TARGETS["decoys called present"]),
        "undecided, clean": Rate(sum(c["label"] in OPEN for c in clean), len(clean), TARGETS["undecided, clean"]),
        "undecided, all": Rate(sum(c["label"] in OPEN for c in cases), len(cases), None),
    }
    return {
        "cases": len(cases),
        "mechanisms": len(order),
        "margins": MARGINS.to_json(),
        "tuned_on": list(TUNED_ON),
        "never_tuned": [m for m in order if m not in TUNED_ON],
        "confusion": {m: dict(sorted(confusion[m].items())) for m in order},
        "expected": {c["mechanism"]: c["truth"]["label"] for c in cases},
        "rates": {name: rate.to_json() for name, rate in rates.items()},
        "rates, never tuned": _never_tuned(cases),
        "share error": {
            "linear": _share_error([c for c in cases if not is_nonlinear(c)], TARGETS["share error, linear"]),
            "non-linear": _share_error([c for c in cases if is_nonlinear(c)], TARGETS["share error, non-linear"]),
        },
        "coverage": _coverage(repetitions),
        "nulls": _nulls(cases),
    }


def tally_families(cases: Collection[Mapping]) -> dict:
    """Return a row per judged family, and counts of outcomes per architecture, clean and with dirt.

    Outcomes: "right" and "wrong label" of confident labels, "wrong status" where no label follows but a role is PRESENT
    or ABSENT wrongly, and "none".
    """
    rows = [
        {
            "family": case["mechanism"],
            "architecture": case["plan"]["architecture"],
            "dirty": not is_clean(case),
            "expected": case["truth"]["label"],
            "label": case["label"],
            "statuses": {role: case["roles"][role]["status"] for role in ROLES},
            "outcome": _outcome(case),
        }
        for case in cases
    ]
    return {"margins": MARGINS.to_json(), "cases": rows, "counts": counted_by_group(rows)}


def counted_by_group(rows: Iterable[Mapping]) -> dict[str, dict[str, int]]:
    """Return the number of each outcome per architecture, clean and with dirt, and over all rows, which come last."""
    counts: dict[str, Counter] = {}
    for row in rows:
        for group in (f"{row['architecture']}, {'dirt' if row['dirty'] else 'clean'}", "all"):
            counts.setdefault(group, Counter())[row["outcome"]] += 1
    return {name: dict(found) for name, found in sorted(counts.items(), key=lambda item: item[0] == "all")}


def _outcome(case: Mapping) -> str:
    if _wrong(case):
        return "wrong label"
    if _false_present(case) or _false_absent(case):
        return "wrong status"
    # `counted labels` has no role, so that its right verdict is "unresolved".
    return "none" if case["label"] in OPEN and case["label"] != case["truth"]["label"] else "right"


def is_clean(case: Mapping) -> bool:
    """Return whether a case's model has no dirt."""
    return not any(case["plan"]["dirt"].values())


def is_nonlinear(case: Mapping) -> bool:
    """Return whether noise, superposition or LayerNorm make the margin a non-linear function of the routes."""
    dirt = case["plan"]["dirt"]
    return bool(dirt["noise"] or dirt["layernorm"] or dirt["superposition"])


def planted_roles(cases: Iterable[Mapping]) -> dict[str, list[float]]:
    """Return rho of each role over all planted models, for figures."""
    values: dict[str, list[float]] = {role: [] for role in ROLES}
    for case in cases:
        for role in ROLES:
            if (rho := case["roles"][role]["rho"]) is not None:
                values[role].append(rho)
    return values


def _false_present(case: Mapping) -> bool:
    return any(case["roles"][r]["status"] == Status.PRESENT and not case["truth"]["roles"][r] for r in ROLES)


def _false_absent(case: Mapping) -> bool:
    return any(case["roles"][r]["status"] == Status.ABSENT and case["truth"]["roles"][r] for r in ROLES)


def _wrong(case: Mapping) -> bool:
    return case["label"] not in OPEN and case["label"] != case["truth"]["label"]


def _never_tuned(cases: Collection[Mapping]) -> dict:
    fresh = [c for c in cases if c["mechanism"] not in TUNED_ON]
    tests = {"false present": _false_present, "false absent": _false_absent, "wrong confident label": _wrong}
    return {name: Rate(sum(map(test, fresh)), len(fresh), TARGETS[name]).to_json() for name, test in tests.items()}


def _share_error(cases: Sequence[Mapping], target: float) -> dict:
    """Return mean and largest |measured - planted| over the shares of address and content."""
    errors = [
        abs(case["shares"][name] - planted)
        for case in cases
        for name, planted in case["truth"]["shares"].items()
        if name in case["shares"]
    ]
    if not errors:
        return {"n": 0, "mean": None, "largest": None, "target": target, "met": None}
    mean, largest = float(np.mean(errors)), float(np.max(errors))
    above = int(np.sum(np.array(errors) > target))
    return {
        "n": len(errors),
        "mean": mean,
        "largest": largest,
        "above target": above,
        "target": target,
        "met": above == 0,
    }


def _coverage(repetitions: Collection[Mapping]) -> dict:
    roles: dict[str, list[int]] = {role: [0, 0] for role in ROLES}
    for r in repetitions:
        for role, hits in r["covered"].items():
            roles[role][0] += hits
            roles[role][1] += r["times"]
    hits, n = (sum(column) for column in zip(*roles.values(), strict=True))

    def row(hits: int, n: int) -> dict:
        interval = wilson(hits, n).to_json() if n else None
        met = COVERAGE[0] <= hits / n <= COVERAGE[1] if n else None
        return {
            "covered": hits,
            "intervals": n,
            "rate": hits / n if n else None,
            "interval": interval,
            "target": list(COVERAGE),
            "met": met,
        }

    return {"all": row(hits, n), **{role: row(*counts) for role, counts in roles.items()}}


def _nulls(cases: Collection[Mapping]) -> dict:
    """Return the 99th percentile of |rho| where it must be zero: roles that are absent, and matched controls."""
    roles = [
        abs(case["roles"][r]["rho"])
        for case in cases
        for r in ROLES
        if not case["truth"]["roles"][r] and case["roles"][r]["rho"] is not None
    ]
    arms = ("M1 ", "M2 ", "M4 ", "M5 ")
    controls = [abs(v) for case in cases for name, v in case["controls"].items() if name.startswith(arms)]
    percentiles = {}
    for name, values in (("absent roles", roles), ("controls of M1, M2, M4 and M5", controls)):
        percentiles[name] = {"n": len(values), "99th percentile": float(np.quantile(values, 0.99)) if values else None}
    return {**percentiles, "margin": MARGINS.rho}
