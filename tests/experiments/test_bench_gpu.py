"""The script for a GPU machine runs all its parts on a CPU at tiny sizes, and keeps what others have found."""

import json
import subprocess
import sys

import pytest

from experiments.benchmarks import gpu
from experiments.benchmarks.gpu import GpuScript


@pytest.mark.slow
def test_every_part_runs_and_says_its_device(tmp_path):
    assert GpuScript(tmp_path, rounds=1, tiny=True, large=gpu.RUN).run() == 0
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    kinds = {name.split()[0] for name in rows}
    assert kinds == {"smoke", "rate", "verdict", "sweep", "bfloat16", "loop", "training"}
    assert all(row["device"] and "failed" not in row for row in rows.values())
    assert rows["smoke"]["difference"]["resid_pre"] < 1e-5
    (sweep,) = (row for name, row in rows.items() if name.startswith("sweep"))
    assert sweep["of_counted_flops"] > 1  # a sweep cannot be faster than its arithmetic
    trained = {name: row for name, row in rows.items() if name.startswith("training 1x")}
    assert {tuple(name.split()[2:]) for name in trained} == {
        ("alibi", "eager"),
        ("rotary", "sdpa"),
        ("alibi", "eager", "compile"),
        ("rotary", "sdpa", "compile"),
    }
    assert all(row["ms_a_token"] == row["ms_a_step"] / row["tokens"] for row in trained.values())
    verdicts = [row for name, row in rows.items() if name.startswith("verdict")]
    assert len(verdicts) == 2
    assert all("refused" not in row and row["pieces"] for row in verdicts)
    (coarse,) = (row for name, row in rows.items() if name.startswith("bfloat16"))
    assert coarse["measured error"] > 0


def test_a_part_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def fail() -> dict:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(gpu, "parts", lambda *_: {"first": fail, "second": lambda: {"x": 1}})
    assert GpuScript(tmp_path).run() == 1
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert rows["first"]["failed"] == "RuntimeError: no kernel"
    assert rows["second"]["x"] == 1


def test_parts_after_the_time_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "parts", lambda *_: {"first": lambda: {"x": 1}})
    assert GpuScript(tmp_path, seconds=-1).run() == 0
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert rows["first"]["left out"] == "-1 seconds were over"


def test_a_text_that_no_part_has_is_refused_in_one_line(tmp_path):
    argv = ["-m", "experiments.benchmarks.gpu", "--tiny", "--only", "nosuch", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("no part contains 'nosuch'; parts are smoke, rate, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{}", "[]", '{"rows": []}'])
def test_a_file_of_other_rows_is_not_replaced(text, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "parts", lambda *_: {"first": lambda: {"x": 1}})
    (tmp_path / "gpu.json").write_text(text)
    with pytest.raises(ValueError, match="is not a result of this verb"):
        GpuScript(tmp_path, only=("first",)).run()
    assert (tmp_path / "gpu.json").read_text() == text


def test_some_parts_leave_the_rows_of_the_others(tmp_path, monkeypatch):
    found = {"first": lambda: {"x": 1}, "second": lambda: {"x": 2}, "third": lambda: {"x": 3}}
    monkeypatch.setattr(gpu, "parts", lambda *_: found)
    assert GpuScript(tmp_path, only=("first", "thi")).run() == 0
    found["first"] = lambda: {"x": 10}
    assert GpuScript(tmp_path, only=("fir", "second")).run() == 0
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert {name: row["x"] for name, row in rows.items()} == {"first": 10, "second": 2, "third": 3}
