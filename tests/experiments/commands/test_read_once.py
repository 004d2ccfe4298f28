"""The records of runs and the table of results are read once per command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments import gathering
from experiments.cli import main
from experiments.commands.figures import FiguresCommand
from experiments.commands.sweep import _gather
from tests.experiments.test_gathering import evaluation, put


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for seed in (2, 3):
        put(tmp_path, seed, evaluation=evaluation())
    return tmp_path


def test_records_are_read_once(zoo, monkeypatch, capsys):
    read, read_record = [], gathering.read_record

    def counted(folder: Path):  # type: ignore[no-untyped-def]
        read.append(folder.name)
        return read_record(folder)

    monkeypatch.setattr(gathering, "read_record", counted)
    assert _gather(zoo)
    assert len(read) == len(set(read)) == 2
    assert "2 of 2 runs learned" in capsys.readouterr().out


def test_the_table_is_read_once(zoo, monkeypatch, tmp_path, capsys):
    gathering.gather(zoo)
    read, read_parquet = [], pd.read_parquet

    def counted(path: Path):  # type: ignore[no-untyped-def]
        read.append(path)
        return read_parquet(path)

    monkeypatch.setattr(pd, "read_parquet", counted)
    monkeypatch.setattr(FiguresCommand, "maps", lambda self, name, required: self.verdicts())  # would run models
    assert main(["figures", "--zoo", str(zoo), "--out", str(tmp_path / "figures")]) == 0
    assert len(read) == 1
