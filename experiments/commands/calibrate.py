"""`mnemoscope calibrate`: count wrong verdicts on models whose mechanism is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.cases import CaseJob, case_file, judge_missing
from experiments.support.options import AsJson, Flag, Folder, Names, Number

if TYPE_CHECKING:
    from probes.planted import Plan
    from probes.planted.list_planting import ListPlan

MOST_VARIANTS = 10_000
FOLDER = Path("mnemoscope-out") / "calibration"
FILES = ("calibration.svg", "calibration.json")
FAMILIES_FILE, LISTS_FILE = "families.json", "calibration-lists.json"
# Options that only mechanisms have.
OF_MECHANISMS = ("variants", "seed", "repetitions")


@dataclass(frozen=True)
class CalibrateCommand:
    """Plant variants of each mechanism in GPT-2 and GPT-NeoX models, judge them, and count wrong verdicts.

    Writes calibration.json and calibration.svg: confusion, false PRESENT, false ABSENT, wrong labels, share errors,
    coverage; with --families, families.json; with --lists, calibration-lists.json. Each case is written when it is
    done, so the same command resumes after an interruption. One process at a time may use the folder of --out.
    """

    variants: Number = 10
    """Random variants of each mechanism: architecture, length, noise, shares."""
    seed: Number = 10_000
    """Seed of the first variant. No threshold was tuned on seeds from 10000 on."""
    mechanisms: Names = ()
    """Mechanisms by name, or families. Default: all."""
    families: Flag = False
    """Judge the families outside of the calibration instead: each in three architectures, clean and with rotation,
    noise, superposition and LayerNorm, at 8 bits. Refuses --variants, --seed and --repetitions, which families do not
    have."""
    lists: Flag = False
    """Calibrate the verdict on lists instead: judge planted models that find items in a known way, each mechanism in
    three architectures, clean and with dirt. Refuses the options that --families refuses."""
    prompts: Number = 128
    """Prompts per case, at least 24."""
    repetitions: Number = 30
    """How often one variant of each repeated mechanism is judged, to measure coverage; 0 leaves coverage out, else
    at least 2."""
    workers: Number = 2
    """Number of processes, with one thread each."""
    out: Folder = FOLDER
    """Folder for cases and results."""
    json: AsJson = False

    def run(self) -> int:
        """Judge the missing cases, then write and print the counts."""
        self._check()
        from experiments.calibration_text import report_families, report_lists, report_rates
        from experiments.support.console import say
        from experiments.support.finished import warn_replaced
        from experiments.support.results import check_files, writable_folder
        from interp.support.writing import alone_in
        from probes.planted import FAMILIES, LIST_MECHANISMS, MECHANISMS

        choices, measure, report, written = {
            "families": (tuple(FAMILIES), self._families, report_families, (FAMILIES_FILE,)),
            "lists": (tuple(LIST_MECHANISMS), self._lists, report_lists, (LISTS_FILE,)),
            "mechanisms": (MECHANISMS, self._table, report_rates, FILES),
        }["families" if self.families else "lists" if self.lists else "mechanisms"]
        names = tuple(dict.fromkeys(self.mechanisms)) or choices  # a case that is named twice counts once
        if unknown := sorted(set(names) - set(choices)):
            kind = self._kind()
            raise ValueError(f"unknown {kind} {_quoted(unknown)}; {kind} are {_quoted(choices)}")
        folder = writable_folder(self.out)
        check_files([folder / name for name in written])
        with alone_in(folder / ".calibrate"):
            warn_replaced(folder / written[-1], partial(self._why_other, names))
            table = measure(folder, names)
        if self.json:
            print(json.dumps(table))
        else:
            report(table)
            say(folder / written[-1])
        return 0

    def _why_other(self, names: Sequence[str], data: dict) -> str:
        """Return why a result was made with other options or other mechanisms than `names`; "" where it was not."""
        kind, asked, made = self._kind(), {"prompts": self.prompts}, dict(data)
        if not (self.families or self.lists):
            asked |= {"first_seed": self.seed, "variants": self.variants}
            asked["repetitions"] = self.repetitions if set(REPEATED).intersection(names) else 0
            made["repetitions"] = max((row["times"] for row in data["repeated"]), default=0)
        differ = [f"{name} {made[name]}, not {value}" for name, value in asked.items() if made[name] != value]
        there = dict.fromkeys(case["mechanism"] for case in data["judged"])
        if gone := [name for name in there if name not in names]:
            differ.append(f"{kind} {_quoted(gone)}, which are not asked for")
        if new := [name for name in dict.fromkeys(names) if name not in there]:
            differ.append(f"no {kind} {_quoted(new)}")
        return f"it was made with {'; '.join(differ)}" if differ else ""

    def _check(self) -> None:
        """Raise `ValueError` for numbers that are too small or too large; imports no library."""
        from experiments.support.option_checks import check_positive, check_seed, check_workers
        from probes.limits import FEWEST_PROMPTS

        check_workers("workers", self.workers)
        self._check_families()
        if self.variants > MOST_VARIANTS:
            raise ValueError(f"--variants must be at most {MOST_VARIANTS}; got {self.variants}")
        check_positive(self, "variants")
        if self.prompts < FEWEST_PROMPTS:
            raise ValueError(f"--prompts must be at least {FEWEST_PROMPTS}; got {self.prompts}")
        if self.repetitions < 0 or self.repetitions == 1:
            raise ValueError(f"--repetitions must be 0, or at least 2; got {self.repetitions}")
        check_seed(self.seed)
        check_seed(self.seed + self.variants)

    def _check_families(self) -> None:
        """Raise `ValueError` where --families or --lists is given with an option that they do not have."""
        if self.families and self.lists:
            raise ValueError("--families and --lists are two calibrations; give one of them")
        given = [name for name in OF_MECHANISMS if getattr(self, name) != getattr(type(self), name)]
        if (self.families or self.lists) and given:
            one = "families" if self.families else "lists"
            raise ValueError(f"--{given[0]} is for mechanisms of parity; leave it out with --{one}")

    def _kind(self) -> str:
        """Return what the named cases are called."""
        return "families" if self.families else "mechanisms"

    def _table(self, folder: Path, names: Sequence[str]) -> dict:
        """Judge the missing cases and write the results; return the counts."""
        from experiments.support.provenance import provenance_record
        from experiments.support.results import as_svg
        from interp.support.writing import write_together
        from probes.calibration import judge, repeat
        from probes.error_rates import tally
        from probes.views.calibration import draw_confusion

        jobs: list[CaseJob] = [
            (case_file(folder, "case", m, self.seed + k, self.prompts), judge, (m, self.seed + k, self.prompts))
            for k in range(self.variants)
            for m in names
        ]
        repeated = [m for m in REPEATED if m in names] if self.repetitions else []
        for m in repeated:
            path = case_file(folder, f"apart{self.repetitions}", m, self.seed, self.prompts)
            jobs.append((path, repeat, (m, self.seed, self.repetitions, self.prompts)))
        rows = judge_missing(jobs, self.workers)
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

    def _families(self, folder: Path, names: Sequence[str]) -> dict:
        """Judge the missing cases of families and write the results; return the counts."""
        from probes.calibration import family_plans, judge_plan
        from probes.error_rates import tally_families

        jobs: list[CaseJob] = []
        for plan in family_plans(names):
            path = case_file(folder, _kind_of(plan), plan.mechanism, self.prompts)
            jobs.append((path, judge_plan, (plan, FAMILY_SEED, self.prompts)))
        return self._judged(folder / FAMILIES_FILE, jobs, tally_families)

    def _lists(self, folder: Path, names: Sequence[str]) -> dict:
        """Judge the missing cases of lists and write the results; return the counts."""
        from probes.binding.found import RULES
        from probes.list_calibration import judge_list, list_plans, tally_lists

        jobs: list[CaseJob] = []
        for plan in list_plans(names):
            path = case_file(folder, f"list-{RULES}-{_kind_of(plan)}", plan.mechanism, self.prompts)
            jobs.append((path, judge_list, (plan, self.prompts)))
        return self._judged(folder / LISTS_FILE, jobs, tally_lists)

    def _judged(self, file: Path, jobs: Sequence[CaseJob], tally: Callable[[list[dict]], dict]) -> dict:
        """Judge the missing cases and write all with their counts to a file; return the counts."""
        from experiments.support.provenance import provenance_record
        from interp.support.writing import write_whole

        cases = judge_missing(jobs, self.workers)
        table = tally(cases)
        result = {"schema": 1, "prompts": self.prompts, "provenance": provenance_record(), **table, "judged": cases}
        write_whole(file, json.dumps(result, indent=1) + "\n")
        return table


def _kind_of(plan: Plan | ListPlan) -> str:
    """Return the architecture of a plan, and whether it has dirt."""
    return f"{plan.architecture}-{'dirty' if any(asdict(plan.dirt).values()) else 'clean'}"


def _quoted(names: Sequence[str]) -> str:
    """Return names in quotes: some contain commas."""
    return ", ".join(f'"{name}"' for name in names)


# Seed of the prompts on which families are judged.
FAMILY_SEED = 1
# Mechanisms whose coverage is measured: estimates of mixtures, of noise and of each role vary.
REPEATED = ("A1", "A2", "placeholder", "content-addressed placeholder", "sink", "bias sink", "unused", "mixture")
