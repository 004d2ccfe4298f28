"""Order and headings of a report's sections, for one run or for several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from experiments.commands.circuit import invalid
from experiments.reporting import text
from experiments.reporting.page import Section, bundles_of, figure, paragraph, report_page, sources_of, table
from experiments.reporting.section import Picture, SectionData
from experiments.reporting.stored import points_of, trained_to
from experiments.support.provenance import provenance_record
from experiments.support.reading import read_calibration

if TYPE_CHECKING:
    from interp.models import Run

# Lengths shown in the accuracy table, if they were measured.
LENGTHS = (10, 20, 30, 40, 60)
ABOUT = (
    "A transformer that computes parity step by step must find bit i in its context. Ebrahimi, Panchal and Memisevic "
    "(COLM 2024, arXiv 2408.05506) found that it generalises past its training length when a matching token, a "
    "mnemonic, precedes each bit of the problem and each step of the solution. This report calls such a token a label."
)
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
    for name, heading, above in REST:
        if any(name in parts for _, parts in measured):
            sections.append(made.section(name, heading, above))
    sections.append(made.limits(compared))
    lead = "".join(
        paragraph(text.in_short(run.name, parts["verdict"].data, parts["accuracy"].data), "answer")
        for run, parts in measured
    )
    return report_page(title, lead + paragraph(ABOUT, "faint"), sections, views, command)


REST = (
    (
        "attention",
        "Attention of the important heads",
        "Attention weights show where a head reads, not what it contributes: a weight can be large where the value "
        "is zero.",
    ),
    (
        "patch",
        "Activation patching",
        "One activation at a time is patched from the clean run into the corrupted run. Blue moves the margin toward "
        "the clean answer. A patch that restores the answer shows that the activation suffices on these prompts, not "
        "that it is the only route.",
    ),
    (
        "probes",
        "What probes decode at the labels",
        "A probe shows what is decodable, not what is used. A score counts only above its matched control.",
    ),
    (
        "circuit",
        "Circuit",
        "A circuit is a set of edges that keeps the model's behaviour when all other edges carry a corrupted prompt. "
        "Faithfulness is the share of the margin that it keeps. Other circuits may be equally faithful.",
    ),
)


class _Made:
    """Builder of sections. `bundles` are the scripts of the page; figures refer to them by index."""

    def __init__(self, measured: Measured, bundles: Sequence[str]):
        self.measured, self.bundles, self.compared = measured, bundles, len(measured) > 1

    def figures(self, pictures: Sequence[Picture]) -> str:
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
            rows = [text.verdict_row(run.name, part.data) for run, part in by_run]
            body += table(
                "Verdicts side by side, over all lengths: status, rho, 95 % interval",
                ("run", "verdict", "anchor", "placeholder", "sink"),
                rows,
            )
        for run, part in by_run:
            body += self.heading(run) + paragraph(text.answer(part.data)) + self.figures(part.pictures)
            body += "".join(paragraph(line) for line in text.role_lines(part.data) + text.claims(part.data))
            if rows := text.evidence_rows(part.data):
                body += f"<details>\n<summary>The evidence, arm by arm ({len(rows)} rows)</summary>\n"
                columns = ("length", "arm", "what", "in", "value [95 %]", "matched control", "n")
                body += table(f"{run.name}: all arms; rho is 0 for no effect and 1 for the full one", columns, rows)
                body += "</details>\n"
            if not self.compared:
                body += "<h3>How often is such a verdict wrong?</h3>\n"
                body += "".join(map(paragraph, text.how_often_wrong(part.data, counted)))
            body += _notes(part)
        if self.compared:
            body += "<h3>How often are such verdicts wrong?</h3>\n"
            kinds = {part.data["verdict"]: part.data for _, part in by_run}
            lines = [text.how_often_wrong(data, counted) for data in kinds.values()]
            body += "".join(map(paragraph, dict.fromkeys(line for some in lines for line in some)))
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
        body = paragraph(
            "A mechanism can be judged only where the model does the task. Three metrics, each with its chance level: "
            "teacher-forced step accuracy, exact match, and the final bit."
        )
        body += self.figures(together or by_run[0][1].pictures)
        measured = {row["length"] for _, part in by_run for row in part.data["accuracy"]}
        lengths = [n for n in LENGTHS if n in measured] or sorted(measured)
        rows = [row for run, part in by_run for row in text.accuracy_rows(run.name, part.data, lengths)]
        columns = ["run", "labels", "measure", *(f"n={n}" for n in lengths)]
        first = 0 if self.compared else 1  # one run need not be named in each row
        body += table("Accuracy by length", columns[first:], [row[first:] for row in rows])
        for run, part in by_run:
            if sentence := text.offsets(part.data):
                body += paragraph((f"`{run.name}`: " if self.compared else "") + sentence)
            body += _notes(part)
        body += self.sources(by_run)
        return Section("competence", "Can the model do the task, and how far?", body)

    def maps(self) -> Section:
        by_run = [(run, parts["map"]) for run, parts in self.measured]
        body = paragraph(
            "Gradient x input, as in the paper's Figure 5. It decides nothing: where attention is saturated, the "
            "token that selects a bit may have no gradient."
        )
        each = "".join(
            f"<div>{self.heading(run)}{self.figures(part.pictures)}{_notes(part)}</div>\n" for run, part in by_run
        )
        body += f'<div class="report-pair">{each}</div>\n' if self.compared else each
        body += self.sources(by_run)
        return Section("map", "Which tokens each answer depends on", body)

    def section(self, name: str, title: str, above: str) -> Section:
        body = paragraph(above)
        for run, parts in self.measured:
            part = parts[name]
            body += self.heading(run) + summary_of(name, part) + self.figures(part.pictures)
            if name == "probes" and part.pictures:
                body += paragraph(text.erased(parts["verdict"].data))
            body += _notes(part) + sources_of(part.sources)
        return Section(name, title, body)

    def limits(self, compared: bool) -> Section:
        made = provenance_record()
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)
        lines = [
            "Maps, attention and probes describe. Patching and the arms of the verdict intervene. Only the verdict's "
            "arms have matched controls, preregistered margins and measured error rates.",
            "This is one model. A claim about a format or an encoding needs several seeds of each.",
        ]
        if compared:
            lines.append(
                "Runs side by side were trained with different seeds: a difference between two of them may be a "
                "difference of seeds."
            )
        lines.append(f"This page was made on {made['date']} at commit {made['commit'] or 'unknown'}, with {versions}.")
        return Section("limits", "What this report cannot show", "".join(map(paragraph, lines)))


def summary_of(name: str, part: SectionData) -> str:
    """Return the numbers of a section as a sentence or a table."""
    data = part.data
    match name:
        case "patch" if data:
            places, heads = (
                ", ".join(f"{top['cell']} ({top['change']:+.2f})" for top in data[site]) for site in ("resid_pre", "z")
            )
            return paragraph(
                f"Length {data['length']}, answer at step {data['step']}, patched into {data['story']}. The clean and "
                f"the corrupted run differ by {data['difference']:+.2f} logits. Largest effects of resid_pre: "
                f"{places}; of heads: {heads}."
            )
        case "circuit" if data:
            worth = data["ablations"]["corrupted"]
            sentence = (
                f"{invalid(data)}{data['circuit']['size']} of {data['possible_edges']} edges keep "
                f"{worth['values']:.3f} "
                f"[{worth['low']:.3f}, {worth['high']:.3f}] of the margin on fresh prompts, and step accuracy "
                f"{worth['accuracy']:.3f} of the full model's {worth['accuracy_full']:.3f}; the largest of "
                f"{data['random']['n']} random circuits of that size keeps {data['random']['largest']:.3f}."
            )
            rows = [
                [
                    n,
                    f"{w['values']:.3f} [{w['low']:.3f}, {w['high']:.3f}]",
                    f"{w['accuracy']:.3f}",
                    f"{w['accuracy_full']:.3f}",
                ]
                for n, w in data["lengths"].items()
            ]
            heads = [[head, does] for head, does in data["heads"].items()]
            return (
                paragraph(sentence)
                + table("The same circuit by length", ("length", "faithfulness", "step accuracy", "full model"), rows)
                + table("Its heads", ("head", "measured function"), heads)
            )
    return ""


def _curves(measured: Measured) -> Picture:
    from probes import views

    curves = {run.name: points_of(parts["accuracy"].data) for run, parts in measured}
    trained = {trained_to(run) for run, _ in measured}
    picture = views.by_length(curves, trained.pop() if len(trained) == 1 else None, "Accuracy by length, side by side")
    return Picture(picture, measured[0][1]["accuracy"].pictures[0].caption)


def _notes(part: SectionData) -> str:
    return "".join(paragraph(note, "note") for note in part.notes)
