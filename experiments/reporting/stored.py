"""What do verdict, accuracy and circuit say of a run: from the files beside it, or measured now?"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from experiments.commands.circuit import CircuitCommand, lines_of
from experiments.commands.evaluate import EvaluateCommand
from experiments.commands.verdict import VerdictCommand, default_lengths
from experiments.reporting.reuse import found_beside
from experiments.reporting.section import Picture, SectionData, Source
from experiments.support.provenance import other_versions
from experiments.support.reading import read_calibration

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from interp.models import Run

QUICK_PROMPTS = 48


def trained_to(run: Run) -> int | None:
    """The longest length of its training, where that is known."""
    return run.record.get("recipe", {}).get("longest")


def now(options: ReportCommand) -> str:
    """How a number that is computed here came about."""
    return "computed for this report" + (", with less by --quick" if options.quick else "")


def beside(
    run: Run, verb: str, name: str, options: ReportCommand
) -> tuple[dict | None, tuple[Source, ...], tuple[str, ...]]:
    """A result to reuse, with its source; or None, with a note on a file that could not be used."""
    if options.fresh:
        return None, (), ()
    data, where, why = found_beside(run, verb, name, options.seed)
    if data is None:
        return None, (), (why,) if why else ()
    made = data["provenance"]
    words = f"read from {where}, made {made['date']} at commit {made['commit']}"
    if other := other_versions(made):
        words += f", with {other}"
    return data, (Source(name.removesuffix(".json"), made["command"], data["seed"], words),), ()


def fitting(run: Run, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the lengths that the run's positions and labels have room for."""

    def fits(n: int) -> bool:
        try:
            run.sample(1, (n, n) if run.format.task == "addition" else n, 0)
        except ValueError:
            return False
        return True

    return tuple(n for n in lengths if fits(n))


def verdict_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """The roles of the labels, beside planted models."""
    from probes import views

    data, sources, notes = beside(run, "verdict", "verdict.json", options)
    if data is None:
        from experiments.support.results import resume_arms
        from probes import battery, verdict
        from probes.batteries import ARMS, DECIDING

        lengths = default_lengths(run)
        usual = VerdictCommand()
        quick = options.quick
        prompts, arms = (QUICK_PROMPTS, DECIDING) if quick else (usual.prompts, ARMS)
        lengths = lengths[:1] if quick else lengths
        recall = resume_arms(work / "verdict")
        found = verdict([battery(run, lengths, options.seed, prompts, False, arms, step=step, recall=recall)])
        data = {"run": run.name, "prompts": prompts, **found.to_json()}
        more = f" --lengths {lengths[0]} --prompts {prompts} --arms {' '.join(arms)}" if quick else ""
        command = f"mnemoscope verdict {options.said(run)} --seed {options.seed}{more}"
        sources = (Source("verdict", command, options.seed, now(options)),)
        if quick:
            notes += (
                f"Left out by --quick: other lengths than {lengths[0]}, the arms that describe and do not decide "
                f"(M7 to M12), and all but {prompts} prompts.",
            )
    picture = views.verdict(data, read_calibration())
    words = (
        "Each role's effect with its 95 % interval and matched control; below, the same measure on planted models in "
        "which the role is present, and on those in which it is absent. Within the dashed margin a role counts as "
        "absent."
    )
    return SectionData(data, (Picture(picture, words),), sources, notes)


def points_of(data: dict) -> list[Any]:
    """The accuracies of an evaluation, as the view takes them."""
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


def accuracy_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """How far past its training the run still works, and which bit each step reads."""
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
            notes += (f"Left out by --quick: other lengths than {_listed(lengths)}; {prompts} prompts each.",)
    picture = views.by_length({run.name: points_of(data)}, trained_to(run), f"{run.name}: accuracy by length")
    words = (
        "Solid: labels are put there from outside. Dashed: the model writes them itself. Shaded: lengths of the "
        "training. Dotted: chance. Bands are 95 % intervals."
    )
    return SectionData(data, (Picture(picture, words),), sources, notes)


def circuit_part(run: Run, options: ReportCommand, work: Path, step: Callable[[str], None]) -> SectionData:
    """Which parts do the work."""
    data, sources, notes = beside(run, "circuit", "circuit.json", options)
    if data is None:
        name = options.said(run)
        if options.quick:
            words = f"Left out by --quick: the circuit. `mnemoscope circuit {name} --seed {options.seed}` searches it."
            return SectionData({}, (), (), (*notes, words))
        length = fitting(run, (options.length,)) or default_lengths(run)[:1]
        verb = CircuitCommand(
            run.source, length=length[0], seed=options.seed, format=str(run.format), out=work / "circuit"
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
    title = f"{run.name}: faithfulness of circuits by size"
    return (
        Picture(
            views.circuit(graph).view(),
            "Choose a part to see what it reads and writes; boxes carry what each "
            "head was measured to do. An edge's colour is the sign of its score, its width the size.",
        ),
        Picture(
            views.faithfulness(lines_of(data), data["possible_edges"], title),
            "1 is what the full model does, 0 "
            "what is left without any edge. The star is the circuit above; random circuits of a size are the "
            "comparison.",
        ),
    )


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
