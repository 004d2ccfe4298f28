"""A folder in the place of a result file is one line before any work, and nothing is written beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import main
from experiments.commands import calibrate, circuit, evaluate, verdict
from experiments.grid import runs_of
from experiments.stages import STAGES, name_of
from interp.models import ModelConfig, build_model, save_run
from interp.tasks import default_tokenizer, default_vocabulary
from tests.faults.work import ARGV
from tests.fuzz.test_fuzz_cli import LONG

# The files that each verb writes below its --out.
FILES = {
    "evaluate": evaluate.FILES,
    "verdict": verdict.FILES,
    "circuit": circuit.FILES,
    "calibrate": calibrate.FILES,
    "patch": [f"patch-resid_mid.{end}" for end in ("parquet", "json", "svg")],
    "sweep": ["results.parquet", "verdicts.json"],
    "report": ["report.html"],
    "attention": ["attention.html"],
    "bench": ["patching.json"],
    "figures": ["gaps.svg", "reach.svg"],
    "gallery": ["gallery.html"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build_model(ModelConfig("alibi", n_layers=1, d_model=8, n_heads=2), len(default_vocabulary().ids), seed=0)
    save_run(
        tmp_path / "tiny",
        model,
        default_tokenizer(),
        {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json()},
    )

    def begun(*_: object, **__: object) -> None:
        pytest.fail("the work began")

    monkeypatch.setattr("experiments.gallery.gallery_page", begun)
    for name in LONG:
        if "FiguresCommand.drawings" not in name:
            monkeypatch.setattr(name, begun)
    return tmp_path


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in FILES.items() for name in names])
def test_a_folder_where_a_result_file_should_be(verb, name, here, capsys):
    place = Path("out") / name
    place.mkdir(parents=True)
    assert main(ARGV[verb]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if line.startswith("mnemoscope")]) == 1, said
    assert "is a folder" in said[-1]
    assert name in said[-1]
    assert [p for p in Path("out").rglob("*") if p != place] == []


@pytest.mark.parametrize("name", [file for stage, file in STAGES.items() if stage != "train"])
def test_a_folder_in_the_place_of_a_stage_is_not_taken_for_a_finished_stage(name, here, capsys):
    run = name_of(runs_of(("gaps",), (2,))[0])
    (Path("out") / run / name).mkdir(parents=True)
    assert main(["sweep", "--groups", "gaps", "--seeds", "2", "--out", "out"]) == 2
    assert f"{name} is a folder" in capsys.readouterr().err
