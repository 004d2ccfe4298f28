"""Whole or absent, wherever the writer dies: every call that changes the disk is tried, one after the other."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from interp.support import writing
from interp.support.writing import (
    alone_in,
    is_full,
    naming,
    read_digested,
    whole_folder,
    write_digested,
    write_tensors,
    write_together,
    write_whole,
)

CALLS = ("write", "fsync", "open", "mkdir", "replace", "rename", "unlink", "rmdir", "chmod", "close")


def dies(work: Callable[[], None], at: int, kind: str = "kill") -> bool:
    """Does `work` in another process, struck at its `at`-th call; whether it was struck. A full disk must be said."""
    if (pid := os.fork()) == 0:
        seen = [0]

        def around(real: Callable, name: str) -> Callable:
            def call(*args, **more):
                seen[0] += 1
                if seen[0] - 1 == at:
                    if name == "write":
                        real(args[0], args[1][: len(args[1]) // 2])
                    if kind == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(errno.ENOSPC, "full")
                return real(*args, **more)

            return call

        status = 1
        try:
            for name in CALLS if kind == "kill" else ("write", "fsync", "mkdir"):
                setattr(os, name, around(getattr(os, name), name))
            work()
            status = 5 if seen[0] > at else 0  # struck where it does not matter: a folder that is there is made
        except OSError as error:
            status = 3 if is_full(error) else 4
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in ((0, -9) if kind == "kill" else (0, 3, 5)), status
    return status != 0


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_file_is_the_old_one_or_the_new_one(kind, tmp_path):
    path, new = tmp_path / "a[1].json", "new" * 100
    path.write_text("old")
    at = 0
    while dies(lambda: write_whole(path, new), at, kind):
        assert path.read_text() in ("old", new)
        assert kind == "kill" or names(tmp_path) == ["a[1].json"]  # who lives clears up
        at += 1
    assert at > 3
    assert path.read_text() == new
    assert names(tmp_path) == ["a[1].json"]  # the last writer removed what all the killed ones left


def test_what_belongs_together_is_never_described_by_an_older_record(tmp_path):
    table, record = tmp_path / "table", tmp_path / "record"

    def write(what: str) -> None:
        write_together([(table, what.encode()), (record, what)])

    at = 0
    write("old")
    while dies(lambda: write("new"), at):
        assert not record.exists() or record.read_text() == table.read_text()
        write("old")
        at += 1
    assert at > 8
    assert (table.read_text(), record.read_text()) == ("new", "new")
    assert names(tmp_path) == ["record", "table"]


def test_a_full_disk_changes_none_of_what_belongs_together(tmp_path):
    files = [tmp_path / "table", tmp_path / "record"]
    write_together([(p, "old") for p in files])
    at = 0
    while dies(lambda: write_together([(p, "new") for p in files]), at, "full"):
        assert len({p.read_text() for p in files}) == 1
        assert names(tmp_path) == ["record", "table"]
        at += 1
    assert at > 3


def test_a_folder_in_the_place_of_a_file_changes_nothing(tmp_path):
    """Before, the table was renamed first, and stayed without the record that says what it is of."""
    (tmp_path / "record").mkdir()
    with pytest.raises(ValueError, match="record is a folder, and a file of that name is to be written"):
        write_together([(tmp_path / "table", "new"), (tmp_path / "record", "new")])
    assert names(tmp_path) == ["record"]


def test_a_file_in_the_place_of_a_folder_stays(tmp_path):
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(ValueError, match="run is a file, and a folder of that name"), whole_folder(path):
        pytest.fail("nothing must be written")
    assert names(tmp_path) == ["run"]
    assert path.read_text() == "mine"


def test_any_changed_bit_and_any_length_of_unfinished_work_is_seen(tmp_path):
    path, data = tmp_path / "part.json", b'{"value": 0.25}'
    assert read_digested(path) is None
    write_digested(path, data)
    assert read_digested(path) == data
    right = path.read_bytes()
    cut = [right[:n] for n in range(len(right))]
    for damaged in cut + [
        right[: k // 8] + bytes([right[k // 8] ^ 1 << k % 8]) + right[k // 8 + 1 :] for k in range(8 * len(right))
    ]:
        path.write_bytes(damaged)
        assert read_digested(path) is None


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_a_folder_is_whole_or_absent(kind, there, tmp_path):
    folder = tmp_path / "run"

    def write(what: str) -> None:
        with whole_folder(folder) as fresh:
            (fresh / "deep").mkdir()
            (fresh / "deep" / "a").write_text(what)
            (fresh / "b").write_text(what)

    def read() -> set[str]:
        return {(folder / name).read_text() for name in ("deep/a", "b")}

    if there:
        write("old")
    at = 0
    while dies(lambda: write("new"), at, kind):
        assert not folder.exists() or read() in ({"old"}, {"new"})
        assert kind == "kill" or set(names(tmp_path)) <= {"run"}
        at += 1
    assert at > 4
    assert read() == {"new"}
    assert names(tmp_path) == ["run"]


def test_a_folder_that_was_being_replaced_comes_back(tmp_path):
    folder = tmp_path / "run"
    with whole_folder(folder) as fresh:
        (fresh / "a").write_text("old")
    folder.rename(tmp_path / ".run.01234567.old")  # as one that was killed between two renames leaves it
    with whole_folder(folder) as fresh:
        assert (folder / "a").read_text() == "old"
        (fresh / "a").write_text("new")
    assert names(tmp_path) == ["run"]
    assert (folder / "a").read_text() == "new"


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with whole_folder(tmp_path / "run") as fresh:
        (fresh / "a").write_text("one")
        with whole_folder(tmp_path / "run") as other:  # by another way to the same place
            assert fresh.exists()
            (other / "a").write_text("two")
    assert (tmp_path / "run" / "a").read_text() == "one"
    assert names(tmp_path) == ["run"]


def test_one_process_at_a_time_and_none_that_has_died(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    folder = tmp_path / "work"
    ready, ended = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        try:
            with alone_in(folder):
                os.write(ready[1], b"x")
                os.read(ended[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    with (
        pytest.raises(ValueError, match=r"another process is at work in .*work; wait for it, or end it"),
        alone_in(folder),
    ):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with alone_in(folder):
        (folder / "kept").write_text("")
    assert names(folder) == ["kept", "lock"]
    (folder / "kept").unlink()
    with alone_in(folder):
        pass
    assert not folder.exists()


def test_tensors_are_read_as_they_were_written(tmp_path):
    values = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    write_tensors(tmp_path / "deep" / "x.safetensors", {"values": values}, {"a": "b"})
    assert torch.equal(load_file(tmp_path / "deep" / "x.safetensors")["values"], values)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "x"), False),
        (ValueError("no space"), False),
    ],
)
def test_a_full_disk_is_known_in_every_librarys_words(error, full, tmp_path):
    with pytest.raises(OSError if full else type(error)) as caught, naming(tmp_path / "file"):
        raise error
    assert is_full(caught.value) == full
    assert getattr(caught.value, "filename", None) == (str(tmp_path / "file") if full else None)


def test_who_reads_the_old_file_never_sees_a_part_of_the_new_one(tmp_path):
    """The new file takes the name; it is not written into the old one."""
    path = tmp_path / "result.json"
    write_whole(path, "old")
    with path.open(encoding="utf-8") as reader:
        write_whole(path, "new, and longer")
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new, and longer"


def test_a_lock_that_another_has_taken_since_is_left_alone(tmp_path):
    folder = tmp_path / "work"
    with alone_in(folder):
        (folder / writing.LOCK).unlink()  # somebody cleaned up
        (folder / writing.LOCK).touch()  # and another began
    assert (folder / writing.LOCK).exists()


WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
import interp.views
from interp.support.writing import alone_in, whole_folder, write_whole
folder = Path(sys.argv[1])
write_whole(folder / "file", "text")
with whole_folder(folder / "folder") as fresh:
    (fresh / "a").write_text("a")
with alone_in(folder / "work"):
    pass
"""


def test_files_are_written_where_there_is_no_fcntl(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["file", "folder"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def refused(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(writing.os, "open", refused)
    with pytest.raises(PermissionError) as caught:
        write_whole(tmp_path / "x.html", "x")
    assert caught.value.filename == str(tmp_path / "x.html")
