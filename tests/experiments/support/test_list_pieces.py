"""How many processes measure a list, and what becomes of what one of them could not measure."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.support.list_pieces import ListWork, usual_list_workers
from experiments.support.pieces import LARGE, MOST, usual_workers
from experiments.support.sharing import share_out
from probes.binding.pieces import Piece


def sized(parameters: int, device: str = "cpu") -> Any:
    """Return what stands for a run with so many parameters."""
    weights = [torch.empty(parameters, device="meta")]
    return SimpleNamespace(raw=SimpleNamespace(device=torch.device(device), parameters=lambda: weights))


def test_a_large_model_on_a_cpu_is_judged_by_a_process_per_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    sizes = (LARGE - 1, LARGE, MOST // 4, MOST // 3, MOST // 2 + 1, 2 * MOST)
    assert [usual_list_workers(sized(n)) for n in sizes] == [1, 4, 4, 3, 1, 1]
    assert usual_list_workers(sized(LARGE, "cuda")) == 1
    assert [usual_workers([sized(n)]) for n in sizes] == [4, 4, 4, 3, 1, 1]
    assert usual_workers([sized(MOST // 4), sized(MOST // 4)]) == 2
    assert usual_workers([sized(1, "cuda")]) == 1


def test_each_job_is_begun_once_and_what_fails_elsewhere_is_left() -> None:
    begun, done = [], []
    processes: Any = SimpleNamespace(workers=2)

    def fails(job: int) -> None:
        raise RuntimeError(job)

    def slowly(job: int) -> None:
        time.sleep(0.01)  # the others take some
        done.append(job)

    with pytest.warns(match=r"\d+ of 20 jobs failed in another process and are done in this one; .* RuntimeError: \d+"):
        share_out(processes, range(20), begun.append, slowly, fails)
    assert sorted(begun) == list(range(20))
    assert set(done) <= set(begun)
    assert done == sorted(done)
    share_out(processes, [], begun.append, done.append, fails)
    assert len(begun) == 20

    def refuses(job: int) -> None:
        raise ValueError(job)

    share_out(processes, range(20), begun.append, slowly, refuses)  # the caller meets it again, and says it
    share_out(processes, range(20), begun.append, refuses, lambda job: time.sleep(0.01))
    assert len(begun) == 60


def test_pieces_that_are_kept_are_not_begun_again(tmp_path: Path) -> None:
    tokens = torch.zeros(2, 3)
    trial: Any = SimpleNamespace(only_deep=False, lookups=SimpleNamespace(prompts=SimpleNamespace(tokens=tokens)))
    trial.distinct = trial.first = lambda *_: trial
    begun, pieces = [], [Piece("arms", 0, "kept"), Piece("more", 0, "new")]
    nothing: Any = SimpleNamespace(workers=0)
    (tmp_path / f"{pieces[0].name}.json").touch()
    ListWork(nothing, nothing, [trial], 2, tmp_path, begun.append)._measure_all(nothing, pieces)
    assert begun == ["new"]
