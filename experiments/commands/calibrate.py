"""`mnemoscope calibrate`: count wrong verdicts on models whose mechanism is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.support.jobs import Job, finished
from experiments.support.options import AsJson, Folder, Names, Number

MOST_VARIANTS = 10_000
FOLDER = Path("mnemoscope-out") / "calibration"
FILES = ("calibration.svg", "calibration.json")
# Key of a judged case: the digest of its other fields.
DIGEST = "digest"


@dataclass(frozen=True)
class CalibrateCommand:
    """Plant variants of each mechanism in GPT-2 and GPT-NeoX models, judge them, and count wrong verdicts.

    Writes calibration.json and calibration.svg: confusion, false PRESENT, false ABSENT, wrong labels, share errors,
    coverage. Each case is written when it is done, so the same command resumes after an interruption. One process at a
    time may use the folder of --out.
    """

    variants: Number = 10
    """Random variants of each mechanism: architecture, length, noise, shares."""
    seed: Number = 10_000
    """Seed of the first variant. No threshold was tuned on seeds from 10000 on."""
    mechanisms: Names = ()
    """Mechanisms by name. Default: all."""
    prompts: Number = 128
    """Prompts per case."""
    repetitions: Number = 30
    """How often one variant of each repeated mechanism is judged, to measure coverage; 0 leaves coverage out."""
    workers: Number = 2
    """Number of processes, with one thread each."""
    out: Folder = FOLDER
    """Folder for cases and results."""
    json: AsJson = False

    def run(self) -> int:
        """Judge the missing cases, then write and print the counts."""
        from experiments.support.console import say
        from experiments.support.results import check_files, check_positive, check_seed, check_workers, writable_folder
        from interp.support.writing import alone_in
        from probes.planted import MECHANISMS

        check_workers("workers", self.workers)
        if self.variants > MOST_VARIANTS:
            raise ValueError(f"--variants must be at most {MOST_VARIANTS}; got {self.variants}")
        check_positive(self, "variants", "prompts")
        if self.repetitions < 0 or self.repetitions == 1:
            raise ValueError(f"--repetitions must be 0, or at least 2; got {self.repetitions}")
        check_seed(self.seed)
        check_seed(self.seed + self.variants)
        names = self.mechanisms or MECHANISMS
        if unknown := sorted(set(names) - set(MECHANISMS)):
            raise ValueError(f"unknown mechanisms {', '.join(unknown)}; mechanisms are {', '.join(MECHANISMS)}")
        folder = writable_folder(self.out)
        check_files([folder / name for name in FILES])
        with alone_in(folder / ".calibrate"):
            table = self._table(folder, names)
        if self.json:
            print(json.dumps(table))
        else:
            _report(table)
            say(folder / "calibration.json")
        return 0

    def _table(self, folder: Path, names: Sequence[str]) -> dict:
        """Judge the missing cases and write the results; return the counts."""
        from experiments.support.progress import progress_bar
        from experiments.support.provenance import provenance_record
        from experiments.support.results import as_svg
        from interp.support.writing import write_together, write_whole
        from probes.calibration import judge, repeat
        from probes.error_rates import tally
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
                record = {**result, "provenance": provenance_record()}
                write_whole(waiting[job.name], json.dumps({**record, DIGEST: _digest(record)}) + "\n")
                bar.set_description(job.name)
                bar.update()
        rows = [_read(path) for path, _, _ in jobs]
        cases, repetitions = rows[: len(rows) - len(repeated)], rows[len(rows) - len(repeated) :]
        try:
            table = tally(cases, repetitions)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"a file in {self.out / 'cases'} is of another version or damaged: {error!r}") from error
        seeds = {"first_seed": self.seed, "variants": self.variants, "prompts": self.prompts}
        result = {
            "schema": 1,
            **seeds,
            "provenance": provenance_record(),
            **table,
            "repeated": repetitions,
            "judged": cases,
        }
        picture = draw_confusion(table["confusion"], table["never_tuned"], table["expected"])
        contents = (as_svg(picture), json.dumps(result, indent=1) + "\n")
        write_together([(folder / name, content) for name, content in zip(FILES, contents, strict=True)])
        return table

    def _file(self, kind: str, mechanism: str, seed: int) -> Path:
        """Return the file of a case; its name holds everything that changes the case."""
        from probes.findings import MARGINS

        slug = "".join(c if c.isalnum() else "-" for c in mechanism)
        return self.out / "cases" / f"{kind}-{slug}-{seed}-{self.prompts}-{MARGINS.version}.json"


def _read(path: Path) -> dict:
    """Return a judged case, perhaps of an earlier command."""
    from experiments.support.provenance import warn_versions
    from interp.models import read_json

    case = read_json(path)
    if not isinstance(case, dict):
        raise ValueError(f"{path} is not a judged case; remove it")
    if DIGEST in case and case.pop(DIGEST) != _digest(case):
        raise ValueError(f"{path} is damaged: its digest is another; remove it")
    warn_versions(f"{path.parent.name}/{path.name}", case.pop("provenance", None))
    return case


def _digest(record: dict) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


# Mechanisms whose coverage is measured: estimates of mixtures, of noise and of each role vary.
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
        target = f"at most {table['nulls']['margin']}"
        rows.append([f"99th percentile of |rho|, {name}", _rate(high), str(null["n"]), target, _met(within)])
    print_table("error rates", ["", "rate", "count", "target", "met"], rows)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _most(target: float | None) -> str:
    return "-" if target is None else f"at most {target}"


def _met(met: bool | None) -> str:
    return {None: "-", True: "yes", False: "NO"}[met]
