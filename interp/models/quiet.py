"""Silence the progress bars and advice of the libraries that load models."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging import getLogger
from threading import RLock

from huggingface_hub import utils as hub
from transformers.utils import logging

STANDARD_ERROR = 2
# File descriptors belong to the process: two threads that redirect one at a time would put back each other's.
_REDIRECTED = RLock()


@contextmanager
def silent_if_it_fails() -> Iterator[None]:
    """Drop what the block writes to standard error if it raises; otherwise it is written when the block ends.

    The tokenizers library prints the backtrace of a panic there before Python sees an exception. The redirection is
    that of the process, so what other threads write waits too.
    """
    with _REDIRECTED, ExitStack() as stack:
        try:
            sys.stderr.flush()
            kept, real = stack.enter_context(tempfile.TemporaryFile()), os.dup(STANDARD_ERROR)
        except (AttributeError, OSError, ValueError):  # there is no standard error, or no room for a file
            yield
            return
        try:
            os.dup2(kept.fileno(), STANDARD_ERROR)
            yield
        except BaseException:
            kept.truncate(0)
            raise
        finally:
            os.dup2(real, STANDARD_ERROR)
            os.close(real)
            kept.seek(0)
            if text := kept.read():
                os.write(STANDARD_ERROR, text)


@contextmanager
def quietly() -> Iterator[None]:
    """Inside the block, transformers and the hub's client print errors only; their settings come back at the end.

    Downloads keep their progress bars on a terminal.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    client = getLogger("huggingface_hub")
    level, no_downloads = client.level, hub.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    client.setLevel("ERROR")
    if not sys.stderr.isatty() and not no_downloads:
        hub.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        client.setLevel(level)
        if bars:
            logging.enable_progress_bar()
        if not sys.stderr.isatty() and not no_downloads:
            hub.enable_progress_bars()
