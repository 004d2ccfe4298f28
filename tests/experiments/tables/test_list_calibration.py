"""The table of verdicts on planted models of lists."""

import json

from experiments.support.provenance import provenance_record
from experiments.tables import list_calibration
from experiments.tables.list_calibration import list_calibration_table


def test_outcomes_by_mechanism_and_by_architecture(tmp_path, monkeypatch):
    def case(label: str, outcome: str, *wrong: str, name: str = "value before") -> dict:
        return {"mechanism": name, "expected": "order", "label": label, "outcome": outcome, "wrong": list(wrong)}

    cases = [
        case("order", "right"),
        case("order", "right"),
        case("position", "wrong", "position PRESENT", "order ABSENT"),
        case("undecided", "incomplete", name="label before"),
    ]
    data = {
        "schema": 1,
        "provenance": provenance_record(),
        "cases": cases,
        "counts": {"gpt_neox, dirt": {"right": 2}, "all": {"right": 2, "wrong": 1, "incomplete": 1}},
        "rates": {"sinks found": {"hits": 3, "n": 5}},
    }
    path = tmp_path / "calibration-lists.json"
    path.write_text(json.dumps(data))
    monkeypatch.setattr(list_calibration, "LIST_CALIBRATION", path)
    lines = list_calibration_table().splitlines()
    assert lines[2] == "| value before | order | order (2), position (1) | 2 | 0 | 1 | position PRESENT, order ABSENT |"
    assert lines[3] == "| label before | order | undecided (1) | 0 | 1 | 0 |  |"
    assert "| GPT-NeoX, dirt | 2 | 0 | 0 | 2 |" in lines
    assert "| all | 2 | 1 | 1 | 4 |" in lines
    assert lines[-1] == "Of 5 planted sinks 3 were PRESENT."


def test_an_outsiders_models_have_what_was_wrong_then_and_now(tmp_path, monkeypatch):
    def found(label: str, order: str, sink: str, **more: str) -> dict:
        return {"label": label, "addresses": {"order": order}, "sinks": {"first token": sink, **more}}

    model = {
        "model": "G",
        "finds": "the order, with a sink",
        "truth": {"addresses": ["order"], "sinks": ["first token"], "unjudged": []},
        "blind": found("order", "PRESENT", "ABSENT"),
        "again": found("order", "PRESENT", "INDETERMINATE"),
    }
    path = tmp_path / "outsiders-lists.json"
    one = {"rules": "a", "again": "b", "about": "built blind", "models": [model, model]}
    new = {"rules": "b", "about": "built last", "models": [{k: v for k, v in model.items() if k != "again"}]}
    path.write_text(json.dumps({"rounds": [one, new]}))
    monkeypatch.setattr(list_calibration, "OUTSIDERS", path)
    assert list_calibration.blind_lists() == [(2, 2), (1, 1)]
    assert list_calibration.blind_statuses() == {"ABSENT": 3}
    head, _, *rows = list_calibration.list_outsiders_table().splitlines()
    assert head.endswith("| blind, by the arms of its time | again, by later arms |")
    cells = "| the order, with a sink | order; sinks: first token | **order; wrong: first token ABSENT** |"
    assert rows == [f"| 1 {cells} order |", f"| 1 {cells} order |", f"| 2 {cells}  |"]
    _, _, *rows = list_calibration.list_rounds_table().splitlines()
    assert rows == ["| 1 | built blind | a | 2 of 2 | b | 0 of 2 |", "| 2 | built last | b | 1 of 1 |  |  |"]
