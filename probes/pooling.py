"""Evidence over models: t intervals on model means, and the tests of the roles with Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probes import keys
from probes.batteries import Measured
from probes.evidence import MODELS, Accuracy, Evidence, EvidenceKey, find_evidence
from probes.findings import ROLES, Margins
from probes.judging import HEADLINE
from probes.judging_sink import ON_MARGINS
from probes.statistics import equivalence, holm, sign_flip, t_interval

# What is tested over models: the roles, and the sink on margins.
TESTED = (*ROLES, ON_MARGINS)
# A test that could not be made does not hold.
UNTESTED = {"present": {"holds": False}, "absent": {"holds": False}}


def competent_mode(accuracy: Sequence[Accuracy], margins: Margins) -> str | None:
    """Return the mode whose whole interval of step accuracy is above the gate, "written" first; None without one."""
    modes = [a.mode for a in accuracy if a.metric == "step" and a.estimate.low >= margins.competence]
    return "written" if "written" in modes else modes[0] if modes else None


def holm_tests(pooled: Sequence[tuple[Measured, int]], margins: Margins) -> list[dict[str, dict]]:
    """Return both tests of each role and of the sink on margins, by length; one family of Holm's correction.

    `pooled`: the evidence over models at each length, with the number of competent models.
    """
    p_values: dict[tuple[int, str, str], float] = {}
    for k, (measured, count) in enumerate(pooled):
        for role in TESTED:
            e = _tested(measured, role)
            if count >= 2 and e is not None:
                values, controls = e.details["models"], e.details["controls"]
                bounds = [margins.rho if c is None else max(c, margins.rho) for c in controls]
                p_values[k, role, "present"] = sign_flip([v - b for v, b in zip(values, bounds, strict=True)])
                p_values[k, role, "absent"] = equivalence(values, margins.rho)
    adjusted = holm(p_values, margins.alpha)
    return [
        {
            role: {
                test: {"p": p_values[key], "holm": adjusted[key][0], "holds": adjusted[key][1]}
                for test in UNTESTED
                if (key := (k, role, test)) in p_values
            }
            for role in TESTED
            if (k, role, "present") in p_values
        }
        for k in range(len(pooled))
    ]


def _tested(measured: Measured, role: str) -> Evidence | None:
    """Return the evidence that the tests over models are made of."""
    if role != ON_MARGINS:
        return find_evidence(measured.evidence, HEADLINE[role])
    by_cell = find_evidence(measured.evidence, keys.PRESENCE_MARGIN)
    return by_cell or find_evidence(measured.evidence, keys.MARGIN_HELD)


def pool(competent: Sequence[Measured], everyone: Sequence[Measured]) -> Measured:
    """Return the evidence of several models as t intervals on their means; with fewer than two, the reason for none."""
    # Of the models that count; where none does, of all, so that the reason shows.
    accuracy = tuple(a for m in competent or everyone for a in m.accuracy)
    length, reasons = everyone[0].length, [m.refusal for m in everyone if m.refusal]
    if len(competent) < 2:
        reason = reasons[0] if reasons else f"{len(competent)} of {len(everyone)} models are competent; 2 are needed"
        return Measured(length, accuracy, (), reason, left_out=everyone[0].left_out)
    means = [_mean_over_models(first.key, competent) for first in competent[0].evidence]
    return Measured(
        length=length,
        accuracy=accuracy,
        evidence=tuple(e for e in means if e is not None),
        no_address=competent[0].no_address,
        left_out=competent[0].left_out,
    )


def _mean_over_models(key: EvidenceKey, models: Sequence[Measured]) -> Evidence | None:
    """Return one piece of evidence over models; None where a model lacks it or has no finite value for it."""
    pieces = [e for m in models if (e := find_evidence(m.evidence, key)) is not None and math.isfinite(e.value.value)]
    if len(pieces) < len(models):
        return None  # some models give no occasion for an arm such as M10, or a description is undefined in them
    values, controls = [e.value.value for e in pieces], [e.control.value if e.control else None for e in pieces]
    if any(c is not None for c in controls):
        # A model without a measured control counts as if its control were as large as its effect.
        controls = [v if c is None else c for v, c in zip(values, controls, strict=True)]
    return replace(
        pieces[0],
        value=t_interval(values),
        control=None if None in controls else t_interval([c for c in controls if c is not None]),
        n=len(pieces),
        unit=MODELS,
        details={"models": values, "controls": controls},
    )
