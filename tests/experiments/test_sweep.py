"""`mnemoscope sweep`: what is missing is done, what is there is left, what fails is named."""

import json
from pathlib import Path

import pytest

from experiments.cli import main

SMALL = ["sweep", "--groups", "gaps", "--seeds", "2", "--stages", "train", "--steps", "1", "--out", "zoo"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_is_there_is_not_done_again(capsys):
    names = [f"parity-gap{gap}-alibi-seed2" for gap in (1, 2, 4, 8)]
    assert main([*SMALL, "--dry-run"]) == 0
    assert "4 runs, 0 of 4 stages are there, 4 to do" in capsys.readouterr().out
    assert not Path("zoo").exists()
    done = Path("zoo") / names[1]
    done.mkdir(parents=True)
    (done / "run.json").write_text("{}")  # not a run: whoever touches it will complain
    half = Path("zoo") / f"{names[2]}.training"  # of another recipe
    half.mkdir()
    (half / "recipe.json").write_text(json.dumps({"seed": 99}))
    assert main(SMALL) == 2
    shown = capsys.readouterr()
    assert "run.json is not a run record" in shown.err
    assert f"{names[2]} train" in shown.err
    assert "is of another recipe" in shown.err
    assert (Path("zoo") / names[0] / "model.safetensors").exists()
    assert (Path("zoo") / names[3] / "model.safetensors").exists()
    assert (done / "run.json").read_text() == "{}"

    for path in (done / "run.json", half / "recipe.json"):
        path.unlink()
    done.rmdir()
    before = (Path("zoo") / names[0] / "run.json").stat().st_mtime_ns
    assert main(SMALL) == 0
    assert "4 runs, 2 of 4 stages are there, 2 to do" in capsys.readouterr().out
    assert (Path("zoo") / names[0] / "run.json").stat().st_mtime_ns == before
    assert main([*SMALL, "--dry-run"]) == 0
    assert "0 to do" in capsys.readouterr().out
    record = json.loads((Path("zoo") / names[2] / "run.json").read_text())
    assert record["recipe"]["steps"] == 1
    assert record["outcome"]["competent"] is False  # counted, not hidden
    assert Path("zoo/results.parquet").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--groups", "gap"], "unknown groups gap"),
        (["--stages", "trian"], "unknown stages trian; stages are train, evaluate, transfer, battery"),
        (["--seeds", "1"], "no run of these groups has seed 1"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--prompts", "5"], "--prompts must be at least 24"),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main(["sweep", *argv]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
    assert not Path("mnemoscope-out").exists()
