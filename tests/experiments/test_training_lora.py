"""Adapters are trained, the pretrained weights are not, and the run loads on top of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from experiments.cli import main
from experiments.training import loop
from experiments.training.lora import add_adapters
from experiments.training.recipe import Pretrained, Recipe, fine_tuning
from interp.forward import predict
from interp.models import load, load_raw, load_run
from interp.models.adapters import ADAPTER_WEIGHTS, weights_digest
from tests.interp.tasks.test_fitting import tokenizer_of

RANK = 2


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small Llama of somebody else's, whose tokenizer has words in the places of labels."""
    words = [*"+=#_~", *"abcdefghij", *(f"{a}{b}y" for a in "abcdefghijklmnopqr" for b in "aeioulmn")]
    tokenizer, folder = tokenizer_of(words), tmp_path / "their-llama"
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe_for(base: Path, **changes: object) -> Recipe:
    usual = fine_tuning("parity-aligned", Pretrained(str(base), RANK), seed=0, steps=8)
    return replace(usual, **{"longest": 4, "tokens": 64, "warmup": 1, "lr": 0.01, **changes})


def test_only_adapters_are_trained_and_stored(base: Path, tmp_path: Path):
    before, digest = load_raw(str(base)), weights_digest(base)
    folder = loop.train_run(recipe_for(base), tmp_path / "out").folder
    assert folder.name == "parity-aligned-their-llama-lora2-seed0"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        ADAPTER_WEIGHTS,
        "metrics.jsonl",
        "run.json",
    ]
    record = json.loads((folder / "run.json").read_text())
    assert (
        record["adapter"]
        == {"base": str(base), "sha256": digest}
        == {"base": str(base), "sha256": weights_digest(base)}
    )
    assert Recipe.from_json(record["recipe"]) == recipe_for(base)
    stored = load_file(folder / ADAPTER_WEIGHTS)
    # Rank 2 in both factors of q, k, v, o, gate, up and down of two layers.
    assert sum(weight.numel() for weight in stored.values()) == 2 * RANK * (4 * (16 + 16) + 3 * (16 + 24))
    assert all(weight.any() for weight in stored.values())  # those of B are zero at the start
    after = load(folder, device="cpu").raw
    changed = {name for name, weight in after.named_parameters() if not torch.equal(weight, before.get_parameter(name))}
    linear = {f"{name}.weight" for name, module in before.named_modules() if isinstance(module, torch.nn.Linear)}
    assert changed == linear - {"lm_head.weight"}


def test_the_stored_run_is_the_trained_model(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights are rounded to float16 before the accuracy is measured, so that it is the stored run's."""
    trained = []
    outcome = loop.outcome_of
    monkeypatch.setattr(loop, "outcome_of", lambda model, *rest: trained.append(model) or outcome(model, *rest))
    folder = loop.train_run(recipe_for(base), tmp_path / "out").folder
    run = load(folder, device="cpu")
    batch = run.sample(4, 4, seed=0)
    expected, found = (predict(model, batch, batch.predicted(forced=False)) for model in (trained[0], run.raw))
    assert torch.allclose(found, expected, atol=1e-5)


def test_adapters_change_nothing_at_first_and_follow_the_seed(base: Path):
    def adapted(seed: int) -> PreTrainedModel:
        model = load_raw(str(base))
        model.requires_grad_(False)
        add_adapters(model, RANK, seed)
        return model

    tokens = torch.tensor([[1, 5, 9]])
    state = torch.random.get_rng_state()
    first, same, other = adapted(1), adapted(1), adapted(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.no_grad():
        assert torch.equal(first(tokens).logits, load_raw(str(base))(tokens).logits)
    names = [name for name, weight in first.named_parameters() if weight.requires_grad]
    assert all(torch.equal(first.get_parameter(name), same.get_parameter(name)) for name in names)
    assert not all(torch.equal(first.get_parameter(name), other.get_parameter(name)) for name in names)


def test_training_resumes_to_the_same_bytes(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    recipe = recipe_for(base)
    whole = loop.train_run(recipe, tmp_path / "whole").folder
    save = loop.save_checkpoint

    def killed(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train_run(recipe, tmp_path / "killed", save_every=0)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    (kept,) = (tmp_path / "killed").glob("*.training/step-*/weights.safetensors")
    assert all("lora" in name for name in load_file(kept))  # frozen weights are not in checkpoints
    resumed = loop.train_run(recipe, tmp_path / "killed").folder
    assert (resumed / ADAPTER_WEIGHTS).read_bytes() == (whole / ADAPTER_WEIGHTS).read_bytes()
    assert loop.train_run(recipe, tmp_path / "killed").steps == 8  # a finished run is only reported


def test_the_command_trains_an_adapter(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--from", str(base), "--lora", "2", "--steps", "2", "--longest", "3", "--device", "cpu"]
    assert main(["train", "parity-aligned", *options]) == 0
    out = capsys.readouterr().out
    assert "parity-aligned-their-llama-lora2-seed1" in out
    run = load_run(Path("mnemoscope-out") / "parity-aligned-their-llama-lora2-seed1")
    assert (run.record["recipe"]["rehearsal"], run.record["recipe"]["lr"]) == (0.0, 1e-3)
    assert main(["train", "parity-aligned-alibi", "--lora", "2"]) == 2
    assert "--lora adapts a pretrained model: name it with --from" in capsys.readouterr().err


def test_a_negative_rank_is_refused():
    with pytest.raises(ValueError, match="the rank of LoRA must be at least 1, or 0 for none; got -1"):
        fine_tuning("parity-aligned", Pretrained("gpt2", -1), seed=0)


def test_records_from_before_there_were_adapters_are_read():
    recipe = fine_tuning("parity-aligned", Pretrained("gpt2"), seed=0)
    assert recipe.to_json()["model"] == {"source": "gpt2"}
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_addition_takes_more_steps_than_parity():
    adapters = Pretrained("gpt2", 4)
    assert [fine_tuning(f"{task}-aligned", adapters, seed=0).steps for task in ("parity", "addition")] == [300, 800]
    assert fine_tuning("addition-aligned", adapters, seed=0, steps=9).steps == 9
    with pytest.raises(ValueError, match="steps"):
        fine_tuning("parity-aligned", adapters, seed=0, steps=0)
