"""`python -m experiments.notebooks`: builds and executes the notebooks; `--check` says which are not their source's."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.notebooks.building import MOST_BYTES, NAMES, execute, notebook_of, stale, text_of


@dataclass(frozen=True)
class Notebooks:
    """Builds each notebook from its percent script and executes it, in about a minute each on two cores."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = NAMES
    """Some of the notebooks; default all."""
    check: bool = False
    """Build nothing; status 1 where a notebook's text or code is not its source's."""

    def run(self) -> int:
        """Writes each notebook, or says what is stale."""
        if unknown := sorted(set(self.names) - set(NAMES)):
            raise ValueError(f"unknown notebooks {', '.join(unknown)}; notebooks are {', '.join(NAMES)}")
        if self.check:
            found = list(filter(None, map(stale, self.names)))
            print("\n".join(found) or "every notebook is its source's")
            return 1 if found else 0
        from interp.support.writing import write_whole

        for name in self.names:
            text = text_of(execute(name))
            if len(text.encode()) >= MOST_BYTES:
                raise ValueError(f"{name} would take {len(text.encode())} bytes; at most {MOST_BYTES} are readable")
            write_whole(notebook_of(name), text)
            print(f"{notebook_of(name).name}: {len(text.encode()) // 1024} KB")
        return 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(Notebooks).run())
    except ValueError as error:
        sys.exit(str(error))
