"""Outsiders' truths are joined with the verdicts on their models, and nothing is dropped or accepted silently."""

import json
import re
import shutil
from itertools import product
from pathlib import Path

import pytest

import probes
from experiments import outsiders
from experiments.outsiders import LABELS, judged_models, main
from experiments.tables import outsiders as tables
from experiments.tables.outsiders import outcome_of
from interp.models.names import SHIPPED
from probes.findings import ROLES
from probes.judging import label_of
from probes.statuses import RoleFinding, Status

README = Path(probes.__file__).with_name("README.md")
TRUE = {"anchor": True, "placeholder": False, "sink": False}
TRUTH = {"architecture": "GPT-2", "right": ["anchor"], "roles": TRUE}


def truths(tmp_path, **models):
    path = tmp_path / "truths.json"
    path.write_text(json.dumps(models))
    return path


@pytest.fixture
def verdicts(tmp_path):
    """Return a folder with a verdict on `first_one`."""
    (tmp_path / "verdicts" / "first_one").mkdir(parents=True)
    shutil.copy(SHIPPED / "parity-aligned-alibi" / "verdict.json", tmp_path / "verdicts" / "first_one")
    return tmp_path / "verdicts"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return a results file with one model of round 3."""
    file = tmp_path / "outsiders.json"
    file.write_text(json.dumps({"schema": 1, "models": [{"round": 3, "blind": True}]}))
    for module in (outsiders, tables):
        monkeypatch.setattr(module, "OUTSIDERS", file)
    return file


def test_a_truth_beside_its_verdict(tmp_path, verdicts):
    wrong = {**TRUTH, "right": ["sink"], "roles": {**TRUE, "placeholder": True}}
    for truth, outcome in ((TRUTH, "right"), (wrong, "wrong label")):
        rows, missing = judged_models(3, truths(tmp_path, first_one=truth, another=TRUTH), verdicts)
        assert missing == ["another"]
        (row,) = rows
        assert (row["family"], row["label"], row["statuses"]["sink"]) == ("first one", "anchor", "ABSENT")
        assert outcome_of(row) == outcome


def test_stored_rows_are_what_the_command_accepts(tmp_path):
    """The truths of all committed rows can be read, and a row has the entries that the command writes."""
    rows = tables.read_outsiders()
    known = {f"m{k}": {key: row[key] for key in outsiders.ENTRY} for k, row in enumerate(rows)}
    assert outsiders.read_truths(truths(tmp_path, **known)) == known
    found = outsiders._verdict(SHIPPED / "parity-aligned-alibi" / "verdict.json")
    assert {*outsiders._row(1, "m", TRUTH, True, found)} == {*rows[0]}


def test_the_example_of_the_readme_is_accepted(tmp_path):
    examples = re.findall(r"```json\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [text for text in examples if '"item"' not in text]  # the other one is a list
    (tmp_path / "truths.json").write_text(example)
    assert len(outsiders.read_truths(tmp_path / "truths.json")) == 1
    assert example.replace(" ", "").strip() in str(outsiders.__doc__).replace(" ", "")


def test_labels_are_those_of_verdicts():
    def label(statuses):
        return label_of({role: RoleFinding(status, "") for role, status in zip(ROLES, statuses, strict=True)})

    assert {label(statuses) for statuses in product(Status, repeat=3)} == set(LABELS)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("anchor", "model needs architecture, right, and roles with anchor, placeholder, sink"),
        ({"architecture": "GPT-2", "right": ["anchor"]}, "model needs architecture, right, and roles"),
        ({**TRUTH, "roles": {"anchor": True}}, "model needs architecture, right, and roles with anchor"),
        ({**TRUTH, "roles": "anchor"}, "model needs architecture, right, and roles with anchor"),
        ({**TRUTH, "note": ""}, "and nothing else"),
        ({**TRUTH, "architecture": 2}, 'has "architecture": 2; write a text'),
        ({**TRUTH, "right": "anker"}, 'has "right": "anker"; write a list of labels, such as ["anchor"]'),
        ({**TRUTH, "right": []}, 'has "right": []; write a list of labels'),
        (
            {**TRUTH, "right": ["anker"]},
            'has the unknown label "anker" in "right"; labels are anchor; placeholder;',
        ),
        ({**TRUTH, "roles": {**TRUE, "anchor": "yes"}}, 'has "anchor": "yes"; write true, false, or null'),
        ({**TRUTH, "roles": {**TRUE, "sink": 1}}, 'has "sink": 1; write true, false, or null'),
    ],
)
def test_wrong_truths_are_refused(tmp_path, verdicts, file, capsys, truth, message):
    refused(capsys, file, [str(truths(tmp_path, first_one=TRUTH, model=truth)), str(verdicts)], message)


def test_files_that_cannot_be_used_are_refused(tmp_path, verdicts, file, capsys):
    good, damaged = truths(tmp_path, first_one=TRUTH), tmp_path / "damaged.json"
    refused(capsys, file, [str(tmp_path / "none.json"), str(verdicts)], "none.json")
    for text, message in (("{", "is not JSON"), ("[]", "one entry per model"), ("{}", "one entry per model")):
        damaged.write_text(text)
        refused(capsys, file, [str(damaged), str(verdicts)], message)
    for name in ("../first_one", "..", ".", "", "first_one\n"):
        damaged.write_text(json.dumps({name: TRUTH}))
        refused(capsys, file, [str(damaged), str(verdicts)], f"{name!r} is not the name of a folder of verdicts")
    refused(capsys, file, [str(good), str(tmp_path / "none")], "none is not a folder")
    (tmp_path / "empty").mkdir()
    refused(capsys, file, [str(good), str(tmp_path / "empty")], "empty has no verdict on a model of")
    refused(capsys, file, [str(good), str(verdicts), "--out", str(good)], "is not of schema 1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"version": 9}, "it is of version 9"),
        ({"schema": 9}, "is no verdict of schema 1"),
        ({"roles": {}}, "is a damaged verdict: KeyError('anchor')"),
        ({"roles": {role: {"status": "MAYBE", "reason": ""} for role in ROLES}}, "'MAYBE' is not a valid Status"),
        ({"margins": None}, "is a damaged verdict"),
        ({"verdict": "anker"}, "its label is 'anker'"),
    ],
)
def test_wrong_verdicts_are_refused(tmp_path, verdicts, file, capsys, damage, message):
    path = verdicts / "first_one" / "verdict.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    refused(capsys, file, [str(truths(tmp_path, first_one=TRUTH)), str(verdicts)], message)


def refused(capsys, file, arguments, message):
    """Check that a call ends with status 2 and one line, and leaves the results file as it was."""
    before = file.read_bytes()
    assert main(["3", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert file.read_bytes() == before


def test_models_that_are_judged_again_stand_beside_their_blind_rows(tmp_path, verdicts, file, capsys):
    call = ["3", str(truths(tmp_path, first_one=TRUTH, another=TRUTH)), str(verdicts)]
    (verdicts / "nobodys").mkdir()
    shutil.copy(verdicts / "first_one" / "verdict.json", verdicts / "nobodys")
    (verdicts / "no_verdict").mkdir()
    for arguments, what in (
        (call, "round 3 has 1 models in place of 1"),
        ([*call, "--again"], "round 3, judged again has 1 models in place of 0"),
        (["--again", *call], "round 3, judged again has 1 models in place of 1"),
        ([call[0], "--again", *call[1:]], "round 3, judged again has 1 models in place of 1"),
    ):
        assert main(arguments) == 0
        lacking = "without a verdict: another; without a truth: nobodys"
        assert capsys.readouterr().out == f"{file}: replaced; {what}; {lacking}\n"
    assert [row["blind"] for row in tables.read_outsiders()] == [True, False]


def test_out_is_changed_instead(tmp_path, verdicts, file, capsys):
    before, other = file.read_bytes(), tmp_path / "other.json"
    for number, done in (("1", "written"), ("2", "replaced"), ("2", "replaced")):
        assert main([number, str(truths(tmp_path, first_one=TRUTH)), str(verdicts), "--out", str(other)]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{other}: {done}; round {number} has 1 models in place of ")
        assert said.endswith("without a verdict: none; without a truth: none\n")
    assert [row["round"] for row in tables.read_outsiders(other)] == [1, 2]
    assert file.read_bytes() == before


@pytest.mark.parametrize("models", [None, {}, [1], [{"round": 1}]])
def test_a_damaged_results_file_is_refused(tmp_path, models):
    (tmp_path / "models.json").write_text(json.dumps({"schema": 1, "models": models}))
    with pytest.raises(ValueError, match="is damaged: it has no list of models, each with its round"):
        tables.read_outsiders(tmp_path / "models.json")


@pytest.mark.parametrize(
    "arguments", [[], ["three", "a", "b"], ["0", "a", "b"], ["3", "a"], ["3", "a", "b", "--later"]]
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m experiments.outsiders" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("--again", "--out FILE", "replaced in place", '"roles": {"anchor": true'))
