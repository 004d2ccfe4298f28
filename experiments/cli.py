"""The executable `mnemoscope`: one verb a file. Heavy libraries are imported inside the verbs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import getLogger
from typing import Annotated

import tyro

from experiments.commands.bench import BenchCommand
from experiments.commands.calibrate import CalibrateCommand
from experiments.commands.circuit import CircuitCommand
from experiments.commands.evaluate import EvaluateCommand
from experiments.commands.figures import FiguresCommand
from experiments.commands.patch import PatchCommand
from experiments.commands.report import ReportCommand
from experiments.commands.sweep import SweepCommand
from experiments.commands.train import TrainCommand
from experiments.commands.verdict import VerdictCommand
from experiments.support.provenance import saying_versions
from interp.support.budget import within
from interp.support.writing import is_full

Verb = (
    Annotated[TrainCommand, tyro.conf.subcommand("train")]
    | Annotated[EvaluateCommand, tyro.conf.subcommand("evaluate")]
    | Annotated[PatchCommand, tyro.conf.subcommand("patch")]
    | Annotated[BenchCommand, tyro.conf.subcommand("bench")]
    | Annotated[VerdictCommand, tyro.conf.subcommand("verdict")]
    | Annotated[CircuitCommand, tyro.conf.subcommand("circuit")]
    | Annotated[ReportCommand, tyro.conf.subcommand("report")]
    | Annotated[CalibrateCommand, tyro.conf.subcommand("calibrate")]
    | Annotated[SweepCommand, tyro.conf.subcommand("sweep")]
    | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
)

# What a shell says of a process that wrote to a reader that had gone: 128 and SIGPIPE's number.
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit status. Bad input is one line on standard error and status 2.

    A reader of standard output that has gone (`| head -1`) ends it without a word, with a shell's status for that, 141.
    """
    try:
        return _status(argv)
    except BrokenPipeError:
        _let_go()
        return READER_GONE
    except OSError as error:  # help was asked for, into a disk that is full
        print(f"mnemoscope: {one_line(error)}", file=sys.stderr)
        _let_go()
        return 2
    except SystemExit as ended:  # help was shown, or options are wrong; and what rich makes of a reader that has gone
        gone = isinstance(ended.__context__, BrokenPipeError)
        if _let_go() or gone:
            return READER_GONE
        raise


def _status(argv: Sequence[str] | None) -> int:
    verb = tyro.cli(
        Verb,  # type: ignore[arg-type]
        prog="mnemoscope",
        description="What does a mnemonic token do inside a transformer?",
        args=_bare_json(sys.argv[1:] if argv is None else argv),
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    try:
        quiet()
        with passes_within(verb), saying_versions():
            status = verb.run()
        sys.stdout.flush()  # a disk that is full says so here, not as Python ends
        return status
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        print(f"mnemoscope {type(verb).__name__.removesuffix('Command').lower()}: {one_line(error)}", file=sys.stderr)
        _let_go()
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is on disk", file=sys.stderr)
        return 130


def _let_go() -> bool:
    """Forgets what standard output cannot take, or Python would complain of it at its end; whether there was such."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


@contextmanager
def passes_within(verb: object) -> Iterator[None]:
    """Inside the block, passes through a model take the memory that a verb's --memory says; those without it, a GiB."""
    memory = getattr(verb, "memory", None)
    if memory is None:
        yield
        return
    if memory < 1:
        raise ValueError(f"--memory must be at least 1; got {memory}")
    with within(memory * 2**20):
        yield


def _bare_json(argv: Sequence[str]) -> list[str]:
    """`verdict RUN --json` without a file means standard output, as `--json` does for the other verbs."""
    args = list(argv)
    if args[:1] == ["verdict"]:
        for k in reversed([k for k, a in enumerate(args) if a == "--json"]):
            if k + 1 == len(args) or args[k + 1].startswith("--"):
                args.insert(k + 1, "-")
    return args


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    if is_full(error):
        what = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"no space left on the disk{what}; free some and run the same command again"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


def quiet() -> None:
    """Silences the progress bars and advice of the libraries below; errors still come through."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    getLogger("huggingface_hub").setLevel("ERROR")  # a name that cannot be had is one line, not a retry log


if __name__ == "__main__":
    sys.exit(main())
