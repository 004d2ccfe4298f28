"""Tables of injected faults, fuzzed inputs and peaks of memory."""

import json

import pytest

from experiments.support.provenance import OtherVersions, provenance_record
from experiments.tables import benchmarks, trust
from experiments.tables.benchmarks import memory_table
from experiments.tables.trust import damages_table, faults_table, guided_table, inputs_table


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Write a file of counts that a table reads."""

    def write(what: str, counts: dict, provenance: dict | None = None) -> None:
        path = tmp_path / f"{what}.json"
        path.write_text(json.dumps({"provenance": provenance or provenance_record(), what: counts}))
        monkeypatch.setattr(trust, what.upper(), path)

    return write


def test_faults_by_command_and_in_total(counted):
    counted(
        "faults",
        {
            "train": {"kill": {"injected": 3, "survived": 3}, "full": {"injected": 2, "survived": 1}},
            "sweep": {"kill": {"injected": 4, "survived": 4}, "lost": {"injected": 5, "survived": 5}},
            "bench": {},
        },
    )
    head, _, *rows = faults_table().splitlines()
    assert head == "| fault | train | sweep | survived |"
    assert rows == [
        "| `kill -9` | 3 of 3 | 4 of 4 | 7 of 7 |",
        "| Ctrl-C |  |  | 0 of 0 |",
        "| a full disk | 1 of 2 |  | 1 of 2 |",
        "| a lost worker |  | 5 of 5 | 5 of 5 |",
    ]


def test_damaged_work_by_command_and_guided_inputs_by_kind(counted):
    counted("damages", {"train": {"flipped": {"injected": 3, "survived": 2}}, "patch": {}})
    head, _, *rows = damages_table().splitlines()
    assert head == "| damage | train | survived |"
    assert rows == [
        "| a truncated file |  | 0 of 0 |",
        "| a flipped bit | 2 of 3 | 2 of 3 |",
        "| two processes at once |  | 0 of 0 |",
    ]
    counted("guided", {"results": {"inputs": 42_000, "failures": 1, "seconds": 240}})
    assert guided_table().splitlines()[2:] == ["| results | 42,000 | 240 | 1 |"]


def test_inputs_by_kind_and_in_total(counted):
    counted("inputs", {"tasks": 90_000, "folders": 7_500})
    assert inputs_table().splitlines()[0] == "| tasks | folders | total |"
    assert inputs_table().splitlines()[2:] == ["| 90,000 | 7,500 | 97,500 |"]


def test_counts_made_with_other_versions_give_a_warning(counted):
    counted("inputs", {"tasks": 1}, {"versions": {"torch": "1.0"}})
    with pytest.warns(OtherVersions, match=r"inputs.json was made with .*torch 1\.0"):
        inputs_table()


def test_a_peak_above_the_budget_is_not_met(tmp_path, monkeypatch):
    rows = {
        f"memory-patch-{n}": {"part": "patch", "prompts": n, "budget_mib": 64, "peak_mib": peak, "before_mib": 400.0}
        for n, peak in ((10, 12.4), (1000, 64.1))
    }
    path = tmp_path / "memory.json"
    path.write_text(json.dumps({"provenance": provenance_record(), "rows": rows}))
    monkeypatch.setattr(benchmarks, "MEMORY", path)
    head, _, *cells = memory_table().splitlines()
    assert head == "| part | prompts | peak, MiB beyond the model | within 64 MiB |"
    assert cells == ["| patch | 10 | 12 | yes |", "| patch | 1000 | 64 | **no** |"]
