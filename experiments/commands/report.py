"""`mnemoscope report`: everything known about a run in one HTML file that works offline."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from experiments.support.option_checks import check_html
from experiments.support.options import (
    Device,
    Flag,
    FormatName,
    Length,
    Memory,
    Number,
    OptionalFile,
    Runs,
    Seed,
    WidenedDtype,
    computed,
)

if TYPE_CHECKING:
    from experiments.reporting.section import SectionData
    from experiments.support.own_lists import ListTask
    from interp.models import Run

# Parts of a comparison, and the parts that the report on one run adds. The circuit or patches choose heads.
SHARED = ("verdict", "accuracy", "map")
ALONE = ("circuit", "patch", "probes", "attention")


@dataclass(frozen=True)
class ReportCommand:
    """Write one HTML file: verdict, accuracy, maps, attention, patching, probes, circuit, and how each number was made.

    Results of the same weights and default options are reused, in the run's folder also with other lengths and numbers
    of prompts; missing ones are computed. In models of more than 64 heads, parts that would take hours are smaller, and
    a missing circuit is left out. The page says what is unusual. The same command resumes after an interruption; with
    --task, after the last finished section.
    """

    names: Runs
    compare: Flag = False
    """Put the runs side by side in one file: verdicts, accuracy, maps. Default: one file per run."""
    quick: Flag = False
    """Compute less; the page says what was left out. Default: compute everything."""
    fresh: Flag = False
    """Compute everything again. Default: reuse results beside the run."""
    length: Length = 20
    """Length in attention, patching, probes and circuit: bits, or digits of both operands; not with --task."""
    map_length: Length = 40
    """Length in the gradient x input map; not with --task."""
    seed: Seed = 0
    task: Annotated[str | None, computed("TASK")] = None
    """Report on a list or on recall instead: list-letters, list-numerals, recall, your own .json file and so on, as for
    `verdict`."""
    items: Number = 6
    """Items of the list or of recall, at least 6; only with --task."""
    fillers: Number = 0
    """Fillers between the label and the value of a list's item; only with --task, and not on recall."""
    format: FormatName = None
    device: Device = "auto"
    dtype: WidenedDtype = None
    memory: Memory = None
    out: OptionalFile = None
    """The HTML file. Default: mnemoscope-out/<run>/report.html."""

    def run(self) -> int:
        """Find or compute every part, and write the pages; status 0."""
        from experiments.support.progress import progress_bar

        check_html(self.out)
        if self.task is not None:
            return self._write_lists()
        if (self.items, self.fillers) != (6, 0):
            raise ValueError("--items and --fillers are for lists; add --task")
        runs = self._load()
        groups = [runs] if self.compare else [[run] for run in runs]
        targets = [self._target(group) for group in groups]
        names = (*SHARED, *(() if self.compare else ALONE))
        with progress_bar(total=len(runs) * len(names), unit="part") as bar:
            for group, target in zip(groups, targets, strict=True):
                self._write(group, target, names, bar)
        return 0

    def _write_lists(self) -> int:
        from experiments.support.own_lists import list_task

        task = list_task(str(self.task))
        self._check_lists(task)
        from experiments.reporting.list_page import write_list_report
        from experiments.support.console import say

        path = write_list_report(self, task, self.out)
        say(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
        return 0

    def _check_lists(self, task: ListTask) -> None:
        """Raise `ValueError` for options that lists do not have, and for an unknown run; imports no library."""
        from experiments.support.option_checks import check_seed
        from experiments.support.own_lists import check_fillers
        from experiments.support.run_checks import check_runs
        from experiments.support.verdict_checks import check_list

        if len(self.names) != 1 or self.compare:
            raise ValueError(f"a report on --task {task} is on one run; got {len(self.names)}")
        check_list(task, self.names, self.items)
        for name in ("length", "map_length"):
            if getattr(self, name) != getattr(ReportCommand, name):
                raise ValueError(f"--{name.replace('_', '-')} does not apply to --task {task}; use --items")
        check_fillers(task, self.fillers)
        check_seed(self.seed)
        if task != "recall" and self.format is not None:
            raise ValueError(f"--task {task} has no formats; leave --format out")
        check_runs(self.names, self.format, "recall" if self.format else None)

    def said(self, run: Run) -> str:
        """Return a run as it was named, with options given; with --dtype also if widened, as not every verb does."""
        from experiments.support.results import device_and_dtype
        from interp.models.names import source_of

        name = next((name for name in self.names if source_of(name) == run.source), run.name)
        words = [name, *(["--format", str(run.format)] if self.format else [])]
        words += [] if self.device == "auto" else ["--device", self.device]
        saved = getattr(run.raw.config, "dtype", None)  # where --dtype is not given
        if self.dtype is not None or saved not in (None, run.raw.dtype):
            words += ["--dtype", device_and_dtype(run)["dtype"]]
        return shlex.join(words)

    def _load(self) -> list[Run]:
        from experiments.support.loading import load_posed, widened
        from experiments.support.option_checks import check_positive, check_seed
        from experiments.support.run_checks import check_apart, check_posed, check_runs

        if not self.names:
            raise ValueError("name a run, such as parity-aligned-alibi")
        if self.compare and len(self.names) < 2:
            raise ValueError("--compare needs two runs or more; name another")
        if self.out and len(self.names) > 1 and not self.compare:
            raise ValueError("--out is for one report; with several runs leave it out, or add --compare")
        check_positive(self, "length", "map_length")
        check_seed(self.seed)
        check_runs(self.names, self.format)
        check_posed(self.names, self.format)
        runs = [load_posed(name, self.format, device=self.device, dtype=self.dtype) for name in self.names]
        if any(run.format.task == "recall" for run in runs):
            raise ValueError("a report on recall is made with --task recall")
        for run in runs:
            for given, usual in ((self.length, ReportCommand.length), (self.map_length, ReportCommand.map_length)):
                if given != usual:  # the usual one is shortened to what fits
                    run.check_length(given)
        check_apart([run.name for run in runs])
        if self.compare and len({run.format.task for run in runs}) > 1:
            raise ValueError("runs of different tasks cannot be compared; name runs of one task")
        return [widened(run, self.dtype) for run in runs]  # as the helpers of the verdict load them

    def _target(self, group: list[Run]) -> Path:
        from experiments.support.results import check_files, writable_folder
        from interp.models.names import OUT

        target = self.out or OUT / "+".join(run.name for run in group) / "report.html"
        writable_folder(target.parent)
        check_files([target])
        return target

    def _write(self, group: list[Run], target: Path, names: tuple[str, ...], bar) -> None:  # type: ignore[no-untyped-def]
        from experiments.reporting.order import whole_page
        from experiments.support.console import say
        from experiments.support.provenance import provenance_record
        from experiments.support.results import replace_whole, work_folder

        sections = []
        with ExitStack() as kept:  # work folders, until the page is written
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
                sections.append((run, parts))
            text = whole_page(sections, self._title(group), provenance_record()["command"])
            replace_whole(target, text)
        say(f"{target} ({len(text.encode()) / 1e6:.1f} MB)")

    def _title(self, group: list[Run]) -> str:
        who = ", ".join(run.name for run in group[:-1]) + " and " * (len(group) > 1) + group[-1].name
        if len(group) > 1:
            return f"{who}, side by side"
        return f"What do the labels do in {who}?" if group[0].format.labels else f"What does {who} do without labels?"

    def _part(self, run: Run, name: str, parts: dict[str, SectionData], work: Path, bar) -> SectionData:  # type: ignore[no-untyped-def]
        from experiments.reporting import computed, patching, stored
        from experiments.reporting.section import SectionData, from_json, to_json
        from experiments.support.results import load_or_make
        from interp.support.finite import NotFinite

        def step(what: str) -> None:
            bar.set_description(f"{run.name}: {name}, {what}")

        makers: dict[str, Callable] = {
            "verdict": stored.verdict_part,
            "accuracy": stored.accuracy_part,
            "circuit": stored.circuit_part,
            "map": computed.map_part,
            "patch": patching.patch_part,
            "probes": computed.probe_part,
        }

        def make() -> SectionData:
            try:
                if name == "attention":
                    return computed.attention_part(run, self, work, step, *_heads(parts))
                return makers[name](run, self, work, step)
            except ValueError as error:  # a part that this run cannot have
                if name in SHARED or isinstance(error, NotFinite):
                    raise
                return SectionData(notes=(f"Left out: {error}.",))

        return load_or_make(work / f"{name}.json", make, to_json, from_json)


def _heads(parts: dict[str, SectionData]) -> tuple[list[tuple[int, int]], str]:
    """Return the heads to show: a few of the circuit, else those whose patch moves the answer most."""
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
    chosen = "heads whose patch moves the answer most"
    return moving, chosen if parts["patch"].data.get("valid", True) else f"{chosen}, in an INVALID patching"
