"""Build and execute the notebooks: `python -m experiments.notebooks`; `--check` lists those that are out of date."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.notebooks.building import MOST_BYTES, NAMES, execute, notebook_of, stale, text_of


@dataclass(frozen=True)
class Notebooks:
    """Build each notebook from its percent script and execute it. One to three minutes each on two cores."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = NAMES
    """Names of notebooks. Default: all."""
    check: bool = False
    """Build nothing; exit with status 1 if a notebook differs from its script. Default: build."""

    def run(self) -> int:
        """Write each notebook, or list those that are out of date."""
        if unknown := sorted(set(self.names) - set(NAMES)):
            raise ValueError(f"unknown notebooks {', '.join(unknown)}; notebooks are {', '.join(NAMES)}")
        if self.check:
            problems = list(filter(None, map(stale, self.names)))
            print("\n".join(problems) or "all notebooks match their scripts")
            return 1 if problems else 0
        from interp.support.writing import write_whole

        for name in self.names:
            text = text_of(execute(name))
            if len(text.encode()) >= MOST_BYTES:
                raise ValueError(f"{name} has {len(text.encode())} bytes; the limit is {MOST_BYTES}")
            write_whole(notebook_of(name), text)
            print(f"{notebook_of(name).name}: {len(text.encode()) // 1024} KB")
        return 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(Notebooks).run())
    except ValueError as error:
        sys.exit(str(error))
