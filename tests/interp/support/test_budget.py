"""The budget is one number inside a block, and follows from free memory outside."""

from pathlib import Path

import pytest
import torch

from interp.models.anatomy import anatomy_of
from interp.patching import logit_diff, plan
from interp.patching.editing import chunks
from interp.support import budget
from interp.support.budget import DEFAULT, ENOUGH, RECENT, SHARE, allowed, numbers, within
from interp.tasks import sample
from interp.tasks.counterfactual import redraw
from tests.interp.patching.models import tiny


@pytest.fixture(autouse=True)
def plenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 GiB available, whatever else runs on this one."""
    meminfo(tmp_path, monkeypatch, 2**36)
    monkeypatch.setattr(budget, "_PLENTY", budget._Plenty())


def meminfo(folder: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    path = folder / "meminfo"
    path.write_text(f"MemTotal: 99 kB\nMemAvailable: {n_bytes // 1024} kB\n")
    monkeypatch.setattr(budget, "_MEMINFO", path)
    monkeypatch.setattr(budget, "_GROUP", folder)


def test_the_default_is_a_share_of_free_memory_and_on_a_cpu_at_most_a_gib(tmp_path, monkeypatch):
    assert allowed() == allowed(torch.device("cpu")) == DEFAULT
    monkeypatch.setattr(budget, "RECENT", 0)
    meminfo(tmp_path, monkeypatch, 2**28)
    assert allowed() == SHARE * 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert allowed() == SHARE * 2**28
    for name, text in (("max", str(2**27)), ("current", str(2**26)), ("stat", f"file 9\ninactive_file {2**25}")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert allowed() == SHARE * (2**27 - 2**26 + 2**25)
    monkeypatch.setattr(budget, "_MEMINFO", tmp_path / "absent")
    assert allowed() == DEFAULT
    monkeypatch.setattr(budget, "free_memory", lambda device=None: 2**36)
    assert allowed(torch.device("cuda")) == SHARE * 2**36
    with within(4096):
        assert allowed(torch.device("cuda")) == 4096


def test_plenty_of_memory_is_not_read_again_at_once(tmp_path, monkeypatch):
    now, reads, read = [100.0], [0], budget._available
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(budget, "_available", lambda: reads.append(1) or read())
    plenty = int(ENOUGH * DEFAULT / SHARE)
    for n_bytes, seconds, again in (
        (plenty, 0.0, True),  # the first reading
        (plenty, 0.9 * RECENT, False),
        (2**28, 0.9 * RECENT, True),  # since the reading, not since the last question
        (2**28, 0.1 * RECENT, True),  # little is read each time
        (plenty - 2**20, 0.1 * RECENT, True),
        (2**28, 0.1 * RECENT, True),
    ):
        now[0] += seconds
        meminfo(tmp_path, monkeypatch, n_bytes)
        before = len(reads)
        assert allowed() == (min(DEFAULT, SHARE * n_bytes) if again else DEFAULT)
        assert len(reads) - before == again
    meminfo(tmp_path, monkeypatch, plenty)
    assert allowed() == DEFAULT
    monkeypatch.setattr(budget, "free_memory", lambda device=None: 2**36)
    assert allowed(torch.device("cuda")) == SHARE * 2**36  # another device's memory is read


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_tells_its_free_memory():
    device = torch.device("cuda")
    free, total = torch.cuda.mem_get_info(device)
    assert 0 < allowed(device) <= SHARE * total
    assert (budget.free_memory(device) or 0) >= free


def test_a_block_has_its_budget_and_gives_it_back():
    assert allowed() == DEFAULT
    with within(4096):
        assert (allowed(), numbers(1), numbers(1 / 4)) == (4096, 1024, 256)
        with within(8):
            assert allowed() == 8
        assert allowed() == 4096
        with pytest.raises(RuntimeError), within(16):
            raise RuntimeError
        assert allowed() == 4096
    assert allowed() == DEFAULT
    with pytest.raises(ValueError, match="at least 1 byte; got 0"), within(0):
        pass
    for wrong in (True, 1.5, "4096"):
        with pytest.raises(ValueError, match=f"whole number of bytes; got {wrong!r}"), within(wrong):  # type: ignore[arg-type]
            pass


def test_passes_keep_to_it():
    anatomy, batch = anatomy_of(tiny("rotary")), sample("parity-aligned", 32, 4, seed=0)
    metric = logit_diff(batch)
    sizes = {}
    for n_bytes in (2**20, 2**22, DEFAULT):
        with within(n_bytes):
            sizes[n_bytes] = max(len(rows) for rows in chunks(anatomy, batch, metric, copies=2))
            assert plan(anatomy.raw, batch, redraw(batch, 1), "resid_pre", metric).memory == n_bytes
    assert sizes[2**20] < sizes[2**22] <= sizes[DEFAULT] == 32
    with within(1):  # one prompt at a time is the least
        assert {len(rows) for rows in chunks(anatomy, batch, metric, copies=2)} == {1}
