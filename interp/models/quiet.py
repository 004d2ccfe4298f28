"""Silence the progress bars and advice of the libraries that load models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger

from huggingface_hub import utils as hub
from transformers.utils import logging


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
