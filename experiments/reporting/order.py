"""Order and headings of a report's sections, for one run or for several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from experiments.reporting import error_text, plain, rows, shown, text
from experiments.reporting.explained import ABOUT, DECIDED, LABELS, READING, REST, terms_in
from experiments.reporting.page import (
    Section,
    bundles_of,
    figure,
    notes_of,
    page_made,
    paragraph,
    report_page,
    sources_of,
    table,
)
from experiments.reporting.section import Picture, SectionData
from experiments.reporting.stored import points_of, trained_to
from experiments.support.reading import read_calibration
from probes.views.accuracy import final_of

if TYPE_CHECKING:
    from interp.models import Run

# Lengths shown in the accuracy table, if they were measured.
LENGTHS = (10, 20, 30, 40, 60)
Measured = Sequence[tuple["Run", dict[str, SectionData]]]


def whole_page(measured: Measured, title: str, command: str) -> str:
    """Return the report on one run, or on several side by side."""
    compared = len(measured) > 1
    accuracy = [_curves(measured)] if compared else []
    pictures = [p for _, parts in measured for part in parts.values() for p in part.pictures] + accuracy
    views = [p.view for p in pictures]
    bundles = bundles_of(views)
    made = _Made(measured, bundles)
    sections = [made.question(), made.verdict(), made.competence(accuracy), made.maps()]
    for name, heading, above, shows in REST:
        if any(name in parts for _, parts in measured):
            sections.append(made.section(name, heading, above, shows))
    sections.append(made.limits(compared))
    counted = read_calibration()
    lead = paragraph(LABELS)
    for run, parts in measured:
        lead += paragraph(text.in_short(run.name, parts["verdict"].data, parts["accuracy"].data), "answer")
        lead += paragraph(error_text.how_sure(parts["verdict"].data, counted, run.raw.config.model_type))
    return report_page(title, lead + paragraph(ABOUT, "faint"), sections, views, command)


class _Made:
    """Builder of sections. `bundles` are the scripts of the page; figures refer to them by index."""

    def __init__(self, measured: Measured, bundles: Sequence[str]):
        self.measured, self.bundles, self.compared = measured, bundles, len(measured) > 1

    def figures(self, pictures: Sequence[Picture], part: SectionData | None = None) -> str:
        """Return the HTML of pictures; of a part, its own, with the seed of their prompts in the captions."""
        if part is not None and (seeds := sorted({source.seed for source in part.sources})):
            drawn = f" Prompts drawn with seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}."
            pictures = [replace(p, caption=p.caption + drawn) for p in pictures]
        return "".join(figure(p, self.bundles) for p in pictures)

    def heading(self, run: Run) -> str:
        return f"<h3>{escape(run.name)}</h3>\n" if self.compared else ""

    def sources(self, by_run: Sequence[tuple[Run, SectionData]]) -> str:
        many = [(run.name, source) for run, part in by_run for source in part.sources]
        return sources_of([replace(s, what=f"{name}, {s.what}") if self.compared else s for name, s in many])

    def question(self) -> Section:
        body, shown = "", set()
        for run, _ in self.measured:
            lines = [line for line in text.question(run) if line not in shown]  # each line once
            shown |= {*lines}
            body += self.heading(run) + "".join(map(paragraph, lines))
        return Section("question", "The question", body)

    def verdict(self) -> Section:
        counted, body = read_calibration(), ""
        by_run = [(run, parts["verdict"]) for run, parts in self.measured]
        if self.compared:
            body += table(
                "Verdicts side by side, over all lengths: status, rho, 95 % interval",
                ("run", "verdict", "anchor", "placeholder", "sink"),
                [rows.verdict_row(run.name, part.data) for run, part in by_run],
            )
        for run, part in by_run:
            body += self.heading(run) + paragraph(text.answer(part.data))
            if part.data["verdict"] != "not-applicable":
                body += "".join(map(paragraph, [*plain.plainly(part.data), shown.verdict_shows(part.data)]))
            body += self.figures(part.pictures, part)
            lines = text.role_lines(part.data)
            if part.data["verdict"] != "not-applicable":
                body += paragraph(DECIDED.format(limit=part.data["margins"]["rho"]))
            body += "".join(paragraph(line) for line in lines + text.claims(part.data))
            if arms := rows.arms_of(lines):
                body += table("What the arms named above do", ("arm", "what it does"), arms)
            if evidence := rows.evidence_rows(part.data):
                body += f"<details>\n<summary>The evidence, arm by arm ({len(evidence)} rows)</summary>\n"
                columns = ("length", "arm", "what", "in", "value [95 %]", "matched control", "n")
                caption = f"{run.name}: all arms; rho is 0 for no effect and 1 for the full one"
                body += table(caption, columns, evidence) + paragraph(terms_in(part.data))
                explained = rows.arms_in(part.data)
                body += table("What each arm does", ("arm", "what it does"), explained) + "</details>\n"
            if not self.compared:
                body += "<h3>How often is such a verdict wrong?</h3>\n"
                lines = error_text.how_often_wrong(part.data, counted, run.raw.config.model_type)
                body += "".join(map(paragraph, lines))
            body += notes_of(part.notes)
        if self.compared:
            body += "<h3>How often are such verdicts wrong?</h3>\n"
            kinds = {part.data["verdict"]: (part.data, run.raw.config.model_type) for run, part in by_run}
            many = [error_text.how_often_wrong(data, counted, model_type) for data, model_type in kinds.values()]
            body += "".join(map(paragraph, dict.fromkeys(line for some in many for line in some)))
        made = counted["provenance"]
        body += self.sources(by_run)
        body += paragraph(
            f"The counts are from `experiments/results/calibration.json`, made by `{made['command']}`, first seed "
            f"{counted['first_seed']}, {made['date']}, commit {made['commit']}.",
            "faint",
        )
        return Section("verdict", "The verdict, and how often such a verdict is wrong", body)

    def competence(self, together: Sequence[Picture]) -> Section:
        by_run = [(run, parts["accuracy"]) for run, parts in self.measured]
        body = "".join(
            self.heading(run) + paragraph(shown.accuracy_shows(part.data)) for run, part in by_run
        ) + paragraph(
            READING + "A mechanism can be judged only where the model does the task. Step accuracy: the share of right "
            "steps, with all earlier answers given (teacher-forced). Exact match: the share of solutions without any "
            "mistake, where the model writes all answers (free-running). Where the model writes labels too, a step is "
            "right if its label and its answer are, and chance is that of guessing both. "
            f"{final_of(self.measured[0][0].format.task).capitalize()}: the share of right last answers."
        )
        body += self.figures(together or by_run[0][1].pictures, by_run[0][1])
        measured = {row["length"] for _, part in by_run for row in part.data["accuracy"]}
        lengths = [n for n in LENGTHS if n in measured] or sorted(measured)
        found = [row for run, part in by_run for row in rows.accuracy_rows(run.name, part.data, lengths)]
        columns = ["run", "labels", "measure", *(f"n={n}" for n in lengths)]
        first = 0 if self.compared else 1  # one run need not be named in each row
        body += table("Accuracy by length", columns[first:], [row[first:] for row in found])
        for run, part in by_run:
            if sentence := text.offsets(part.data):
                body += paragraph((f"`{run.name}`: " if self.compared else "") + sentence)
            body += notes_of(part.notes)
        body += self.sources(by_run)
        return Section("competence", "Can the model do the task, and how far?", body)

    def maps(self) -> Section:
        by_run = [(run, parts["map"]) for run, parts in self.measured]
        weak = {run.name: shown.map_beyond(parts["map"].data, parts["accuracy"].data) for run, parts in self.measured}
        first = (
            ""
            if self.compared
            else "".join(paragraph(shown.map_shows(part.data) + weak[run.name]) for run, part in by_run)
        )
        body = first + paragraph(
            READING + "Gradient x input, as in the paper's Figure 5: how much the lead of an answer depends on a "
            "token, to first order. It decides nothing: where attention is saturated, the token that selects a bit may "
            "have no gradient."
        )
        each = "".join(
            f"<div>{self.heading(run)}{paragraph(shown.map_shows(part.data) + weak[run.name]) if self.compared else ''}"
            f"{self.figures(part.pictures, part)}{notes_of(part.notes)}</div>\n"
            for run, part in by_run
        )
        body += f'<div class="report-pair">{each}</div>\n' if self.compared else each
        body += self.sources(by_run)
        return Section("map", "Which tokens each answer depends on", body)

    def section(self, name: str, title: str, above: str, shows: Callable[[dict], str]) -> Section:
        body = paragraph(READING + above)
        for run, parts in self.measured:
            part = parts[name]
            said = paragraph(shows(part.data))
            # Of one run, what the picture shows comes first.
            body = body + self.heading(run) + said if self.compared else said + body
            body += circuit_tables(part.data) if name == "circuit" else ""
            body += self.figures(part.pictures, part)
            if name == "probes" and part.pictures:
                body += paragraph(text.erased(parts["verdict"].data))
            body += notes_of(part.notes) + sources_of(part.sources)
        return Section(name, title, body)

    def limits(self, compared: bool) -> Section:
        lines = [
            "Maps, attention and probes describe. Patching and the arms of the verdict intervene. Only the verdict's "
            "arms have limits that were set beforehand; error rates are measured for these alone.",
            "This is one model. A claim about a format or an encoding needs several seeds of each.",
        ]
        if compared:
            lines.append(
                "Runs side by side were trained with different seeds: a difference between two of them may be a "
                "difference of seeds."
            )
        lines.append(page_made(None if compared else self.measured[0][1]["verdict"].data.get("weights")))
        return Section("limits", "What this report cannot show", "".join(map(paragraph, lines)))


def circuit_tables(data: dict) -> str:
    """Return the circuit's faithfulness by length and its heads as tables; "" without a circuit."""
    if not data:
        return ""
    columns = ("length", "faithfulness", "step accuracy", "full model")
    heads = [[head, does] for head, does in data["heads"].items()]
    by_length = table("The same circuit by length", columns, rows.faithfulness_rows(data))
    return by_length + table("Its heads: which token each attends to, and from where", ("head", "attends to"), heads)


def _curves(measured: Measured) -> Picture:
    from probes import views

    curves = {run.name: points_of(parts["accuracy"].data) for run, parts in measured}
    trained = {trained_to(run) for run, _ in measured}
    same, task = trained.pop() if len(trained) == 1 else None, measured[0][0].format.task
    picture = views.by_length(curves, same, "Accuracy by length, side by side", task)
    return Picture(picture, measured[0][1]["accuracy"].pictures[0].caption)
