"""What `mnemoscope bench` prints: every column of a table is explained below it."""

import json
import re
from pathlib import Path

import pytest

from experiments.benchmarks import printing
from experiments.benchmarks.printing import NOTES, TABLES, show

RESULTS = Path(printing.__file__).parent / "results"
STORED = sorted(kind for kind in TABLES if (RESULTS / f"{kind}.json").exists())
LOOP = {"ms": {"ours": 1.0, "hand": 2.0}, "ratio": 2.0, "difference": 1e-6}


def rows_of(kind: str) -> dict:
    if kind == "loops":
        return {"a loop": LOOP}
    return json.loads((RESULTS / f"{kind}.json").read_text(encoding="utf-8"))["rows"]


def test_every_benchmark_has_a_table_notes_and_rows():
    assert set(NOTES) == set(TABLES)
    assert {*STORED, "loops"} == set(TABLES)


@pytest.mark.parametrize("kind", [*STORED, "loops"])
def test_every_column_is_explained_under_its_table(kind, monkeypatch, capsys):
    columns: list[str] = []
    monkeypatch.setattr(printing, "print_table", lambda title, names, cells: columns.extend(names))
    show(kind, rows_of(kind))
    said = capsys.readouterr().out
    assert said.count("\n") == len(NOTES[kind])
    terms = {term.strip() for line in said.splitlines() for term in re.findall(r"(?:^|[.;] )([^:.;]+):", line)}
    terms = {part.strip() for term in terms for part in [term, *term.split(", ")]}
    assert columns
    assert not set(columns) - {"case"} - terms
