"""Text from files cannot control the terminal, and every error is one printable line."""

import ast
import errno
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

import experiments
from experiments.support.console import is_out_of_memory, one_line, print_table, say, silence_libraries, visible

ROOT = Path(experiments.__file__).parent
# These print other things than lines of text: JSON, a page of help, a completion script.
PRINTS_JSON = "json.dumps"


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\u200fb", "a\u202eb", "a\nb", "a\rb", "\udcff", "\x00", "\x9b2J"])
def test_what_is_not_printable_is_escaped(text, capsys):
    assert visible(text).isprintable()
    say(text)
    assert capsys.readouterr().out == visible(text) + "\n"


def test_printable_text_is_unchanged():
    assert visible("größer [0.1, 0.2] 🙂 Ġthe") == "größer [0.1, 0.2] 🙂 Ġthe"


def test_markup_in_tables_is_text(capsys):
    print_table("title [bold]x", ["name[red]", "value"], [["a[bold]x", "\x1b[31m"]])
    out = capsys.readouterr().out
    for text in ("title [bold]x", "name[red]", "a[bold]x", "\\x1b[31m"):
        assert text in out


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "x.json"), "no space left on the disk for x.json"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory: x"),
        (ValueError("a\n  b\x1b"), "a b\\x1b"),
    ],
)
def test_errors_are_one_line(error, text):
    assert text in one_line(error)
    assert one_line(error).isprintable()


def test_other_runtime_errors_are_not_about_memory():
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def test_a_table_of_tokens_is_left_out_of_the_line():
    assert one_line(ValueError("prompts differ\npos | a\n0   | b\n...  |")) == "prompts differ"
    assert one_line(ValueError("a | b\nc\nd")) == "a | b c d"


def test_verbs_print_only_through_the_console():
    """A bare `print` would put names from files on the terminal as they are."""
    for path in [*ROOT.glob("*.py"), *ROOT.glob("commands/*.py"), *ROOT.glob("support/*.py")]:
        if path.name in ("console.py", "cli.py", "reference.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                text = ast.unparse(node)
                assert PRINTS_JSON in text or "visible(" in text, f"{path.name}: {text}"


@pytest.mark.parametrize("imported", [False, True])
def test_libraries_are_silenced_before_and_after_their_import(imported):
    script = textwrap.dedent(f"""
        import sys
        from experiments.support.console import silence_libraries

        if {imported}:
            import transformers
        silence_libraries()
        assert {imported} or "transformers" not in sys.modules
        from transformers.utils import logging

        print(logging.get_verbosity() == logging.ERROR, logging.is_progress_bar_enabled())
    """)
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "True False\n"


def test_a_warning_is_one_line_without_its_place_in_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # is set back
    with warnings.catch_warnings():
        silence_libraries()
    assert warnings.formatwarning("two\nlines \x1b[2J", UserWarning, "file.py", 3) == "two lines \\x1b[2J\n"
