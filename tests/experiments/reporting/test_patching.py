"""The patching section of a report: invalid patching is marked as `mnemoscope patch` marks it."""

import json
from pathlib import Path

import pytest

from experiments import load
from experiments.cli import main
from experiments.commands.report import ReportCommand, _heads
from experiments.reporting import computed, stored
from experiments.reporting.computed import MOST_HEADS
from experiments.reporting.patching import patch_part
from experiments.reporting.section import SectionData
from experiments.reporting.shown import patch_shows
from interp.models import Run
from tests.experiments.reporting.untrained import untrained_run

LENGTH = 8


def section(run: Run, work: Path) -> SectionData:
    return patch_part(run, ReportCommand((run.source,), quick=True, length=LENGTH), work, lambda _: None)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_patching_of_a_model_that_cannot_do_the_task_is_invalid_for_the_reason_that_patch_gives(tmp_path, capsys):
    run = untrained_run(tmp_path / "untrained")
    part = section(run, tmp_path)
    command = part.sources[0].command.removeprefix("mnemoscope ").split()
    assert main([*command, "--out", "out"]) == 0
    record = json.loads(Path("out/patch-resid_pre.json").read_text(encoding="utf-8"))
    reason = record["competence"]["reason"]
    assert reason
    assert f"INVALID: {reason}" in capsys.readouterr().out
    said = patch_shows(part.data)
    assert said.startswith(f"**INVALID: {reason}.")
    assert "%" not in said
    assert "-0.0" not in said
    assert all(picture.view.title.startswith("INVALID: ") for picture in part.pictures)
    # One position is named once; its effects in other layers are larger than those of others here.
    positions = [top["cell"].partition(" at ")[2] for top in part.data["resid_pre"]]
    assert len(positions) == len(set(positions)) == 3
    circuit = {"patch": part, "circuit": SectionData()}
    assert _heads(circuit)[1].endswith("in an INVALID patching")


def test_patching_of_a_trained_model_is_valid_and_has_shares(tmp_path):
    part = section(load("parity-aligned-alibi"), tmp_path)
    assert (part.data["valid"], part.data["reason"]) == (True, None)
    assert part.data["whole"] == pytest.approx(part.data["difference"], rel=1e-6)
    said = patch_shows(part.data)
    assert "INVALID" not in said
    assert "%" in said
    assert not any("INVALID" in picture.view.title for picture in part.pictures)
    assert _heads({"patch": part, "circuit": SectionData()})[1] == "heads whose patch moves the answer most"
    assert "8 of the 16 prompts" in part.notes[0]


def test_patching_of_an_addition_is_marked_too(tmp_path):
    part = section(untrained_run(tmp_path / "untrained", "addition-aligned"), tmp_path)
    assert part.data["valid"] is False
    assert patch_shows(part.data).startswith("**INVALID: the model cannot do the task")


def test_a_deep_model_is_patched_at_few_places_as_its_command_says(tmp_path, monkeypatch):
    monkeypatch.setattr("probes.arms.group_search.MANY_UNITS", 8)
    monkeypatch.setattr("experiments.reporting.reduced.MOST_LAYERS", 2)
    run = load("parity-aligned-alibi")
    part = patch_part(run, ReportCommand((run.source,), length=LENGTH), tmp_path, lambda _: None)
    assert part.notes[0].startswith("Left out to save hours, as the model has 24 heads: 8 of the 16 prompts")
    assert "layers and tokens that the pictures do not show" in part.notes[1]
    stream, heads = (source.command.removeprefix("mnemoscope ").split() for source in part.sources)
    # Steps 2 (the partner's), 3 and 4: labels and bits, then labels and parities, up to the label of step 4.
    assert "--layers 0 2 --positions 3 4 5 6 7 8 20 21 22 23 24 --prompts" in " ".join(stream)
    assert "--positions 24 --prompts" in " ".join(heads)
    batch = run.sample(1, LENGTH, 0)
    assert [batch.name(p) for p in (3, 8, 22, 24)] == ["input label 2", "input 4", "output label 3", "output label 4"]
    for command, site in ((stream, "resid_pre"), (heads, "z")):
        assert main([*command, "--out", "out"]) == 0
        top = json.loads(Path(f"out/patch-{site}.json").read_text(encoding="utf-8"))["top"][0]
        assert top["change"] == pytest.approx(part.data[site][0]["change"], rel=1e-5)
    assert len(part.data["heads"]) == MOST_HEADS


def test_what_takes_long_in_deep_models_is_left_out_with_a_note(tmp_path, monkeypatch):
    run = untrained_run(tmp_path / "untrained")
    options, nothing = ReportCommand((run.name,), length=LENGTH, map_length=LENGTH), lambda _: None
    shallow = computed.map_part(run, options, tmp_path, nothing)
    assert shallow.notes == ()
    monkeypatch.setattr("probes.arms.group_search.MANY_UNITS", 3)
    for part in (computed.map_part, computed.probe_part):
        (note,) = part(run, options, tmp_path, nothing).notes
        assert note.startswith("Left out to save hours, as the model has 4 heads: ")
    monkeypatch.setattr(computed, "DEEP_LAYERS", 2)
    probes = computed.probe_part(run, options, tmp_path, nothing)
    assert probes.notes[1] == "Left out to save hours, as the model has 4 heads: probes in 1 of the 3 layers."
    assert "layers=[0, 2], seed=0" in probes.sources[0].command
    assert {row["layer"] for row in probes.data["probes"]} == {0, 2}
    circuit = stored.circuit_part(run, options, tmp_path, nothing)
    assert circuit.notes[-1].startswith(
        "Left out to save hours, as the model has 4 heads: the circuit. Compute it with `mnemoscope"
    )
    seen = computed.attention_part(run, options, tmp_path, nothing, [(1, 0)], "chosen")
    assert any("Every head of the layers above on a longer prompt" in picture.caption for picture in seen.pictures)
    assert "pattern=[1]" in seen.sources[1].command
