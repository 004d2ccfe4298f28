"""Does a verb survive faults, counted: kill -9, Ctrl-C, a full disk, a lost worker, at random moments?

`python -m tests.faults.trials --each 60 --json faults.json` draws at least 60 of each fault over all verbs, injects
them, runs the same command again, compares with the uninterrupted result, and writes how many were injected and
survived. `python -m tests.faults.trials train kill 17` does one trial again, by its seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.support.provenance import provenance_record
from interp.support.writing import write_whole
from tests.faults.work import ARGV, WITH_WORKERS, content, furnish, result

ROOT = Path(__file__).parent.parent.parent
FAULTS = ("kill", "interrupt", "full", "lost")
# What an interrupted command says of how to go on; the second is of fetch, whose unfinished download begins anew.
GOES_ON = ("the same command resumes", "the same command uses a finished download again")
STATUS = {"kill": {-9}, "interrupt": {130, 0}, "full": {2}, "lost": {0}}
# How often each verb is drawn: those that take long are drawn less.
WEIGHT = {
    "train": 16,
    "patch": 12,
    "evaluate": 12,
    "circuit": 6,
    "calibrate": 2,
    "sweep": 8,
    "report": 3,
    "verdict": 4,
    "attention": 1,
    "figures": 1,
    "bench": 2,
    "fetch": 2,
    "gallery": 1,
}
NONE = {"kind": "", "at": 0, "delay": None, "worker": False}


@dataclass
class Reference:
    """An uninterrupted run: what came out, how long it took, how many calls changed the disk, by how much."""

    files: dict[str, Any]
    err: str
    seconds: float
    calls: int
    kilobytes: int


@dataclass
class Lab:
    """A server, and a folder for trials."""

    folder: Path
    server: subprocess.Popen
    references: dict[str, Reference] = field(default_factory=dict)
    trials: int = 0

    def run(self, verb: str, folder: Path, fault: dict, clean: bool = False) -> dict:
        """Runs a verb in a folder; its status, and whether the fault came. What it said is in `out` and `err`."""
        log, mark = (folder.with_name(f"{folder.name}.{end}") for end in ("log", "mark"))
        mark.unlink(missing_ok=True)
        task = {"verb": verb, "folder": str(folder), "fault": fault, "log": str(log), "mark": str(mark), "clean": clean}
        answer = self.ask(task)
        said = {end: log.with_name(f"{log.name}.{end}").read_text(encoding="utf-8") for end in ("out", "err")}
        return {**answer, **said}

    def run_two(self, verb: str, folder: Path, apart: float) -> tuple[list[int], list[str]]:
        """Run a verb twice at once, the second `apart` seconds later; return both statuses and standard errors."""
        log, mark = (folder.with_name(f"{folder.name}.{end}") for end in ("log", "mark"))
        task = {"verb": verb, "folder": str(folder), "fault": NONE, "log": str(log), "mark": str(mark), "apart": apart}
        answer = self.ask(task)
        return answer["statuses"], [
            log.with_name(f"{log.name}{number}.err").read_text(encoding="utf-8") for number in range(2)
        ]

    def ask(self, task: dict) -> dict:
        """Give the server a task and return its answer."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(task) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def fresh(self, verb: str) -> Path:
        """A new folder with what the verb reads."""
        self.trials += 1
        folder = self.folder / f"{verb}-{self.trials}"
        furnish(folder, self.folder / "tiny")
        return folder

    def reference(self, verb: str) -> Reference:
        """The uninterrupted run of a verb."""
        if verb not in self.references:
            folder = self.fresh(verb)
            done = self.run(verb, folder, NONE, clean=True)
            assert done["status"] == 0, done
            size = sum(p.stat().st_size for p in (folder / "out").rglob("*") if p.is_file())
            files = result(folder)
            self.references[verb] = Reference(files, done["err"], done["seconds"], done["calls"], size // 1024 + 4)
        return self.references[verb]


@contextmanager
def lab() -> Iterator[Lab]:
    """Begins the server, and makes the run that verbs read."""
    from transformers.utils import logging

    from interp.models import ModelConfig, build_model, save_run
    from interp.models.pretrained import CACHE_VARIABLE
    from interp.tasks import default_tokenizer, default_vocabulary

    logging.disable_progress_bar()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment[CACHE_VARIABLE] = "out"  # of each trial: what `fetch` makes is its result
    command = [sys.executable, "-m", "tests.faults.server"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as name,
        subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as server,
    ):
        try:
            vocabulary = default_vocabulary()
            model = build_model(ModelConfig("alibi", n_layers=1, d_model=16, n_heads=2), len(vocabulary.ids), 0)
            record = {"format": "parity-aligned", "vocabulary": vocabulary.to_json()}
            save_run(Path(name) / "tiny", model, default_tokenizer(), record)
            yield Lab(Path(name), server)
        finally:
            server.kill()


def draw(verb: str, fault: str, seed: int, reference: Reference) -> dict[str, Any]:
    """When the fault comes: at a call that changes the disk or after a time; and for a full disk, how large it is."""
    rng = random.Random(f"{verb} {fault} {seed}")
    at, share = rng.randrange(reference.calls), rng.random()
    worker = fault == "lost" or (verb == "sweep" and fault == "full" and rng.random() < 0.5)
    if worker:  # each of them has a part of the calls
        at = rng.randrange(12 if verb == "calibrate" else reference.calls // 2 + 20)
    by_time = fault in ("kill", "interrupt", "lost") and rng.random() < 0.5
    really = fault == "full" and rng.random() < 0.5
    if fault == "full" and not really:
        at //= 2
    return {
        "kind": fault,
        "at": at,
        "delay": share * reference.seconds if by_time else None,
        "worker": worker,
        "kilobytes": 4 + int(share * reference.kilobytes) if really else None,
    }


@contextmanager
def small_disk(folder: Path, kilobytes: int | None) -> Iterator[None]:
    """Mounts a small disk where results go. The caller makes room with `mount -o remount,size=...`."""
    if kilobytes is None:
        yield
        return
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def can_mount() -> bool:
    """Whether this process may mount a disk of its own."""
    with tempfile.TemporaryDirectory() as name:
        tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", name], capture_output=True)
        return tried.returncode == 0 and subprocess.run(["umount", name]).returncode == 0


def attempt(here: Lab, verb: str, fault: str, seed: int, mounts: bool) -> list[str] | None:
    """One trial: what went wrong, nothing if it survived; None where the command ended before the fault came."""
    reference = here.reference(verb)
    plan = draw(verb, fault, seed, reference)
    if plan["kilobytes"] is not None and not mounts:
        plan["kilobytes"] = None
    real = plan.pop("kilobytes")
    folder = here.fresh(verb)
    with small_disk(folder / "out", real):
        first = here.run(verb, folder, NONE if real else plan)
        # A signal may come to a process that has just ended; none that was killed has a status of 0.
        too_late = first["status"] == 0 and (real or fault == "kill")
        if too_late or (not real and not first["injected"]):
            return None
        first["err"] = without_progress(first["err"], reference.err)
        wrong = complaints_of(first, fault, real)
        for name, data in visible(folder).items():  # whole at any time
            if not is_whole_or_begun(data, reference.files.get(name)):
                wrong.append(f"after the fault {name} is not what it shall be")
        if real:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder / "out")], check=True)
        second = here.run(verb, folder, NONE, clean=True)
        if second["status"] != 0 or "Traceback" in second["err"]:
            wrong.append(f"the same command ended with status {second['status']}: {second['err'][-600:]}")
        else:
            found = result(folder)
            wrong += [f"{name} is missing" for name in reference.files.keys() - found.keys()]
            wrong += [f"{name} is left over" for name in found.keys() - reference.files.keys()]
            both = found.keys() & reference.files.keys()
            wrong += [f"{name} differs" for name in sorted(both) if found[name] != reference.files[name]]
    if not wrong:
        shutil.rmtree(folder)
    return wrong


def without_progress(err: str, reference: str) -> str:
    """Return what a struck command said after the lines that it shares with the uninterrupted run, in their order.

    >>> without_progress("downloading\\nno space left\\n", "downloading\\nconverting\\n")
    'no space left\\n'
    """
    lines, expected = err.splitlines(keepends=True), reference.splitlines(keepends=True)
    same = next((k for k, pair in enumerate(zip(lines, expected, strict=False)) if len(set(pair)) > 1), None)
    return "".join(lines[min(len(lines), len(expected)) if same is None else same :])


def is_whole_or_begun(data: Any, expected: Any) -> bool:
    """Return whether a file is that of the uninterrupted run; a benchmark's may have its first rows."""
    match data, expected:
        case {"rows": dict(rows)}, {"rows": dict(all_rows)}:
            return all(all_rows.get(name) == row for name, row in rows.items())
        case _:
            return data == expected


def complaints_of(ended: dict, fault: str, real: int | None) -> list[str]:
    """What is wrong with how the struck command ended."""
    wrong, err = [], ended["err"]
    if ended["status"] not in STATUS[fault]:
        wrong.append(f"it ended with status {ended['status']}: {err[-600:]}")
    if "Traceback" in err:
        wrong.append(f"it showed a traceback: {err[-1200:]}")
    lines = err.strip().splitlines()
    if fault == "interrupt" and ended["status"] == 130 and err and not any(how in lines[-1] for how in GOES_ON):
        wrong.append(f"it did not say how to go on: {err[-300:]}")
    if fault == "full" and (len(lines) != 1 or "no space left" not in lines[0] or "run the same command" not in err):
        wrong.append(f"a full disk was not one line: {err[-600:]}")
    return wrong


def visible(folder: Path) -> dict[str, Any]:
    """What stands where results stand: outside of what is hidden or at work."""
    found = {}
    for path in sorted((folder / "out").rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(p.startswith(".") or p.endswith(".training") for p in parts):
            try:
                found["/".join(parts)] = content(path)
            except Exception as error:
                found["/".join(parts)] = repr(error)
    return found


def count(here: Lab, each: int, verbs: tuple[str, ...] = tuple(ARGV), faults: tuple[str, ...] = FAULTS, first: int = 0):
    """Try `each` of every fault, on each verb once and then by weight; return the counts, and what failed."""
    mounts = can_mount()
    table = {verb: {fault: {"injected": 0, "survived": 0} for fault in faults} for verb in verbs}
    failed: list[dict] = []
    for fault in faults:
        able = [v for v in verbs if fault != "lost" or v in WITH_WORKERS]
        order = [v for v in able for _ in range(WEIGHT[v])]
        seed, done = first, 0
        while done < each:
            rest = [v for v in able if not table[v][fault]["injected"]]
            verb = random.Random(f"{fault} {seed}").choice(rest or order)
            wrong = attempt(here, verb, fault, seed, mounts)
            if wrong is not None:
                done += 1
                table[verb][fault]["injected"] += 1
                table[verb][fault]["survived"] += not wrong
                if wrong:
                    failed.append({"verb": verb, "fault": fault, "seed": seed, "wrong": wrong})
                    print(f"FAILED: {verb} {fault} {seed}: " + "\n  ".join(wrong), file=sys.stderr, flush=True)
            seed += 1
            assert seed - first < 20 * each + 100, f"{fault} hardly ever comes before the command has ended"
    return {verb: {f: n for f, n in row.items() if n["injected"]} for verb, row in table.items()}, failed


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", nargs="*", help="verb, fault and seed of one trial")
    parser.add_argument("--each", type=int, default=50)
    parser.add_argument("--verbs", nargs="+", default=list(ARGV), choices=list(ARGV))
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=FAULTS)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path, help="replace the counts of these verbs and faults in this file")
    options = parser.parse_args()
    with lab() as here:
        if options.one:
            verb, fault, seed = options.one
            print(draw(verb, fault, int(seed), here.reference(verb)))
            wrong = attempt(here, verb, fault, int(seed), can_mount())
            print("it ended before the fault came" if wrong is None else "\n".join(wrong) or "survived")
            return bool(wrong)
        table, failed = count(here, options.each, tuple(options.verbs), tuple(options.faults), options.first)
    print(json.dumps(table, indent=1))
    if options.json:
        add_counts(options.json, "faults", table, options.faults)
    return 1 if failed else 0


def add_counts(path: Path, what: str, table: dict[str, dict], kinds: Sequence[str]) -> None:
    """Replace the counts of these verbs and kinds in a file, which is made if there is none. Others keep theirs.

    The file names this command, and under "earlier" those before it, of whose counts some are kept.
    """
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {what: {}}
    known = before[what]
    kept = any(verb not in table or row.keys() - set(kinds) for verb, row in known.items())
    earlier = [*before.get("earlier", ()), before["provenance"]] if kept else []
    for verb, counts in table.items():
        row = {kind: n for kind, n in known.get(verb, {}).items() if kind not in kinds} | counts
        known[verb] = {kind: row[kind] for kind in sorted(row, key=[*kinds, *row].index)}
    known = {verb: known[verb] for verb in ARGV if verb in known}
    made = provenance_record(command=" ".join([f"python -m tests.faults.{Path(sys.argv[0]).stem}", *sys.argv[1:]]))
    write_whole(path, json.dumps({"provenance": made, "earlier": earlier, what: known}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(_main())
