"""How often is the verdict wrong? It is run on models whose mechanism is known by construction.

The verdict's code never sees how a model was made; only this module knows both sides. Thresholds may be tuned on
`TUNED_ON` with seeds below `FIRST_SEED`, and on nothing else; what is reported comes from seeds from there on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.models import Run, run_in_memory
from probes.batteries import DECIDING, battery
from probes.decision import verdict
from probes.evidence import Evidence, Interval
from probes.findings import MARGINS, ROLES, Status
from probes.intervals import wilson
from probes.judging import HEADLINE
from probes.planted import MECHANISMS, Planted, draw_plan, plant, prove

TUNED_ON = ("A1", "A2", "placeholder", "sink", "unused", "mixture")
FIRST_SEED = 10_000
FORMAT = "parity-aligned"
OPEN = ("undecided", "unresolved", "not-applicable")
# What the issue of the tool asks of it: the largest rates and errors, and the bounds of coverage.
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


def as_run(planted: Planted) -> Run:
    """A planted model as the run that a user would load; nothing in it says how it was made."""
    return run_in_memory("model", planted.model, FORMAT, planted.vocabulary)


def judge(mechanism: str, seed: int, prompts: int = 128) -> dict:
    """One case: a random variant is planted, proves its accuracy, and is judged at its longest length.

    A plain dictionary: plan, truth, accuracy, the verdict, and rho, interval and status of each role.
    """
    plan = draw_plan(mechanism, seed)
    planted = plant(plan)
    truth = planted.truth
    found = verdict(battery(as_run(planted), (plan.longest,), seed, prompts, arms=DECIDING))
    finding = found.lengths[0]
    shares = {name: s.value for name in ("address", "content", "normalisation") if (s := finding.share(name))}
    return {
        "mechanism": mechanism,
        "seed": seed,
        "prompts": prompts,
        "plan": plan.to_json(),
        "applied": dict(planted.applied),
        "accuracy": {str(n): a for n, a in prove(planted).items()},
        "truth": {"label": truth.label, "roles": dict(truth.roles), "shares": dict(truth.shares)},
        "label": found.label,
        "roles": {name: role.to_json() for name, role in found.roles.items()},
        "shares": shares,
        "remainder": found.remainder,
        "controls": {f"{e.arm} {e.name}": e.control.value for e in finding.evidence if e.control is not None},
        "margins": MARGINS.version,
    }


def repeat(mechanism: str, seed: int, times: int, prompts: int = 128) -> dict:
    """One model judged `times` over with fresh prompts: how often does each 95 % interval hold the truth?

    The truth is the mean over the other repetitions; its own error is added to the interval's half-width, so that
    an exact interval covers at its level whatever `times` is. Roles whose estimates do not vary (to 1e-6) have
    nothing to cover and are left out, by name.
    """
    planted = plant(draw_plan(mechanism, seed))
    run, length = as_run(planted), planted.plan.longest
    arms = ("M1", "M2", "M3", "M5", "M6")
    found: dict[str, list[Interval]] = {role: [] for role in ROLES}
    for k in range(times):
        evidence = battery(run, (length,), seed + 1 + k, prompts, arms=arms).measured[0].evidence
        for role in ROLES:
            if (e := headline(evidence, role)) is not None:
                found[role].append(e.value)
    covered, constant = {}, []
    for role, intervals in found.items():
        values = np.array([i.value for i in intervals])
        if len(values) < times or np.ptp(values) < 1e-6:
            constant.append(role)
            continue
        others = (values.sum() - values) / (times - 1)
        wider = np.sqrt(1 + 1 / (times - 1))
        half = np.array([i.high - i.low for i in intervals]) / 2 * wider
        covered[role] = int((np.abs(values - others) <= half).sum())
    return {
        "mechanism": mechanism,
        "seed": seed,
        "times": times,
        "covered": covered,
        "constant": constant,
        "plan": planted.plan.to_json(),
    }


def headline(evidence: Sequence[Evidence], role: str) -> Evidence | None:
    """The evidence whose value is a role's rho."""
    return next((e for e in evidence if (e.arm, e.name) == HEADLINE[role]), None)


@dataclass(frozen=True)
class Rate:
    """How often something happened, with a 95 % interval, against what was asked; None where nothing was."""

    hits: int
    n: int
    target: float | None

    def to_json(self) -> dict:
        """A plain dictionary; `met` is None where there is no target or no case."""
        interval = wilson(self.hits, self.n).to_json() if self.n else None
        rate = self.hits / self.n if self.n else None
        met = None if rate is None or self.target is None else rate <= self.target
        return {"hits": self.hits, "n": self.n, "rate": rate, "interval": interval, "target": self.target, "met": met}


def tally(cases: Collection[Mapping], repetitions: Collection[Mapping] = ()) -> dict:
    """The table: confusion, error rates, share errors, coverage, and the largest effects among nulls.

    Rates count cases, not roles: a case with two false PRESENTs is one. `cases` are those of `judge`,
    `repetitions` those of `repeat`. Raises `ValueError` where there is no case.
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
            "linear": _share_error([c for c in cases if not is_bent(c)], TARGETS["share error, linear"]),
            "non-linear": _share_error([c for c in cases if is_bent(c)], TARGETS["share error, non-linear"]),
        },
        "coverage": _coverage(repetitions),
        "nulls": _nulls(cases),
    }


def is_clean(case: Mapping) -> bool:
    """Whether a case's model has no dirt."""
    return not any(case["plan"]["dirt"].values())


def is_bent(case: Mapping) -> bool:
    """Whether noise or LayerNorm stand between the routes and the margin, so that shares are not exactly linear."""
    dirt = case["plan"]["dirt"]
    return bool(dirt["noise"] or dirt["layernorm"] or dirt["superposition"])


def planted_roles(cases: Iterable[Mapping]) -> dict[str, list[float]]:
    """rho of each role over all planted models, for pictures."""
    found: dict[str, list[float]] = {role: [] for role in ROLES}
    for case in cases:
        for role in ROLES:
            if (rho := case["roles"][role]["rho"]) is not None:
                found[role].append(rho)
    return found


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
    """Mean and largest |measured - planted| over the shares of address and content."""
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
    """The 99th percentile of |rho| where it must be zero: roles that are not there, and matched controls."""
    roles = [
        abs(case["roles"][r]["rho"])
        for case in cases
        for r in ROLES
        if not case["truth"]["roles"][r] and case["roles"][r]["rho"] is not None
    ]
    controls = [abs(v) for case in cases for name, v in case["controls"].items() if not name.startswith("M6")]
    found = {}
    for name, values in (("absent roles", roles), ("controls of M1, M2, M4 and M5", controls)):
        found[name] = {"n": len(values), "99th percentile": float(np.quantile(values, 0.99)) if values else None}
    return {**found, "margin": MARGINS.rho}
