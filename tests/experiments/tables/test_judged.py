"""Tables of the verdict on models of known mechanism: families outside of the calibration, and outsiders' models."""

import json

import pytest

from experiments.tables import families, outsiders
from experiments.tables.families import counted_families, families_table
from experiments.tables.outsiders import blind_rounds, outcome_of, outsiders_table

ROLES = {"anchor": True, "placeholder": False, "sink": None}


def model(
    label: str, *statuses: str, number: int = 1, blind: bool = True, right: tuple[str, ...] = ("anchor",)
) -> dict:
    """A judged model of which the anchor is true, the placeholder false, and the sink a matter of definition."""
    return {
        "round": number,
        "family": f"{label} {number}",
        "blind": blind,
        "right": list(right),
        "roles": ROLES,
        "label": label,
        "statuses": dict(zip(ROLES, statuses, strict=True)),
        "margins": "x",
    }


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (model("anchor", "PRESENT", "ABSENT", "PRESENT"), "right"),
        (model("anchor", "PRESENT", "ABSENT", "ABSENT"), "right"),  # the sink is a matter of definition
        (model("sink", "ABSENT", "ABSENT", "PRESENT"), "wrong label"),
        (model("undecided", "ABSENT", "ABSENT", "PRESENT"), "wrong status"),
        (model("undecided", "INDETERMINATE", "PRESENT", "ABSENT"), "wrong status"),
        (model("undecided", "INDETERMINATE", "INDETERMINATE", "PRESENT"), "none"),
        (model("unresolved", "UNRESOLVED", "ABSENT", "ABSENT", right=("unresolved",)), "right"),
    ],
)
def test_the_outcome_of_a_model(row, outcome):
    assert outcome_of(row) == outcome


def test_rounds_are_counted_apart_and_blind_ones_first(tmp_path, monkeypatch):
    rows = [
        model("anchor", "PRESENT", "ABSENT", "PRESENT"),
        model("sink", "ABSENT", "ABSENT", "PRESENT"),
        model("undecided", "INDETERMINATE", "ABSENT", "ABSENT", number=2),
        model("anchor", "PRESENT", "ABSENT", "ABSENT", blind=False),
        model("sink", "ABSENT", "ABSENT", "ABSENT", number=3, blind=False),
    ]
    path = tmp_path / "outsiders.json"
    path.write_text(json.dumps({"schema": 1, "models": rows}))
    monkeypatch.setattr(outsiders, "OUTSIDERS", path)
    lines = outsiders_table().splitlines()
    assert "| 1 | 2 | x | 1 | 1 | 0 | 0 |" in lines
    assert "| 2 | 1 | x | 0 | 0 | 0 | 1 |" in lines
    assert "| 1, judged again | 1 | x | 1 | 0 | 0 | 0 |" in lines
    assert "| 1 | sink 1 | anchor | sink | **wrong label** |" in lines
    assert not any("sink 3" in line for line in lines)
    assert blind_rounds() == [(2, 1, 0), (1, 0, 1)]


def test_families_by_architecture_and_dirt(tmp_path, monkeypatch):
    def case(architecture: str, dirty: bool, label: str, outcome: str) -> dict:
        more = {"family": "F", "expected": "anchor", "label": label, "outcome": outcome}
        return {"architecture": architecture, "dirty": dirty, **more}

    cases = [
        case("gpt2", False, "anchor", "right"),
        case("gpt_neox", False, "undecided", "none"),
        case("llama", False, "sink", "wrong label"),
        case("gpt2", True, "undecided", "wrong status"),
        case("gpt_neox", True, "anchor", "right"),
        case("llama", True, "anchor", "right"),
    ]
    counts = {"gpt2, dirt": {"wrong status": 1}, "all": {"right": 3, "none": 1, "wrong label": 1, "wrong status": 1}}
    path = tmp_path / "families.json"
    path.write_text(json.dumps({"schema": 1, "cases": cases, "counts": counts}))
    monkeypatch.setattr(families, "FAMILIES", path)
    lines = families_table().splitlines()
    cells = ("right", "undecided", "**wrong label: sink**", "**wrong status: undecided**", "right", "right")
    assert f"| F | anchor | {' | '.join(cells)} |" in lines
    assert "| GPT-2, dirt | 0 | 0 | 1 | 0 | 1 |" in lines
    assert "| all | 3 | 1 | 1 | 1 | 6 |" in lines
    assert counted_families() == [6, 1, 1, 1, 3]
    path.write_text("[]")
    with pytest.raises(ValueError, match="schema"):
        families_table()
