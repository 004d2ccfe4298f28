"""A verdict of many prompts stays within its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interp.models import ModelConfig, build_model, save_run
from interp.tasks import default_tokenizer, default_vocabulary

ROOT = Path(__file__).parent.parent.parent
PEAK = """
import resource, sys
from experiments.cli import main
status = main(sys.argv[1:])
print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
BUDGET = 64
FEW, MANY = 64, 2000


@pytest.mark.slow
def test_a_verdict_of_many_prompts_stays_within_its_budget(tmp_path):
    model = build_model(ModelConfig("alibi", n_layers=1, d_model=16, n_heads=2), len(default_vocabulary().ids), seed=0)
    record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json()}
    save_run(tmp_path / "tiny", model, default_tokenizer(), record)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def peak(prompts: int) -> int:
        argv = ["verdict", "tiny", "--lengths", "6", "--prompts", str(prompts), "--memory", str(BUDGET), "--json"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *argv], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1500
        )
        status, mebibytes = done.stdout.split("\n")[-2].split()
        assert status == "0", done.stderr
        return int(mebibytes)

    assert peak(MANY) - peak(FEW) <= BUDGET
