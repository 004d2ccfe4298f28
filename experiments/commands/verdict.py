"""`mnemoscope verdict`: classify what the labels do inside a run, or inside all seeds of a configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.support.options import (
    Arms,
    Device,
    Flag,
    Lengths,
    Memory,
    Number,
    OptionalFolder,
    OptionalNumber,
    ResultFolder,
    Runs,
    WidenedDtype,
    computed,
)
from experiments.support.verdict_defaults import default_lengths, is_unmeasured, pieces_of, usual_arms, usual_prompts

if TYPE_CHECKING:
    from experiments.support.jobs import Processes
    from experiments.support.pieces import RunOptions
    from interp.models import Run
    from probes.findings import Verdict

FILES = ("verdict.json", "verdict.svg")


@dataclass(frozen=True)
class VerdictCommand:
    """Classify what the labels do: anchor, placeholder, sink, mixture, unused, unresolved or undecided.

    One run is judged over prompts; several runs of one configuration, which differ in their seed, over models. Every
    intervention has a matched control. A role is PRESENT, ABSENT or INDETERMINATE, and NOT APPLICABLE where the model
    cannot do the task. Writes verdict.json and verdict.svg, or on a list verdict-LIST-ITEMS.json. The same command
    resumes after an interruption, and prints a finished result of the same weights, rules and options instead of
    measuring again; see --fresh.
    """

    names: Runs = ()
    model: OptionalFolder = None
    """Judge the model in this folder too, which needs no run.json; give --format. Default: only the named runs."""
    task: Annotated[str | None, computed("TASK")] = None
    """Task of --format where several tasks have a format of that name: parity or addition. Or recall, or a list:
    list-letters, list-numerals, list-random-numerals, list-names, list-bullets, list-no-labels, lookup-letters and so
    on, or a .json file with your own list. Default: the run's."""
    format: Annotated[str | None, computed("FORMAT")] = None
    """Format of the prompts, such as parity-aligned, or aligned where the task is clear. Default: the run's own."""
    forced: Flag = False
    """Measure competence only with given labels. Default: also with labels that the model writes."""
    lengths: Lengths = ()
    """Bits, at least 5, or digits of both operands, at least 6. Default: those of a finished result beside the run,
    else 20 and 40 bits or 10 and 14 digits that fit the model's positions."""
    items: Number = 6
    """Items of a list or of recall, at least 6."""
    fillers: Number = 0
    """Fillers between the label and the value of a list's item."""
    prompts: OptionalNumber = None
    """Prompts at each length, at least 24. Default: 128. Models of 100 million parameters and more have 24 on a CPU,
    unless a finished result of 128 can be printed. On a list or recall: prompts in all, at least 16; default 128."""
    seed: Number = 0
    """Seed of the prompts and of the choice of steps."""
    arms: Arms = ()
    workers: OptionalNumber = None
    """Processes that measure at once, with one thread each if there are several. Default: one per CPU core. Models of
    100 million parameters and more have fewer, if all copies together would have more than a billion parameters;
    smaller ones have one on a list or recall. On a GPU: one."""
    device: Device = "auto"
    dtype: WidenedDtype = None
    memory: Memory = None
    out: ResultFolder = None
    fresh: Flag = False
    """Measure again also where a finished result of the same weights and options is in the result folder, beside the
    run, or among the shipped results. Default: print that result, and copy it to --out."""
    evidence: Flag = False
    """Print everything that was measured after the verdict. Default: only the verdict; the file has the rest."""
    json: Annotated[str | None, tyro.conf.arg(metavar="[FILE]", help_behavior_hint="")] = None
    """Write the verdict as JSON to this file; without a file, print it instead of text. Default: neither."""

    def run(self) -> int:
        """Print the finished verdict, or measure, decide, write and print one; status 0 whatever it is."""
        from experiments.support.binding_results import binding_task_of, judge_lists
        from experiments.support.pieces import importing
        from experiments.support.verdict_checks import check_verdict

        task = binding_task_of(self)
        check_verdict(self, task)
        if task is not None:
            return judge_lists(self, task)
        unmeasured = self.fresh or is_unmeasured([source.name for source in self._sources()], self.out)
        with importing(self.workers if unmeasured else 1) as begun:
            return self._print_or_measure(begun)

    def _print_or_measure(self, begun: Processes | None) -> int:
        """Print the finished verdict, or measure with this process and those that have begun to import; return 0."""
        from experiments.reporting.error_text import how_sure
        from experiments.support.binding_results import judge_lists
        from experiments.support.console import say
        from experiments.support.finished import take_finished, warn_measured
        from experiments.support.finished_verdicts import (
            finished_of_any,
            options_in_turn,
            say_few_prompts,
            say_lengths,
        )
        from experiments.support.reading import read_calibration
        from experiments.support.results import json_target, replace_whole, result_folder
        from experiments.support.verdict_text import columns_of_output, print_verdict
        from probes.batteries import check_battery

        runs = self._load()
        if runs[0].format.task == "recall":
            return judge_lists(self, "recall")
        lengths, arms = self.lengths or default_lengths(runs[0]), self.arms or usual_arms(runs[0])
        target = json_target(self.json, runs[0], self.out, FILES)
        usual = usual_prompts(runs)
        asked = options_in_turn(runs, lengths, arms, self.prompts, usual, self.forced)
        stored, reasons, options = None, {}, asked[-1]
        if not self.fresh:
            stored, reasons, options = finished_of_any(runs, asked, self.seed, self.out, any_lengths=not self.lengths)
        if stored is not None:
            verdict, written = stored.found, stored.data
            to = None if self.out is None else result_folder(runs[0], self.out, FILES) / FILES[0]
            path = take_finished(stored, to, reasons, partial(_drawn, verdict))
            say_lengths(verdict, lengths, usual)
        else:
            for run in runs:
                check_battery(run, lengths, options["prompts"], arms)
            folder = result_folder(runs[0], self.out, FILES)
            path = folder / FILES[0]
            warn_measured(path, reasons, self.fresh)
            say_few_prompts(self.prompts, usual)
            verdict, written = self._judge(runs, lengths, arms, options, folder, begun)
        if target is not None:
            replace_whole(target, json.dumps(written, indent=1) + "\n", "--json")
        if self.json == "-":
            print(json.dumps(written))
            return 0
        sure = how_sure(written, read_calibration(), runs[0].raw.config.model_type)
        print_verdict(verdict, runs[0], columns_of_output(), self.evidence, options["prompts"], sure, usual)
        say(path)
        return 0

    def _judge(
        self,
        runs: list[Run],
        lengths: tuple[int, ...],
        arms: tuple[str, ...],
        options: dict,
        folder: Path,
        begun: Processes | None,
    ) -> tuple[Verdict, dict]:
        """Measure the battery of every run and write the verdict; return it, and what verdict.json holds."""
        from experiments.support.pieces import are_small, helpers, measured_by, usual_workers
        from experiments.support.progress import progress_bar
        from experiments.support.results import resume_arms, work_folder, write_result
        from probes import battery, verdict

        began, resumed, prompts = time.perf_counter(), False, options["prompts"]
        kind = [prompts, self.seed, str(runs[0].format)]
        total = len(runs) * len(lengths) * pieces_of(arms)
        batteries = []
        with progress_bar(total=total, unit="step") as bar, ExitStack() as kept:  # until the result is written
            workers = usual_workers(runs) if self.workers is None else self.workers
            sources = self._sources()
            processes = kept.enter_context(helpers(workers, sources, are_small(runs), begun))
            for run, source in zip(runs, sources, strict=True):
                work = kept.enter_context(work_folder(folder, run, "verdict", kind))
                resumed |= any(work.glob("*.json"))
                step = _reporter(bar, f"{run.name}, " if len(runs) > 1 else "")
                batteries.append(
                    battery(
                        run,
                        lengths,
                        self.seed,
                        prompts,
                        self.forced,
                        arms,
                        step=step,
                        recall=resume_arms(work),
                        prepare=measured_by(processes, source, work, step),
                    )
                )
            judged = verdict(batteries)
            cost = {"seconds": round(time.perf_counter() - began, 1), "processes": workers, "resumed": resumed}
            data = {"prompts": prompts, "options": options, **judged.to_json(), "cost": cost}
            written = write_result(folder / FILES[0], runs[0], self.seed, data, others=_drawn(judged, folder))
        return judged, written

    def _sources(self) -> list[RunOptions]:
        """Return what the runs are loaded from, one per name."""
        from experiments.support.pieces import RunOptions

        longest = max(self.lengths, default=None)
        names = [*self.names, *([str(self.model)] if self.model else [])]
        return [RunOptions(name, self.format, self.task, longest, self.device, self.dtype) for name in names]

    def _load(self) -> list[Run]:
        from experiments.support.loading import names_apart, renamed
        from experiments.support.run_checks import or_else
        from experiments.support.verdict_checks import check_one_configuration, other_tasks

        sources = self._sources()
        with or_else(other_tasks()):
            names, runs = [source.name for source in sources], [source.load() for source in sources]
        places = [Path(r.source).resolve() for r in runs]
        if repeated := {r.name for r, place in zip(runs, places, strict=True) if places.count(place) > 1}:
            raise ValueError(f"{', '.join(sorted(repeated))} is named twice; a verdict over models counts each once")
        check_one_configuration(dict(zip(names, runs, strict=True)))
        apart = names_apart(places)
        return [
            renamed(run, apart[k]) if sum(run.name == r.name for r in runs) > 1 else run for k, run in enumerate(runs)
        ]


def _reporter(bar, prefix: str) -> Callable[[str], None]:  # type: ignore[no-untyped-def]
    """Return the battery's `step`: it shows each piece of work as it begins."""

    def step(piece: str) -> None:
        bar.set_description(prefix + piece)
        bar.update()

    return step


def _drawn(verdict: Verdict, folder: Path) -> list[tuple[Path, str]]:
    """Return the picture of a verdict, with the file that it is written to."""
    from experiments.support.results import as_svg
    from probes.views.calibration import draw_roles

    rows = {}
    for finding in verdict.lengths:
        rows[f"length {finding.length}"] = {
            name: (role.rho.value, role.rho.low, role.rho.high) for name, role in finding.roles.items() if role.rho
        }
    return [(folder / FILES[1], as_svg(draw_roles(rows, None)))]
