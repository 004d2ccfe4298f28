"""Calibration: run the verdict on planted models, whose mechanism is known by construction.

The verdict's code never sees how a model was made; only this module knows both sides. Thresholds may be tuned only on
the mechanisms `TUNED_ON` with seeds below `FIRST_SEED`; reported rates use seeds from `FIRST_SEED` on.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from interp.models import Run, run_in_memory
from probes.batteries import DECIDING, battery
from probes.decision import verdict
from probes.evidence import Interval, find_evidence
from probes.findings import MARGINS, ROLES
from probes.judging import HEADLINE
from probes.planted import ARCHITECTURES_OF, FAMILIES, Dirt, Plan, Planted, draw_plan, plant, prove
from probes.planted.plan import SHARED

FIRST_SEED = 10_000
FORMAT = "parity-aligned"
# Bits of the families outside of the calibration, the first route's share, and their dirt.
FAMILY_LENGTH, FAMILY_SHARE = 8, 0.3
DIRTY = Dirt(rotation=True, noise=0.02, superposition=True, layernorm=True)


def as_run(planted: Planted) -> Run:
    """Return a planted model as an ordinary run, without information about how it was made."""
    return run_in_memory("model", planted.model, FORMAT, planted.vocabulary)


def family_plans(names: Collection[str] = tuple(FAMILIES)) -> list[Plan]:
    """Return plans of the families outside of the calibration: each in its architectures, clean and with dirt."""
    return [
        Plan(name, architecture, FAMILY_LENGTH, FAMILY_SHARE if name in SHARED else 1.0, dirt)
        for dirt in (Dirt(), DIRTY)
        for name in names
        for architecture in ARCHITECTURES_OF[name]
    ]


def judge(mechanism: str, seed: int, prompts: int = 128) -> dict:
    """Judge a random variant of a mechanism by `judge_plan`, with prompts of the same seed."""
    return judge_plan(draw_plan(mechanism, seed), seed, prompts)


def judge_plan(plan: Plan, seed: int, prompts: int = 128) -> dict:
    """Plant a model, check its accuracy, and judge it at its longest length on prompts of a seed.

    Return a plain dictionary: plan, truth, accuracy, the verdict, and rho, interval and status of each role.
    """
    planted = plant(plan)
    truth = planted.truth
    result = verdict(battery(as_run(planted), (plan.longest,), seed, prompts, arms=DECIDING))
    finding = result.lengths[0]
    shares = {name: s.value for name in ("address", "content", "normalisation") if (s := finding.share(name))}
    return {
        "mechanism": plan.mechanism,
        "seed": seed,
        "prompts": prompts,
        "plan": plan.to_json(),
        "applied": dict(planted.applied),
        "accuracy": {str(n): a for n, a in prove(planted).items()},
        "truth": {"label": truth.label, "roles": dict(truth.roles), "shares": dict(truth.shares)},
        "label": result.label,
        "roles": {name: role.to_json() for name, role in result.roles.items()},
        "shares": shares,
        "remainder": result.remainder,
        "controls": {f"{e.arm} {e.name}": e.control.value for e in finding.evidence if e.control is not None},
        "margins": MARGINS.version,
    }


def repeat(mechanism: str, seed: int, times: int, prompts: int = 128) -> dict:
    """Judge one model `times` with fresh prompts, and count how often each 95 % interval covers the truth.

    The truth is the mean over the other repetitions; its error is added to the interval's half-width, so that an exact
    interval covers at its level for every `times`. Roles whose estimates do not vary (within 1e-6) are listed under
    "constant" and not counted.
    """
    planted = plant(draw_plan(mechanism, seed))
    run, length = as_run(planted), planted.plan.longest
    arms = ("M1", "M2", "M3", "M5", "M6")
    intervals_of: dict[str, list[Interval]] = {role: [] for role in ROLES}
    for k in range(times):
        evidence = battery(run, (length,), seed + 1 + k, prompts, arms=arms).measured[0].evidence
        for role in ROLES:
            if (e := find_evidence(evidence, HEADLINE[role])) is not None:
                intervals_of[role].append(e.value)
    covered, constant = {}, []
    for role, intervals in intervals_of.items():
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
