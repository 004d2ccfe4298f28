"""The name that a training is given, `<task>-<format>-<family>`: its parts, and what is wrong with other names."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from interp.support.sizes import FAMILIES, Size, split_kind
from interp.tasks import known_formats, parse_format
from interp.tasks.limits import shown

USUAL_FAMILY = FAMILIES[0]
# Parts of a format's name, task and format, with hyphens between them.
FORMAT_PARTS = 2
# What follows the format in the folder's name of a trained run (`experiments.training.recipe.Recipe.name`).
TRAINED = re.compile(
    r"(?P<model>[\w.-]+?)(-lora(?P<rank>\d+))?(?P<scratch>-scratch)?(?P<condition>\+(?!from)[a-z]+\d*)?"
    r"(\+from(?P<shortest>\d+))?-seed(?P<seed>\d+)"
)


class RunName(NamedTuple):
    """The parts of a name; `condition` of rehearsal is "" for none."""

    format: str
    family: str
    size: Size | None
    condition: str


def split_name(name: str) -> RunName:
    """Return the parts of a name. Raises `ValueError` for one without a format and a family, with the right command.

    >>> split_name("parity-aligned-alibi+lookup20")
    RunName(format='parity-aligned', family='alibi', size=None, condition='lookup20')
    """
    if command := _command_of(name):
        raise ValueError(f"{name} is the name of a trained run; train it with `mnemoscope train {command}`")
    base, _, condition = name.partition("+")
    fmt, kind = _split_format(base)
    (bare, _), (family, size) = split_kind(fmt), split_kind(kind)
    families = f"families are {', '.join(FAMILIES)}"
    if not kind and _is_format(bare):
        whole = f"{bare}-{USUAL_FAMILY}{name.removeprefix(bare).lstrip('-')}"
        raise ValueError(
            f"{name} is a format without a family; write {whole} ({families}), or add --from MODEL to train a "
            "pretrained model"
        )
    if not _is_format(fmt) and (not kind or family not in FAMILIES):
        raise ValueError(
            f"{shown(name)} is not <task>-<format>-<family>, such as parity-aligned-{USUAL_FAMILY}; formats are "
            f"{', '.join(known_formats())}; {families}"
        )
    return RunName(fmt, family, size, condition)


def check_format_alone(name: str, source: str) -> None:
    """Raise `ValueError` where a name for a pretrained model has a family, or whatever follows a format."""
    fmt, kind = _split_format(name)
    if kind and _is_format(fmt):
        raise ValueError(f"with --from a name is a format alone: write {fmt} --from {source}")


def _command_of(name: str) -> str:
    """Return the arguments that train the run whose folder has this name; "" for other names.

    >>> _command_of("parity-cyclic-smollm2-135m-lora4+from10-seed3")
    'parity-cyclic --from smollm2-135m --lora 4 --shortest 10 --seed 3'
    """
    fmt, rest = _split_format(name)
    match = TRAINED.fullmatch(rest)
    if match is None or not _is_format(fmt):
        return ""
    family = split_kind(match["model"])[0]
    words = [f"{fmt}-{match['model']}" if family in FAMILIES else f"{fmt} --from {match['model']}"]
    words[0] += match["condition"] or ""
    words += [f"--lora {match['rank']}"] if match["rank"] else []
    words += ["--scratch"] if match["scratch"] else []
    words += [f"--shortest {match['shortest']}"] if match["shortest"] else []
    return " ".join([*words, f"--seed {match['seed']}"])


def _split_format(name: str) -> tuple[str, str]:
    """Return a name's format, which need not be one, and what follows it."""
    parts = name.split("-")
    return "-".join(parts[:FORMAT_PARTS]), "-".join(parts[FORMAT_PARTS:])


def _is_format(name: str) -> bool:
    with suppress(ValueError):
        parse_format(name)
        return True
    return False
