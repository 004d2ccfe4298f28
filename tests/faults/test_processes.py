"""Training by several processes, on CPUs: one run, different data, and the same end after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.test_training import RECIPE

ROOT = Path(__file__).parent.parent.parent
# `accelerate launch` begins this for several GPUs; on CPUs it would begin one process.
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SCRIPT = """
import hashlib, sys
from pathlib import Path
import torch
from experiments.training import loop
from tests.experiments.test_training import RECIPE
torch.set_num_threads(1)
loop.CHECK_EVERY = 4
real = loop.parts
def parts(recipe, step, process=0, vocabulary=None):
    found = real(recipe, step, process, vocabulary)
    digest = hashlib.sha256(found[0].batch.tokens.numpy().tobytes()).hexdigest()
    with Path(f"{sys.argv[1]}.data{process}").open("a") as file:
        file.write(f"{step} {digest}\\n")
    return found
loop.parts = parts
loop.train_run(RECIPE, Path(sys.argv[1]), save_every=0)
"""


def launched(*argv: str, log: Path) -> subprocess.Popen:
    """Begins two processes; what they print goes to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    with log.open("w", encoding="utf-8") as file:
        return subprocess.Popen(
            [*LAUNCH, *argv], env=environment, cwd=ROOT, stdout=file, stderr=subprocess.DEVNULL, start_new_session=True
        )


@pytest.mark.slow
def test_two_processes_train_one_run_on_different_data_and_go_on_after_a_kill(tmp_path):
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(SCRIPT)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert launched(str(script), str(whole), log=log).wait(200) == 0
    data = [dict(line.split() for line in Path(f"{whole}.data{k}").read_text().splitlines()) for k in (0, 1)]
    assert list(data[0]) == list(data[1]) == [str(step) for step in range(RECIPE.steps)]
    assert not set(data[0].values()) & set(data[1].values())
    assert [p.name for p in whole.iterdir()] == [RECIPE.name]

    process = launched(str(script), str(killed), log=log)
    until = time.monotonic() + 120
    while not list(killed.glob("*.training/step-*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    # Also where the kill came after the run was whole: the same command then removes the rest of its work folder.
    assert launched(str(script), str(killed), log=log).wait(200) == 0
    assert [p.name for p in killed.iterdir()] == [RECIPE.name]
    files = [folder / RECIPE.name / "model.safetensors" for folder in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_the_verb_says_once_what_came_out(tmp_path):
    argv = [
        "train",
        "parity-aligned-alibi",
        "--steps",
        "2",
        "--longest",
        "3",
        "--rehearsal",
        "0",
        "--n-layers",
        "1",
        "--d-model",
        "16",
        "--n-heads",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    log = tmp_path / "log"
    assert launched("-m", "experiments.cli", *argv, log=log).wait(200) == 0
    assert log.read_text(encoding="utf-8").count("did NOT learn") == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["parity-aligned-alibi_1x16x2-seed1"]
