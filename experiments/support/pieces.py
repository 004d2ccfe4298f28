"""Measure a battery's pieces of work in several processes, with one thread each.

This process measures too. Evidence is stored in the work folder, as one process stores it, so a battery that is
interrupted goes on after the pieces that are done, with any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from experiments.support.jobs import Job, Processes
from experiments.support.sharing import share_out

if TYPE_CHECKING:
    from interp.models import Run
    from probes.arms.inputs import ArmInputs
    from probes.arms.m09_subspaces import Searches
    from probes.batteries import Piece, Prepare

# Arms whose pieces share costly work, which one process does once. At a length: the search for idle heads, and the
# trials with their full effect. At all lengths: M9's searches, and the import of scikit-learn by M8.
ONE_LENGTH = ({"M6", "shares"}, {"M1", "M2", "M3", "M4", "M5"})
ALL_LENGTHS = ({"M8"}, {"M9"})
# The longest piece of a length: it is begun early, so that no process works on it alone at the end.
LONGEST = "presence"
# Parameters from which on a model's matrix products are large enough for several threads of one process. All copies of
# such a model, one per process, have at most `MOST` parameters together: 4 GB in float32.
LARGE, MOST = 100_000_000, 1_000_000_000


class Source(Protocol):
    """Says what a run is loaded from, in any process; equal ones are loaded once."""

    def load(self) -> Run:
        """Load the run."""
        ...


@dataclass(frozen=True)
class RunOptions:
    """What a run is loaded from, in any process: arguments of `load_posed`."""

    name: str
    format: str | None = None
    task: str | None = None
    longest: int | None = None
    device: str = "auto"
    dtype: str | None = None

    def load(self) -> Run:
        """Load the run, as `widened`."""
        from experiments.support.loading import load_posed, widened

        run = load_posed(
            self.name, self.format, task=self.task, longest=self.longest, device=self.device, dtype=self.dtype
        )
        return widened(run, self.dtype)


def are_small(runs: Sequence[Run]) -> bool:
    """Return whether the runs' operators are too short for several threads of one process."""
    return all(run.raw.device.type == "cpu" and sum(p.numel() for p in run.raw.parameters()) < LARGE for run in runs)


def usual_workers(runs: Sequence[Run]) -> int:
    """Return how many processes measure by default: one per thread of torch, or fewer where copies would be too large.

    One on a GPU.
    """
    import torch

    return torch.get_num_threads() if are_small(runs) else copies_on_cpu(runs)


def copies_on_cpu(runs: Sequence[Run]) -> int:
    """Return how many processes hold large models: one per thread of torch with at most `MOST` parameters in all.

    At least one, and one on a GPU.
    """
    import torch

    if any(run.raw.device.type != "cpu" for run in runs):
        return 1
    size = sum(p.numel() for run in runs for p in run.raw.parameters())
    return max(1, min(torch.get_num_threads(), MOST // size))


@contextmanager
def importing(workers: int | None) -> Iterator[Processes | None]:
    """Yield processes for `helpers` that import libraries while this one loads the runs, or None for one worker.

    `workers`: None is one per thread that torch will have. Processes that `helpers` did not take end with the block.
    """
    count = _threads() if workers is None else workers
    if count < 2:
        yield None
        return
    executor = Processes(count - 1)
    try:
        for _ in range(executor.workers):
            executor.submit(Job("import", _import, ()))
        yield executor
    finally:
        executor.stop(at_once=True)


@contextmanager
def helpers(
    workers: int, sources: Sequence[Source], one_thread: bool = True, begun: Processes | None = None
) -> Iterator[Processes | None]:
    """Yield `workers` - 1 processes that load the runs at once, or None without any.

    Each process has one thread: DAS amplifies rounding, which the number of threads changes. This one has it from the
    start, or with `one_thread=False` from where work is shared out. `begun`: processes of `importing`, used if they are
    as many.
    """
    import torch

    threads = torch.get_num_threads()
    if one_thread:
        torch.set_num_threads(1)
    if begun is not None and begun.workers != workers - 1:
        begun.stop(at_once=True)
        begun = None
    executor, whole = begun or (Processes(workers - 1) if workers > 1 else None), False
    try:
        if executor is not None:
            for _ in range(executor.workers):
                executor.submit(Job("load", _load_all, (tuple(sources),)))
        yield executor
        whole = True
    finally:
        if executor is not None:
            executor.stop(at_once=not whole)
        torch.set_num_threads(threads)


def measured_by(executor: Processes | None, source: RunOptions, work: Path, step: Callable[[str], object]) -> Prepare:
    """Return the `prepare` of a battery whose evidence is kept in a work folder: this process and others measure it.

    A piece that fails in another process, or whose process dies, is left to this one, which meets the same error.
    """
    if executor is None:
        return lambda pieces: ()
    return partial(_measure_all, executor, source, work, step)


def _measure_all(
    executor: Processes, source: RunOptions, work: Path, step: Callable[[str], object], pieces: Sequence[Piece]
) -> set[str]:
    from experiments.support.results import resume_arms
    from interp.support.budget import allowed

    recall, memory, done = resume_arms(work), allowed(), set[str]()

    def begin(job: Sequence[Piece]) -> None:
        for piece in job:
            step(f"length {piece.inputs.length}: {piece.title}")

    def here(job: Sequence[Piece]) -> None:
        for piece in job:  # an error is left to the battery, which measures it again and says what it means
            recall(piece.name, piece.measure)
            done.add(piece.name)

    def there(job: Sequence[Piece]) -> None:
        named = [(piece.inputs.length, tuple(row.code for row in piece.rows)) for piece in job]
        settings = (job[0].inputs.seed, job[0].inputs.prompts)
        executor.result(executor.submit(Job("", _measure_there, (source, named, settings, work, memory))))
        done.update(piece.name for piece in job)

    share_out(executor, _jobs(pieces), begin, here, there)
    return done


def _jobs(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return the pieces in groups that share costly work.

    Groups of all lengths and the longest pieces are first, then those of the longest prompts.
    """
    groups: dict[int | tuple | str, list[Piece]] = {}
    for piece in sorted(pieces, key=lambda piece: (piece.rows[0].code != LONGEST, -piece.inputs.plain.n_pos)):
        codes, length = {row.code for row in piece.rows}, piece.inputs.length
        everywhere = [number for number, group in enumerate(ALL_LENGTHS) if codes & group]
        here = [(length, number) for number, group in enumerate(ONE_LENGTH) if codes & group]
        groups.setdefault((*everywhere, *here, piece.name)[0], []).append(piece)
    return [groups[key] for key in sorted(groups, key=lambda key: not isinstance(key, int))]


def _measure_there(
    source: RunOptions,
    named: Sequence[tuple[int, Sequence[str]]],
    settings: tuple[int, int],
    work: Path,
    memory: int,
) -> None:
    """Measure and store pieces of work (lengths and codes of arms) in a worker process; settings: seed and prompts."""
    from experiments.support.results import resume_arms
    from interp.support.budget import within
    from probes.arms.registry import ARMS
    from probes.batteries import Piece

    recall = resume_arms(work)
    with within(memory):
        for length, codes in named:
            piece = Piece(tuple(ARMS[code] for code in codes), _inputs(source, length, *settings))
            recall(piece.name, piece.measure)


@cache
def _inputs(source: RunOptions, length: int, seed: int, prompts: int) -> ArmInputs:
    from probes.batteries import inputs_of

    run, searches = _run(source)
    return inputs_of(run, length, seed, prompts, searches)


def loaded(source: Source) -> Run:
    """Return a run that this process has loaded, or load it."""
    return _run(source)[0]


@cache
def _run(source: Source) -> tuple[Run, Searches]:
    return source.load(), {}


def _threads() -> int:
    """Return how many threads torch will have, without its import."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))  # Linux only
    return int(stated) if stated.isdecimal() else len(affinity(0))


def _import() -> None:
    """Import what measuring needs in a worker process, before the runs are known.

    scikit-learn is for M8, a worker's first piece, and is imported while the main process measures competence.
    """
    import sklearn.linear_model  # noqa: F401

    import probes.batteries  # noqa: F401
    from experiments.support.provenance import silence_worker

    silence_worker()


def _load_all(sources: Sequence[Source]) -> None:
    """Load the runs in a worker process, before there is work."""
    import probes.batteries  # noqa: F401
    from experiments.support.provenance import silence_worker

    silence_worker()
    for source in sources:
        _run(source)
