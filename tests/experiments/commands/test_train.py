"""The last line of `mnemoscope train` says who wrote the labels where accuracy was measured."""

from pathlib import Path

import pytest

from experiments.cli import main
from experiments.commands.train import labels_in
from experiments.training import loop, state
from experiments.training.loop import Trained
from interp.models import ModelConfig, build_model
from interp.tasks import known_formats, parse_format, sample


@pytest.mark.parametrize("fmt", [fmt for fmt in known_formats() if fmt.startswith(("parity", "addition"))])
def test_the_words_are_those_of_what_is_measured(fmt, monkeypatch):
    batch = sample(fmt, 2, 3, 0)
    measured = []
    real = state.steps_right
    monkeypatch.setattr(state, "steps_right", lambda *args: measured.append(args[-1]) or real(*args))
    model = build_model(ModelConfig("alibi", n_layers=1, d_model=16, n_heads=2), int(batch.tokens.max()) + 1, seed=0)
    state.outcome_of(model, batch, {}, 1)
    words = {"forced": ", labels given", "written": ", labels written"}[measured[0]]
    assert labels_in(fmt) == (words if parse_format(fmt).labels else "")


@pytest.mark.parametrize(
    ("name", "competent", "line"),
    [
        ("parity-aligned", True, "learned: step accuracy 0.960 at length 20, labels written, 7 steps"),
        (
            "parity-nonaligned",
            False,
            "did NOT learn: step accuracy 0.960 at length 20, labels given, 7 steps (competent",
        ),
        ("parity-scratchpad", True, "learned: step accuracy 0.960 at length 20, 7 steps"),
    ],
)
def test_the_last_line(name, competent, line, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(loop, "train_run", lambda *_, **__: Trained(Path("run"), competent, 0.96, 7))
    assert main(["train", f"{name}-alibi", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(line)
    # A finished run of another recipe is never replaced, so more steps need another folder.
    assert ("; try another --seed, or more --steps with another --out\n" in out) is not competent
