"""`mnemoscope evaluate`: how far past its training does a run still work?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from interp.models import Run
    from probes.evidence import Accuracy


# Bits, and digits of both operands: through the trained lengths and well past them (science 1).
LENGTHS = {"parity": tuple(range(5, 61, 5)), "addition": (*range(2, 15, 2), 16, 18, 20)}
OFFSET_LENGTHS = (15, 20, 30, 40, 60)
# Every bit of every prompt is edited in turn: few prompts give many steps.
OFFSET_PROMPTS = 16


@dataclass(frozen=True)
class EvaluateCommand:
    """Accuracy by length, model-written and environment-forced, and the bit that each step really reads.

    Writes evaluation.json and accuracy.svg for each run; with several runs also one figure of all. The same command
    goes on where a killed one stopped.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Runs by name, such as parity-aligned-alibi, or folders that save_pretrained wrote."""
    format: str | None = None
    """Task to pose to a model that has no run.json, such as parity-aligned."""
    lengths: tuple[int, ...] = ()
    """Bits, default 5 to 60, or digits of both operands, default 2 to 20."""
    offset_lengths: tuple[int, ...] | None = None
    """Lengths at which to ask which bit decides a step (parity with a scratchpad only); default those of
    15, 20, 30, 40 and 60 that are not longer than --lengths."""
    prompts: int = 256
    """Prompts at each length."""
    seed: int = 0
    """Seed of the prompts."""
    memory: int = 1024
    """MiB that one pass may take beyond the model; prompts run in chunks that fit."""
    out: Path | None = None
    """Folder for the results; default mnemoscope-out/<run>."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        """Evaluates every run; status 0."""
        from experiments import load
        from experiments.support.results import check_seed, result_folder

        if not self.runs:
            raise ValueError("name at least one run, such as parity-aligned-alibi")
        if self.out and len(self.runs) > 1:
            raise ValueError("--out takes one run's results; with several runs leave it out")
        check_seed(self.seed)
        if self.prompts < 2:
            raise ValueError(f"--prompts must be at least 2; got {self.prompts}")
        loaded = [load(name, self.format) for name in self.runs]
        for run in loaded:  # everything is checked before the first forward pass
            for length in (*self.lengths_of(run), *self.offsets_of(run)):
                run.sample(1, length, 0)
        curves: dict[str, list[Accuracy]] = {}
        for run in loaded:
            folder = result_folder(run, self.out)
            curves[run.name], written = self.measure(run, folder, figure="accuracy.svg")
            if self.json:
                print(json.dumps(written))
            else:
                self.show(run, curves[run.name], written["offsets"])
                print(folder / "evaluation.json")
                print(folder / "accuracy.svg")
        if len(loaded) > 1:
            from interp.models.names import OUT

            save_accuracy(curves, _trained(loaded[0]), OUT / "accuracy-by-length.svg")
        return 0

    def lengths_of(self, run: Run) -> tuple[int, ...]:
        """The lengths that were asked for, or those usual for the run's task."""
        return self.lengths or LENGTHS.get(run.format.task, LENGTHS["parity"])

    def offsets_of(self, run: Run) -> tuple[int, ...]:
        """Lengths at which the format has a bit for each step to read."""
        if run.format.task != "parity" or run.format.name == "direct":
            return ()
        if self.offset_lengths is not None:
            return self.offset_lengths
        return tuple(n for n in OFFSET_LENGTHS if n <= max(self.lengths_of(run)))

    def measure(self, run: Run, folder: Path, figure: str | None = None) -> tuple[list[Accuracy], dict]:
        """One run: computes and writes; the accuracies, and what evaluation.json says.

        Each length is kept on disk as it is done. `figure`: the name of the file of a figure.
        """
        from experiments.drawing.accuracy import accuracy_by_length
        from experiments.support.progress import progress_bar
        from experiments.support.results import as_svg, kept, work_folder, write_result

        rows: list[Accuracy] = []
        lengths, offset_lengths = self.lengths_of(run), self.offsets_of(run)
        histograms: dict[int, list] = {}
        with (
            work_folder(folder, run, "evaluate", [str(run.format), self.prompts, self.seed]) as work,
            progress_bar(total=len(lengths) + len(offset_lengths), desc=run.name, unit="length") as bar,
        ):
            for length in lengths:
                path = work / f"accuracy-{length}.json"
                rows += kept(path, partial(self._accuracies, run, length), _plain, _accuracies_from)
                bar.update()
            for length in offset_lengths:
                path = work / f"offsets-{length}.json"
                histograms[length] = kept(path, partial(self._offsets, run, length), list, _shares_from)
                bar.update()
            data = self._said(run, rows, histograms)
            others = []
            if figure:
                curve = accuracy_by_length({run.name: rows}, _trained(run))
                others.append((folder / figure, as_svg(curve)))
            written = write_result(folder / "evaluation.json", run, self.seed, data, others=others)
        return rows, written

    def _accuracies(self, run: Run, length: int) -> list[Accuracy]:
        from probes.competence import accuracies, modes_of

        batch = run.sample(self.prompts, length, seed=1000 * self.seed + length)
        return [row for mode in modes_of(batch) for row in accuracies(run.raw, batch, mode)]

    def _offsets(self, run: Run, length: int) -> list[tuple[int | None, float]]:
        from probes.arms.m11_offsets import offsets_read

        batch = run.sample(min(self.prompts, OFFSET_PROMPTS), length, seed=1000 * self.seed + length)
        return list(offsets_read(run.raw, batch).histogram.items())

    def _said(self, run: Run, rows: list[Accuracy], histograms: dict[int, list]) -> dict:
        return {
            "prompts": self.prompts,
            "trained_to": _trained(run),
            "accuracy": [row.to_json() for row in rows],
            "offset_prompts": min(self.prompts, OFFSET_PROMPTS),
            "offsets": [{"length": n, "offset": k, "share": share} for n, h in histograms.items() for k, share in h],
        }

    def show(self, run: Run, rows: list[Accuracy], offsets: list[dict]) -> None:
        """Prints what was measured as tables."""
        from experiments.support.console import print_table

        for mode in dict.fromkeys(row.mode for row in rows):
            title = f"{run.name}, labels {mode}: value [95 % interval], {self.prompts} prompts a length"
            metrics = ("step", "exact", "final")
            table = []
            for n in self.lengths_of(run):
                by_metric = {r.metric: r for r in rows if r.length == n and r.mode == mode}
                chance = " ".join(f"{by_metric[m].chance:.2g}" for m in metrics)
                table.append([str(n), *(str(by_metric[m].estimate) for m in metrics), chance])
            print_table(title, ["length", "step accuracy", "exact match", "final", "chance"], table)
        histograms: dict[int, dict[int | None, float]] = {}
        for row in offsets:
            histograms.setdefault(row["length"], {})[row["offset"]] = row["share"]
        if histograms:
            table = []
            for n, shares in histograms.items():
                named = [("none" if k is None else f"{k:+d}", share) for k, share in shares.items()]
                top = ", ".join(f"{k}: {share:.3f}" for k, share in named[:4])
                table.append([str(n), f"{shares.get(0, 0.0):.3f}", top])
            title = f"offset of the bit whose edit flips a step's answer (0 is right), {OFFSET_PROMPTS} prompts at most"
            print_table(title, ["length", "at 0", "most frequent"], table)


def save_accuracy(curves: dict[str, list[Accuracy]], trained: int | None, path: Path) -> None:
    """Writes the figure of accuracy by length."""
    from experiments.drawing.accuracy import accuracy_by_length
    from experiments.support.results import save_figure

    save_figure(accuracy_by_length(curves, trained), path)


def _plain(rows: list[Accuracy]) -> list[dict]:
    return [asdict(row) for row in rows]


def _accuracies_from(kept: list[dict]) -> list[Accuracy]:
    from probes.evidence import Accuracy, Interval

    return [Accuracy(**{**row, "estimate": Interval(**row["estimate"])}) for row in kept]


def _shares_from(kept: list) -> list[tuple[int | None, float]]:
    return [(offset, share) for offset, share in kept]


def _trained(run: Run) -> int | None:
    return run.record.get("recipe", {}).get("longest")
