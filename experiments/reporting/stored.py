"""Sections of verdict, accuracy and circuit: read from result files beside the run, or computed."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from experiments.commands.circuit import CircuitCommand, lines_of
from experiments.commands.evaluate import EvaluateCommand
from experiments.reporting.reduced import fewer_than_usual, left_out
from experiments.reporting.reuse import stored_result
from experiments.reporting.section import Picture, SectionData, Source
from experiments.support.provenance import other_versions
from experiments.support.reading import read_calibration
from experiments.support.results import device_and_dtype
from experiments.support.verdict_defaults import default_lengths, fitting, usual_arms, usual_prompts

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from interp.models import Run

QUICK_PROMPTS = 48


def trained_to(run: Run) -> int | None:
    """Return the longest trained length; None if it is unknown."""
    return run.record.get("recipe", {}).get("longest")


def now(options: ReportCommand) -> str:
    """Return the provenance of a number that is computed for this report."""
    return "computed for this report" + (", reduced by --quick" if options.quick else "")


def beside(
    run: Run, verb: str, name: str, options: ReportCommand
) -> tuple[dict | None, tuple[Source, ...], tuple[str, ...]]:
    """Return a stored result with its source, or None; and notes: on its size, or on a file that could not be used."""
    if options.fresh:
        return None, (), ()
    data, where, note = stored_result(run, verb, name, options.seed)
    notes = (note,) if note else ()
    if data is None:
        return None, (), notes
    made = data["provenance"]
    origin = f"read from {where}, made {made['date']} at commit {made['commit']}"
    if other := other_versions(made):
        origin += f", with {other}"
    return data, (Source(name.removesuffix(".json"), made["command"], data["seed"], origin),), notes


def verdict_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Build the verdict section: roles of the labels, compared with planted models."""
    from probes import views

    data, sources, notes = beside(run, "verdict", "verdict.json", options)
    if data is None:
        from experiments.support.pieces import RunOptions, are_small, helpers, measured_by, usual_workers
        from experiments.support.results import resume_arms
        from probes import battery, verdict
        from probes.batteries import DECIDING

        lengths, every, usual, quick = default_lengths(run), usual_arms(run), usual_prompts([run]), options.quick
        prompts, arms = (min(QUICK_PROMPTS, usual), DECIDING) if quick else (usual, every)
        lengths = lengths[:1] if quick else lengths
        folder, seed = work / "verdict", options.seed
        source = RunOptions(run.source, str(run.format), device=options.device, dtype=options.dtype)
        with helpers(usual_workers([run]), [source], one_thread=are_small([run])) as processes:
            prepare, recall = measured_by(processes, source, folder, step), resume_arms(folder)
            measured = battery(run, lengths, seed, prompts, False, arms, step=step, recall=recall, prepare=prepare)
        result = verdict([measured])
        data = {"run": run.name, "prompts": prompts, **result.to_json()}
        more = f" --lengths {lengths[0]} --prompts {prompts} --arms {' '.join(arms)}" if quick else ""
        command = f"mnemoscope verdict {options.said(run)} --seed {options.seed}{more}"
        sources = (Source("verdict", command, options.seed, now(options)),)
        if quick:
            descriptive, fewer = f"the {len(every) - len(arms)} descriptive arms", prompts < usual
            missing = f"{descriptive}, and all but {prompts} of the {usual} prompts" if fewer else f"and {descriptive}"
            notes += (f"Left out by --quick: lengths other than {lengths[0]}, {missing}.",)
    data["fewer"] = fewer_than_usual(run, data)
    picture = views.verdict(data, read_calibration())
    caption = (
        "Effect of each role in one test with its 95 % interval, beside its matched control (a similar intervention on "
        "what the role does not concern; an effect counts only above it). A role can need several tests, and decisions "
        "use wider, simultaneous intervals: an interval inside the dashed limits alone does not make a role absent. "
        "The reasons are below. The diamond is the sink's effect on margins: how far the right answer's logit is above "
        "the other (the lead), whether or not the answer changes. Below: effects in models that were built by hand "
        "(planted) with the role, and without it."
    )
    return SectionData(data, (Picture(picture, caption),), sources, notes)


def points_of(data: dict) -> list[Any]:
    """Return the accuracies of an evaluation in the form that the view takes."""
    return [
        SimpleNamespace(
            metric=row["metric"],
            mode=row["mode"],
            length=row["length"],
            chance=row["chance"],
            estimate=SimpleNamespace(value=row["value"], low=row["low"], high=row["high"]),
        )
        for row in data["accuracy"]
        if row["metric"] in ("step", "exact", "final")
    ]


def chances_now(run: Run, length: int, mode: str) -> dict[str, float]:
    """Return the chance of each metric as this version has it: older ones left out labels that a model writes."""
    from probes.competence import chances_of

    return chances_of(run.sample(1, (length, length) if run.format.task == "addition" else length, 0), mode)


def accuracy_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Build the accuracy section: accuracy by length, and the bit that each step reads."""
    from probes import views

    data, sources, notes = beside(run, "evaluate", "evaluation.json", options)
    if data is None:
        usual = EvaluateCommand((run.name,))
        lengths = fitting(run, (10, 20, 40) if options.quick else usual.lengths_of(run)) or default_lengths(run)
        offsets = fitting(run, (20, 40)) if options.quick else None
        prompts = QUICK_PROMPTS if options.quick else usual.prompts
        verb = EvaluateCommand((run.name,), lengths=lengths, offset_lengths=offsets, prompts=prompts, seed=options.seed)
        folder = work / "evaluate"
        _, data = verb.measure(run, folder)
        more = f" --lengths {' '.join(map(str, lengths))} --prompts {prompts}"
        command = f"mnemoscope evaluate {options.said(run)} --seed {options.seed}{more}"
        sources = (Source("evaluation", command, options.seed, now(options)),)
        if options.quick:
            notes += (
                f"Left out by --quick: lengths other than {_listed(lengths)}, and all but {prompts} of the "
                f"{usual.prompts} prompts per length.",
            )
    now_by = {at: chances_now(run, *at) for at in {(row["length"], row["mode"]) for row in data["accuracy"]}}
    rows = [{**row, "chance": now_by[row["length"], row["mode"]][row["metric"]]} for row in data["accuracy"]]
    data = {**data, "accuracy": rows}
    title = f"How far past the trained length does {run.name} work?"
    picture = views.by_length({run.name: points_of(data)}, trained_to(run), title, run.format.task)
    caption = (
        "Solid: labels are given. Dashed: the model writes them. Shaded: trained lengths. Dotted: chance. Bands: 95 % "
        "intervals."
    )
    return SectionData(data, (Picture(picture, caption),), sources, notes)


def circuit_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Build the circuit section: the edges that do the task."""
    data, sources, notes = beside(run, "circuit", "circuit.json", options)
    if data is None:
        name = options.said(run)
        if without := left_out(run, options):
            command = f"mnemoscope circuit {name} --seed {options.seed}"
            return SectionData({}, (), (), (*notes, f"{without}: the circuit. Compute it with `{command}`."))
        length = fitting(run, (options.length,)) or default_lengths(run)[:1]
        verb = CircuitCommand(
            run.source,
            length=length[0],
            seed=options.seed,
            format=str(run.format),
            device=options.device,
            dtype=cast(Any, device_and_dtype(run)["dtype"]),
            out=work / "circuit",
        )
        with contextlib.redirect_stdout(io.StringIO()):
            verb.run()
        data = json.loads((work / "circuit" / "circuit.json").read_text(encoding="utf-8"))
        command = f"mnemoscope circuit {name} --length {verb.length} --seed {options.seed}"
        sources = (Source("circuit", command, options.seed, now(options)),)
    return SectionData(data, _drawn(run, data), sources, notes)


def _drawn(run: Run, data: dict) -> tuple[Picture, ...]:
    from interp import views
    from interp.circuits import circuit_from_json

    circuit = circuit_from_json(data["circuit"])
    graph = CircuitCommand(run.name, length=data["options"]["length"]).graph(run, circuit, data)
    title = "How much of the model do circuits of each size keep?"
    return (
        Picture(
            views.circuit(graph).view(),
            "Click a node to see its inputs and outputs. A box says which token its head attends to, and from where. "
            "Colour is the sign of an edge's score, width its size. Information flows from the bottom to the top.",
        ),
        Picture(
            views.faithfulness(lines_of(data), data["possible_edges"], title),
            "1 is the full model, 0 the model without any edge. Lines add edges in the order of their scores. The star "
            "is the circuit above: edges were pruned from it by exact runs (ACDC), so it keeps more at the same size. "
            "Random circuits of the same size are the baseline.",
        ),
    )


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
