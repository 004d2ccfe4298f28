"""Names of trainings: their parts, and one line with the right command for names that are none."""

from __future__ import annotations

import pytest
import tyro

from experiments.cli import CONFIG, main
from experiments.commands.train import TrainCommand
from experiments.grid import runs_of
from experiments.training.run_name import split_name
from interp.models import FAMILIES
from interp.models.names import ZOO, source_of, zoo_runs
from interp.support.sizes import Size
from interp.tasks import known_formats


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("fmt", [*known_formats(), "parity-gap3", "parity-cyclic5"])
def test_every_format_and_family_is_told_apart(fmt):
    for family in FAMILIES:
        assert split_name(f"{fmt}-{family}") == (fmt, family, None, "")
        assert split_name(f"{fmt}-{family}_6x64x4+own60") == (fmt, family, Size(6, 64, 4), "own60")
    for name, right in ((fmt, f"{fmt}-alibi"), (f"{fmt}-", f"{fmt}-alibi"), (f"{fmt}_3x8x2", f"{fmt}-alibi_3x8x2")):
        with pytest.raises(ValueError, match=rf"is a format without a family; write {right} \(families are alibi, "):
            split_name(name)
        split_name(right)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("parity-aligned", "parity-aligned is a format without a family; write parity-aligned-alibi (families are"),
        ("addition-none", "addition-none is a format without a family; write addition-none-alibi (families are"),
        ("parity-aligned+own60", "write parity-aligned-alibi+own60 (families are"),
        ("parity-aligned-ALIBI", "unknown family 'ALIBI'; families are alibi, "),
        ("parity-aligned-no-thing", "unknown family 'no-thing'; families are alibi, "),
        ("parity-aligned-alibi+", "unknown condition of rehearsal ''"),
        ("parity-foo-alibi", "unknown format 'parity-foo'; nearest: "),
        ("aligned-alibi", "'aligned-alibi' is not <task>-<format>-<family>, such as parity-aligned-alibi; formats are"),
        ("parity-alibi", "'parity-alibi' is not <task>-<format>-<family>, such as parity-aligned-alibi; formats are"),
        ("parity", "'parity' is not <task>-<format>-<family>, such as parity-aligned-alibi; formats are"),
        ("", "'' is not <task>-<format>-<family>, such as parity-aligned-alibi; formats are"),
        ("parity-aligned-alibi-seed2", "is the name of a trained run; train it with"),
        (
            "parity-aligned-alibi --from smollm2-135m",
            "with --from a name is a format alone: write parity-aligned --from",
        ),
    ],
)
def test_other_names_get_one_line(argv, said, capsys):
    assert main(["train", *(argv.split() or [""])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_run_without_weights_is_answered_with_the_command_that_training_answers():
    zoo = [path.parent.name for path in ZOO.glob("*/run.json")]
    bare = [name for name in zoo if name not in zoo_runs()]
    assert any("+from" in name for name in bare)
    for name in bare:
        with pytest.raises(ValueError, match="ships with results but without weights") as raised:
            source_of(name)
        with pytest.raises(ValueError, match="train it with") as training:
            split_name(name)
        assert str(raised.value).rpartition("`mnemoscope")[2] == str(training.value).rpartition("`mnemoscope")[2]


def test_the_name_of_a_trained_run_is_answered_with_the_command_that_trains_it():
    for command in runs_of() + runs_of(("rehearsal", "pretrained", "pretrained-paper", "pretrained-second")):
        name = command.recipe().name
        with pytest.raises(ValueError, match="is the name of a trained run") as caught:
            split_name(name)
        words = str(caught.value).partition("mnemoscope train ")[2].rstrip("`").split()
        assert parsed(words).recipe().name == name


def parsed(words: list[str]) -> TrainCommand:
    """Return the command of these arguments."""
    return tyro.cli(TrainCommand, args=words, config=CONFIG)
