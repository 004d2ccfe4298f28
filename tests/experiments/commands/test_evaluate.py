"""`mnemoscope evaluate` goes on after a kill: no length is measured twice, and the files are those of one call."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.commands.evaluate import EvaluateCommand
from probes import competence

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
