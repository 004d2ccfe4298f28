"""Tokenizer files of absurd sizes, and those that make the libraries panic, are refused in one line and in time."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from interp.models import load_tokenizer
from interp.models.quiet import silent_if_it_fails
from interp.models.tokenizer_files import LONGEST_ADDED, LONGEST_TEXT, MOST_ADDED


@pytest.fixture
def folder(saved_families: Path, tmp_path: Path) -> Path:
    """A copy of a saved run, to be damaged."""
    return shutil.copytree(saved_families / "alibi", tmp_path / "run")


def edit(folder: Path, name: str, **changes: object) -> None:
    data = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**data, **changes}))


def refuses(folder: Path, message: str, seconds: float = 5.0) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        load_tokenizer(str(folder))
    assert time.monotonic() - began < seconds
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(folder) in str(caught.value)


def added(n: int, content: str = "<x{}>") -> list[dict]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": 416 + i, "content": content.format(i), **flags} for i in range(n)]


def test_a_normalizer_that_panics(folder: Path, capfd: pytest.CaptureFixture):
    charsmap = base64.b64encode(b"\xff" * 64).decode()
    edit(folder, "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap})
    refuses(folder, "no tokenizer can be loaded from ")
    assert capfd.readouterr() == ("", "")  # the panic prints a backtrace, below Python


def test_only_what_a_failure_writes_is_dropped(capfd: pytest.CaptureFixture):
    @silent_if_it_fails()
    def fails() -> None:
        os.write(2, b"dropped")
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fails()
    with silent_if_it_fails():
        os.write(2, b"kept ")
    os.write(2, b"later")
    assert capfd.readouterr() == ("", "kept later")


def test_a_class_that_is_no_tokenizer(folder: Path):
    edit(folder, "tokenizer_config.json", tokenizer_class="RagTokenizer")
    refuses(folder, "no tokenizer can be loaded from ")


@pytest.mark.parametrize("key", ["extra_special_tokens", "additional_special_tokens"])
def test_too_many_special_tokens(key: str, folder: Path):
    edit(folder, "tokenizer_config.json", **{key: [f"<x{i}>" for i in range(100_000)]})
    refuses(folder, f"tokenizer_config.json adds 100000 tokens; at most {MOST_ADDED} are read")


def test_too_many_added_tokens(folder: Path):
    edit(folder, "tokenizer.json", added_tokens=added(MOST_ADDED + 1))
    refuses(folder, f"tokenizer.json adds {MOST_ADDED + 1} tokens")


def test_a_token_that_is_too_long(folder: Path):
    edit(folder, "tokenizer.json", added_tokens=added(1, "x" * 50_000_000))
    refuses(folder, f"tokenizer.json adds a token of more than {LONGEST_ADDED} characters")


def test_a_text_that_is_too_long(folder: Path):
    edit(folder, "tokenizer_config.json", chat_template="x" * (LONGEST_TEXT + 1))
    refuses(folder, f"has a text of {LONGEST_TEXT + 1} characters, 'xxx")


def test_added_tokens_of_a_usual_number_are_read(folder: Path):
    edit(folder, "tokenizer.json", added_tokens=added(1000))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer("<x7>")["input_ids"] == [423]


def test_an_interrupt_is_not_a_damaged_tokenizer(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.models.tokenizer_files.AutoTokenizer.from_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(str(folder))
