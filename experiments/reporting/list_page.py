"""The report on lists or recall: by what one model finds an item, where, and in which heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.reporting.error_text import how_sure_of_list
from experiments.reporting.list_sections import heads_section, patch_section, verdict_section
from experiments.reporting.list_text import ABOUT, STATUSES, in_short, negative_heads, renaming_check
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
from experiments.reporting.rows import estimate
from experiments.reporting.section import SectionData, from_json, to_json
from experiments.support.list_results import interval_text
from experiments.support.reading import LIST_CALIBRATION, read_calibration
from probes.binding.text import OVERTAKES

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from experiments.support.own_lists import ListTask
    from interp.models import Run
    from probes.binding import Trial


def list_report(
    run: Run,
    options: ReportCommand,
    task: ListTask,
    trials: list[Trial],
    step: Callable[[str], None],
    command: str,
    work: Path,
) -> str:
    """Return the page on one run and list; sections that the model or the template cannot have say why.

    Finished sections are kept in the folder `work`, and read from it.
    """
    from experiments.support.results import load_or_make

    def kept(name: str, make: Callable[[], SectionData]) -> SectionData:
        step(name)
        return load_or_make(work / f"{name}.json", make, to_json, from_json)

    verdict = kept("verdict", lambda: verdict_section(run, options, task, trials, step, work))
    found = verdict.data
    parts: dict[str, SectionData] = {"verdict": verdict}
    if found["refusal"] is None:
        parts["patch"] = kept("patching", lambda: patch_section(run, options, trials[0], found))
        heads = parts["patch"].data["heads"]
        parts["heads"] = kept("heads", lambda: heads_section(run, options, trials[0], heads))
    views = [picture.view for part in parts.values() for picture in part.pictures]
    bundles = bundles_of(views)
    sections = [_question(run, trials[0]), _verdict(verdict, bundles)]
    if "patch" in parts:
        sections += [_patching(parts["patch"], bundles), _heads(parts["heads"], bundles)]
    sections.append(_limits(found))
    title = f"By what does {run.name} find an item? {task}, {options.items} items"
    lead = paragraph(in_short(run.name, found), "answer")
    if sure := how_sure_of_list(found, read_calibration(LIST_CALIBRATION)):
        lead += paragraph(sure)
    return report_page(title, lead, sections, views, command)


def _question(run: Run, trial: Trial) -> Section:
    found = trial.lookups
    text, answer = found.prompts.text(0).replace("\n", " ↵ "), int(found.answer(found.query)[0])
    asked = (
        f"The first prompt is `{text}` and asks for item {found.query}, `{found.prompts.symbol(answer)}`. In it, each "
        f"edit makes an address lead to item {trial.target}. What is measured is how far the logits follow; the most "
        "likely answer need not change."
    )
    size = sum(p.numel() for p in run.raw.parameters()) / 1e6
    config = run.raw.config
    model = f"`{run.name}`: {config.model_type}, {config.num_hidden_layers} layers, {size:.1f} million parameters."
    return Section("question", "The question", paragraph(ABOUT) + paragraph(model) + paragraph(asked))


def _verdict(part: SectionData, bundles: list[str]) -> Section:
    found, body = part.data, ""
    accuracy = interval_text(found["accuracy"])
    asked = f", which ask for items {', '.join(map(str, found['queries']))}" if "queries" in found else ""
    body += paragraph(
        f"Accuracy: {accuracy} over {found['posed']} prompts{asked}. Below {found['gate']:.2f} (lower end of the "
        "interval) nothing is judged."
    )
    body += "".join(figure(picture, bundles) for picture in part.pictures)
    rows = [(name, decided["status"], decided["reason"]) for name, decided in found["addresses"].items()]
    body += paragraph(STATUSES.format(limit=found["margin"], prompts=found["prompts"]))
    body += table("Addresses", ("address", "status", "its strongest or deciding arm, and why"), rows)
    if found["refusal"] is None:
        rows = [(name, decided["status"], decided["reason"]) for name, decided in found["sinks"].items()]
        body += table("Candidates for sinks", ("tokens", "status", "share of the answer's margin that is lost"), rows)
        body += paragraph(
            "A sink takes attention and carries nothing. Attention to these tokens is blocked; apart from that, their "
            "values are replaced by the mean. The table has what the first loses of the margin (the right answer's "
            "logit above the best other value of the list) beyond the second. Negative: the margin grows without "
            "attention to them. The answer then needs no sink there, but depends on that attention, so the sink is "
            "not absent either. The control blocks as many tokens of items that the answer does not depend on, so that "
            "tokens of equal number have the same one."
        )
        body += paragraph(renaming_check(found["shares"]))
        arms = [
            (
                name,
                share["question"],
                *(estimate(share[what]) for what in ("value", "control", "excess")),
                estimate(share["gained"]) if "gained" in share else "not measured",
                f"{share['follows']:.2f}" if "follows" in share else "not measured",
            )
            for name, share in found["shares"].items()
        ]
        arms += [(name, "", f"not applicable: {why}", "", "", "", "") for name, why in found["left_out"].items()]
        columns = ("arm", "question", "share [joint 95 %]", "matched control", "share beyond the control")
        columns += ("what the other item's value gains", f"prompts in which {OVERTAKES}")
        body += f"<details>\n<summary>All arms ({found['prompts']} prompts)</summary>\n"
        body += table("Every arm", columns, arms) + "</details>\n"
    return Section("verdict", "By what the item is found", body + notes_of(part.notes) + sources_of(part.sources))


def _patching(part: SectionData, bundles: list[str]) -> Section:
    data = part.data
    named = ", ".join(f"L{h['layer']}H{h['head']} ({h['change']:+.2f})" for h in data["heads"])
    body = paragraph(
        f"The arm of one address that exceeds its control most is **{data['arm']}**: its prompts ask for item "
        f"{data['query']} and lead to item {data['target']}. Of {data['whole']:+.2f} logits between the two runs, "
        f"these heads, each patched alone, change most at the last token: {named}. These effects need not add up. "
        "Minus: the head's clean output works against the answer."
    )
    body += paragraph(
        "**How to read it.** Blue: the clean activation at that place moves the answer back to the item asked for. It "
        "shows that the place suffices on these prompts, not that it is the only route."
    )
    body += "".join(figure(picture, bundles) for picture in part.pictures)
    return Section(
        "patch", "Where: patching on the template's spans", body + notes_of(part.notes) + sources_of(part.sources)
    )


def _heads(part: SectionData, bundles: list[str]) -> Section:
    rows = part.data["heads"]
    kinds = [name for name in rows[0] if name not in ("layer", "head", "change")]
    cells = [
        (f"L{row['layer']}H{row['head']}", f"{row['change']:+.2f}", *(f"{row[kind]:.2f}" for kind in kinds))
        for row in rows
    ]
    body = paragraph(
        "Attention of the last token in the heads named above, by kind of token. It shows where a head reads, not what "
        "it contributes."
    )
    body += paragraph(negative_heads(rows))
    body += table("Attention from the last token, mean over prompts", ("head", "change, logits", *kinds), cells)
    body += "".join(figure(picture, bundles) for picture in part.pictures)
    return Section("heads", "Which heads", body + notes_of(part.notes) + sources_of(part.sources))


def _limits(found: dict[str, Any]) -> Section:
    lines = [
        "One model, one text of the template and random words: nothing here is shown for other texts or models.",
        "The shares overlap: an item can be found by several addresses at once. The remainder is what all three "
        "together do not move.",
        "Patching and attention describe; only the verdict's arms have matched controls.",
    ]
    if found["refusal"] is not None:
        lines = ["A model that does not do the task says nothing about how the task is done."]
    lines.append(page_made(found.get("weights")))
    return Section("limits", "What this report cannot show", "".join(map(paragraph, lines)))


def write_list_report(options: ReportCommand, task: ListTask, target: Path | None) -> Path:
    """Load the run, write the page to `target` or mnemoscope-out/<run>/report-<task>-<items>.html, and return the path.

    Raises `ValueError` as `load` and `trials_of`; the verb has checked its other options.
    """
    from experiments.support.binding_results import shown_on
    from experiments.support.list_pieces import ListSource
    from experiments.support.own_lists import list_options
    from experiments.support.progress import progress_bar
    from experiments.support.provenance import provenance_record
    from experiments.support.results import check_files, replace_whole, usual_folder, work_folder, writable_folder
    from probes.batteries import GATE

    source = ListSource.of(options.names[0], task, GATE, options)
    run = source.load()
    trials = source.trials(run)
    path = target or usual_folder(run) / f"report-{task}-{options.items}.html"
    writable_folder(path.parent)
    check_files([path])
    lists = list_options(task, options.items, GATE, options.fillers)
    asked = [lists, options.quick, options.fresh, options.seed, str(run.format)]
    with work_folder(path.parent, run, "report", asked) as work, progress_bar(total=3, unit="part") as bar:
        step = shown_on(bar, len(trials), f"{run.name}: ")
        text = list_report(run, options, task, trials, step, provenance_record()["command"], work)
        replace_whole(path, text)
    return path
