"""Arguments that a verb does not take: one line, which names what was wrong and what would be right."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_type_hints

import pytest
import tyro

from experiments.cli import CONFIG, main
from experiments.commands.evaluate import EvaluateCommand
from experiments.support.options import FILE, FOLDER, field_docs, options_of
from experiments.support.parse_errors import flattened, why_left_over, why_not_utf8
from experiments.verbs import VERBS, command_class

RUN = "parity-aligned-alibi"
# What Python makes of the bytes b"caf\xe9" of a command line, which are not UTF-8.
BYTES = os.fsdecode(b"caf\xe9")
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
        several = "tuple" in str(hints[field.name])
        if not name.startswith("--") or hints[field.name] is bool or several or (verb, name) == ("verdict", "--json"):
            continue
        for argv in ((RUN, name), (name, "--out", "x")):
            assert refused(capsys, verb, *argv).startswith(f"{name} needs a value: ")


def lists() -> list[tuple[str, str]]:
    """Return every option with several values, with its verb."""
    return [
        (verb, name)
        for verb in VERBS
        for name, (field, _) in options_of(command_class(verb)).items()
        if name.startswith("--") and "tuple" in str(get_type_hints(command_class(verb))[field.name])
    ]


@pytest.mark.parametrize(("verb", "option"), lists(), ids=" ".join)
def test_a_list_without_values_is_refused_unless_its_help_says_what_it_means(verb, option, capsys):
    assert len(lists()) > 20
    field, config = options_of(command_class(verb))[option]
    if config.metavar.startswith("["):
        assert "without values" in " ".join(field_docs(command_class(verb))[field.name].split())
        return
    run = () if verb in ("sweep", "figures", "calibrate") else (RUN,)
    for more in ((option,), (option, "--out", "x"), (option, option)):
        assert refused(capsys, verb, *run, *more).startswith(f"{option} needs at least one value: ")


def test_the_list_that_may_be_empty_is_read_as_empty():
    assert [pair for pair in lists() if _may_be_empty(*pair)] == [("evaluate", "--offset-lengths")]
    command = tyro.cli(EvaluateCommand, args=[RUN, "--offset-lengths"], config=CONFIG)
    assert command.offset_lengths == ()


def _may_be_empty(verb: str, option: str) -> bool:
    return options_of(command_class(verb))[option][1].metavar.startswith("[")


def test_an_option_of_other_verbs_names_them():
    options = {verb: {n for n in options_of(command_class(verb)) if n.startswith("--")} for verb in VERBS}
    for k, name in enumerate(sorted(set().union(*options.values()))):
        lacking = [verb for verb in VERBS if name not in options[verb]]
        verb = lacking[k % len(lacking)]
        begin, _, named = why_left_over(command_class(verb), [name, "1"], [name, "1"]).partition("; ")
        assert begin == f"{verb} has no option {name}"
        assert re.fullmatch("(.+) (has|have) it", named)
        assert set(re.split(", | and ", named.rpartition(" ha")[0])) == {v for v in VERBS if name in options[v]}


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("patch x --items 6", "patch has no option --items; verdict and report have it"),
        ("verdict x --map_length=40", "verdict has no option --map-length; report has it"),
        ("verdict x --lengths", "--lengths needs at least one value: whole numbers"),
        ("verdict x --arms --seed 3", "--arms needs at least one value: ARM"),
        ("patch --layers x", "--layers needs at least one value: whole numbers"),
        ("figures --only", "--only needs at least one value: by-family, maps, "),
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


def worded() -> list[tuple[str, str]]:
    """Return every option and every run or name that is text and no path, with its verb."""
    found = []
    for verb in VERBS:
        hints = get_type_hints(command_class(verb))
        for name, (field, config) in options_of(command_class(verb)).items():
            if "str" in str(hints[field.name]) and (config is None or config.metavar not in (FOLDER, *FILE)):
                found.append((verb, name))
    return found


@pytest.mark.parametrize(("verb", "option"), worded(), ids=" ".join)
def test_a_value_that_is_not_utf8_is_named_with_its_option(verb, option, capsys):
    assert len(worded()) > 30
    run = () if verb in ("sweep", "figures", "calibrate", "bench", "gallery", "fetch", "train") else (RUN,)
    is_option = option.startswith("--")
    for argv in ((*run, option, BYTES), (*run, f"{option}=a {BYTES}")) if is_option else ((BYTES,),):
        line = refused(capsys, verb, *argv)
        assert line.startswith(f"{option.split()[0]} is not UTF-8 text: '")
        assert line.endswith(r"caf\udce9'")


def test_a_path_may_hold_bytes_that_are_not_utf8_and_a_text_may_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patch, attention = command_class("patch"), command_class("attention")
    assert why_not_utf8(patch, [RUN, "--out", BYTES]) == why_not_utf8(attention, [RUN, f"--out={BYTES}.html"]) == ""
    assert why_not_utf8(patch, [BYTES]).startswith("MODEL is not UTF-8")
    Path(BYTES).mkdir()
    assert why_not_utf8(patch, [BYTES]) == ""
    assert why_not_utf8(attention, [BYTES, "--prompt", BYTES]).startswith("--prompt is not UTF-8")
    assert why_not_utf8(patch, [RUN, "--clean", "café", "日本"]) == ""


def test_an_error_that_only_tyro_knows_is_one_line_too():
    box = (
        "╭─ Value error ─────╮\n│ Error parsing x:  │\n│ it is too large   │\n│ ───────────────── │\n"
        "│ Argument helptext │\n╰───────────────────╯\n"
    )
    assert flattened(box) == "Error parsing x: it is too large"
    assert flattened("") == ""
