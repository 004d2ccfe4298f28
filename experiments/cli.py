"""The executable `mnemoscope`: parsing and error handling. Verbs import heavy libraries late."""

from __future__ import annotations

import difflib
import gc
import inspect
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from functools import partial
from typing import Annotated, Any, Union

import tyro

from experiments.support.console import is_out_of_memory, one_line, silence_libraries, warn
from experiments.support.interrupting import interruptible
from experiments.support.option_checks import check_paths
from experiments.support.parse_errors import why_empty, why_left_over, why_not_parsed, why_not_utf8
from experiments.support.provenance import reporting_versions, version_of
from experiments.support.same_name import saying_which
from experiments.verbs import VERBS, command_class
from interp.support.budget import within

PROGRAM = "mnemoscope"
DESCRIPTION = "Classify what labels in prompts do inside a transformer, with checked evidence."
# Exit status of a process whose reader has gone, as shells report it: 128 and SIGPIPE's number.
READER_GONE = 141
SHELLS = ("bash", "zsh", "tcsh")
CONFIG = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status. Bad input is one line on standard error and status 2.

    `argv` is for tests and other programs, whose signal handlers stay; by default the process's own arguments are read.
    A reader of standard output that has gone (`| head -1`) ends it silently, with status 141, as shells do.
    """
    with suppress(AttributeError, ValueError):  # a name that the terminal's encoding lacks must not be an error
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with interruptible() if argv is None else nullcontext():
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except OSError as error:  # help was asked for, into a disk that is full
        warn(f"{PROGRAM}: {one_line(error)}")
        _discard_output()
        return 2
    except KeyboardInterrupt as interrupt:
        warn("interrupted; the same command resumes from what is finished")
        return getattr(interrupt, "status", 130)
    except SystemExit as ended:  # help was shown; and rich's way to say that the reader has gone
        gone = isinstance(ended.__context__, BrokenPipeError)
        if _discard_output() or gone:
            return READER_GONE
        raise
    finally:
        if argv is None:
            gc.freeze()  # the process ends: collecting torch's objects once more would take a second


def _dispatch(args: list[str]) -> int:
    match args:
        case [] | ["-h" | "--help", *_]:
            print(program_help())
            sys.stdout.flush()
            return 0 if args else 2
        case ["--version", *_]:
            print(f"{PROGRAM} {version_of(PROGRAM)}")
            return 0
        case ["completion", *shell]:
            return _print_completion(shell)
        case [name, *rest] if name in VERBS:
            return _run(name, rest)
        case [name, *_]:
            warn(f"{PROGRAM}: {_why_unknown(name)}")
            return 2
    raise AssertionError


def _why_unknown(name: str) -> str:
    """Return that the first argument is no verb and no option of the program, with the nearest one."""
    verbs, options = [*VERBS, "completion"], ["--version", "--help"]
    is_option = name.startswith("-")
    near = difflib.get_close_matches(name[:20], verbs + options, n=1)
    known = f"options are {' and '.join(options)}" if is_option else f"verbs are {', '.join(verbs)}"
    hint = f"did you mean {near[0]}?" if near else known
    return f"unknown {'option' if is_option else 'verb'} {name[:80]!r}; {hint}"


def program_help() -> str:
    """Return the help of the program: one line per verb, within 80 columns and 24 lines."""
    lines = [f"usage: {PROGRAM} VERB [OPTIONS]", "", DESCRIPTION, "", "verbs:"]
    lines += [f"  {name:<12}{verb.summary}" for name, verb in VERBS.items()]
    lines += [f"  {'completion':<12}print a completion script for {', '.join(SHELLS)}", "", "options:"]
    lines += ["  -h, --help  show this help; after a verb, the verb's options", "  --version   show the version"]
    return "\n".join(lines)


def _print_completion(shell: list[str]) -> int:
    if shell in (["-h"], ["--help"]):
        print(f"usage: {PROGRAM} completion {{{','.join(SHELLS)}}}\n")
        print(f'Print a completion script. For bash: eval "$({PROGRAM} completion bash)"')
        return 0
    if len(shell) != 1 or shell[0] not in SHELLS:
        warn(f"{PROGRAM} completion: name one shell: {', '.join(SHELLS)}")
        return 2
    commands = tuple(
        Annotated[command_class(name), tyro.conf.subcommand(name, description=verb.summary)]
        for name, verb in VERBS.items()
    )
    with suppress(SystemExit):  # tyro prints the script and exits
        tyro.cli(Union[commands], prog=PROGRAM, args=["--tyro-print-completion", *shell], config=CONFIG)  # type: ignore  # noqa: UP007
    return 0


def _run(name: str, args: list[str]) -> int:
    """Parse a verb's options and run it."""
    command: Any = command_class(name)
    prefix = f"{PROGRAM} {name}"
    if {"-h", "--help"} & set(args):
        args = ["--help"]  # beside other arguments, tyro's help leaves out those that are given
    args = _bare_json(name, args)
    if args and args[0].startswith(("--tyro-", "--tyro_")):  # tyro's own options, which exit or raise
        warn(f"{prefix}: {why_left_over(command, args, args[:1])}")
        return 2
    if refused := why_not_utf8(command, args):
        warn(f"{prefix}: {refused}")
        return 2
    said = io.StringIO()  # tyro's errors are boxes of many lines
    options: Any = {"description": _description(command), "return_unknown_args": True, "config": CONFIG}
    try:
        with redirect_stderr(said):
            parsed, unknown = tyro.cli(command, prog=prefix, args=args, **options)
    except SystemExit as ended:
        if not ended.code:  # help was shown
            raise
        warn(f"{prefix}: {why_not_parsed(command, args, said.getvalue())}")
        return 2
    if unknown:
        warn(f"{prefix}: {why_left_over(command, args, unknown)}")
        return 2
    if empty := why_empty(command, args):
        warn(f"{prefix}: {empty}")
        return 2
    try:
        check_paths(parsed)
        silence_libraries()
        with _memory_of(parsed), reporting_versions(), saying_which():
            status = parsed.run()
        sys.stdout.flush()  # a full disk fails here, not when Python ends
        return status
    except BrokenPipeError:
        raise
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        from interp.support.exactness import Inexact

        if isinstance(error, RuntimeError) and not (is_out_of_memory(error) or isinstance(error, Inexact)):
            raise
        warn(f"{prefix}: {one_line(error)}")
        _discard_output()
        return 2


def _description(command: type) -> str:
    """Return the docstring of a verb, wrapped to the terminal: tyro wraps options only, and keeps indented lines."""
    columns = shutil.get_terminal_size().columns
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    wrap = partial(textwrap.fill, width=columns, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(map(wrap, paragraphs))


def _discard_output() -> bool:
    """Redirect standard output to nothing where it cannot be written; return whether that was so.

    Python would otherwise complain when it flushes at exit.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


@contextmanager
def _memory_of(command: object) -> Iterator[None]:
    """Inside the block, passes through a model use at most the memory of --memory; without it their own default."""
    memory = getattr(command, "memory", None)
    if memory is None:
        yield
        return
    if memory < 1:
        raise ValueError(f"--memory must be at least 1; got {memory}")
    with within(memory * 2**20):
        yield


def _bare_json(name: str, args: Sequence[str]) -> list[str]:
    """Let `verdict RUN --json` without a file mean standard output, as `--json` does for the other verbs."""
    args = list(args)
    if name == "verdict":
        for k in reversed([k for k, a in enumerate(args) if a == "--json"]):
            if k + 1 == len(args) or args[k + 1].startswith("--"):
                args.insert(k + 1, "-")
    return args


if __name__ == "__main__":
    sys.exit(main())
