"""A verdict as text for a terminal: first a summary of about a dozen lines, then the evidence on request."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.console import FILE_COLUMNS, print_table, say, warn
from experiments.training.rehearsal import rehearsed_text
from probes.arms.naming import arm_title, with_arm_names
from probes.pooling import competent_mode

if TYPE_CHECKING:
    from interp.models import Run
    from probes.evidence import Evidence
    from probes.findings import LengthFinding, Margins, Verdict

# Narrower terminals get the evidence as stacked lines instead of a table, in columns.
TABLE_COLUMNS = 120
INDENT = "  "
# Who writes the labels, by mode.
MODES = {"forced": "given", "written": "written by the model"}
WRITER = {"forced": "given", "written": "written"}


def warn_judged_again(path: Path) -> None:
    """Print one line on standard error where a verdict is finished: the same command does not read it, but replaces it.

    Its work is removed when it is written; only an interrupted verdict resumes.
    """
    if path.is_file():
        warn(f"judging again: {path} is finished, and will be replaced")


def print_verdict(verdict: Verdict, run: Run, columns: int, evidence: bool) -> None:
    """Print a verdict on a terminal of so many columns; `evidence` adds everything that was measured."""
    for line in summary(verdict, run, columns):
        say(line)
    if evidence:
        say("")
        _print_evidence(verdict, columns)


def summary(verdict: Verdict, run: Run, columns: int) -> Iterator[str]:
    """Yield the lines of the answer: label, competence, roles with their effects, why, and what may be claimed."""
    names = verdict.names
    who = names[0] if len(names) == 1 else f"{len(names)} models of {verdict.format}"
    yield f"{who}: {verdict.label.upper()}"
    for line in _competence(verdict.lengths, verdict.margins):
        yield from textwrap.wrap(line, max(40, columns), initial_indent=INDENT, subsequent_indent=2 * INDENT)
    for name, role in verdict.roles.items():
        effect = "not measured" if role.rho is None else str(role.rho)
        by = f", by {role.by}" if role.by else ""
        yield f"{INDENT}{name:<13}{role.status.value:<15}effect {effect}{by}"
        if role.margins is not None:
            share = "not measured" if role.margins.share is None else str(role.margins.share)
            yield f"{INDENT}{'  on margins':<13}{role.margins.status.value:<15}share  {share}"
    if verdict.remainder is not None:
        yield f"{INDENT}{'remainder':<13}{'':<15}share  {verdict.remainder:.3f}, by no share that is measured"
    yield from _paragraph("why", _why(verdict), columns)
    yield from _paragraph("may be claimed", with_arm_names(verdict.may_claim), columns)
    yield from _paragraph("may not be claimed", with_arm_names(verdict.may_not_claim), columns)
    recipe = run.record.get("recipe", {})
    if share := recipe.get("rehearsal"):
        pairs, longest = recipe["rehearsal_longest"], recipe.get("longest")
        rehearsal = f"lookup was rehearsed to {pairs} pairs: past {longest} only the task is new"
        if recipe.get("condition"):
            rehearsal = f"{share:.0%} of the tokens were {rehearsed_text(recipe)}"
        yield from _paragraph("training", rehearsal, columns)


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
    if len(competent) > 1 and all(competent[-1].roles[name].status is role.status for name, role in roles.items()):
        roles, where = competent[-1].roles, f"at length {competent[-1].length}, "
    reasons = [f"{name}: {role.reason}" for name, role in roles.items()]
    if len({role.reason for role in roles.values()}) == 1:
        reasons = [next(iter(roles.values())).reason]
    # Intervals are in the evidence, and those of the roles stand above; but the one that left a role open is said.
    return with_arm_names(re.sub(r" \[[^]]*\](?! \(interval)", "", where + "; ".join(reasons)))


def _paragraph(title: str, text: str, columns: int) -> list[str]:
    return textwrap.wrap(f"{title}: {text}", max(40, columns), subsequent_indent=INDENT)


def _print_evidence(verdict: Verdict, columns: int) -> None:
    """Print accuracies, roles, evidence and the arms that were left out, length by length."""
    for finding in verdict.lengths:
        _print_accuracy(finding, columns)
        _print_roles(finding, columns)
        if finding.evidence:
            rows = [
                (arm_title(e.arm), e.name, e.quantity, str(e.value), str(e.control or "-"), str(e.n))
                for e in finding.evidence
            ]
            title = f"length {finding.length}: evidence, over {_unit(finding.evidence[0])}, 95 % intervals"
            _print_rows(title, ("arm", "intervention", "quantity", "value", "control", "n"), rows, columns)
        for name, reason in finding.left_out.items():
            say(f"{arm_title(name)}: {with_arm_names(reason)}")


def _print_accuracy(finding: LengthFinding, columns: int) -> None:
    rows = []
    for mode in dict.fromkeys(a.mode for a in finding.accuracy):
        estimates = {a.metric: str(a.estimate) for a in finding.accuracy if a.mode == mode}
        state = "competent" if mode == finding.mode else "not decisive"
        rows.append((f"labels {MODES[mode]}", state, *(estimates[metric] for metric in ("step", "exact", "final"))))
    title = f"length {finding.length}: accuracy, 95 % intervals"
    _print_rows(title, ("mode", "state", "step accuracy", "exact match", "final answer"), rows, columns)


def _print_roles(finding: LengthFinding, columns: int) -> None:
    rows = [
        (name, role.status.value, str(role.rho or "-"), str(role.control or "-"), with_arm_names(role.reason))
        for name, role in finding.roles.items()
    ]
    title = (
        f"length {finding.length}: {finding.label}; effect 0 is none, 1 the whole; decided at simultaneous intervals"
    )
    _print_rows(title, ("role", "status", "effect", "matched control", "why"), rows, columns)


def _print_rows(title: str, names: tuple[str, ...], rows: list[tuple[str, ...]], columns: int) -> None:
    """Print rows as a table, or below 120 columns as stacked lines with the first two cells as a heading."""
    if columns >= TABLE_COLUMNS:
        print_table(title, names, rows)
        return
    for line in textwrap.wrap(title, columns, subsequent_indent=INDENT):
        say(line)
    for first, second, *cells in rows:
        say(f"{INDENT}{first}: {second}")
        text = "; ".join(f"{name} {cell}" for name, cell in zip(names[2:], cells, strict=True) if cell != "-")
        for line in textwrap.wrap(text, columns, initial_indent=2 * INDENT, subsequent_indent=2 * INDENT):
            say(line)


def _unit(evidence: Evidence) -> str:
    return evidence.unit


def columns_of_output() -> int:
    """Return the width of the terminal in columns; 200 where the output is no terminal."""
    import shutil
    import sys

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else FILE_COLUMNS
