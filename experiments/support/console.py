"""Printing: lines, tables and errors in which text from files cannot control the terminal."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from logging import getLogger

from interp.models.no_task import NoTask
from interp.support.printable import visible
from interp.support.writing import is_full

# Width of a table that is not printed on a terminal, in columns.
FILE_COLUMNS = 200
# What torch and the operating system say when memory runs out, where it is no `MemoryError`.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def say(text: object) -> None:
    """Print one line on standard output."""
    print(visible(str(text)))


def warn(text: object) -> None:
    """Print one line on standard error."""
    print(visible(str(text)), file=sys.stderr)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output; 200 columns wide where that is not a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # text is not read as markup

    table = Table()
    for k, column in enumerate(columns):
        table.add_column(Text(visible(column)), justify="left" if k == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_COLUMNS)
    console.print(Text(visible(title)))
    console.print(table)


def one_line(error: BaseException) -> str:
    """Return an error's message as one printable line; a table of tokens is left out."""
    if is_full(error):
        target = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
        text = f"no space left on the disk{target}; free some and run the same command again"
    elif is_out_of_memory(error):
        text = "out of memory; use fewer --prompts, a shorter length, or a smaller --memory, and run the command again"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif isinstance(error, NoTask):
        text = f"{error.why}: name a format, such as --format parity-aligned"
    else:
        text = " ".join(_without_table(str(error)).split())
    return visible(text)


def _without_table(text: str) -> str:
    """Return a message without the table of tokens that follows its first line, as messages of the library have it."""
    lines = text.splitlines()
    has_table = len(lines) > 2 and "|" in lines[1] and "|" in lines[-1]
    return lines[0] if has_table else text


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the host or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def silence_libraries() -> None:
    """Silence progress bars and advice of the libraries below, without their import; their errors come through.

    A warning is printed as one line, without the place in the code that gave it.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.formatwarning = lambda message, *_, **__: f"{visible(' '.join(str(message).split()))}\n"
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    else:
        os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    getLogger("huggingface_hub").setLevel("ERROR")  # one line for a name that cannot be fetched, not a retry log
