"""The evidence of a verdict as text: tables, or stacked lines where a table is wider than the terminal.

No cell is cut: a table is printed only where every cell fits, with long names folded.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.support.console import print_table, say
from probes.arms.naming import arm_title, with_arm_names
from probes.pooling import competent_mode

if TYPE_CHECKING:
    from probes.findings import LengthFinding, Margins, Verdict

INDENT = "  "
# Who writes the labels, by mode.
MODES = {"forced": "given", "written": "written by the model"}
WRITER = {"forced": "given", "written": "written"}
# Fewest columns of a name that is folded. In less the table is stacked instead.
FOLDED = 30


def print_evidence(verdict: Verdict, columns: int) -> None:
    """Print accuracies, roles, evidence and the arms that were left out, length by length."""
    for finding in verdict.lengths:
        _print_accuracy(finding, verdict.margins, columns)
        _print_roles(finding, columns)
        if finding.evidence:
            rows = [
                (arm_title(e.arm), e.name, e.quantity, str(e.value), str(e.control or "-"), str(e.n))
                for e in finding.evidence
            ]
            title = f"length {finding.length}: evidence, over {finding.evidence[0].unit}, 95 % intervals"
            _print_rows(title, ("arm", "intervention", "quantity", "value", "control", "n"), rows, columns, fold=1)
        for name, reason in finding.left_out.items():
            _print_wrapped(f"{arm_title(name)}: {with_arm_names(reason)}", columns)


def _print_accuracy(finding: LengthFinding, margins: Margins, columns: int) -> None:
    able, rows = competent_mode(finding.accuracy, margins), []
    for mode in dict.fromkeys(a.mode for a in finding.accuracy):
        estimates = {a.metric: str(a.estimate) for a in finding.accuracy if a.mode == mode}
        state = "competent" if mode == able else "not competent"
        if able == "written" and mode != able:
            state = "not used for the verdict (written labels decide)"
        rows.append((f"labels {MODES[mode]}", state, *(estimates[metric] for metric in ("step", "exact", "final"))))
    title = f"length {finding.length}: accuracy, 95 % intervals"
    _print_rows(title, ("mode", "state", "step accuracy", "exact match", "final answer"), rows, columns)


def _print_roles(finding: LengthFinding, columns: int) -> None:
    """Print the roles, and below them the reason of each as a paragraph."""
    rows = [
        (name, role.status.value, str(role.rho or "-"), str(role.control or "-"))
        for name, role in finding.roles.items()
    ]
    title = (
        f"length {finding.length}: {finding.label}; effect 0 is none, 1 the whole; decided at simultaneous intervals"
    )
    _print_rows(title, ("role", "status", "effect", "matched control"), rows, columns)
    for name, role in finding.roles.items():
        _print_wrapped(f"{INDENT}why {name}: {with_arm_names(role.reason)}", columns)


def _print_rows(
    title: str, names: Sequence[str], rows: Sequence[tuple[str, ...]], columns: int, fold: int | None = None
) -> None:
    """Print rows as a table where it fits, else as stacked lines with the first two cells as a heading.

    The column number `fold` may become narrower, down to 30 columns, over several lines.
    """
    widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
    spare = columns - (sum(widths) + 3 * len(names) + 1)  # two spaces and a border per cell
    *above, last = textwrap.wrap(title, max(40, columns), subsequent_indent=INDENT)
    for line in above:
        say(line)
    if spare >= 0:
        print_table(last, names, rows)
    elif fold is not None and (width := widths[fold] + spare) >= FOLDED:
        print_table(last, names, [folded for row in rows for folded in _folded(row, fold, width)])
    else:
        say(last)
        _print_stacked(names, rows, columns)


def _folded(row: tuple[str, ...], fold: int, width: int) -> list[tuple[str, ...]]:
    """Return a row as one or more rows, of which only the first has other cells than the folded one."""
    lines = textwrap.wrap(row[fold], width) or [""]
    return [
        tuple(line if k == fold else cell if first else "" for k, cell in enumerate(row))
        for first, line in zip([True, *[False] * (len(lines) - 1)], lines, strict=True)
    ]


def _print_stacked(names: Sequence[str], rows: Sequence[tuple[str, ...]], columns: int) -> None:
    """Print a heading of two cells per row, and below it the others with their names; none is broken in two."""
    for first, second, *cells in rows:
        _print_wrapped(f"{INDENT}{first}: {second}", columns)
        line = ""
        for name, cell in zip(names[2:], cells, strict=True):
            if cell == "-":
                continue
            piece = f"{name} {cell}"
            if line and len(line) + len(piece) + 2 * len(INDENT) + 3 > columns:
                say(f"{2 * INDENT}{line};")
                line = piece
            else:
                line = f"{line}; {piece}" if line else piece
        say(f"{2 * INDENT}{line}")


def _print_wrapped(text: str, columns: int) -> None:
    for line in textwrap.wrap(text, max(40, columns), subsequent_indent=2 * INDENT):
        say(line)
