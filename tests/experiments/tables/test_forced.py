"""The table of the verdict on trained models whose mechanism weights force."""

import json

from experiments.forced import judging
from experiments.tables.forced import forced_table

STATUSES = ("ABSENT", "PRESENT", "INDETERMINATE")


def row(case: str, seed: int, label: str, right: list[str]) -> dict:
    """A judged model of which the placeholder is true, the anchor false, and the sink left to training."""
    roles = {"anchor": False, "placeholder": True, "sink": None}
    statuses = dict(zip(roles, STATUSES, strict=True))
    accuracy = {"forced step": 0.99, "forced exact": 0.9}
    found = {"label": label, "statuses": statuses, "accuracy": accuracy}
    return {"case": case, "seed": seed, "forced": "why", "roles": roles, "right": right, **found}


def test_a_row_states_truth_and_outcome(tmp_path, monkeypatch):
    models = {"a": row("path", 1, "placeholder", ["placeholder"]), "b": row("path", 2, "sink", ["placeholder"])}
    monkeypatch.setattr(judging, "FILE", tmp_path / "forced.json")
    (tmp_path / "forced.json").write_text(json.dumps({"schema": 1, "models": models}))
    lines = forced_table().splitlines()
    start = "anchor no, placeholder yes, sink open | 0.990 | ABSENT, PRESENT, INDETERMINATE"
    assert f"| path | 1 | {start} | placeholder | right |" in lines
    assert f"| path | 2 | {start} | sink | **wrong label** |" in lines
