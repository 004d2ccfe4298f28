"""Pages, figures, copies and benchmarks say in one line what they replace; equal content is replaced silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.benchmarks import memory
from experiments.cli import main
from experiments.commands.figures import FiguresCommand
from experiments.commands.report import ReportCommand
from experiments.support.results import replace_whole

RUN = "parity-aligned-alibi"
SHORT = ("--lengths", "5", "--offset-lengths", "--prompts", "2")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """Return the lines of a command on standard error that say what it replaces."""
    assert main(list(argv)) == 0
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("replacing ")]


def test_what_is_replaced_is_named_unless_it_is_equal(capsys):
    path = Path("page.html")
    for content, lines in (("a", 0), ("a", 0), ("b", 1), ("\u00e9", 1), ("\u00e9", 0)):
        replace_whole(path, content)
        assert path.read_text(encoding="utf-8") == content
        err = capsys.readouterr().err
        assert err == lines * f"replacing {path}: its content differs; another --out keeps both\n"
    replace_whole(path, "c", "")
    assert capsys.readouterr().err == f"replacing {path}: its content differs\n"


@pytest.mark.slow
def test_a_page_of_attention(capsys):
    argv = ("attention", RUN, "--layers", "0", "--length", "2", "--out", "a.html")
    line = "replacing a.html: its content differs; another --out keeps both"
    assert said(capsys, *argv) == said(capsys, *argv) == []
    assert said(capsys, *argv, "--seed", "1") == [line]


def test_figures(capsys, monkeypatch):
    from matplotlib.figure import Figure

    titles = iter("aab")

    def drawings(_: FiguresCommand):  # type: ignore[no-untyped-def]
        figure = Figure()
        figure.suptitle(next(titles))
        return [("maps", True, lambda: figure)]

    monkeypatch.setattr(FiguresCommand, "drawings", drawings)
    argv = ("figures", "--only", "maps", "--out", "here")
    assert said(capsys, *argv) == said(capsys, *argv) == []
    assert said(capsys, *argv) == ["replacing here/maps.svg: its content differs; another --out keeps both"]


@pytest.mark.slow
def test_the_figure_of_several_runs(capsys):
    argv = ("evaluate", RUN, "parity-scratchpad-alibi", *SHORT)
    assert said(capsys, *argv) == said(capsys, *argv) == []
    path = Path("mnemoscope-out/accuracy-by-length.svg")
    path.write_text("other")
    assert said(capsys, *argv) == [f"replacing {path}: its content differs"]


@pytest.mark.parametrize("more", [(), ("--task", "recall")])
def test_reports(more, capsys, monkeypatch):
    monkeypatch.setattr(ReportCommand, "_part", lambda *_: None)
    monkeypatch.setattr("experiments.reporting.order.whole_page", lambda *_: "page")
    monkeypatch.setattr("experiments.reporting.list_page.list_report", lambda *_: "page")
    argv = ("report", RUN, "--out", "r.html", *more)
    assert said(capsys, *argv) == said(capsys, *argv) == []
    Path("r.html").write_text("other")
    assert said(capsys, *argv) == ["replacing r.html: its content differs; another --out keeps both"]


def test_the_gallery(capsys, monkeypatch):
    monkeypatch.setattr("experiments.gallery.gallery_page", lambda *_: "page")
    assert said(capsys, "gallery") == said(capsys, "gallery") == []
    path = Path("mnemoscope-out/gallery.html")
    path.write_text("other")
    assert said(capsys, "gallery") == [f"replacing {path}: its content differs; another --out keeps both"]


@pytest.mark.parametrize("more", [(), pytest.param(("--task", "recall"), marks=pytest.mark.slow)])
def test_the_copy_of_a_verdict(more, capsys):
    argv = ("verdict", RUN, "--json", "v.json", *more)
    if more:
        argv = (*argv, "--prompts", "16")
    assert said(capsys, *argv) == said(capsys, *argv) == []
    Path("v.json").write_text("{}")
    assert said(capsys, *argv) == ["replacing v.json: its content differs; another --json keeps both"]


def test_rows_of_a_benchmark(capsys, monkeypatch):
    monkeypatch.setattr(memory, "run_case", lambda *_: {"peak_mib": 1.0})
    monkeypatch.setattr("experiments.benchmarks.printing.show", lambda *_: None)
    names = [case.name for case in memory.DEFAULT]
    first, second = [name for name in names if sum(name in other for other in names) == 1][:2]
    argv = ("bench", "--peak", "--out", "here", "--only")
    assert said(capsys, *argv, first) == []
    assert said(capsys, *argv, second) == []
    assert said(capsys, *argv, first) == ["replacing 1 of 2 rows in here/memory.json; another --out keeps both"]
    assert set(json.loads(Path("here/memory.json").read_text())["rows"]) == {first, second}
