"""`mnemoscope calibrate`: how often is the verdict wrong, on models whose mechanism is known?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.support.jobs import Job, finished

MOST_VARIANTS = 10_000
FOLDER = Path("mnemoscope-out") / "calibration"


@dataclass(frozen=True)
class CalibrateCommand:
    """Plants variants of each mechanism inside GPT-2 and GPT-NeoX, judges them, and counts the mistakes.

    Each case is kept as it is done, so that an interrupted run goes on where it stopped. Writes calibration.json
    and calibration.svg: confusion, false PRESENT, false ABSENT, wrong labels, share errors, coverage. Refused while
    another process does this with the same --out.
    """

    variants: int = 10
    """Random variants of each mechanism: architecture, length, dirt, shares."""
    seed: int = 10_000
    """Seed of the first variant; from 10,000 on no threshold was tuned."""
    mechanisms: tuple[str, ...] = ()
    """Mechanisms by name; default all."""
    prompts: int = 128
    """Prompts a case."""
    repetitions: int = 30
    """How often one variant of each of the repeated mechanisms is judged again, for coverage; 0 for none."""
    workers: int = 2
    """Processes, one thread each."""
    out: Path = FOLDER
    """Folder for cases and results."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        """Judges what is missing, then writes and prints the table."""
        from experiments.support.results import check_seed, check_workers, writable_folder
        from interp.support.writing import alone_in
        from probes.planted import MECHANISMS

        check_workers("workers", self.workers)
        if self.variants > MOST_VARIANTS:
            raise ValueError(f"--variants must be at most {MOST_VARIANTS}; got {self.variants}")
        for name in ("variants", "prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1; got {getattr(self, name)}")
        if self.repetitions < 0 or self.repetitions == 1:
            raise ValueError(f"--repetitions must be 0, or 2 and more; got {self.repetitions}")
        check_seed(self.seed)
        check_seed(self.seed + self.variants)
        names = self.mechanisms or MECHANISMS
        if unknown := sorted(set(names) - set(MECHANISMS)):
            raise ValueError(f"unknown mechanisms {', '.join(unknown)}; mechanisms are {', '.join(MECHANISMS)}")
        folder = writable_folder(self.out)
        with alone_in(folder / ".calibrate"):
            table = self._table(folder, names)
        if self.json:
            print(json.dumps(table))
        else:
            _report(table)
            print(folder / "calibration.json")
        return 0

    def _table(self, folder: Path, names: Sequence[str]) -> dict:
        """Judges what is missing and writes what came out; the counts."""
        from experiments.support.progress import progress_bar
        from experiments.support.provenance import provenance_record
        from experiments.support.results import save_figure
        from interp.support.writing import write_whole
        from probes.calibration import judge, repeat, tally
        from probes.views.calibration import draw_confusion

        jobs: list[tuple[Path, Callable, tuple]] = [
            (self._file("case", m, self.seed + k), judge, (m, self.seed + k, self.prompts))
            for k in range(self.variants)
            for m in names
        ]
        repeated = [m for m in REPEATED if m in names] if self.repetitions else []
        again = f"apart{self.repetitions}"
        jobs += [
            (self._file(again, m, self.seed), repeat, (m, self.seed, self.repetitions, self.prompts)) for m in repeated
        ]
        missing = [job for job in jobs if not job[0].exists()]
        waiting = {path.name: path for path, _, _ in missing}
        bar = progress_bar(total=len(jobs), initial=len(jobs) - len(missing), unit="case")
        with bar:
            for job, result in finished((Job(path.name, work, args) for path, work, args in missing), self.workers):
                whole = {**result, "provenance": provenance_record()}
                write_whole(waiting[job.name], json.dumps(whole) + "\n")
                bar.update()
        rows = [_read(path) for path, _, _ in jobs]
        cases, repetitions = rows[: len(rows) - len(repeated)], rows[len(rows) - len(repeated) :]
        try:
            table = tally(cases, repetitions)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"a file in {self.out / 'cases'} is of another version or damaged: {error!r}") from error
        seeds = {"first_seed": self.seed, "variants": self.variants, "prompts": self.prompts}
        whole = {
            "schema": 1,
            **seeds,
            "provenance": provenance_record(),
            **table,
            "repeated": repetitions,
            "judged": cases,
        }
        write_whole(folder / "calibration.json", json.dumps(whole, indent=1) + "\n")
        picture = draw_confusion(table["confusion"], table["never_tuned"], table["expected"])
        save_figure(picture, folder / "calibration.svg")
        return table

    def _file(self, kind: str, mechanism: str, seed: int) -> Path:
        """One case's file; whatever changes the case is in its name."""
        from probes.findings import MARGINS

        slug = "".join(c if c.isalnum() else "-" for c in mechanism)
        return self.out / "cases" / f"{kind}-{slug}-{seed}-{self.prompts}-{MARGINS.version}.json"


def _read(path: Path) -> dict:
    """A case that was judged, perhaps by an earlier command."""
    from experiments.support.provenance import warn_versions
    from interp.models import read_json

    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no case that was judged; remove it")
    warn_versions(f"{path.parent.name}/{path.name}", found.pop("provenance", None))
    return found


# Coverage needs estimates that vary: mixtures, noise, and each role in turn.
REPEATED = ("A1", "A2", "placeholder", "content-addressed placeholder", "sink", "bias sink", "unused", "mixture")


def _report(table: dict) -> None:
    from experiments.support.console import print_table

    labels = sorted({label for row in table["confusion"].values() for label in row})
    rows = [
        [m + ("" if m in table["tuned_on"] else " *"), table["expected"][m], *(str(row.get(x, 0)) for x in labels)]
        for m, row in table["confusion"].items()
    ]
    print_table("planted mechanism against verdict (* never used for tuning)", ["planted", "right", *labels], rows)
    rows = []
    for name, rate in table["rates"].items():
        count = f"{rate['hits']}/{rate['n']}"
        rows.append([name, _rate(rate["rate"]), count, _most(rate["target"]), _met(rate["met"])])
    for name, error in table["share error"].items():
        rows.append(
            [
                f"share error, {name}: largest",
                _rate(error["largest"]),
                f"mean {_rate(error['mean'])}",
                _most(error["target"]),
                _met(error["met"]),
            ]
        )
    for name, row in table["coverage"].items():
        bounds = f"{row['target'][0]} to {row['target'][1]}"
        rows.append(
            [
                f"coverage of 95 % intervals, {name}",
                _rate(row["rate"]),
                f"{row['covered']}/{row['intervals']}",
                bounds,
                _met(row["met"]),
            ]
        )
    for name, null in ((k, v) for k, v in table["nulls"].items() if k != "margin"):
        high = null["99th percentile"]
        within = None if high is None else high <= table["nulls"]["margin"]
        asked = f"at most {table['nulls']['margin']}"
        rows.append([f"99th percentile of |rho|, {name}", _rate(high), str(null["n"]), asked, _met(within)])
    print_table("how often is it wrong?", ["", "rate", "count", "asked", "met"], rows)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _most(target: float | None) -> str:
    return "-" if target is None else f"at most {target}"


def _met(met: bool | None) -> str:
    return {None: "-", True: "yes", False: "NO"}[met]
