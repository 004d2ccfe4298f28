"""`mnemoscope evaluate` goes on after a kill: no length is measured twice, and the files are those of one call."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.commands.evaluate import EvaluateCommand
from interp.models.names import SHIPPED
from probes import competence
from probes.views import accuracy

ARGV = ["evaluate", "parity-aligned-alibi", "--lengths", "3", "4", "5", "--offset-lengths", "3", "--prompts", "4"]


def test_it_goes_on_with_the_length_that_it_was_at(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*ARGV, "--out", "whole"]) == 0
    honest, measured = competence.accuracies, []

    def accuracies(model, batch, mode):
        measured.append(batch.length)
        if measured.count(5) == 1:
            measured.append("interrupted")
            raise KeyboardInterrupt
        return honest(model, batch, mode)

    monkeypatch.setattr(competence, "accuracies", accuracies)
    assert main([*ARGV, "--out", "twice"]) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert not list(Path("twice").glob("*.json"))
    measured.append(5)
    assert main([*ARGV, "--out", "twice"]) == 0
    assert measured == [3, 3, 4, 4, 5, "interrupted", 5, 5, 5]  # labels forced, and written by the model
    for name in ("evaluation.json", "accuracy.svg"):
        texts = [Path(folder, name).read_text(encoding="utf-8") for folder in ("whole", "twice")]
        if name.endswith("json"):
            texts = [{k: v for k, v in json.loads(t).items() if k != "provenance"} for t in texts]
        assert texts[0] == texts[1]
    assert sorted(p.name for p in Path("twice").iterdir()) == ["accuracy.svg", "evaluation.json"]


@pytest.mark.parametrize("more", [["--seed", "1"], ["--prompts", "6"]])
def test_other_options_take_over_nothing(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*ARGV, *more, "--out", "alone"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            "experiments.support.results.write_together", lambda files: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main([*ARGV, "--out", "after"]) == 130
    assert main([*ARGV, *more, "--out", "after"]) == 0
    alone, after = (json.loads(Path(f, "evaluation.json").read_text(encoding="utf-8")) for f in ("alone", "after"))
    assert alone["accuracy"] == after["accuracy"]


def test_a_result_of_other_options_is_replaced_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(ARGV) == 0
    assert "replacing " not in capsys.readouterr().err
    file = Path("mnemoscope-out", "parity-aligned-alibi", "evaluation.json")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("the work would begin here")

    monkeypatch.setattr(EvaluateCommand, "measure", refuse)

    def said(*more: str, also: Sequence[str] = ()) -> list[str]:
        assert main([*ARGV[:2], *also, *ARGV[2:], *more]) == 2
        *lines, last = capsys.readouterr().err.splitlines()
        assert "the work would begin here" in last
        return lines

    end = "; another --out keeps both"
    assert said() == []  # the same result again
    assert said("--prompts", "6", "--out", "other") == []
    assert said("--prompts", "6") == [f"replacing {file}: it was made with prompts 4, not 6{end}"]
    lengths = "lengths 3 4 5, not 3 4; offset lengths 3, not 4"
    assert said("--lengths", "3", "4", "--offset-lengths", "4") == [
        f"replacing {file}: it was made with {lengths}{end}"
    ]
    assert said("--seed", "2") == [f"replacing {file}: its seed is 0, not 2{end}"]
    file.write_text("{}")
    unread = f"replacing {file}: it is not a result file that this version reads"
    assert said() == [f"{unread}{end}"]
    # --out is refused with several runs
    assert said(also=["parity-scratchpad-alibi"]) == [f"{unread}; evaluate it alone, with an --out, to keep both"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "more", "file"),
    [
        ("patch", ("--length", "4", "--layers", "0"), "patch-resid_pre.json"),
        ("circuit", ("--length", "4", "--lengths", "4", "--points", "2", "--repeats", "0"), "circuit.json"),
    ],
    ids=["patch", "circuit"],
)
def test_other_verbs_say_it_too(verb, more, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = f"replacing {Path('out', file)}: it was made with prompts 4, not 5"
    for prompts, lines in (("4", []), ("4", []), ("5", [line])):
        assert main([verb, "parity-aligned-alibi", *more, "--prompts", prompts, "--out", "out"]) == 0
        said = [line.partition(";")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("replac")]
        assert said == lines


@pytest.mark.parametrize(
    ("run", "who"),
    [("parity-aligned-alibi", [", labels given", ", labels written"]), ("parity-scratchpad-alibi", [""])],
)
def test_tables_say_who_writes_the_labels(run, who, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", run, *ARGV[2:4], "--offset-lengths", "3", "--prompts", "4"]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if "value [95 % interval]" in line]
    assert titles == [f"{run}{text}: value [95 % interval], 4 prompts per length" for text in who]


SHORT = ("--lengths", "3", "--offset-lengths", "--prompts", "4")
SCRATCHPAD = "parity-scratchpad-alibi"


def copied(run: str, folder: Path, **recipe: object) -> str:
    """Copy a shipped run to a folder, with changed entries in its recipe; return the folder."""
    shutil.copytree(SHIPPED / run, folder, ignore=shutil.ignore_patterns("*.svg", "evaluation.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["recipe"] |= recipe
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(folder)


def test_runs_of_one_name_are_refused_before_either_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = [copied(SCRATCHPAD, Path(folder, "m")) for folder in "ab"]
    for runs, said in ((names, "m, m"), ([SCRATCHPAD] * 2, f"{SCRATCHPAD}, {SCRATCHPAD}")):
        assert main(["evaluate", *runs, *SHORT]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"runs of the same name cannot be told apart: {said}; " in line
    assert not Path("mnemoscope-out").exists()


def test_finished_runs_of_an_interrupted_command_are_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    honest, measured = competence.accuracies, []

    def accuracies(model, batch, mode):
        measured.append(str(batch.format))
        if measured.count("parity-scratchpad") == 1:
            raise KeyboardInterrupt
        return honest(model, batch, mode)

    monkeypatch.setattr(competence, "accuracies", accuracies)
    argv = ["evaluate", "parity-constant-alibi", SCRATCHPAD, *SHORT]
    assert main(argv) == 130
    first = measured.count("parity-constant")
    measured.append("parity-scratchpad")
    assert main(argv) == 0
    assert measured.count("parity-constant") == first > 0
    found = sorted(p.name for p in Path("mnemoscope-out").rglob("*") if p.is_file())
    assert found == ["accuracy-by-length.svg", *2 * ["accuracy.svg"], *2 * ["evaluation.json"]]


def test_a_trained_range_is_shaded_only_where_all_runs_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shaded = []
    monkeypatch.setattr(accuracy, "accuracy_by_length", lambda curves, trained, task: shaded.append((trained, task)))
    monkeypatch.setattr("experiments.support.results.as_svg", lambda figure: "<svg/>")
    other = copied(SCRATCHPAD, Path("other"), longest=10)
    assert main(["evaluate", "parity-constant-alibi", SCRATCHPAD, *SHORT]) == 0
    assert main(["evaluate", SCRATCHPAD, other, *SHORT]) == 0
    pictures = [(20, "parity"), (20, "parity"), (20, "parity"), (20, "parity"), (10, "parity"), (None, "parity")]
    assert shaded == pictures


def test_runs_of_different_tasks_have_no_common_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    adder = "addition-aligned-alibi-seed2"
    assert main(["evaluate", SCRATCHPAD, adder, *SHORT]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "no figure of all runs is drawn: they are of different tasks, addition and parity" in said
    assert not Path("mnemoscope-out", "accuracy-by-length.svg").exists()
    titles = {name: Path("mnemoscope-out", name, "accuracy.svg").read_text() for name in (SCRATCHPAD, adder)}
    assert [kind for kind in ("final bit", "final sum") if kind in titles[SCRATCHPAD]] == ["final bit"]
    assert [kind for kind in ("final bit", "final sum") if kind in titles[adder]] == ["final sum"]
