"""A verdict as text for a terminal: first a summary of about a dozen lines, then the evidence on request."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from experiments.support.console import FILE_COLUMNS, say
from experiments.support.evidence_text import INDENT, WRITER, print_evidence
from experiments.support.verdict_defaults import PROMPTS
from experiments.training.rehearsal import rehearsed_text
from probes.arms.naming import with_arm_names
from probes.pooling import competent_mode
from probes.statuses import Status

if TYPE_CHECKING:
    from interp.models import Run
    from probes.findings import LengthFinding, Margins, Verdict

_NUMBER = r"(-?(?:\d+\.\d+|inf))"
# An interval as `Interval` prints it, and whether it is simultaneous (`LengthEvidence.together`).
_INTERVAL = re.compile(rf"{_NUMBER} \[{_NUMBER}, {_NUMBER}\]( \(interval)?")


def print_verdict(
    verdict: Verdict, run: Run, columns: int, evidence: bool, prompts: int, sure: str = "", usual: int = PROMPTS
) -> None:
    """Print a verdict over so many prompts on a terminal of so many columns; `evidence` adds all that was measured.

    `sure`: how often such verdicts are wrong, from `how_sure` of the report. `usual`: the default number of prompts.
    """
    for line in summary(verdict, run, columns, prompts, usual):
        say(line)
    say_how_sure(sure, columns)
    if evidence:
        say("")
        print_evidence(verdict, columns)


def say_how_sure(sure: str, columns: int) -> None:
    """Print a sentence of `how_sure` on a terminal of so many columns; nothing for ""."""
    plain = sure.replace("**", "").replace("`", "").removeprefix("How sure? ")
    for line in _paragraph("how sure", plain, columns) if sure else ():
        say(line)


def summary(verdict: Verdict, run: Run, columns: int, prompts: int, usual: int = PROMPTS) -> Iterator[str]:
    """Yield the lines of the answer: label, competence, roles with their effects, why, and what may be claimed.

    A verdict that is undecided because intervals over `prompts` are wide also gets what to do next.
    """
    names = verdict.names
    who = names[0] if len(names) == 1 else f"{len(names)} models of {verdict.format}"
    yield f"{who}: {verdict.label.upper()}"
    for line in _competence(verdict.lengths, verdict.margins):
        yield from textwrap.wrap(line, max(40, columns), initial_indent=INDENT, subsequent_indent=2 * INDENT)
    for name, role in verdict.roles.items():
        effect = "not measured" if role.rho is None else str(role.rho)
        line = f"{INDENT}{name:<13}{role.status.value:<15}effect {effect}"
        by = f"by {role.by}" if role.by else ""
        fits = len(line) + len(by) + 2 <= columns
        yield f"{line}, {by}" if by and fits else line
        if by and not fits:
            yield f"{INDENT}{'':<13}{by}"
        if role.margins is not None:
            share = "not measured" if role.margins.share is None else str(role.margins.share)
            yield f"{INDENT}{'  on margins':<13}{role.margins.status.value:<15}share  {share}"
    if any(role.rho is not None for role in verdict.roles.values()):
        yield f"{INDENT}95 % intervals, each by itself; statuses follow from wider, simultaneous ones"
    if verdict.remainder is not None:
        yield f"{INDENT}{'remainder':<13}{'':<15}share  {verdict.remainder:.3f}, in none of the measured shares"
    yield from _paragraph("why", _why(verdict), columns)
    if is_open_by_width(verdict):
        yield from _paragraph("next", more_prompts(prompts, usual), columns)
    yield from _paragraph("may be claimed", with_arm_names(verdict.may_claim), columns)
    yield from _paragraph("may not be claimed", with_arm_names(verdict.may_not_claim), columns)
    recipe = run.record.get("recipe", {})
    if share := recipe.get("rehearsal"):
        pairs, longest = recipe["rehearsal_longest"], recipe.get("longest")
        rehearsal = f"lookup was rehearsed to {pairs} pairs: past {longest} only the task is new"
        if recipe.get("condition"):
            rehearsal = f"{share:.0%} of the tokens were {rehearsed_text(recipe)}"
        yield from _paragraph("training", rehearsal, columns)


def is_open_by_width(verdict: Verdict) -> bool:
    """Return whether one model's verdict is undecided only because intervals are wide.

    That is: some role is INDETERMINATE at a length at which the model is competent, and the reason of each such role
    has an interval that contains a bound of the margin at the level of the decision.
    """
    open_ = [r for f in verdict.lengths if f.mode for r in f.roles.values() if r.status is Status.INDETERMINATE]
    if verdict.label != "undecided" or verdict.replication != "prompts" or not open_:
        return False
    level = verdict.margins.level(len(verdict.lengths))
    return all(_straddles(role.reason, verdict.margins.rho, level) for role in open_)


def _straddles(reason: str, margin: float, level: float) -> bool:
    """Return whether an interval in a reason contains `margin` or -`margin`; 95 % intervals are widened to `level`."""
    quantile = NormalDist().inv_cdf
    wider = quantile(0.5 + level / 2) / quantile(0.975)
    for value, low, high, simultaneous in _INTERVAL.findall(reason):
        scale, middle = 1 if simultaneous else wider, float(value)
        bounds = [middle + (float(bound) - middle) * scale for bound in (low, high)]
        if any(bounds[0] < bound < bounds[1] for bound in (-margin, margin)):
            return True
    return False


def more_prompts(prompts: int, usual: int = PROMPTS) -> str:
    """Return what to do where intervals are too wide, with the number of prompts that they are over."""
    here = f"{prompts} here, the default" if prompts == usual else f"{prompts} here; default {usual}"
    return f"more --prompts narrow the intervals ({here})"


def _competence(findings: Sequence[LengthFinding], margins: Margins) -> Iterator[str]:
    """Yield at which lengths the model does the task, and at which it does not, with its step accuracy."""
    groups: dict[tuple[bool, str], dict[str, str]] = {}
    for finding in findings:
        able = competent_mode(finding.accuracy, margins)  # also where the format cannot be judged
        mode = able or finding.accuracy[0].mode
        step = next(a.estimate for a in finding.accuracy if a.metric == "step" and a.mode == mode)
        groups.setdefault((able is not None, mode), {})[str(finding.length)] = f"{step.value:.3f}"
    for (competent, mode), steps in groups.items():
        state = "competent" if competent else "NOT competent"
        lengths, values = (" and ".join(some) for some in (steps, steps.values()))
        yield f"{state} at length{'s' * (len(steps) > 1)} {lengths} (step accuracy {values}, labels {WRITER[mode]})"


def _why(verdict: Verdict) -> str:
    """Return the reason of each role, or the one that all share; of several lengths, that at the longest."""
    competent = [f for f in verdict.lengths if f.mode] or list(verdict.lengths)
    roles, where = verdict.roles, ""
    # Over several lengths the reason of a role lists every length; the evidence has them all.
    alike = all(competent[-1].roles[name].status is role.status for name, role in roles.items())
    if alike and any(f.roles != competent[-1].roles for f in competent):
        roles, where = competent[-1].roles, f"at length {competent[-1].length}, "
    reasons = [f"{name}: {role.reason}" for name, role in roles.items()]
    if len({role.reason for role in roles.values()}) == 1:
        reasons = [next(iter(roles.values())).reason]
    # Intervals are in the evidence, and those of the roles stand above; but the one that left a role open is said.
    return with_arm_names(re.sub(r" \[[^]]*\](?! \(interval)", "", where + "; ".join(reasons)))


def _paragraph(title: str, text: str, columns: int) -> list[str]:
    return textwrap.wrap(f"{title}: {text}", max(40, columns), subsequent_indent=INDENT)


def columns_of_output() -> int:
    """Return the width of the terminal in columns; 200 where the output is no terminal."""
    import shutil
    import sys

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else FILE_COLUMNS
