"""An adapter is added to the weights that it was trained on, and to no others."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from interp.models import ModelConfig, build_model, load, load_raw
from interp.models.adapters import ADAPTER_WEIGHTS, adapter_entry, save_adapter_run, weights_digest
from interp.models.checking import ADAPTER_CONFIG
from interp.models.pretrained import CACHE_VARIABLE
from interp.models.record import RECORD
from interp.tasks import default_tokenizer, default_vocabulary

TOKENS = torch.tensor([[1, 5, 9, 17, 3, 28]])
SIZE = len(default_vocabulary().ids)
# The output map is tied to the embedding, as in SmolLM2.
LLAMA = LlamaConfig(
    vocab_size=SIZE,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)


def base(kind: str, folder: Path, seed: int = 0) -> Path:
    """Save a small random model with a tokenizer. GPT-2's linear maps hold transposed weights (Conv1D)."""
    torch.manual_seed(seed)
    model = (
        LlamaForCausalLM(LLAMA) if kind == "llama" else build_model(ModelConfig("absolute", 2, 16, 2), SIZE, seed=seed)
    )
    model.save_pretrained(folder)
    default_tokenizer().save_pretrained(folder)
    return folder


def adapted(kind: str, tmp_path: Path) -> Path:
    """Save a random adapter, as peft names its weights, on a random model; return the adapter's folder."""
    of = base(kind, tmp_path / f"{kind}-base")
    maps = {"target_modules": "all-linear", "fan_in_fan_out": kind == "gpt2"}
    config = LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", **maps)
    model = get_peft_model(load_raw(str(of)), config)
    weights = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
            weights[name.replace(".default.", ".")] = weight.detach().half()
    settings = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    record = {
        "format": "parity-aligned",
        "vocabulary": default_vocabulary().to_json(),
        "adapter": adapter_entry(str(of)),
    }
    save_adapter_run(tmp_path / f"{kind}-run", weights, settings, record, {})
    return tmp_path / f"{kind}-run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return adapted("llama", tmp_path)


def refuses(folder: Path, *parts: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        load_raw(str(folder))
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_merged_model_is_pefts(kind: str, tmp_path: Path):
    folder = adapted(kind, tmp_path)
    before = load_raw(str(tmp_path / f"{kind}-base"))
    theirs = PeftModel.from_pretrained(load_raw(str(tmp_path / f"{kind}-base")), str(folder)).merge_and_unload()
    ours = load(folder, device="cpu")
    assert str(ours.format) == "parity-aligned"
    assert ours.tokenizer("0 1").input_ids == default_tokenizer()("0 1").input_ids
    with torch.no_grad():
        expected, found, unchanged = (model(TOKENS).logits for model in (theirs, ours.raw, before))
    assert torch.allclose(found, expected, atol=1e-5)
    assert (unchanged - expected).abs().max() > 0.1


def test_other_types_and_the_bridge_have_the_adapter_too(run: Path):
    whole = load(run, device="cpu")
    assert load(run, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.allclose(whole.model(TOKENS), whole.raw(TOKENS).logits, atol=1e-4)


def test_the_adapter_is_small_and_holds_no_pickle(run: Path, tmp_path: Path):
    assert {path.name for path in run.iterdir()} == {ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECORD}
    whole = (tmp_path / "llama-base" / "model.safetensors").stat().st_size
    assert {weight.dtype for weight in load_file(run / ADAPTER_WEIGHTS).values()} == {torch.float16}
    assert (run / ADAPTER_WEIGHTS).stat().st_size < whole


def test_loading_needs_no_peft(run: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    load_raw(str(run))


def test_another_base_is_refused_by_its_digest(run: Path, tmp_path: Path):
    shutil.rmtree(tmp_path / "llama-base")
    base("llama", tmp_path / "llama-base", seed=1)
    refuses(run, "llama-run is an adapter on", "with weights of sha256", weights_digest(tmp_path / "llama-base")[:12])


def test_the_digest_is_of_the_weights_and_not_of_their_files(tmp_path: Path):
    one = base("llama", tmp_path / "one")
    LlamaForCausalLM.from_pretrained(one).save_pretrained(tmp_path / "many", max_shard_size="4KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert weights_digest(one) == weights_digest(tmp_path / "many")
    weights = load_file(one / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-6
    save_file(weights, one / "model.safetensors", metadata={"format": "pt"})
    assert weights_digest(one) != weights_digest(tmp_path / "many")


def test_a_base_that_is_not_fetched_names_the_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    record = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps({**record, "adapter": {**record["adapter"], "base": "smollm2-135m"}}))
    refuses(run, "llama-run is an adapter on smollm2-135m", "run `mnemoscope fetch smollm2-135m`")
    with pytest.raises(ValueError, match=r"\A[^\n]*run `mnemoscope fetch smollm2-135m`\Z"):
        load(run)


@pytest.mark.parametrize(
    ("entry", "message"),
    [(None, "the adapter has no base and sha256"), ({"base": 3, "sha256": ""}, "the adapter has no base and sha256")],
)
def test_a_record_without_a_base_is_refused(run: Path, entry: object, message: str):
    record = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps({**record, "adapter": entry}))
    refuses(run, message)


def test_an_adapter_of_nobody_is_refused(run: Path):
    (run / RECORD).unlink()
    refuses(run, "holds an adapter, which names another model to load; merge the two and save that")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "VERA"}, "is not of a LoRA adapter"),
        ({"use_dora": True}, "has use_dora; only plain LoRA is read"),
        ({"r": 0}, "has r 0 and lora_alpha 6, which give no scale"),
        ({"lora_alpha": "6"}, "which give no scale"),
    ],
)
def test_other_kinds_of_adapters_are_refused(run: Path, change: dict, message: str):
    settings = json.loads((run / ADAPTER_CONFIG).read_text())
    (run / ADAPTER_CONFIG).write_text(json.dumps({**settings, **change}))
    refuses(run, message)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda name, weight: {name.replace("q_proj", "x_proj"): weight}, "is no LoRA of LlamaForCausalLM"),
        (lambda name, weight: {} if "lora_A" in name else {name: weight}, "is no LoRA of LlamaForCausalLM"),
        (lambda name, weight: {name: weight[:, :2] if "lora_B" in name else weight}, "has a pair of other shapes"),
        (lambda name, weight: {name: weight[:, 1:] if "lora_A" in name else weight}, "changes a matrix of shape"),
        (lambda name, weight: {name: weight / 0}, "holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(run: Path, edit, message: str):
    weights: dict = {}
    for name, weight in load_file(run / ADAPTER_WEIGHTS).items():
        weights |= edit(name, weight)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, run / ADAPTER_WEIGHTS)
    refuses(run, message)


def test_a_truncated_adapter_is_refused(run: Path):
    path = run / ADAPTER_WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    refuses(run, "is not a whole safetensors file")
