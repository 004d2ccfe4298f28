"""`mnemoscope verdict`, in process: on shipped runs, on foreign folders, and on models that cannot do the task."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments import load
from experiments.cli import main
from experiments.commands.reference import verb_reference
from experiments.support.loading import names_apart
from experiments.support.verdict_checks import check_one_configuration
from experiments.support.verdict_defaults import default_lengths, usual_arms
from interp.models import ModelConfig, build_model, save_run
from interp.models.names import SHIPPED, ZOO
from interp.tasks import default_tokenizer
from probes.arms.registry import ARMS
from probes.batteries import DECIDING
from probes.planted import Plan, plant

DEFAULT = "parity-aligned-alibi"
ROLES = ("anchor", "placeholder", "sink")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A folder that save_pretrained wrote, without a run.json: an anchor in GPT-2, made for up to 8 bits."""
    folder = tmp_path_factory.mktemp("stranger")
    planted = plant(Plan("A1", "gpt2", longest=8))
    planted.model.save_pretrained(folder)
    planted.tokenizer.save_pretrained(folder)
    return folder


def judged(*argv: str) -> dict:
    """The JSON that a verdict writes."""
    assert main(["verdict", *argv, "--json", "found.json"]) == 0
    return json.loads(Path("found.json").read_text())


def refused(capsys, *argv: str) -> str:
    assert main(["verdict", *argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_verdict_is_two_files_and_one_screen(capsys):
    found = judged(DEFAULT, "--lengths", "8", "--prompts", "24", "--arms", "M1", "M5")
    assert found["verdict"] == "undecided"  # not every role was measured
    assert [found["roles"][r]["status"] for r in ROLES] == ["INDETERMINATE", "ABSENT", "INDETERMINATE"]
    assert {e["arm"] for e in found["evidence"]} >= {"M1", "M5"}
    assert found == json.loads(Path("mnemoscope-out", DEFAULT, "verdict.json").read_text())
    assert Path("mnemoscope-out", DEFAULT, "verdict.svg").read_text().startswith("<?xml")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{DEFAULT}: UNDECIDED"
    assert [line.split()[:2] for line in lines[2:5]] == [[r, found["roles"][r]["status"]] for r in ROLES]
    assert len(lines) <= 16


def test_the_help_names_every_arm():
    text = " ".join(verb_reference("verdict").split())
    for arm in ARMS.values():
        assert (arm.title if arm.code.startswith("M") else f", {arm.code}") in text


@pytest.mark.slow
def test_the_default_run_is_an_anchor(capsys):
    found = judged(DEFAULT, "--lengths", "20", "--arms", *DECIDING)
    assert (found["schema"], found["verdict"]) == (1, "anchor")
    assert [found["roles"][r]["status"] for r in ROLES] == ["PRESENT", "ABSENT", "ABSENT"]
    assert (found["replication"], found["n_models"]) == ("prompts", 1)
    low, high = found["roles"]["anchor"]["ci"]
    assert low < found["roles"]["anchor"]["rho"] < high
    assert low > 0.9
    assert abs(found["remainder"]) < 0.1
    assert found["competence"]["lengths"][0]["competent"]
    assert {e["arm"] for e in found["evidence"]} == set(DECIDING)
    assert found["provenance"]["versions"]["torch"]
    assert found == json.loads(Path("mnemoscope-out", DEFAULT, "verdict.json").read_text())
    assert Path("mnemoscope-out", DEFAULT, "verdict.svg").read_text().startswith("<?xml")
    out = capsys.readouterr().out
    assert out.startswith(f"{DEFAULT}: ANCHOR")
    assert [line.split()[:2] for line in out.splitlines()[2:5]] == [[r, found["roles"][r]["status"]] for r in ROLES]
    answer, reasons = out.split("\nwhy: ")
    statements = [line for line in reasons.splitlines() if not line.startswith("  ")]  # without wrapped lines
    assert len(answer.splitlines()) + len(statements) <= 16


@pytest.mark.slow
def test_a_folder_of_a_stranger(stranger):
    argv = ("--model", str(stranger), "--task", "parity", "--format", "aligned", "--lengths", "8", "--arms", *DECIDING)
    assert judged(*argv, "--forced")["verdict"] == "anchor"
    found = judged(*argv)
    assert found["verdict"] == "anchor"
    # It was planted to answer only: labels are not written by it, and the verdict says in which mode it is competent.
    assert found["by_length"][0]["mode"] == "forced"


def test_json_on_standard_output(stranger, capsys):
    argv = ["verdict", "--model", str(stranger), "--format", "parity-aligned", "--lengths", "8", "--arms", "M5"]
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "undecided"


def test_lengths_are_kept_within_the_positions(stranger, capsys):
    run = load(stranger, "parity-aligned")
    assert default_lengths(run) == (8,)
    assert default_lengths(load(DEFAULT)) == (20, 40)
    argv = ("--model", str(stranger), "--task", "parity", "--format", "aligned")
    assert "length 9 of parity-aligned takes 38 positions" in refused(capsys, *argv, "--lengths", "9")


@pytest.mark.parametrize("name", ["parity-scratchpad-alibi", "untrained"])
def test_no_label_follows_from_a_model_that_has_none_or_cannot(name, tmp_path):
    if name == "untrained":
        run = load(DEFAULT)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            random = type(run.raw)(run.raw.config)
        save_run(tmp_path / name, random, default_tokenizer(), {k: v for k, v in run.record.items() if k != "version"})
    found = judged(name if name != "untrained" else str(tmp_path / name), "--lengths", "8", "--prompts", "24")
    assert found["verdict"] == "not-applicable"
    assert {found["roles"][r]["status"] for r in ROLES} == {"NOT APPLICABLE"}
    assert found["evidence"] == []


def test_a_model_of_another_task_gets_no_label(stranger, capsys):
    """Posed what it was not made for: a parity model adds nothing up, and recall is judged by its items."""
    argv = ("--model", str(stranger), "--task", "addition", "--format", "aligned", "--lengths", "6")
    assert "of addition-aligned" in refused(capsys, *argv)
    assert "--lengths does not apply to --task recall" in refused(
        capsys, DEFAULT, "--format", "recall-ordered", "--lengths", "8", "--prompts", "24"
    )


@pytest.mark.slow
def test_labels_that_repeat_are_no_addresses():
    found = judged("parity-constant-alibi", "--lengths", "10", "--arms", *DECIDING, "--prompts", "48")
    assert found["roles"]["anchor"]["status"] == "NOT APPLICABLE"
    assert "repeats labels" in found["roles"]["anchor"]["reason"]
    # Of the history arm only the step's own bit through K is not shown to do nothing: so not ABSENT.
    placeholder = found["roles"]["placeholder"]
    assert placeholder["status"] == "INDETERMINATE"
    assert "earlier bits, through V" in placeholder["reason"].partition(" lies within ")[0]
    assert "own bit, through K" in placeholder["reason"].partition(" lies within ")[2]
    assert "shows neither presence nor absence" in placeholder["reason"]


@pytest.mark.slow
def test_two_models_are_judged_as_models(stranger, tmp_path):
    other = tmp_path / "other"
    planted = plant(Plan("A1", "gpt2", longest=8, seed=1))
    planted.model.save_pretrained(other)
    planted.tokenizer.save_pretrained(other)
    argv = (str(stranger), str(other), "--format", "parity-aligned", "--lengths", "8", "--arms", *DECIDING)
    found = judged(*argv)
    assert (found["replication"], found["n_models"]) == ("models", 2)
    # Two models can never show presence: the smallest sign-flip p is 1/4.
    assert found["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "name a run"),
        ((DEFAULT, DEFAULT), "named twice"),
        (("--model", "nowhere", "--format", "parity-aligned"), "no such folder: 'nowhere'"),
        ((DEFAULT, "--task", "parity"), "--task parity needs --format"),
        ((DEFAULT, "--arms", "M99"), "unknown arms M99"),
        ((DEFAULT, "--lengths", "4"), "a length of at least 5"),
        ((DEFAULT, "--lengths", "8", "8"), "different lengths"),
        ((DEFAULT, "--json", "."), "is a folder"),
        ((DEFAULT, "--json", f"mnemoscope-out/{DEFAULT}/verdict.svg"), "is a file that this command writes itself"),
        ((DEFAULT, "--out", "o", "--json", "./o/../o/verdict.json"), "is a file that this command writes itself"),
        ((DEFAULT, "--task", "addition", "--format", "parity-aligned"), "is not of --task addition"),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert words in refused(capsys, *argv)


def test_a_model_without_a_task_is_offered_those_of_any_model(stranger, capsys):
    said = refused(capsys, str(stranger))
    assert "no task is posed" in said
    assert "judge any language model with --task list-letters, recall, list-numerals" in said


def test_a_verdict_goes_on_after_the_arms_that_are_done(monkeypatch, stranger, capsys):
    """Stopped in its second arm and begun again, it measures the first no more, and says what it would have said."""
    from probes.arms import measuring

    argv = (
        "--model",
        str(stranger),
        "--task",
        "parity",
        "--format",
        "aligned",
        "--lengths",
        "8",
        "--prompts",
        "24",
        "--arms",
        "M1",
        "M4",
        "M5",
    )
    whole = judged(*argv, "--out", "whole")
    calls = []

    def counted(name: str):
        work = getattr(measuring, name)

        def call(*args):
            calls.append(name)
            if calls == ["measure_swaps", "measure_routes"]:
                raise KeyboardInterrupt
            return work(*args)

        return call

    for name in ("measure_swaps", "measure_routes", "measure_history"):
        monkeypatch.setattr(measuring, name, counted(name))
    out = Path("again")
    assert main(["verdict", *argv, "--out", str(out)]) == 130
    assert [p.suffix for p in out.glob(".verdict-*/length-*")] == [".json"]
    again = judged(*argv, "--out", str(out))
    assert calls == ["measure_swaps", "measure_routes", "measure_routes", "measure_history"]
    same = ("verdict", "roles", "evidence", "competence", "weights")
    assert {k: again[k] for k in same} == {k: whole[k] for k in same}
    assert [made["cost"]["resumed"] for made in (whole, again)] == [False, True]
    assert min(made["cost"]["seconds"] for made in (whole, again)) > 0
    assert whole["cost"]["processes"] >= 1
    assert sorted(p.name for p in out.iterdir()) == ["verdict.json", "verdict.svg"]
    assert "measuring, because" not in capsys.readouterr().err  # it resumed
    judged(*argv, "--out", str(out))
    assert "printed from again/verdict.json; --fresh measures again" in capsys.readouterr().err
    judged(*argv, "--out", str(out), "--fresh")  # nothing is kept of a verdict that was written
    assert (
        "--fresh is given; the new result replaces again/verdict.json, another --out keeps" in capsys.readouterr().err
    )
    assert calls[4:] == ["measure_swaps", "measure_routes", "measure_history"]


def test_the_usual_arms_of_a_model_with_many_heads_are_those_that_decide():
    def run(layers: int, heads: int) -> Any:
        config = SimpleNamespace(num_hidden_layers=layers, num_attention_heads=heads)
        return SimpleNamespace(raw=SimpleNamespace(config=config))

    assert usual_arms(run(3, 8)) == tuple(ARMS)
    assert usual_arms(run(30, 9)) == (*DECIDING, "M7")


def copied(folder: Path, **changes: object) -> str:
    """Copy the default run without its results, with changed entries in its recipe; return the folder."""
    shutil.copytree(SHIPPED / DEFAULT, folder, ignore=shutil.ignore_patterns("*.svg", "verdict.json"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["recipe"] |= changes
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("relative", [False, True])
def test_the_result_of_two_folders_of_one_name_is_below_the_usual_folder(relative, tmp_path, monkeypatch):
    folders = [copied(tmp_path / place / "m", seed=seed) for seed, place in enumerate("ab")]
    Path("here").mkdir()
    monkeypatch.chdir("here")
    names = [f"../{place}/m" for place in "ab"] if relative else folders
    assert main(["verdict", *names, "--lengths", "5", "--prompts", "24", "--arms", "M5"]) == 0
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("verdict.json")] == [
        "here/mnemoscope-out/a/m/verdict.json"
    ]
    data = json.loads(Path("mnemoscope-out/a/m/verdict.json").read_text(encoding="utf-8"))
    assert (data["models"], data["run"]) == (["a/m", "b/m"], "a/m")


def test_names_of_folders_have_as_many_parts_as_tell_them_apart():
    assert names_apart([Path("/x/a/m"), Path("/x/b/m"), Path("/k")]) == ["a/m", "b/m", "k"]
    assert names_apart([Path("/m"), Path("/a/m")]) == ["m", "a/m"]
    assert names_apart([Path("/a/c/m"), Path("/b/c/m")]) == ["a/c/m", "b/c/m"]


def test_runs_that_were_trained_differently_are_not_judged_together(tmp_path, capsys):
    one, other = copied(tmp_path / "one"), copied(tmp_path / "other", seed=7, rehearsal=0.0)
    said = refused(capsys, one, other)
    assert f"may differ only in their seed; {one} and {other} were trained differently: rehearsal 0.5 and 0.0" in said


def test_positional_encodings_are_told_apart_without_a_record(capsys):
    for family in ("rotary", "none"):
        model = build_model(ModelConfig(family, n_layers=1, d_model=16, n_heads=2), 416, seed=0)
        model.save_pretrained(family)
        default_tokenizer().save_pretrained(family)
    said = refused(capsys, "./rotary", "./none", "--format", "parity-aligned")
    assert "./rotary is gpt_neox (rotary) with 1 layers x 16" in said
    assert "./none is gpt_neox (none) with" in said


def test_seeds_of_one_configuration_are_judged_together():
    """All of the zoo, whatever the step at which they stopped and the precision of their training."""
    config = SimpleNamespace(model_type="x", num_hidden_layers=1, hidden_size=1)
    groups: dict[str, dict[str, Any]] = {}
    for path in sorted(ZOO.glob("*/run.json")):
        run = SimpleNamespace(raw=SimpleNamespace(config=config), family="x", format="x")
        run.record = json.loads(path.read_text(encoding="utf-8"))
        groups.setdefault(path.parent.name.rpartition("-seed")[0], {})[path.parent.name] = run
    several = [runs for runs in groups.values() if len(runs) > 1]
    assert len(several) > 20
    assert any(len({run.record["precision"] for run in runs.values()}) > 1 for runs in several)
    for runs in several:
        check_one_configuration(runs)
    first, other = (groups[name] for name in ("parity-aligned-alibi+none", "parity-aligned-alibi"))
    with pytest.raises(ValueError, match=r"trained differently: rehearsal 0\.0 and 0\.5; condition none and None"):
        check_one_configuration(dict([*list(first.items())[:1], *list(other.items())[:1]]))


def test_a_run_of_recall_takes_no_options_of_parity(tmp_path, capsys):
    folder = tmp_path / "recall"
    run = load(DEFAULT)
    record = {k: v for k, v in run.record.items() if k != "version"} | {"format": "recall-ordered"}
    save_run(folder, run.raw, default_tokenizer(), record)
    for name, *values in (("lengths", "9", "50"), ("arms", "M1"), ("forced",)):
        said = refused(capsys, str(folder), f"--{name}", *values)
        assert f"--{name} does not apply to --task recall; use --items" in said
