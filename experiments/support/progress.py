"""How far has a verb come? A bar on a terminal, a line now and then in a file, nothing in a worker."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

# A job that is over sooner says nothing in a file; one that takes hours says a line a minute.
SECONDS_A_LINE = 60.0


def progress_bar(
    items: Iterable | None = None,
    desc: str = "",
    total: int | None = None,
    initial: int = 0,
    unit: str = "",
    shown: bool = True,
) -> Any:
    """Something like tqdm, on standard error: `tqdm` itself on a terminal, else `Lines`."""
    from tqdm import tqdm

    if not shown or os.environ.get("TQDM_DISABLE"):
        return tqdm(items, disable=True)
    if sys.stderr.isatty():
        return tqdm(items, desc=desc or None, total=total, initial=initial, unit=unit or "it", file=sys.stderr)
    return Lines(items, desc, total, initial, unit)


class Lines:
    """The part of tqdm that the verbs use, as whole lines: at an update, once a minute has passed since the last."""

    def __init__(self, items: Iterable | None, desc: str, total: int | None, initial: int, unit: str) -> None:
        self.items, self.desc, self.unit = items, desc, unit
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self.n = self.initial = initial
        self.postfix = ""
        self.began = self.said = time.monotonic()

    def __iter__(self) -> Iterator:
        for item in self.items or ():
            yield item
            self.update()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.n += n
        now = time.monotonic()
        if now - self.said >= SECONDS_A_LINE:
            self.said = now
            print(self.line(now - self.began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """What is said after so many seconds.

        >>> bar = Lines(None, "sweep", total=8, initial=2, unit="stage"); bar.n = 4
        >>> bar.line(120)
        'sweep: 4 of 8 stages, 02:00 gone, about 04:00 left'
        """
        from tqdm import tqdm

        what = f"{self.n} of {self.total}" if self.total else f"{self.n}"
        units = f" {self.unit}s" if self.unit else ""
        parts = [f"{what}{units}", f"{tqdm.format_interval(seconds)} gone"]
        if self.total and self.n > self.initial:
            left = seconds * (self.total - self.n) / (self.n - self.initial)
            parts.append(f"about {tqdm.format_interval(left)} left")
        if self.postfix:
            parts.append(self.postfix)
        return f"{self.desc}: {', '.join(parts)}" if self.desc else ", ".join(parts)

    def set_description(self, desc: str) -> None:
        """What is being done, or was done last."""
        self.desc = desc

    def set_postfix(self, values: dict[str, str]) -> None:
        """What else to say."""
        self.postfix = " ".join(f"{key} {value}" for key, value in values.items())

    def close(self) -> None:
        """Nothing is left open."""
