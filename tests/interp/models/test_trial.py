"""A configuration whose forward pass costs more than the weights do ends in a child process, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, MptConfig, MptForCausalLM

from interp.models import ModelConfig, build_model, load_raw
from interp.models.trial import CHECKED, DoesNotRun, check_in_child, check_trial, is_causal


def mpt(folder: Path, **changes: object) -> Path:
    config = MptConfig(d_model=16, n_heads=2, n_layers=1, vocab_size=30, max_seq_len=64)
    MptForCausalLM(config).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_an_unchecked_architecture_is_tried_in_a_child_first(tmp_path: Path):
    assert "mpt" not in CHECKED
    assert load_raw(str(mpt(tmp_path))).config.model_type == "mpt"


def test_a_pass_that_takes_too_much_memory_is_refused(tmp_path: Path):
    folder = mpt(tmp_path, max_seq_len=300_000_000)
    with pytest.raises(ValueError, match=r"^the model in .* does not run: .*can't allocate memory.*$") as caught:
        load_raw(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_pass_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interp.models.trial.TRIAL_SECONDS", 1)
    monkeypatch.setattr("interp.models.trial.MEMORY", 2**40)
    with pytest.raises(DoesNotRun, match=r"a pass over four tokens takes more than 1 seconds or 1024 GiB"):
        check_in_child(mpt(tmp_path, max_seq_len=300_000_000, n_heads=16, d_model=16))


@pytest.mark.slow
def test_what_cannot_be_loaded_is_left_to_the_loader(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    check_in_child(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_model_is_told_from_one_that_reads_later_tokens(dtype: torch.dtype):
    model = build_model(ModelConfig("alibi", 2, 16, 2), vocab_size=30, seed=0).eval()
    assert check_trial(model.to(dtype))  # pyright: ignore[reportArgumentType]
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    bert: Any = BertLMHeadModel(BertConfig(vocab_size=30, initializer_range=0.5, **sizes)).eval()
    assert not is_causal(bert.to(dtype))
