"""Progress of a verb: a sentence with a bar on a terminal, a line per minute in a file, nothing in a worker.

Both go on while a part takes long and nothing is counted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

from interp.support.printable import visible

# A shorter job prints nothing into a file; a job of hours prints a line per minute.
SECONDS_PER_LINE = 60.0
# How often a line is due is looked at while nothing is counted.
SECONDS_PER_LOOK = 10.0


def progress_bar(
    items: Iterable | None = None,
    desc: str = "",
    total: int | None = None,
    initial: int = 0,
    unit: str = "",
    shown: bool = True,
    seconds: float = SECONDS_PER_LINE,
) -> Any:
    """Return an object with tqdm's interface that reports on standard error: a bar on a terminal, else `Lines`.

    A terminal reads for example "length 20: M5 history, 3 of 7 steps |####------| 00:10 elapsed, 00:14 left". A file
    gets a line when the last one is `seconds` old. Inside `with`, time also passes while nothing is counted.
    """
    from tqdm import tqdm

    if not shown or os.environ.get("TQDM_DISABLE"):
        return tqdm(items, disable=True)
    if not sys.stderr.isatty():
        return Lines(items, desc, total, initial, unit, seconds)

    class Sentence(tqdm):
        def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
            self.set_description_str(f"{visible(desc)}, " if desc else "", refresh)

        beats = ExitStack()  # empty until it is used in `with`

        def __enter__(self) -> Sentence:
            self.beats = ExitStack()
            self.beats.enter_context(called_every(1.0, self.refresh))
            return super().__enter__()

        def close(self) -> None:
            self.beats.close()
            super().close()

    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    units = " {unit}s" if unit else ""
    counted = "{n_fmt} of {total_fmt}" + units + " |{bar:10}| {elapsed} elapsed, {remaining} left"
    uncounted = "{n_fmt}" + units + ", {elapsed} elapsed"
    return Sentence(
        items,
        desc=f"{visible(desc)}, " if desc else None,
        total=total,
        initial=initial,
        unit=unit,
        bar_format="{desc}" + (uncounted if total is None else counted) + "{postfix}",
        file=sys.stderr,
    )


class Lines:
    """The part of tqdm's interface that the verbs use. A line is printed when the last one is `seconds` old."""

    def __init__(
        self,
        items: Iterable | None,
        desc: str,
        total: int | None,
        initial: int,
        unit: str,
        seconds: float = SECONDS_PER_LINE,
    ) -> None:
        self.items, self.desc, self.unit, self.seconds = items, desc, unit, seconds
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self.n = self.initial = initial
        self.postfix = ""
        self.beats = ExitStack()
        self.began = self.printed = time.monotonic()

    def __iter__(self) -> Iterator:
        with self:
            for item in self.items or ():
                yield item
                self.update()

    def __enter__(self) -> Lines:
        self.beats.enter_context(called_every(SECONDS_PER_LOOK, self.say_if_due))
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count `n` more as done."""
        self.n += n
        self.say_if_due()

    def say_if_due(self) -> None:
        """Print a line if the last one is `seconds` old."""
        now = time.monotonic()
        if now - self.printed >= self.seconds:
            self.printed = now
            print(visible(self.line(now - self.began)), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """Return the line that is printed after so many seconds.

        >>> bar = Lines(None, "sweep", total=8, initial=2, unit="stage"); bar.n = 4
        >>> bar.line(120)
        'sweep: 4 of 8 stages, 02:00 elapsed, about 04:00 left'
        """
        from tqdm import tqdm

        count = f"{self.n} of {self.total}" if self.total else f"{self.n}"
        units = f" {self.unit}s" if self.unit else ""
        parts = [f"{count}{units}", f"{tqdm.format_interval(seconds)} elapsed"]
        if self.total and self.n > self.initial:
            left = seconds * (self.total - self.n) / (self.n - self.initial)
            parts.append(f"about {tqdm.format_interval(left)} left")
        if self.postfix:
            parts.append(self.postfix)
        return f"{self.desc}: {', '.join(parts)}" if self.desc else ", ".join(parts)

    def set_description(self, desc: str) -> None:
        """Set what is being done."""
        self.desc = desc

    def set_postfix(self, values: dict[str, str]) -> None:
        """Set values to print after the count."""
        self.postfix = " ".join(f"{key} {value}" for key, value in values.items())

    def close(self) -> None:
        """Print no more lines."""
        self.beats.close()


@contextmanager
def called_every(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call a function from another thread whenever so many seconds have passed, until the block ends."""
    over = Event()

    def beat() -> None:
        while not over.wait(seconds):
            function()

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
