"""Arguments that a verb does not take: one line, which names what was wrong and what would be right."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from experiments.cli import VERBS, command_class, main
from experiments.support.options import options_of
from experiments.support.parse_errors import flattened

RUN = "parity-aligned-alibi"
# Words of tyro's own messages.
BOX = ("│", "Error parsing", "Expected", "helptext")


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the one line of a command that must fail, without the program and the verb."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    before, _, line = line.partition(f"mnemoscope {argv[0]}: ")
    assert before == ""
    assert not any(word in line for word in BOX)
    return line


def typed() -> list[tuple[str, str]]:
    """Return every option with a number or a choice for a value, with its verb."""
    found = []
    for verb in VERBS:
        hints = get_type_hints(command_class(verb))
        for name, (field, _) in options_of(command_class(verb)).items():
            if any(word in str(hints[field.name]) for word in ("int", "float", "Literal")):
                found.append((verb, name))
    return found


@pytest.mark.parametrize(("verb", "option"), typed(), ids=" ".join)
def test_a_value_of_another_type_is_named_with_its_option(verb, option, capsys):
    assert len(typed()) > 60
    for value in ("x", "1,5"):
        line = refused(capsys, verb, RUN, option, value)
        assert line.startswith(f"{option} must be ")
        assert line.endswith(f"; got '{value}'")


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_without_its_value_says_what_is_missing(verb, capsys):
    hints = get_type_hints(command_class(verb))
    for name, (field, _) in options_of(command_class(verb)).items():
        several = "tuple" in str(hints[field.name])  # a list may be empty
        if not name.startswith("--") or hints[field.name] is bool or several or (verb, name) == ("verdict", "--json"):
            continue
        for argv in ((RUN, name), (name, "--out", "x")):
            assert refused(capsys, verb, *argv).startswith(f"{name} needs a value: ")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("verdict x --prompts 1.5", "--prompts must be a whole number; got '1.5'"),
        ("verdict x --prompts=", "--prompts must be a whole number; got ''"),
        ("verdict x --lengths 5 a", "--lengths must be whole numbers; got 'a'"),
        (f"verdict --lengths 5 {RUN}", f"--lengths must be whole numbers; got '{RUN}'; RUN stands before the options"),
        (f"patch --layers 1 q {RUN}", "--layers must be whole numbers; got 'q'"),
        ("patch --layers 1 q --seed 3", "--layers must be whole numbers; got 'q'; MODEL stands before the options"),
        ("evaluate x --offset_lengths a", "--offset-lengths must be whole numbers; got 'a'"),
        ("verdict x --memory 2k", "--memory must be a whole number; got '2k'"),
        ("train x --lr -", "--lr must be a number; got '-'"),
        ("verdict x --dtype int8", "--dtype must be float32, bfloat16, float16 or float64; got 'int8'"),
        ("verdict x --dtype --seed 3", "--dtype needs a value: float32, bfloat16, float16 or float64"),
        ("verdict x --out", "--out needs a value: DIR"),
        ("verdict x --promps 3 --seed a", "unknown option --promps; did you mean --prompts?"),
        ("verdict --tyro-print-completion foo", "unknown option --tyro-print-completion; --help shows the options"),
        ("train --steps 5", "NAME is missing: <task>-<format>-<family>, such as parity-aligned-alibi; families: "),
        ("patch", "MODEL is missing: a run by name, such as parity-aligned-alibi, a folder that save_pretrained"),
        ("fetch", "NAME is missing: model to fetch: smollm2-135m ("),
        ("patch a b", "unexpected argument 'b': one MODEL is taken"),
        ("patch a --prompts 3 4", "unexpected argument '4': --prompts takes one value"),
        ("patch a --joint=3", "unexpected argument '3': --joint takes no value"),
        ("verdict a --fresh b", "unexpected argument 'b': --fresh takes no value, and runs stand before the options"),
        ("verdict a --seed b -- --prompts c", "--seed must be a whole number; got 'b'"),
        ("evaluate --seed b -- --prompts c", "--seed must be a whole number; got 'b'"),
    ],
)
def test_other_mistakes(argv, line, capsys):
    assert refused(capsys, *argv.split()).startswith(line)


def test_an_error_that_only_tyro_knows_is_one_line_too():
    box = (
        "╭─ Value error ─────╮\n│ Error parsing x:  │\n│ it is too large   │\n│ ───────────────── │\n"
        "│ Argument helptext │\n╰───────────────────╯\n"
    )
    assert flattened(box) == "Error parsing x: it is too large"
    assert flattened("") == ""
