"""`mnemoscope report`: everything that is known of a run on one page that opens anywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from experiments.reporting.section import SectionData
    from interp.models import Run

# What a comparison shows, and what the report on one run adds. Heads are chosen by the circuit or by patches.
SHARED = ("verdict", "accuracy", "map")
ALONE = ("circuit", "patch", "probes", "attention")


@dataclass(frozen=True)
class ReportCommand:
    """One HTML file: the question, the verdict and how often such a verdict is wrong, accuracy, maps, attention,
    patching, probes, circuit, and the command and seed behind each number.

    Results that lie beside the run are reused when they are of these weights and of the default options; what is
    missing is computed. The same command goes on where a killed one stopped.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Runs by name, such as parity-aligned-alibi, or folders that save_pretrained wrote; a file for each."""
    compare: bool = False
    """Put the runs side by side in one file: verdicts, accuracy, maps."""
    quick: bool = False
    """Compute less, and say what was left out."""
    fresh: bool = False
    """Compute everything, whatever lies beside the run."""
    length: int = 20
    """Bits, or digits of both operands, of attention, patching, probes and circuit."""
    map_length: int = 40
    """Length of the gradient x input map."""
    seed: int = 0
    """Seed of all prompts."""
    format: str | None = None
    """Task to pose to a model that has no run.json, such as parity-aligned."""
    memory: int = 1024
    """MiB that one pass may take beyond the model; prompts run in chunks that fit."""
    out: Path | None = None
    """The HTML file; default mnemoscope-out/<run>/report.html."""

    def run(self) -> int:
        """Finds or computes every part, and writes the page; status 0."""
        from experiments.support.progress import progress_bar

        runs = self._load()
        groups = [runs] if self.compare else [[run] for run in runs]
        targets = [self._target(group) for group in groups]
        names = (*SHARED, *(() if self.compare else ALONE))
        with progress_bar(total=len(runs) * len(names), unit="part") as bar:
            for group, target in zip(groups, targets, strict=True):
                self._write(group, target, names, bar)
        return 0

    def said(self, run: Run) -> str:
        """A run as a command names it."""
        extra = f" --format {run.format}" if self.format else ""
        return run.name + extra

    def _load(self) -> list[Run]:
        from experiments import load
        from experiments.support.results import check_seed

        if not self.names:
            raise ValueError("name a run, such as parity-aligned-alibi")
        if self.compare and len(self.names) < 2:
            raise ValueError("--compare puts two runs or more side by side; name another")
        if self.out and len(self.names) > 1 and not self.compare:
            raise ValueError("--out takes one report; with several runs leave it out, or --compare them")
        for name in ("length", "map_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}")
        check_seed(self.seed)
        runs = [load(name, self.format) for name in self.names]
        if len({run.name for run in runs}) < len(runs):
            raise ValueError(f"runs of one name cannot be told apart: {', '.join(run.name for run in runs)}")
        if self.compare and len({run.format.task for run in runs}) > 1:
            raise ValueError("runs of different tasks cannot be compared; name runs of one task")
        return runs

    def _target(self, group: list[Run]) -> Path:
        from interp.models.names import OUT
        from experiments.support.results import writable_folder

        if self.out is not None and (self.out.is_dir() or self.out.suffix != ".html"):
            raise ValueError(f"--out names the HTML file; got {self.out}")
        target = self.out or OUT / "+".join(run.name for run in group) / "report.html"
        writable_folder(target.parent)
        return target

    def _write(self, group: list[Run], target: Path, names: tuple[str, ...], bar) -> None:  # type: ignore[no-untyped-def]
        from experiments.reporting.order import whole_page
        from experiments.support.provenance import provenance_record
        from experiments.support.results import work_folder
        from interp.support.writing import write_whole

        measured = []
        with ExitStack() as kept:  # until the page is written
            for run in group:
                options = [
                    self.quick,
                    self.fresh,
                    self.length,
                    self.map_length,
                    self.seed,
                    self.compare,
                    str(run.format),
                ]
                work = kept.enter_context(work_folder(target.parent, run, "report", options))
                parts: dict[str, SectionData] = {}
                for name in names:
                    bar.set_description(f"{run.name}: {name}")
                    parts[name] = self._part(run, name, parts, work, bar)
                    bar.update()
                measured.append((run, parts))
            text = whole_page(measured, self._title(group), provenance_record()["command"])
            write_whole(target, text)
        print(f"{target} ({len(text.encode()) / 1e6:.1f} MB)")

    def _title(self, group: list[Run]) -> str:
        who = ", ".join(run.name for run in group[:-1]) + " and " * (len(group) > 1) + group[-1].name
        if len(group) > 1:
            return f"{who}, side by side"
        return f"What do the labels do in {who}?" if group[0].format.labels else f"What does {who} do without labels?"

    def _part(self, run: Run, name: str, parts: dict[str, SectionData], work: Path, bar) -> SectionData:  # type: ignore[no-untyped-def]
        from experiments.reporting import computed as measured
        from experiments.reporting import stored as found
        from experiments.reporting.section import SectionData, from_json, to_json
        from experiments.support.results import kept
        from interp.support.finite import NotFinite

        def step(what: str) -> None:
            bar.set_description(f"{run.name}: {name}, {what}")

        makers: dict[str, Callable] = {
            "verdict": found.verdict_part,
            "accuracy": found.accuracy_part,
            "circuit": found.circuit_part,
            "map": measured.map_part,
            "patch": measured.patch_part,
            "probes": measured.probe_part,
        }

        def make() -> SectionData:
            try:
                if name == "attention":
                    return measured.attention_part(run, self, work, step, *_heads(parts))
                return makers[name](run, self, work, step)
            except ValueError as error:  # what this run cannot be asked
                if name in SHARED or isinstance(error, NotFinite):
                    raise
                return SectionData(notes=(f"Left out: {error}.",))

        return kept(work / f"{name}.json", make, to_json, from_json)


def _heads(parts: dict[str, SectionData]) -> tuple[list[tuple[int, int]], str]:
    """The heads to show: those of the circuit, at most a few, else those whose patch moves the answer most."""
    from experiments.reporting.computed import MOST_HEADS
    from interp.circuits import circuit_from_json

    moving = [(layer, head) for layer, head in parts["patch"].data.get("heads", ())]
    circuit = parts["circuit"].data
    if circuit:
        mine = circuit_from_json(circuit["circuit"]).heads()
        first = [h for h in moving if h in mine] + [h for h in mine if h not in moving]
        return first[: 2 * MOST_HEADS], "heads of the circuit"
    if not moving:
        raise ValueError("neither circuit nor patches say which heads matter")
    return moving, "heads whose patch moves the answer most"
