"""Write the command reference of experiments/README.md: `python -m experiments.commands.reference [FILE]`.

The text comes from the verbs' own definitions, so it cannot differ from what the command line does.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from experiments.cli import PROGRAM, SHELLS
from experiments.support.options import field_docs, options_of
from experiments.verbs import VERBS, command_class

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- command reference -->", "<!-- end of command reference -->"


def command_reference() -> str:
    """Return the reference of all verbs as Markdown."""
    parts = [f"`{PROGRAM} --help` lists the verbs, `{PROGRAM} VERB --help` the options of one."]
    parts += [verb_reference(name) for name in VERBS]
    shells = ", ".join(SHELLS)
    parts.append(f"### {PROGRAM} completion\n\nPrint a completion script for {shells}; for bash:")
    parts.append(f'```bash\neval "$({PROGRAM} completion bash)"\n```')
    return "\n\n".join(parts) + "\n"


def verb_reference(name: str) -> str:
    """Return the reference of one verb: its description, and a table of its arguments."""
    command = command_class(name)
    description = inspect.cleandoc(command.__doc__ or "")
    paragraphs = ["\n".join(textwrap.wrap(part, 120)) for part in description.split("\n\n")]
    docs, rows = field_docs(command), ["| argument | meaning |", "|---|---|"]
    for option, (field, config) in options_of(command).items():
        help = (config and config.help) or docs.get(field.name, "")
        rows.append(f"| `{usage(command, option, field, config)}` | {cell(help + default(field, config))} |")
    return "\n\n".join([f"### {PROGRAM} {name}", *paragraphs, "\n".join(rows)])


def usage(command: type, option: str, field: dataclasses.Field, config: Any) -> str:
    """Return an argument with the name of its value, such as `--out DIR`."""
    hint = get_type_hints(command)[field.name]
    if not option.startswith("--") or hint is bool:
        return option
    if config is not None and config.metavar:
        return f"{option} {config.metavar}"
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return f"{option} {{{','.join(map(str, choices))}}}" if choices else f"{option} {field.name.upper()}"


def default(field: dataclasses.Field, config: Any) -> str:
    """Return a sentence with an option's default, where its help text does not say it."""
    if field.default is dataclasses.MISSING or (config is not None and config.help_behavior_hint == ""):
        return ""
    return f" Default: {field.default}."


def cell(text: str) -> str:
    """Return text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def with_reference(text: str) -> str:
    """Return a document with the reference between its markers. Raises `ValueError` where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n\n{command_reference()}\n{END}{after}"


if __name__ == "__main__":
    from interp.support.writing import write_whole

    parser = argparse.ArgumentParser(prog="python -m experiments.commands.reference", description=__doc__)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, default=README, help="default: the README here")
    target = parser.parse_args().file
    write_whole(target, with_reference(target.read_text(encoding="utf-8")))
    print(target)
