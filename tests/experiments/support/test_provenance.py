"""What was made by other versions is said to be, once a command; what comes with the package is not."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from experiments import load
from experiments.cli import main
from experiments.support import provenance
from experiments.support.options import TEXT, options_of
from experiments.support.provenance import (
    OtherVersions,
    other_versions,
    provenance_record,
    reporting_versions,
    warn_versions,
)
from experiments.support.results import work_folder
from experiments.tables import benchmarks, runs
from experiments.verbs import VERBS, command_class
from interp.models import Run, read_json
from interp.models.names import SHIPPED, ZOO

RUN = "parity-aligned-alibi"
PINNED = Path(__file__).parents[3] / "constraints.txt"


def made_with(**others: object) -> dict:
    record = provenance_record()
    return {**record, "versions": {**record["versions"], **others}}


def copied(folder: Path, **others: object) -> Path:
    """The default run, as if other versions had trained it."""
    shutil.copytree(SHIPPED / RUN, folder / RUN)
    path = folder / RUN / "run.json"
    path.write_text(json.dumps(read_json(path) | {"provenance": made_with(**others)}), encoding="utf-8")
    return folder / RUN


def test_a_command_can_be_pasted_into_a_shell(monkeypatch):
    given = ["patch", "gpt2", "--clean", "Mary's", "--answer", " Mary", "--out", "/somewhere/else"]
    monkeypatch.setattr(sys, "argv", ["mnemoscope", *given])
    command = provenance_record()["command"]
    assert shlex.split(command) == ["mnemoscope", *given[:-1], "else"]


def test_a_command_keeps_its_texts_and_no_absolute_path(monkeypatch):
    given = ["circuit", "/home/alice/m", "--clean", "/etc holds the", "/usr holds", "--prompt", "/a b", "/home/alice/n"]
    given += ["--answer=/x", "/home/alice/o", "--json", "/home/alice/j", "--out=/home/alice/secret"]
    monkeypatch.setattr(sys, "argv", ["mnemoscope", *given])
    kept = ["circuit", "m", "--clean", "/etc holds the", "/usr holds", "--prompt", "/a b", "n"]
    kept += ["--answer=/x", "o", "--json", "j", "--out=secret"]
    assert shlex.split(provenance_record()["command"]) == ["mnemoscope", *kept]


def test_the_options_that_are_texts_are_those_of_the_verbs():
    options = [item for verb in VERBS if verb != "bench" for item in options_of(command_class(verb)).items()]
    texts = {name for name, (_, config) in options if config and (config.metavar or "").startswith(TEXT)}
    assert texts == set(provenance.TEXTS)


def test_versions_are_compared_by_release_and_python_is_not():
    release = version("torch").partition("+")[0]
    assert other_versions(provenance_record()) == ""
    assert other_versions(made_with(torch=f"{release}+cu999", python="2.7")) == ""
    assert other_versions(made_with(torch="2.6.0+cpu")) == f"torch 2.6.0+cpu (here {version('torch')})"
    several = other_versions(made_with(mnemoscope="0.0.1", transformers=None))
    assert several.startswith("mnemoscope 0.0.1 (here ")
    assert "transformers None (here " in several


@pytest.mark.parametrize("junk", [None, 3, {}, {"versions": None}, {"versions": ["torch"]}])
def test_no_versions_are_other_versions(junk):
    assert other_versions(junk) == "unknown versions"
    assert "torch" in other_versions({"versions": {"torch": {"a": 1}}})


def test_outside_of_a_command_it_is_a_warning(tmp_path):
    with pytest.warns(OtherVersions, match=rf"{RUN}/run.json was made with torch 2.6.0 \(here "):
        load(copied(tmp_path, torch="2.6.0"))


def test_a_folder_of_somebody_elses_says_nothing_of_versions(tmp_path):
    folder = copied(tmp_path)
    record = read_json(folder / "run.json")
    del record["provenance"]
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert load(folder).name == RUN


def test_many_files_are_one_line(capsys):
    with reporting_versions():
        for k in range(5):
            warn_versions(f"run{k}.json", made_with(torch="2.6.0"))
        warn_versions("other.json", made_with(numpy="1.0"))
        warn_versions("other.json", made_with(numpy="1.0"))
        warn_versions("ours.json", provenance_record())
    (line,) = capsys.readouterr().err.splitlines()
    assert "run0.json, run1.json, run2.json and 2 more with torch 2.6.0 (here " in line
    assert line.count("other.json") == 1
    assert "ours" not in line


def test_it_is_said_even_when_a_command_fails(capsys):
    def fails() -> None:
        with reporting_versions():
            warn_versions("a.json", made_with(torch="2.6.0"))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fails()
    assert "a.json with torch 2.6.0" in capsys.readouterr().err


def test_a_command_says_it_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = copied(tmp_path, transformers="4.0")
    assert main(["patch", str(folder), "--length", "5", "--step", "3", "--prompts", "1", "--dry-run"]) == 0
    err = capsys.readouterr().err
    assert err.count("made by other versions") == 1
    assert f"{RUN}/run.json with transformers 4.0 (here {version('transformers')})" in err


def test_shipped_results_are_of_the_pinned_versions():
    pinned = dict(line.split("==") for line in PINNED.read_text(encoding="utf-8").split() if "==" in line)
    folders = (SHIPPED, ZOO, benchmarks.EDGES.parent.parent)
    files = [ZOO / "verdicts.json", *(path for folder in folders for path in folder.glob("*/*.json"))]
    records = {path: data.get("provenance", {}) for path in files if isinstance(data := read_json(path), dict)}
    # A GPU machine has its own torch; the results that were measured there are not compared with others by digit.
    here = {path: record for path, record in records.items() if not str(record.get("device")).startswith("cuda")}
    made = {path: record["versions"] for path, record in here.items() if "versions" in record}
    assert len(made) > 20
    for path, versions in made.items():
        for name in provenance.LIBRARIES:
            assert versions[name].partition("+")[0] == pinned[name], path


def test_a_table_of_another_format_is_refused(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED / RUN, tmp_path / RUN)
    path = tmp_path / RUN / "evaluation.json"
    path.write_text(json.dumps(read_json(path) | {"version": 2}), encoding="utf-8")
    monkeypatch.setattr(runs, "SHIPPED", tmp_path)
    monkeypatch.setattr(runs, "shipped_runs", lambda: [RUN])
    with pytest.raises(ValueError, match=r"it is of version 2, made by mnemoscope '0.1.0'; this mnemoscope reads"):
        runs.accuracy_table()


def test_a_benchmarks_rows_keep_who_made_them(tmp_path, monkeypatch, capsys):
    from experiments.benchmarks import edges
    from experiments.benchmarks.edges import EdgeCase

    cases = [EdgeCase(family, 1, 16, 3, 2, n_heads=2) for family in ("absolute", "alibi")]
    monkeypatch.setattr(edges, "DEFAULT", cases)
    older = {"provenance": made_with(torch="2.6.0"), "rows": {cases[0].name: {"provenance": made_with(torch="2.6.0")}}}
    (tmp_path / "edges.json").write_text(json.dumps(older), encoding="utf-8")
    assert main(["bench", "--edges", "--only", "alibi", "--rounds", "1", "--out", str(tmp_path)]) == 0
    assert "edges.json with torch 2.6.0" in capsys.readouterr().err
    rows = read_json(tmp_path / "edges.json")["rows"]
    assert rows[cases[0].name]["provenance"]["versions"]["torch"] == "2.6.0"
    assert rows[cases[1].name]["provenance"]["versions"]["torch"] == version("torch")


def begun(folder: Path, run: Run) -> Path:
    """Where work on a run is kept that was begun and never ended."""
    with ExitStack() as interrupted:
        place = interrupted.enter_context(work_folder(folder, run, "evaluate", []))
        (place / "kept").touch()
        interrupted.pop_all()
    return place


def test_unfinished_work_of_other_versions_code_or_labels_is_begun_anew(tmp_path, monkeypatch):
    run = load(RUN)
    first = begun(tmp_path, run)
    assert begun(tmp_path, run) == first
    # Labels follow from the longest length where a model has no run.json.
    fewer = replace(run, vocabulary=replace(run.vocabulary, labels=run.vocabulary.labels[:-1]))
    assert begun(tmp_path, fewer) != first
    with monkeypatch.context() as patched:
        patched.setattr("experiments.support.results.versions_here", lambda: made_with(torch="2.6.0")["versions"])
        assert begun(tmp_path, run) != first
    with monkeypatch.context() as patched:
        patched.setattr("experiments.support.results.code_digest", lambda: "other")
        assert begun(tmp_path, run) != first
    assert begun(tmp_path, run) == first


def test_the_digest_of_code_is_of_what_is_on_disk(tmp_path, monkeypatch):
    for name in ("interp/a.py", "probes/b.py", "experiments/c.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "experiments" / "support" / "provenance.py"))
    digest = provenance.code_digest.__wrapped__
    first = digest()
    (tmp_path / "results.json").write_text("no code")
    assert digest() == first
    (tmp_path / "probes" / "b.py").write_text("2")
    assert digest() != first


def test_provenance_leaves_the_index_of_the_checkout_alone(tmp_path, monkeypatch):
    """A file whose time is newer than the index makes a plain `git status` write the index again."""

    def git(*command: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True, capture_output=True)

    file, index = tmp_path / "file", tmp_path / ".git" / "index"
    file.write_text("1")
    git("init")
    git("add", "file")
    git("commit", "-m", "first")
    os.utime(file, (1, 1))
    monkeypatch.setattr(provenance, "__file__", str(file))
    before = index.read_bytes()
    assert (
        provenance._commit()
        == subprocess.run(
            ["git", "--no-optional-locks", "-C", str(tmp_path), "rev-parse", "--short", "HEAD"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    assert index.read_bytes() == before
    git("status")
    assert index.read_bytes() != before


def test_who_waits_for_a_work_folder_gets_it_whole(tmp_path):
    """The lock goes last, so that nobody takes a folder that is being emptied."""
    run = load(RUN)
    with work_folder(tmp_path, run, "evaluate", []) as work:
        (work / "inside").mkdir()
        for name in ("a", "inside/b"):
            (work / name).touch()
    assert not work.exists()


def test_training_that_goes_on_under_other_versions_says_so(tmp_path):
    from experiments.training.claiming import claim
    from experiments.training.recipe import Recipe
    from interp.models import ModelConfig

    recipe = Recipe("parity-aligned", ModelConfig("alibi"), 1)
    claim(tmp_path, recipe, "no")
    claim(tmp_path, recipe, "no")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(read_json(path) | {"versions": made_with(torch="2.6.0")["versions"]}), encoding="utf-8")
    with pytest.warns(OtherVersions, match="resumed, was made with torch 2.6.0"):
        claim(tmp_path, recipe, "no")
