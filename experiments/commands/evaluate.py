"""`mnemoscope evaluate`: accuracy by length, through the trained lengths and past them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.options import (
    AsJson,
    Device,
    Dtype,
    EmptyLengths,
    FormatName,
    Lengths,
    Memory,
    Number,
    ResultFolder,
    Runs,
    Seed,
)

if TYPE_CHECKING:
    from interp.models import Run
    from probes.evidence import Accuracy


# Bits, or digits of both operands: the trained lengths and well past them (probes/README.md, Recipes).
LENGTHS = {"parity": tuple(range(5, 61, 5)), "addition": (*range(2, 15, 2), 16, 18, 20)}
OFFSET_LENGTHS = (15, 20, 30, 40, 60)
# Every bit of every prompt is edited in turn, so few prompts give many steps.
OFFSET_PROMPTS = 16
FILES = ("evaluation.json", "accuracy.svg")


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure accuracy by length, with labels that the model writes and with given ones, and which bit each step reads.

    Writes evaluation.json and accuracy.svg for each run, and one figure of all runs where there are several. The same
    command resumes after an interruption.
    """

    runs: Runs
    format: FormatName = None
    lengths: Lengths = ()
    """Bits, default 5 to 60, or digits of both operands, default 2 to 20."""
    offset_lengths: EmptyLengths = None
    """Lengths at which to measure which bit decides a step, in parity with a scratchpad; without values none. Default:
    those of 15, 20, 30, 40 and 60 that are not longer than --lengths."""
    prompts: Number = 256
    """Prompts at each length, at least 2."""
    seed: Seed = 0
    device: Device = "auto"
    dtype: Dtype = None
    memory: Memory = None
    out: ResultFolder = None
    json: AsJson = False

    def run(self) -> int:
        """Evaluate every run; status 0."""
        self._check()
        from experiments.evaluation_printing import print_accuracies, print_offsets
        from experiments.support.console import say
        from experiments.support.finished import warn_replaced
        from experiments.support.loading import load_posed
        from experiments.support.results import result_folder
        from experiments.support.run_checks import check_apart

        loaded = [load_posed(name, self.format, device=self.device, dtype=self.dtype) for name in self.runs]
        check_apart([run.name for run in loaded])
        for run in loaded:  # every length is checked before the first forward pass
            for length in (*self.lengths_of(run), *self.offsets_of(run)):
                run.check_length(length)
        together = _together(loaded)
        folders = [result_folder(run, self.out, FILES) for run in loaded]
        curves: dict[str, list[Accuracy]] = {}
        advice = "another --out keeps both" if len(loaded) == 1 else "evaluate it alone, with an --out, to keep both"
        for run, folder in zip(loaded, folders, strict=True):
            warn_replaced(folder / FILES[0], partial(self._why_other, run), advice)
        with ExitStack() as kept:  # an interruption in a later run leaves the work on earlier ones
            for run, folder in zip(loaded, folders, strict=True):
                curves[run.name], written = self.measure(run, folder, "accuracy.svg", kept)
                if self.json:
                    print(json.dumps(written))
                else:
                    print_accuracies(run, curves[run.name], self.lengths_of(run), self.prompts)
                    print_offsets(written["offsets"], OFFSET_PROMPTS)
                    for name in FILES:
                        say(folder / name)
            if together:
                save_accuracy(curves, loaded, together)
        return 0

    def _check(self) -> None:
        """Raise `ValueError` for options that are wrong whatever the model is; imports no library."""
        from experiments.support.option_checks import check_least, check_seed
        from experiments.support.run_checks import check_posed, check_runs

        if not self.runs:
            raise ValueError("name at least one run, such as parity-aligned-alibi")
        if self.out and len(self.runs) > 1:
            raise ValueError("--out takes one run's results; with several runs leave it out")
        check_seed(self.seed)
        if self.prompts < 2:
            raise ValueError(f"--prompts must be at least 2; got {self.prompts}")
        check_least(self, "lengths", "offset_lengths")
        check_runs(self.runs, self.format)
        check_posed(self.runs, self.format)

    def lengths_of(self, run: Run) -> tuple[int, ...]:
        """Return the lengths of --lengths, or the default ones of the run's task."""
        return self.lengths or LENGTHS.get(run.format.task, LENGTHS["parity"])

    def offsets_of(self, run: Run) -> tuple[int, ...]:
        """Return the lengths at which to measure which bit decides a step; none where steps have no own bit."""
        if run.format.task != "parity" or run.format.name == "direct":
            return ()
        if self.offset_lengths is not None:
            return self.offset_lengths
        return tuple(n for n in OFFSET_LENGTHS if n <= max(self.lengths_of(run)))

    def _why_other(self, run: Run, data: dict) -> str:
        """Return why an evaluation is not the one that these options ask for; "" where it is."""
        from experiments.support.finished import one_length, why_other_result

        def lengths(name: str) -> list[int]:
            return list(dict.fromkeys(one_length(row["length"]) for row in data[name]))

        made = {"prompts": data["prompts"], "lengths": lengths("accuracy"), "offset lengths": lengths("offsets")}
        asked = {"prompts": self.prompts, "lengths": self.lengths_of(run), "offset lengths": self.offsets_of(run)}
        return why_other_result(run, self.seed, asked, data, made)

    def measure(
        self, run: Run, folder: Path, figure: str | None = None, kept: ExitStack | None = None
    ) -> tuple[list[Accuracy], dict]:
        """Measure one run and write its files; return the accuracies, and what evaluation.json holds.

        Each length is written to the work folder when it is done; the folder is removed when `kept` ends, by default
        after the files are written. `figure` is the name of the figure's file; None draws none.
        """
        from experiments.support.progress import progress_bar
        from experiments.support.results import as_svg, load_or_make, work_folder, write_result
        from probes.views.accuracy import accuracy_by_length

        rows: list[Accuracy] = []
        lengths, offset_lengths = self.lengths_of(run), self.offsets_of(run)
        histograms: dict[int, list] = {}
        steps = len(lengths) + len(offset_lengths)
        with ExitStack() as own, progress_bar(total=steps, desc=run.name, unit="length") as bar:
            options = [str(run.format), self.prompts, self.seed]
            work = (kept or own).enter_context(work_folder(folder, run, "evaluate", options))
            for length in lengths:
                bar.set_description(f"{run.name}: accuracy at length {length}")
                path = work / f"accuracy-{length}.json"
                rows += load_or_make(path, partial(self.accuracies, run, length), _plain, _accuracies_from)
                bar.update()
            for length in offset_lengths:
                bar.set_description(f"{run.name}: offsets at length {length}")
                path = work / f"offsets-{length}.json"
                histograms[length] = load_or_make(path, partial(self._offsets, run, length), list, _shares_from)
                bar.update()
            data = self._result(run, rows, histograms)
            others = []
            if figure:
                curve = accuracy_by_length({run.name: rows}, _trained(run), run.format.task)
                others.append((folder / figure, as_svg(curve)))
            written = write_result(folder / "evaluation.json", run, self.seed, data, others=others)
        return rows, written

    def accuracies(self, run: Run, length: int) -> list[Accuracy]:
        """Return every accuracy of a run at one length, with labels given and, where it has labels, written."""
        from probes.competence import accuracies, modes_of

        batch = run.sample(self.prompts, length, seed=1000 * self.seed + length)
        return [row for mode in modes_of(batch) for row in accuracies(run.raw, batch, mode)]

    def _offsets(self, run: Run, length: int) -> list[tuple[int | None, float]]:
        from probes.arms.m11_offsets import offsets_read

        batch = run.sample(min(self.prompts, OFFSET_PROMPTS), length, seed=1000 * self.seed + length)
        return list(offsets_read(run.raw, batch).histogram.items())

    def _result(self, run: Run, rows: list[Accuracy], histograms: dict[int, list]) -> dict:
        return {
            "prompts": self.prompts,
            "trained_to": _trained(run),
            "accuracy": [row.to_json() for row in rows],
            "offset_prompts": min(self.prompts, OFFSET_PROMPTS),
            "offsets": [{"length": n, "offset": k, "share": share} for n, h in histograms.items() for k, share in h],
        }


def _together(runs: list[Run]) -> Path | None:
    """Return the file of the figure of all runs; None for one run, and, in one line, for runs of several tasks."""
    from experiments.support.console import warn
    from experiments.support.results import check_files
    from interp.models.names import OUT

    if len(tasks := sorted({run.format.task for run in runs})) > 1:
        warn(f"no figure of all runs is drawn: they are of different tasks, {' and '.join(tasks)}")
    if len(tasks) > 1 or len(runs) < 2:
        return None
    check_files([OUT / "accuracy-by-length.svg"])
    return OUT / "accuracy-by-length.svg"


def save_accuracy(curves: dict[str, list[Accuracy]], runs: list[Run], path: Path) -> None:
    """Write the figure of accuracy by length of runs of one task; a trained range is shaded where all have the same."""
    from experiments.support.results import save_figure
    from probes.views.accuracy import accuracy_by_length

    trained = {_trained(run) for run in runs}
    same = trained.pop() if len(trained) == 1 else None
    save_figure(accuracy_by_length(curves, same, runs[0].format.task), path, option="")


def _plain(rows: list[Accuracy]) -> list[dict]:
    return [asdict(row) for row in rows]


def _accuracies_from(rows: list[dict]) -> list[Accuracy]:
    from probes.evidence import Accuracy, Interval

    return [Accuracy(**{**row, "estimate": Interval(**row["estimate"])}) for row in rows]


def _shares_from(pairs: list) -> list[tuple[int | None, float]]:
    return [(offset, share) for offset, share in pairs]


def _trained(run: Run) -> int | None:
    return run.record.get("recipe", {}).get("longest")
