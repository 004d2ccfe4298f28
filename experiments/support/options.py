"""Options that several verbs share: type, name of the value in help texts, and the help text where it is the same.

An option whose default is computed shows no default of its own: its help text says it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from tyro.conf import Positional, arg


def computed(metavar: str, help: str | None = None) -> Any:
    """Return the `arg` of an option whose help text says its default."""
    return arg(metavar=metavar, help=help, help_behavior_hint="")


RUN = "A run by name, such as parity-aligned-alibi, a folder that save_pretrained wrote, or a hub name."
RUNS = "Runs by name, such as parity-aligned-alibi, folders that save_pretrained wrote, or hub names."

OneModel = Annotated[str, Positional, arg(metavar="MODEL", help=RUN)]
Runs = Annotated[tuple[str, ...], Positional, computed("RUN [RUN ...]", RUNS)]

Number = Annotated[int, arg(metavar="N")]
Share = Annotated[float, arg(metavar="SHARE")]
OptionalNumber = Annotated[int | None, computed("N")]
OptionalFloat = Annotated[float | None, computed("X")]
Numbers = Annotated[tuple[int, ...], computed("N [N ...]")]
OptionalNumbers = Annotated[tuple[int, ...] | None, computed("N [N ...]")]
Lengths = Annotated[tuple[int, ...], computed("LENGTH [LENGTH ...]")]
# A list whose metavar begins with a bracket may be empty; its help says what empty means.
EmptyLengths = Annotated[tuple[int, ...] | None, computed("[LENGTH ...]")]
Length = Annotated[int, arg(metavar="LENGTH")]
Names = Annotated[tuple[str, ...], computed("NAME [NAME ...]")]
# First word of the metavar of text that a model reads.
TEXT = "TEXT"
Text = Annotated[str, arg(metavar=TEXT)]
Texts = Annotated[tuple[str, ...], computed(f"{TEXT} [{TEXT} ...]")]
OptionalText = Annotated[str | None, computed(TEXT)]

# Names of values that are paths; a file in brackets may be left out.
FOLDER, FILE = "DIR", ("FILE", "[FILE]")
Folder = Annotated[Path, arg(metavar=FOLDER)]
OptionalFolder = Annotated[Path | None, computed(FOLDER)]
OptionalFile = Annotated[Path | None, computed(FILE[0])]
ResultFolder = Annotated[Path | None, computed(FOLDER, "Folder for the results. Default: mnemoscope-out/<run>.")]

# Help texts of more than one line stand here: tyro would break those of docstrings where their lines end.
Arms = Annotated[
    tuple[str, ...],
    computed(
        "ARM [ARM ...]",
        "Codes of arms: M1 input swap, M2 output swap, M3 renaming, M4 routes, M5 history, M6 removal, M7 attention, "
        "M8 decoding, M9 subspaces, M10 mistakes, M11 offsets, M12 backups, identity, content, presence, shares. "
        "Default: all; where there are more than 64 heads, those that decide, and M7 attention. Without its arm a role "
        "is INDETERMINATE.",
    ),
]
Seed = Annotated[int, arg(metavar="N", help="Seed of the prompts.")]
FormatName = Annotated[
    str | None,
    computed(
        "FORMAT",
        "Task format of the prompts, such as parity-aligned. Default: the one in the run's run.json; a model without "
        "that file needs this option.",
    ),
]
Memory = Annotated[
    int | None,
    computed(
        "MIB",
        "Memory in MiB that one pass may use beyond the model; prompts run in chunks that fit. Default: half of what "
        "is free, on a CPU at most 1024.",
    ),
]
AsJson = Annotated[bool, computed("", "Print JSON instead of tables. Default: tables.")]
Flag = Annotated[bool, computed("")]

Device = Annotated[
    str,
    arg(
        metavar="DEVICE", help="Where the model runs: auto, cpu, cuda, cuda:N or mps; auto takes a GPU if there is one."
    ),
]
_Dtypes = Literal["float32", "bfloat16", "float16", "float64"]
_DTYPES = "{float32,bfloat16,float16,float64}"
_SAVED = "Type of weights and activations. Default: the type in which the weights were saved"
Dtype = Annotated[_Dtypes | None, computed(_DTYPES, f"{_SAVED}.")]
# Of verbs that load runs as `experiments.support.loading.widened`.
WidenedDtype = Annotated[_Dtypes | None, computed(_DTYPES, f"{_SAVED}; on a CPU float32 where that is half precision.")]


def options_of(command: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    """Return the options of a verb's dataclass, by the name that they have on the command line: field and `arg`.

    A positional argument has its metavar for a name.
    """
    hints = get_type_hints(command, include_extras=True)
    options = {}
    for field in dataclasses.fields(command):
        metadata = getattr(hints[field.name], "__metadata__", ())
        config = next((m for m in metadata if hasattr(m, "metavar")), None)
        if Positional in metadata:
            name = config.metavar if config else field.name.upper()
        else:
            name = "--" + ((config and config.name) or field.name).replace("_", "-")
        options[name] = (field, config)
    return options


def field_docs(command: type) -> dict[str, str]:
    """Return the text below each field of a dataclass."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(ast.Constant(str(text))):
                    docs[statement.target.id] = text
    return docs
