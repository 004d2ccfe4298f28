"""How far a verb has come, in a file: whole lines, a minute apart, and nothing from a job that is over sooner."""

import io
import re
import sys
import time
from threading import active_count

import pytest

from experiments.support import progress
from experiments.support.progress import Lines, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_short_job_says_nothing(clock, capsys):
    for _ in progress_bar(range(50), desc="short"):
        clock[0] += 1
    with progress_bar(total=3) as bar:
        bar.update()
        bar.set_postfix({"task": "1.000"})
    assert capsys.readouterr().err == ""


def test_a_long_job_says_a_line_a_minute(clock, capsys):
    with progress_bar(total=100, initial=10, desc="train", unit="step") as bar:
        for _ in range(90):
            clock[0] += 7
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 19 of 100 steps, 01:03 elapsed, about 09:27 left"
    assert len(lines) == 90 * 7 // 63  # at the first update after a minute
    assert all("\r" not in line for line in lines)


def test_a_job_may_say_a_line_more_often(clock, capsys):
    for _ in progress_bar(range(4), desc="gallery", unit="view", seconds=10):
        clock[0] += 6
    assert capsys.readouterr().err.splitlines() == [
        "gallery: 2 of 4 views, 00:12 elapsed, about 00:12 left",
        "gallery: 4 of 4 views, 00:24 elapsed, about 00:00 left",
    ]


def test_a_line_names_what_was_just_done(clock, capsys):
    bar = progress_bar(["a", "b"], unit="case")
    for name in bar:
        bar.set_description(name)
        bar.set_postfix({"accuracy": "0.5"})
        clock[0] += 90
    assert capsys.readouterr().err.splitlines() == [
        "a: 1 of 2 cases, 01:30 elapsed, about 01:30 left, accuracy 0.5",
        "b: 2 of 2 cases, 03:00 elapsed, about 00:00 left, accuracy 0.5",
    ]


def test_a_part_that_takes_long_says_so_while_nothing_is_counted(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_PER_LOOK", 0.01)
    with progress_bar(total=2, desc="map", unit="part") as bar:
        time.sleep(0.1)
        assert capsys.readouterr().err == ""
        clock[0] += 60
        time.sleep(0.3)
        assert capsys.readouterr().err == "map: 0 of 2 parts, 01:00 elapsed\n"
        clock[0] += 90
        time.sleep(0.3)
        assert capsys.readouterr().err == "map: 0 of 2 parts, 02:30 elapsed\n"
        bar.update()
    clock[0] += 90
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_its_thread_ends_also_with_an_error():
    before = active_count()
    with progress_bar(total=2):
        assert active_count() == before + 1
    with pytest.raises(KeyError), progress_bar(total=2):
        raise KeyError
    assert active_count() == before
    assert list(progress_bar(range(2))) == [0, 1]
    assert active_count() == before


def test_without_a_total_nothing_is_said_of_what_is_left():
    bar = Lines(None, "verdict", None, 0, "step")
    bar.n = 3
    assert bar.line(65) == "verdict: 3 steps, 01:05 elapsed"


def test_workers_and_those_who_are_told_not_to_are_silent(clock, capsys, monkeypatch):
    for _ in progress_bar(range(2), shown=False):
        clock[0] += 100
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for _ in progress_bar(range(2)):
        clock[0] += 100
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(total=2, desc="sweep", unit="stage") as bar:
        bar.update()
        shown = terminal.getvalue()
        time.sleep(2.5)
        assert re.search("00:0[1-9] elapsed", terminal.getvalue()[len(shown) :])  # while nothing is counted
    assert "\r" in terminal.getvalue()
    assert "sweep" in terminal.getvalue()
