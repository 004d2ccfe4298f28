"""Outsiders' truths are joined with the verdicts on their models, and nothing is dropped silently."""

import json
import shutil

import pytest

from experiments import outsiders
from experiments.outsiders import judged_models, main
from experiments.tables import outsiders as tables
from experiments.tables.outsiders import outcome_of
from interp.models.names import SHIPPED

ROLES = {"anchor": True, "placeholder": False, "sink": False}


def truths(tmp_path, **models):
    path = tmp_path / "truths.json"
    path.write_text(json.dumps(models))
    return path


def test_a_truth_beside_its_verdict(tmp_path):
    (tmp_path / "first_one").mkdir()
    shutil.copy(SHIPPED / "parity-aligned-alibi" / "verdict.json", tmp_path / "first_one")
    right = {"architecture": "GPT-2", "right": ["anchor"], "roles": ROLES}
    wrong = {**right, "right": ["sink"], "roles": {**ROLES, "placeholder": True}}
    for truth, outcome in ((right, "right"), (wrong, "wrong label")):
        rows, missing = judged_models(3, truths(tmp_path, first_one=truth, another=right), tmp_path)
        assert missing == ["another"]
        (row,) = rows
        assert (row["family"], row["label"], row["statuses"]["sink"]) == ("first one", "anchor", "ABSENT")
        assert outcome_of(row) == outcome


def test_a_truth_without_a_role_is_an_error(tmp_path):
    truth = {"architecture": "GPT-2", "right": ["anchor"], "roles": {"anchor": True}}
    with pytest.raises(ValueError, match="model needs architecture, right, and roles with anchor, placeholder, sink"):
        judged_models(3, truths(tmp_path, model=truth), tmp_path)
    assert main(["three"]) == 2


def test_models_that_are_judged_again_stand_beside_their_blind_rows(tmp_path, monkeypatch):
    file = tmp_path / "outsiders.json"
    file.write_text(json.dumps({"schema": 1, "models": []}))
    for module in (outsiders, tables):
        monkeypatch.setattr(module, "OUTSIDERS", file)
    (tmp_path / "model").mkdir()
    shutil.copy(SHIPPED / "parity-aligned-alibi" / "verdict.json", tmp_path / "model")
    truth = truths(tmp_path, model={"architecture": "GPT-2", "right": ["anchor"], "roles": ROLES})
    for more in ([], ["--again"], ["--again"]):
        assert main(["3", str(truth), str(tmp_path), *more]) == 0
    assert [row["blind"] for row in tables.read_outsiders()] == [True, False]
    assert main(["3", str(truth), str(tmp_path), "--later"]) == 2
