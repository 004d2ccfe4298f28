"""The benchmark of edge attribution compares the same numbers."""

import json

from experiments.benchmarks import edges
from experiments.benchmarks.edges import EdgeCase, run_case
from experiments.cli import main

TINY = EdgeCase("absolute", 2, 16, 3, 2, n_heads=2)


def test_a_row_holds_a_ratio_of_equal_numbers():
    row = run_case(TINY, rounds=1)
    assert row["difference"] < 1e-5
    assert row["ratio"] == row["ms_a_pair"]["transformer_lens"] / row["ms_a_pair"]["ours"]
    assert row["tokens"] == 14
    assert row["edges"] == 2 * 3 + 3 + 6 * 4 + 6 + 7  # by reader: q, k, v and MLP of each layer, logits


def test_the_verb_writes_rows_and_keeps_earlier_ones(tmp_path, monkeypatch, capsys):
    other = EdgeCase("alibi", 2, 16, 3, 2, n_heads=2)
    monkeypatch.setattr(edges, "DEFAULT", (TINY, other))
    for case in (TINY, other):
        assert main(["bench", "--edges", "--only", case.family, "--rounds", "1", "--out", str(tmp_path)]) == 0
    assert set(json.loads((tmp_path / "edges.json").read_text(encoding="utf-8"))["rows"]) == {TINY.name, other.name}
    assert main(["bench", "--edges", "--bloom"]) == 2
    assert "different benchmarks" in capsys.readouterr().err
