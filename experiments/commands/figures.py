"""`mnemoscope figures`: what do all trained configurations show, drawn anew from their results?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Name = Literal[
    "by-family",
    "maps",
    "variants",
    "addition",
    "gaps",
    "verdicts",
    "offsets",
    "offsets-by-family",
    "where-read",
    "transfer",
    "scale",
]
# Whose maps stand side by side: without mnemonics and with them, trained alike.
PAIR = ("parity-scratchpad-alibi", "parity-aligned-alibi")


@dataclass(frozen=True)
class FiguresCommand:
    """Draws the paper's figures and ours again from the results of all configurations, as SVG.

    by-family, maps, variants and addition are the paper's Figures 4 to 7, gaps its study of spacing. Runs with another
    share of rehearsal than most have figures of their own, named after it. A figure whose results are not there is left
    out, and said to be. The same results give the same bytes.
    """

    only: tuple[Name, ...] = ()
    """Figures to draw; default all. One that is named and cannot be drawn is an error."""
    zoo: Path | None = None
    """Folder of results.parquet and verdicts.json; default the one that comes with the package. The maps are of the two
    runs parity-scratchpad-alibi and parity-aligned-alibi that come with it, whatever the folder."""
    out: Path | None = None
    """Folder for the figures; default mnemoscope-out/figures."""
    length: int = 40
    """Bits of the maps' prompts."""
    prompts: int = 64
    """Prompts that a map is the mean over."""
    seed: int = 0
    """Seed of those prompts."""

    def run(self) -> int:
        """Draws and writes every figure, then prints the paths; status 0."""
        from experiments.drawing.zoo import NoRows
        from experiments.support.results import check_seed, save_figure, writable_folder
        from interp.models.names import OUT

        check_seed(self.seed)
        if self.zoo is not None and not self.zoo.is_dir():
            raise ValueError(f"--zoo: there is no folder {self.zoo}")
        if self.length < 1 or self.prompts < 1:
            raise ValueError(f"--length and --prompts must be at least 1; got {self.length}, {self.prompts}")
        folder, written = writable_folder(self.out or OUT / "figures"), []
        for name, required, draw in self.drawings():
            try:
                figure = draw()
            except NoRows as error:
                if required:
                    raise
                print(f"{name}: left out, {error}", file=sys.stderr)
                continue
            written.append(folder / f"{name}.svg")
            save_figure(figure, written[-1])
        if not written:
            raise ValueError(f"nothing to draw: {self.results} has no results yet")
        print("\n".join(map(str, written)))
        return 0

    @property
    def results(self) -> Path:
        """The folder of the results."""
        from interp.models import names

        return self.zoo or names.ZOO

    def drawings(self) -> list[tuple[str, bool, Callable[[], Figure]]]:
        """(file name, whether it must be there, what draws it) of every figure that was asked for."""
        from experiments.drawing import zoo

        of_table = {
            "by-family": zoo.by_family,
            "variants": zoo.variants,
            "addition": zoo.addition,
            "gaps": zoo.gaps,
            "offsets": zoo.offsets,
            "offsets-by-family": partial(zoo.offsets, family=None),
            "where-read": zoo.where_read,
            "transfer": zoo.transfer,
            "scale": zoo.scale,
        }
        frame, found = None, []
        for name in self.only or get_args(Name):
            required = name in self.only
            if name == "maps":
                found.append((name, required, self.maps))
            elif name == "verdicts":
                found.append((name, required, self.verdicts))
            else:
                frame = self.table() if frame is None else frame
                for k, (suffix, part) in enumerate(by_rehearsal(frame, "addition" if name == "addition" else "parity")):
                    draw = of_table[name]
                    found.append((name + suffix, required and k == 0, lambda draw=draw, part=part: draw(part)))
        return found

    def table(self) -> DataFrame:
        """The table of all runs; one without rows where it was not made yet."""
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
        """The roles of the labels by configuration, beside planted models."""
        from experiments.drawing.zoo import NoRows, roles_by_format
        from experiments.gathering import VERDICTS, read_verdicts
        from experiments.support.reading import read_calibration
        from probes.views.verdicts import planted_values

        if not (found := read_verdicts(self.results)):
            raise NoRows(f"there are no verdicts in {self.results / VERDICTS}")
        planted, frame = planted_values(read_calibration()), self.table()
        return roles_by_format(found, planted, None if frame.empty else frame)

    def maps(self) -> Figure:
        """Gradient x input of the shipped runs, on the same bits; the only figure for which models run."""
        from experiments import load
        from experiments.drawing import zoo
        from interp.attribution import gradient_x_input

        found, trained = [], set()
        for name in PAIR:
            run = load(name)
            trained.add(int(run.record["recipe"]["longest"]))
            found.append(gradient_x_input(run.raw, run.sample(self.prompts, self.length, self.seed)))
        if len(trained) > 1:
            lengths = " and ".join(map(str, sorted(trained)))
            raise ValueError(f"maps: {' and '.join(PAIR)} are compared, and were trained up to {lengths}")
        (trained_to,) = trained
        return zoo.maps(*found, trained_to=trained_to)


def by_rehearsal(frame: Any, task: str) -> list[tuple[str, DataFrame]]:
    """Parts of a task's table that were trained alike, with what their figures' names end in; most runs first.

    >>> [suffix for suffix, _ in by_rehearsal(frame, "parity")]
    ['', '-rehearsal-0']
    """
    if not {"task", "rehearsal", "run"} <= set(frame.columns):
        return [("", frame)]  # the figure says what is missing
    frame = frame[frame["task"] == task]
    if frame.empty:
        return [("", frame)]
    if frame["rehearsal"].isna().any():
        raise ValueError(f"runs of {task} without a share of rehearsal cannot be told from those with one")
    runs = frame.groupby("rehearsal")["run"].nunique()
    # Of equally many, the larger share: it is what the shipped runs have.
    shares = sorted(runs.index, key=lambda share: (-runs[share], -share))
    parts = [frame[frame["rehearsal"] == share] for share in shares]
    names = ["", *(f"-rehearsal-{share:g}" for share in shares[1:])]
    return list(zip(names, parts, strict=True))
