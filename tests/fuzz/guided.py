"""Fuzz folders, results and tokenizers, guided by the coverage of our code (atheris, libFuzzer's front end for Python).

`pip install atheris`, which is no dependency of the tests, then `python -m tests.fuzz.guided results --seconds 300`.
An input that fails is written to `tests/fuzz/corpus/<kind>/`, one per place that raised. With --json the shortest of
the inputs that reached new code are written to `tests/fuzz/corpus/<kind>.jsonl`, and the next run starts from them.
`test_corpus.py` tries all of them again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
KINDS = ("results", "folders", "tokenizers")
PACKAGES = ["interp", "probes", "experiments"]
# Sizes of an input, and of one in which a node may be repeated many times, in bytes.
LARGEST, REPEATED = 2**18, 2**14
# Size of a file of inputs that reached new code, in bytes.
KEPT = 2**17


def mutated_json(data: bytes, seed: int) -> bytes:
    """Return JSON with one to three nodes replaced, removed, repeated, copied from elsewhere or renamed."""
    from tests.fuzz.junk import ABSURD

    rng = random.Random(seed)
    whole = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = _nodes(whole, rng)
        if not nodes:
            return data
        holder, key = rng.choice(nodes)
        other, its = rng.choice(nodes)
        match rng.randrange(6):
            case 0 | 1:
                holder[key] = rng.choice(ABSURD)
            case 2:
                del holder[key]
            case 3:
                holder[key] = json.loads(json.dumps(other[its]))
            case 4:
                holder[key] = [holder[key]] * rng.choice((0, 1, 2, 50 if len(data) < REPEATED else 3))
            case _ if isinstance(holder, dict):
                holder[str(rng.choice(ABSURD))] = holder.pop(key)
            case _:
                holder.insert(key, holder[key])
    return json.dumps(whole).encode(errors="surrogatepass")


def _nodes(whole: Any, rng: random.Random) -> list[tuple[Any, Any]]:
    """Return the places on random ways down, so that small branches are met as often as large ones."""
    found = []
    for _ in range(4):
        node = whole
        while isinstance(node, dict | list) and node:
            key = rng.choice([*node]) if isinstance(node, dict) else rng.randrange(len(node))
            found.append((node, key))
            node = node[key]
    return found


def main() -> None:
    """Fuzz one kind for some seconds, and print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--json", type=Path, help="add the counts of this kind to those in this file")
    options = parser.parse_args()

    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=PACKAGES):  # type: ignore[attr-defined]  # not in typeshed's partial stub
        from tests.fuzz import targets
    from tests.fuzz.counting import soon

    folder = Path(tempfile.mkdtemp(prefix="guided-"))
    target = targets.target(options.kind, folder)
    seeds = folder / "seeds"
    seeds.mkdir()
    for i, seed in enumerate([*targets.seeds(options.kind), *kept_inputs(options.kind)]):
        (seeds / str(i)).write_bytes(seed)
    began, tried, failures = time.monotonic(), 0, set[str]()

    def one(data: bytes) -> None:
        nonlocal tried
        if time.monotonic() - began > options.seconds:
            _report(options, tried, len(failures), time.monotonic() - began, seeds)
            shutil.rmtree(folder)
            os._exit(0)
        tried += 1
        try:
            with soon():
                target(data)
        except BaseException as error:
            place = _place(error)
            if place not in failures:
                failures.add(place)
                _keep(options.kind, data, place)

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        try:
            return mutated_json(data, seed)[:largest]
        except (ValueError, TypeError, RecursionError):
            return atheris.Mutate(data, largest)

    limits = ["-timeout=600", "-rss_limit_mb=0", f"-max_len={LARGEST}", "-print_final_stats=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(seeds)], one, custom_mutator=mutate)
    atheris.Fuzz()


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"[:300]


def _keep(kind: str, data: bytes, place: str) -> None:
    print(f"FAILED: {kind}: {place}", file=sys.stderr, flush=True)
    (CORPUS / kind).mkdir(parents=True, exist_ok=True)
    (CORPUS / kind / f"{hashlib.sha256(data).hexdigest()[:10]}.json").write_bytes(data)


def kept_inputs(kind: str) -> list[bytes]:
    """Return the inputs of earlier runs that reached new code."""
    path = CORPUS / f"{kind}.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def shortest(inputs: Iterable[bytes], budget: int = KEPT) -> list[bytes]:
    """Return the shortest inputs that are one line of JSON, as many as fit into `budget` bytes."""
    chosen, size = [], 0
    for data in sorted({data for data in inputs if _is_line(data)}, key=lambda data: (len(data), data)):
        size += len(data) + 1
        if size > budget:
            break
        chosen.append(data)
    return chosen


def _is_line(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict) and not set(data) & set(b"\r\n")
    except (ValueError, RecursionError):
        return False


def _report(options: argparse.Namespace, tried: int, failures: int, seconds: float, found: Path) -> None:
    from experiments.support.provenance import provenance_record
    from interp.support.writing import write_whole

    row = {"inputs": tried, "failures": failures, "seconds": round(seconds)}
    print(json.dumps({options.kind: row}), flush=True)
    if options.json:
        known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {"guided": {}}
        made = provenance_record(command="python -m tests.fuzz.guided KIND --seconds N --json FILE")
        earlier = known["guided"].get(options.kind, {})
        guided = {**known["guided"], options.kind: {name: n + earlier.get(name, 0) for name, n in row.items()}}
        write_whole(options.json, json.dumps({"provenance": made, "guided": guided}, indent=1) + "\n")
        lines = shortest(path.read_bytes() for path in found.iterdir())
        write_whole(CORPUS / f"{options.kind}.jsonl", b"".join(line + b"\n" for line in lines))


if __name__ == "__main__":
    main()
