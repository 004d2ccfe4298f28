"""`mnemoscope figures`: draw the figures of all trained configurations from their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from experiments.support.console import say, warn
from experiments.support.options import Length, Number, OptionalFolder, computed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Name = Literal[
    "by-family",
    "maps",
    "variants",
    "addition",
    "gaps",
    "by-family-pretrained",
    "variants-pretrained",
    "gaps-pretrained",
    "addition-pretrained",
    "reach-pretrained",
    "maps-pretrained",
    "reach",
    "verdicts",
    "offsets",
    "offsets-by-family",
    "where-read",
    "transfer",
    "scale",
    "rehearsal",
    "own-labels",
    "lists",
]
# What the names of figures of fine-tuned models end in.
FINE_TUNED = "-pretrained"
# The runs whose maps are side by side, by figure: without mnemonics and with them, with the same training.
PAIRS = {
    "maps": ("parity-scratchpad-alibi", "parity-aligned-alibi"),
    "maps-pretrained": ("smollm2-parity-scratchpad", "smollm2-parity-aligned"),
}


@dataclass(frozen=True)
class FiguresCommand:
    """Draw the paper's figures and ours from the results of all configurations, as SVG.

    by-family, maps, variants and addition are the paper's Figures 4 to 7, gaps is its study of spacing; with
    -pretrained they are of fine-tuned models. maps-pretrained takes minutes, so it is drawn only where --only names it.
    Runs with another share of rehearsal than most have separate figures with the share in their name. A figure without
    results is skipped, with a note. The same results give the same bytes.
    """

    only: Annotated[tuple[Name, ...], computed("NAME [NAME ...]")] = ()
    """Figures to draw, by-family, maps and so on. Default: all. A named figure without results is an error."""
    zoo: OptionalFolder = None
    """Folder of results.parquet and verdicts.json. Default: the shipped one. maps always shows the shipped runs
    parity-scratchpad-alibi and parity-aligned-alibi; lists shows verdicts on lists and recall in the folder lists."""
    out: OptionalFolder = None
    """Folder for the figures. Default: mnemoscope-out/figures."""
    length: Length = 40
    """Length of the maps' prompts, in bits."""
    prompts: Number = 64
    """Number of prompts that a map is the mean of."""
    seed: Number = 0
    """Seed of those prompts."""

    def run(self) -> int:
        """Draw and write every figure, print the paths, return status 0."""
        self._check()
        from experiments.drawing.zoo import NoRows
        from experiments.support.results import check_files, save_figure, writable_folder
        from interp.models.names import OUT

        if not self.only:
            self._check_results()
        folder, written = writable_folder(self.out or OUT / "figures"), []
        drawings = self.drawings()
        check_files([folder / f"{name}.svg" for name, *_ in drawings])
        for name, required, draw in drawings:
            try:
                figure = draw()
            except NoRows as error:
                if required:
                    raise
                warn(f"{name}: left out, {error}")
                continue
            written.append(folder / f"{name}.svg")
            save_figure(figure, written[-1])
        if not written:
            raise ValueError(f"nothing to draw: {self.results} has no results yet")
        for path in written:
            say(path)
        return 0

    def _check(self) -> None:
        """Raise `ValueError` for a folder that is not there and for bad numbers; imports no library."""
        from experiments.support.option_checks import check_seed
        from interp.models.names import no_folder

        check_seed(self.seed)
        if self.zoo is not None and not self.zoo.is_dir():
            raise ValueError(f"--zoo: {no_folder(self.zoo, 'results.parquet and verdicts.json')}")
        if self.length < 1 or self.prompts < 1:
            raise ValueError(f"--length and --prompts must be at least 1; got {self.length}, {self.prompts}")

    def _check_results(self) -> None:
        """Raise `ValueError` where the folder of --zoo has no results: the maps, of shipped runs, would be all."""
        from experiments.gathering import read_verdicts
        from experiments.support.list_results import read_list_verdicts

        if self.zoo is None or not self.table.empty:
            return
        if not read_verdicts(self.zoo) and not read_list_verdicts(self.zoo / "lists"):
            raise ValueError(f"nothing to draw: {self.zoo} has no results yet; mnemoscope sweep writes them")

    @property
    def results(self) -> Path:
        """The folder of the results."""
        from interp.models import names

        return self.zoo or names.ZOO

    def drawings(self) -> list[tuple[str, bool, Callable[[], Figure]]]:
        """Return (file name, whether it is required, function that draws it) for each figure."""
        from experiments.drawing import zoo

        drawings = []
        for name in self.only or dict.fromkeys((*get_args(Name), *zoo.FIGURES)):
            required = name in self.only
            if name in PAIRS:
                drawings.append((name, required, lambda name=name, required=required: self.maps(name, required)))
            elif name == "verdicts":
                drawings.append((name, required, self.verdicts))
            elif name == "lists":
                drawings.append((name, required, self.lists))
            else:
                draw, task = zoo.FIGURES[name], "addition" if name.startswith("addition") else "parity"
                if name in zoo.CONDITIONED:
                    drawings.append((name, required, lambda draw=draw: draw(self.table)))
                    continue
                for k, (suffix, part) in enumerate(by_rehearsal(self.table, task, name.endswith(FINE_TUNED))):
                    drawings.append((name + suffix, required and k == 0, lambda draw=draw, part=part: draw(part)))
        return drawings

    @cached_property
    def table(self) -> DataFrame:
        """The table of all runs, which is read once; an empty one if there is none yet."""
        import pandas as pd

        from experiments.drawing.zoo import COLUMNS
        from experiments.gathering import TABLE

        path = self.results / TABLE
        if not path.is_file():
            return pd.DataFrame(columns=list(COLUMNS))
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a whole parquet file: {error}") from error

    def verdicts(self) -> Figure:
        """Draw the roles of the labels by configuration, beside planted models."""
        from experiments.drawing.zoo import NoRows, roles_by_format
        from experiments.drawing.zoo.frames import CONDITION, starts_pretrained
        from experiments.gathering import VERDICTS, read_verdicts
        from experiments.support.reading import read_calibration
        from probes.views.verdicts import planted_values

        if not (verdicts := read_verdicts(self.results)):
            raise NoRows(f"there are no verdicts in {self.results / VERDICTS}")
        verdicts = {name: entry for name, entry in verdicts.items() if CONDITION not in name}
        tuned = {name for name in verdicts if starts_pretrained(name.rpartition("-")[2])}
        if not any(verdicts[name]["verdict"] for name in tuned):  # rows that all say "not judged" would show nothing
            verdicts = {name: entry for name, entry in verdicts.items() if name not in tuned}
        planted, frame = planted_values(read_calibration()), self.table
        return roles_by_format(verdicts, planted, None if frame.empty else frame)

    def lists(self) -> Figure:
        """Draw what finds an item of a list, by kind of label, from the shipped verdicts or those of --zoo."""
        from experiments.drawing.lists import list_shares
        from experiments.drawing.zoo import NoRows
        from experiments.support.list_results import LISTS, read_list_verdicts

        folder = LISTS if self.zoo is None else self.zoo / "lists"
        if not (verdicts := read_list_verdicts(folder)):
            raise NoRows(f"there are no verdicts in {folder}")
        return list_shares(verdicts)

    def maps(self, name: str, required: bool = True) -> Figure:
        """Draw gradient x input of two shipped runs, on the same bits. The only figures that run models.

        Raises `NoRows` for the maps of fine-tuned models, which take minutes, unless they are required.
        """
        from experiments import load
        from experiments.drawing import zoo
        from interp.attribution import gradient_x_input

        if name.endswith(FINE_TUNED) and not required:
            raise zoo.NoRows(f"it runs models of 135 million parameters; draw it with --only {name}")
        attributions, trained = [], set()
        for run_name in PAIRS[name]:
            run = load(run_name)
            trained.add(int(run.record["recipe"]["longest"]))
            attributions.append(gradient_x_input(run.raw, run.sample(self.prompts, self.length, self.seed)))
        if len(trained) > 1:
            lengths = " and ".join(map(str, sorted(trained)))
            raise ValueError(f"{name}: {' and '.join(PAIRS[name])} are compared, and were trained up to {lengths}")
        (trained_to,) = trained
        return zoo.maps(*attributions, trained_to=trained_to)


def by_rehearsal(frame: Any, task: str, pretrained: bool = False) -> list[tuple[str, DataFrame]]:
    """Return the parts of a task's table with equal training, and their figures' suffixes; most runs first.

    Runs with a condition of rehearsal in their name are left out. `pretrained`: of the runs that started from a
    pretrained model, instead of the others.

    >>> [suffix for suffix, _ in by_rehearsal(frame, "parity")]
    ['', '-rehearsal-0']
    """
    from experiments.drawing.zoo.frames import fine_tuned, usual_rehearsal

    if not {"task", "rehearsal", "run"} <= set(frame.columns):
        return [("", frame)]  # the figure names what is missing
    frame = frame[frame["task"] == task]
    if "family" in frame.columns:
        frame = fine_tuned(usual_rehearsal(frame), pretrained)
    if frame.empty:
        return [("", frame)]
    if frame["rehearsal"].isna().any():
        raise ValueError(f"some runs of {task} have no share of rehearsal in the table")
    runs = frame.groupby("rehearsal")["run"].nunique()
    # Ties go to the larger share, which the shipped runs have.
    shares = sorted(runs.index, key=lambda share: (-runs[share], -share))
    parts = [frame[frame["rehearsal"] == share] for share in shares]
    names = ["", *(f"-rehearsal-{share:g}" for share in shares[1:])]
    return list(zip(names, parts, strict=True))
