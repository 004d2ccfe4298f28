"""Where other tokens stand for the symbols of a task, the command line, results and pages say which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import load
from experiments.cli import main
from experiments.reporting.text import question
from experiments.support.other_tokens import stand_ins, stand_ins_text
from interp.tasks import Vocabulary, answer_id
from tests.interp.tasks.tokenizers import byte_level
from tests.small_language_model import save_small_gpt2


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random GPT-2 whose tokenizer has words of sentences, and none of `>>>`, `===`, M1."""
    return str(save_small_gpt2(tmp_path_factory.mktemp("models") / "small"))


def test_they_are_what_the_model_reads(language_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = load(language_model, "parity-aligned", longest=8, device="cpu")
    found = stand_ins(run)
    assert found
    assert "M1" in found
    assert stand_ins_text(run).startswith("in place of symbols of parity-aligned, small reads tokens that it has: ")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == stand_ins_text(run)
    for symbol, text in found.items():
        assert text.strip() != symbol
        assert str(run.tokenizer.decode([run.vocabulary[symbol]])).strip() == text.strip()
    kept = set(run.vocabulary.ids) - set(found)
    assert all(str(run.tokenizer.decode([run.vocabulary[symbol]])).strip() == symbol for symbol in kept)


def test_a_leading_space_makes_no_other_token() -> None:
    tokenizer = byte_level()
    vocabulary = Vocabulary({"Mary": answer_id(tokenizer, " Mary"), "M1": answer_id(tokenizer, " John")}, ("M1",))
    assert vocabulary.stand_ins(tokenizer) == {"M1": " John"}


def test_a_run_that_has_all_symbols_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    run = load("parity-aligned-alibi", device="cpu")
    assert stand_ins(run) == {}
    assert stand_ins_text(run) == ""
    assert capsys.readouterr().err == ""


def test_pages_and_results_name_them(
    language_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    posed = [language_model, "--format", "parity-aligned"]
    assert main(["attention", *posed, "--length", "3", "--out", "page.html"]) == 0
    assert "in place of symbols of parity-aligned" in capsys.readouterr().err
    assert "<p>in place of symbols of parity-aligned" in Path("page.html").read_text(encoding="utf-8")
    assert main(["evaluate", *posed, "--lengths", "3", "--prompts", "8"]) == 0
    (path,) = Path("mnemoscope-out").rglob("evaluation.json")
    run = load(language_model, "parity-aligned", device="cpu")
    assert json.loads(path.read_text(encoding="utf-8"))["stand_ins"] == stand_ins(run)
    assert any("In place of symbols of parity-aligned" in sentence for sentence in question(run))
