"""A list of the user's own as --task: judged, printed again, measured again where the file changed, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main
from tests.interp.tasks.test_list_forms import BOX, written
from tests.probes.binding.list_models import list_tokenizer
from tests.small_language_model import small_gpt2


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words of a verdict on the list of `stock.json`, by a random model that knows its words."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    tokenizer = list_tokenizer()
    small_gpt2(tokenizer).save_pretrained("model")
    tokenizer.save_pretrained("model")
    return ["verdict", "./model", "--task", "stock.json", "--prompts", "16", "--out", "out"]


def test_its_result_holds_the_list_and_is_found_again(judge: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(judge) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "model, stock with 6 items: NOT APPLICABLE"
    assert "its commonest wrong answer is '" in said.out
    assert said.err.startswith("the first prompt: 'Stock:\\nBox ")
    data = json.loads(Path("out/verdict-stock-6.json").read_text())
    assert data["list"] == json.loads(json.dumps({**BOX, "between": "\n", "ordered": False}))
    assert main(judge) == 0
    assert "printed from out/verdict-stock-6.json" in capsys.readouterr().err
    written(Path(), text="Stock:\n{list}\n\nAgain:\n{list}")
    assert main(judge) == 0
    assert "it was made with another list of this name" in capsys.readouterr().err


def test_a_warning_is_one_line_that_names_the_words(judge: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    written(Path(), values=[*BOX["values"], "antidisestablishment"])
    with pytest.warns(UserWarning, match="left out: antidisestablishment"):
        assert main(judge) == 0


def test_a_report_is_on_it_too(judge: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "./model", "--task", "stock.json", "--quick", "--out", "page.html"]) == 0
    assert "By what does model find an item? stock, 6 items" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "none.json"], "none.json cannot be read: No such file or directory"),
        (["--task", "list-letters.json"], "list-letters is the name of a task that mnemoscope has; rename the file"),
        (["--items", "100000"], "100000 items need as many values; stock has 7"),
        (["--arms", "M1"], "--arms does not apply to --task stock; use --items"),
        (["--fillers", "1"], "--fillers does not apply to your own list; write them into the item of stock.json"),
        (["--format", "recall"], "--task stock.json has no formats; leave --format out"),
        (["--items", "8"], "8 items need as many values; stock has 7"),
        (["--task", "stock.txt"], "or a .json file that describes your own list"),
    ],
)
def test_what_cannot_be_its_task_is_refused_in_one_line(
    judge: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list-letters.json").write_text(Path("stock.json").read_text())
    assert main([*judge, *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
