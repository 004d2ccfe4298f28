"""Measure the pieces of a verdict on a list in several processes, with one thread each.

A large model's matrix products are as fast in several processes as in several threads of one, and what is between them
is not. This process measures too. Pieces are kept in the work folder, as one process keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.jobs import Job, Processes
from experiments.support.kept_groups import KeptGroups
from experiments.support.own_lists import ListTask
from experiments.support.pieces import are_small, copies_on_cpu, helpers, loaded
from experiments.support.sharing import share_out

if TYPE_CHECKING:
    from experiments.commands.report import ReportCommand
    from experiments.commands.verdict import VerdictCommand
    from interp.models import Run
    from probes.binding import Trial
    from probes.binding.pieces import Piece, Prepare


@dataclass(frozen=True)
class ListSource:
    """What a verdict on a list is measured on, in any process: what is loaded, and arguments of `trials_of`."""

    name: str
    task: ListTask
    items: int
    prompts: int
    seed: int
    fillers: int = 0
    format: str | None = None
    device: str = "auto"
    dtype: str | None = None

    @classmethod
    def of(cls, name: str, task: ListTask, prompts: int, options: VerdictCommand | ReportCommand) -> ListSource:
        """Return what the options of a command ask for."""
        given = (options.fillers, options.format, options.device, options.dtype)
        return cls(name, task, options.items, prompts, options.seed, *given)

    def load(self) -> Run:
        """Load the run; on a CPU in float32, whatever the dtype of its weights, unless one is given.

        Recall is posed in `format`, by default recall-ordered.
        """
        from experiments import load
        from experiments.support.loading import complete_format, widened

        if self.task == "recall":
            posed = complete_format(self.format or "recall-ordered", "recall", self.name)
            run = load(self.name, posed, longest=self.items, device=self.device, dtype=self.dtype)
        else:
            run = load(self.name, device=self.device, dtype=self.dtype)
        return widened(run, self.dtype)

    def trials(self, run: Run) -> list[Trial]:
        """Return the trials, of at least as many prompts as the gate of competence needs."""
        from probes.batteries import GATE
        from probes.binding import trials_of

        return trials_of(run, self.task, self.items, max(self.prompts, GATE), self.seed, self.fillers)


def usual_list_workers(run: Run) -> int:
    """Return how many processes measure by default: one, but for a large model on a CPU those of `copies_on_cpu`."""
    return 1 if are_small([run]) else copies_on_cpu([run])


@dataclass(frozen=True, eq=False)
class ListWork:
    """The work of one verdict: the run and its trials, how many prompts the arms get, and where pieces are kept.

    `step` is called with the title of each piece that has one, as it begins.
    """

    run: Run
    source: ListSource
    trials: Sequence[Trial]
    prompts: int
    folder: Path
    step: Callable[[str], None]

    @contextmanager
    def shared(self, workers: int | None = None) -> Iterator[Prepare]:
        """Yield the `prepare` of `measure_binding`; `workers`: processes, this one among them (None: the usual number).

        A piece that fails in another process, or whose process dies, is left to this one, which measures it again.
        """
        count = usual_list_workers(self.run) if workers is None else workers
        with helpers(count, [self.source], one_thread=False) as executor:
            yield (lambda _: ()) if executor is None else partial(self._measure_all, executor)

    def _measure_all(self, executor: Processes, pieces: Sequence[Piece]) -> set[str]:
        from interp.support.budget import allowed
        from probes.binding.pieces import arranged

        asked, used = arranged(self.trials, self.prompts)
        kept, memory, done = KeptGroups(self.folder), allowed(), set[str]()

        def begin(piece: Piece) -> None:
            if piece.title:
                self.step(piece.title)

        def here(piece: Piece) -> None:
            kept(piece.name, partial(piece.measure, self.run, asked, used))
            done.add(piece.name)

        def there(piece: Piece) -> None:
            given = (self.source, piece, self.prompts, self.folder, memory)
            executor.result(executor.submit(Job("", _measure_there, given)))
            done.add(piece.name)

        missing = [piece for piece in pieces if not kept.path(piece.name).exists()]
        share_out(executor, sorted(missing, key=lambda piece: -piece.tokens(asked, used)), begin, here, there)
        return done


def _measure_there(source: ListSource, piece: Piece, prompts: int, work: Path, memory: int) -> None:
    """Measure and keep a piece in a worker process."""
    from interp.support.budget import within
    from probes.binding.pieces import arranged

    run, trials = _posed(source)
    with within(memory):
        KeptGroups(work)(piece.name, partial(piece.measure, run, *arranged(trials, prompts)))


@cache
def _posed(source: ListSource) -> tuple[Run, list[Trial]]:
    run = loaded(source)
    return run, source.trials(run)
