"""Damage the unfinished work of killed commands, and run commands twice at once on one --out; count what survives.

`python -m tests.faults.damages --each 5 --json damages.json` tries five of each on every verb.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

from tests.faults.trials import NONE, Lab, Reference, add_counts, draw, lab
from tests.faults.work import ARGV, result

DAMAGES = ("truncated", "flipped")


def attempt_damaged(here: Lab, verb: str, damage: str, seed: int) -> list[str] | None:
    """Kill a command, damage a file of its unfinished work, and run it again.

    Return what went wrong: the command must end with the right result, or with one line that names the file, after
    whose removal it does. None where the killed command left no work.
    """
    reference = here.reference(verb)
    plan = draw(verb, "kill", seed, reference)
    del plan["kilobytes"]
    folder = here.fresh(verb)
    here.run(verb, folder, {**plan, "delay": None}, clean=True)
    parts = [p for p in sorted((folder / "out").rglob("*")) if p.is_file() and p.stat().st_size and _is_work(p, folder)]
    if not parts:
        return None
    rng = random.Random(f"{verb} {damage} {seed}")
    path = rng.choice(parts)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: rng.randrange(len(data))]
    else:
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    name, wrong = path.relative_to(folder), []
    second = here.run(verb, folder, NONE, clean=True)
    if second["status"] == 2 and len(second["err"].strip().splitlines()) == 1:
        advice = second["err"].rpartition("remove ")[2]
        text = second["err"] if advice.startswith("it") else advice
        known = [p for p in (path, *path.parents) if p.is_relative_to(folder / "out") and p != folder / "out"]
        named = next((p for p in known if str(p.relative_to(folder)) in text), None)
        if named is None or not advice:
            return [f"{name} was damaged, and the message names no file to remove: {second['err'][-400:]}"]
        shutil.rmtree(named) if named.is_dir() else named.unlink()
        second = here.run(verb, folder, NONE, clean=True)
    if second["status"] != 0 or "Traceback" in second["err"]:
        return [f"{name} was damaged, and the command ended with status {second['status']}: {second['err'][-600:]}"]
    wrong += [f"{name} was damaged: {difference}" for difference in _differences(folder, reference)]
    if not wrong:
        shutil.rmtree(folder)
    return wrong


def _differences(folder: Path, reference: Reference) -> list[str]:
    """Return in what the results in a folder differ from those of an undisturbed command."""
    found, expected = result(folder), reference.files
    differ = [f"{name} differs" for name in sorted(found.keys() & expected.keys()) if found[name] != expected[name]]
    missing = sorted(found.keys() ^ expected.keys())
    return [*([f"the files differ by {missing}"] if missing else []), *differ]


def _is_work(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder / "out").parts
    return any(p.startswith(".") or p.endswith(".training") for p in parts) or parts[0] == "cases"


def attempt_together(here: Lab, verb: str, seed: int) -> list[str]:
    """Run a command twice at once on one --out; return what went wrong."""
    reference = here.reference(verb)
    folder = here.fresh(verb)
    apart = random.Random(f"{verb} {seed}").random() * reference.seconds
    statuses, said = here.run_two(verb, folder, apart)
    wrong = []
    if 0 not in statuses:
        wrong.append(f"neither ended well: {statuses} {said}")
    for status, err in zip(statuses, said, strict=True):
        left = "another process" in err
        if "Traceback" in err or status not in (0, 1, 2) or (status and not left):
            wrong.append(f"a process ended with status {status}: {err[-600:]}")
    wrong += _differences(folder, reference)
    if not wrong:
        shutil.rmtree(folder)
    return wrong


def count_damages(here: Lab, each: int, verbs: tuple[str, ...], first: int = 0) -> tuple[dict, list[dict]]:
    """Try `each` of every damage on every verb, and two processes at once; return the counts, and what failed."""
    table: dict[str, dict] = {verb: {} for verb in verbs}
    failed: list[dict] = []
    for verb in verbs:
        for kind in (*DAMAGES, "together"):
            done = survived = 0
            for seed in range(first, first + 4 * each):
                if done == each:
                    break
                once = attempt_together(here, verb, seed) if kind == "together" else None
                wrong = once if kind == "together" else attempt_damaged(here, verb, kind, seed)
                if wrong is None:
                    continue
                done, survived = done + 1, survived + (not wrong)
                if wrong:
                    failed.append({"verb": verb, "fault": kind, "seed": seed, "wrong": wrong})
                    print(f"FAILED: {verb} {kind} {seed}: " + "\n  ".join(wrong), file=sys.stderr, flush=True)
            if done:
                table[verb][kind] = {"injected": done, "survived": survived}
    return table, failed


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--verbs", nargs="+", default=list(ARGV), choices=list(ARGV))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path, help="replace the counts of these verbs in this file")
    options = parser.parse_args()
    with lab() as here:
        table, failed = count_damages(here, options.each, tuple(options.verbs), options.first)
    print(json.dumps(table, indent=1))
    if options.json and not failed:
        add_counts(options.json, "damages", table, (*DAMAGES, "together"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
