from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch

from interp.models import FAMILIES, ModelConfig, build_model, load_run, save_run
from interp.models.record import RECORD
from interp.tasks import (
    default_tokenizer,
    default_vocabulary,
    fit_vocabulary,
    known_formats,
    parse_format,
    sample,
    sequence_length,
)


def save_tiny(folder: Path, family: str = "absolute", n_ctx: int = 512, vocab_size: int = 416) -> Path:
    """A random run in the default vocabulary."""
    model = build_model(ModelConfig(family, 2, 16, 2, n_ctx=n_ctx), vocab_size, seed=0)
    record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json(), "seed": 7}
    save_run(folder, model, default_tokenizer(), record)
    return folder


def test_a_run_knows_its_task(saved_families: Path):
    run = load_run(saved_families / "rotary")
    assert (run.name, run.source) == ("rotary", str(saved_families / "rotary"))
    assert run.format == parse_format("parity-aligned")
    assert run.vocabulary.to_json() == default_vocabulary().to_json()
    assert torch.equal(run.sample(3, 4, seed=1).tokens, sample("parity-aligned", 3, 4, seed=1).tokens)


def test_the_record_and_the_name_are_kept(tmp_path: Path):
    folder = save_tiny(tmp_path / "run")
    run = load_run(str(folder), name="other")
    assert (run.name, run.record["seed"]) == ("other", 7)
    assert run.record == json.loads((folder / RECORD).read_text())


def test_a_run_cannot_be_changed(saved_families: Path):
    with pytest.raises(FrozenInstanceError):
        load_run(saved_families / "rotary").name = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("fmt", known_formats())
def test_another_format_is_posed_to_the_same_weights(fmt: str, saved_families: Path):
    run = load_run(saved_families / "rotary", fmt)
    assert str(run.format) == str(parse_format(fmt))
    batch = run.sample(2, 3, seed=0)
    assert batch.tokens.shape == (2, sequence_length(run.format, 3))
    assert torch.equal(batch.tokens, sample(fmt, 2, 3, seed=0).tokens)


def test_a_format_whose_symbols_the_run_lacks(tmp_path: Path):
    folder = save_tiny(tmp_path / "run")
    vocabulary = fit_vocabulary(default_tokenizer(), parse_format("parity-scratchpad"))
    record = {"version": 1, "format": "parity-scratchpad", "vocabulary": vocabulary.to_json()}
    (folder / RECORD).write_text(json.dumps(record))
    assert load_run(folder).sample(1, 3, seed=0).text().startswith(">>>")
    with pytest.raises(ValueError, match=r"has no symbol '[2-9+#]"):
        load_run(folder, "addition-none").sample(1, 3, seed=0)


def test_an_unknown_format(saved_families: Path):
    with pytest.raises(ValueError, match="unknown format 'parity-alined'; nearest: parity-aligned"):
        load_run(saved_families / "rotary", "parity-alined")


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_without_a_record_a_format_must_be_named_to_sample(kind: str, saved_foreign: Path):
    run = load_run(saved_foreign / f"{kind}-default")
    for call in (run.require_task, lambda: run.sample(1, 2, seed=0), lambda: run.check_length(2)):
        with pytest.raises(ValueError, match=r"no task is posed to .*, which has no run\.json: name a format"):
            call()


@pytest.mark.parametrize("name", ["llama-default", "llama-foreign", "opt-default", "opt-foreign"])
@pytest.mark.parametrize("fmt", ["parity-aligned", "parity-scratchpad", "parity-gap2", "recall-ordered"])
def test_without_a_record_the_same_call_works(name: str, fmt: str, saved_foreign: Path):
    run = load_run(saved_foreign / name, fmt)
    batch = run.sample(2, 4, seed=0)
    assert run.record == {}
    assert batch.tokens.max() < run.raw.config.vocab_size
    assert batch.symbols() == sample(fmt, 2, 4, seed=0, vocabulary=run.vocabulary).symbols()
    assert run.raw(batch.tokens).logits.isfinite().all()


def test_the_default_tokenizer_without_a_record_gives_the_default_tokens(saved_foreign: Path):
    run = load_run(saved_foreign / "llama-default", "parity-aligned")
    assert all(default_vocabulary()[symbol] == token for symbol, token in run.vocabulary.ids.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, saved_families: Path):
    assert load_run(saved_families / family).family == family


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_family_of_another_architecture_is_its_own_name(kind: str, saved_foreign: Path):
    assert load_run(saved_foreign / f"{kind}-default", "parity-aligned").family == kind


@pytest.mark.parametrize("family", FAMILIES)
def test_only_absolute_has_a_limit_of_positions(family: str, tmp_path: Path):
    run = load_run(save_tiny(tmp_path / "run", family, n_ctx=20))
    assert run.max_positions == (20 if family == "absolute" else None)
    run.check_length(4)
    assert run.sample(1, 4, seed=0).n_pos == 18
    if family == "absolute":
        with pytest.raises(ValueError, match="length 5 of parity-aligned takes 22 positions; run has 20"):
            run.check_length(5)
        with pytest.raises(ValueError, match="takes 22 positions"):
            run.sample(1, 5, seed=0)
    else:
        run.check_length(5)
        assert run.raw(run.sample(1, 30, seed=0).tokens).logits.isfinite().all()


def test_check_length_counts_the_format_that_is_posed(tmp_path: Path):
    folder = save_tiny(tmp_path / "run", n_ctx=20)
    load_run(folder, "parity-scratchpad").check_length(9)
    with pytest.raises(ValueError, match="length 10 of parity-scratchpad takes 22 positions"):
        load_run(folder, "parity-scratchpad").check_length(10)
    load_run(folder, "addition-none").check_length((3, 2))
    with pytest.raises(ValueError, match=r"length \(6, 4\) of addition-none takes 28 positions"):
        load_run(folder, "addition-none").check_length((6, 4))


@pytest.mark.parametrize(("family", "positions"), [("absolute", 32), ("opt", 40)])
def test_max_positions_is_the_longest_prompt_that_the_model_reads(
    family: str, positions: int, tmp_path: Path, saved_foreign: Path
):
    folder = saved_foreign / "opt-default" if family == "opt" else save_tiny(tmp_path / "run", n_ctx=positions)
    run = load_run(folder, "parity-aligned")
    assert run.max_positions == positions
    tokens = torch.full((1, positions), 5)
    assert run.raw(tokens).logits.isfinite().all()
    with pytest.raises(IndexError):
        run.raw(torch.full((1, positions + 1), 5))


def test_llama_has_no_limit(saved_foreign: Path):
    assert load_run(saved_foreign / "llama-default", "parity-aligned").max_positions is None


@pytest.mark.parametrize(
    ("batch_size", "length", "message"),
    [
        (2, 0, "a length must be at least 1; got 0"),
        (2, -3, "a length must be at least 1"),
        (0, 3, "batch_size must be at least 1; got 0"),
        (2, 129, "needs 129 different labels in a prompt; the vocabulary has 128"),
        (2, (3, 3), "takes one length"),
    ],
)
def test_sample_errors(batch_size: int, length: int, message: str, saved_families: Path):
    with pytest.raises(ValueError, match=message):
        load_run(saved_families / "rotary").sample(batch_size, length, seed=0)


def test_a_vocabulary_beyond_the_model(tmp_path: Path):
    run = load_run(save_tiny(tmp_path / "run", vocab_size=100))
    with pytest.raises(ValueError, match="run's vocabulary has token id 415; its model has 100 tokens"):
        _ = run.raw
    with pytest.raises(ValueError, match="its model has 100 tokens"):
        _ = run.model


def test_models_are_loaded_when_first_used(saved_families: Path, tmp_path: Path):
    folder = shutil.copytree(saved_families / "rotary", tmp_path / "run")
    run = load_run(folder)
    assert not {"raw", "model"} & set(vars(run))
    weights = folder / "model.safetensors"
    weights.rename(folder / "away")
    with pytest.raises(ValueError, match="has no weights"):
        _ = run.raw
    (folder / "away").rename(weights)
    assert run.raw is run.raw
    assert "model" not in vars(run)


LAZY = """
import sys
import interp.tasks
assert "interp.models" not in sys.modules
import interp.forward
from interp.models import load_run
run = load_run({folder!r})
batch = run.sample(2, 3, seed=0)
interp.forward.predict(run.raw, batch, batch.predicted())
interp.forward.generate(run.raw, batch)
heavy = {{"transformer_lens", "circuitsvis", "matplotlib", "pandas"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
run.model
assert "transformer_lens" in sys.modules
"""


def test_nothing_but_a_bridge_imports_transformer_lens(saved_families: Path):
    code = LAZY.format(folder=str(saved_families / "rotary"))
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
