"""A key sink is one more column of the softmax whose value is zero, and nothing else is changed in BLOOM."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BloomForCausalLM, DynamicCache, StaticCache

from interp.models import ModelConfig, build_model, load_raw
from interp.models import sink as module
from interp.models.anatomy import anatomy_of
from interp.models.sink import SinkBloomForCausalLM

TOKENS = torch.randint(3, 30, (2, 9), generator=torch.Generator().manual_seed(0))


def tiny(family: str = "alibi_sink", seed: int = 0, spread: float = 1.0) -> Any:
    """A random model; its sinks are drawn too, because they start at zero."""
    config = ModelConfig(family, n_layers=2, d_model=16, n_heads=4, initializer_range=0.3)
    model = build_model(config, vocab_size=30, seed=seed).eval()
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for sink in sinks_of(model):
            sink.copy_(spread * torch.randn(sink.shape, generator=gen))
    return model


def sinks_of(model: Any) -> list[Tensor]:
    return [weight for name, weight in model.named_parameters() if name.endswith("sink_key")]


def no_sink(alibi: Tensor, first: int, n_dest: int) -> Tensor:
    return alibi.new_full((len(alibi), n_dest, 1), -torch.inf)


# What it computes


@torch.no_grad()
@pytest.mark.parametrize("mixed", [False, True])
def test_without_its_column_it_is_bloom(mixed: bool, monkeypatch: pytest.MonkeyPatch):
    model, plain = tiny(), tiny("alibi")
    with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
        expected = plain(TOKENS, output_attentions=True)
        assert (model(TOKENS).logits - expected.logits).abs().max() > 0.1
        monkeypatch.setattr(module, "sink_bias", no_sink)
        got = model(TOKENS, output_attentions=True)
    assert torch.allclose(got.logits, expected.logits, rtol=0, atol=1e-5)
    for pattern, other in zip(got.attentions, expected.attentions, strict=True):
        assert torch.allclose(pattern, other, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_pattern_is_the_one_computed_by_hand():
    """ALiBi in its own form: -slope x distance for tokens, and nothing for the sink."""
    model = tiny()
    attention = model.transformer.h[0].self_attention
    resid = model.transformer.word_embeddings_layernorm(model.transformer.word_embeddings(TOKENS[:1]))
    fused = attention.query_key_value(model.transformer.h[0].input_layernorm(resid))[0].view(9, 4, 3, 4)
    got = model(TOKENS[:1], output_attentions=True).attentions[0][0]
    assert got.shape == (4, 9, 9)
    lost = []
    for head in range(4):
        slope = 2.0 ** (-8 * (head + 1) / 4)
        for dest in range(9):
            q = fused[dest, head, 0]
            weights = [math.exp(float(q @ fused[src, head, 1]) / 2 - slope * (dest - src)) for src in range(dest + 1)]
            sink = math.exp(float(q @ attention.sink_key[head]) / 2)
            total = sum(weights) + sink
            for src in range(9):
                expected = weights[src] / total if src <= dest else 0.0
                assert float(got[head, dest, src]) == pytest.approx(expected, abs=1e-5)
            assert float(got[head, dest].sum()) == pytest.approx(1 - sink / total, abs=1e-5)
            lost.append(sink / total)
    assert min(lost) < 0.1 < 0.5 < max(lost)


@torch.no_grad()
def test_its_value_is_zero():
    """Values are the same everywhere: what a head writes is then the mass that stays with tokens, times that value."""
    model = tiny()
    attention = model.transformer.h[0].self_attention
    fused = attention.query_key_value
    fused.weight.view(4, 3, 4, 16)[:, 2] = 0
    fused.bias.view(4, 3, 4)[:, 2] = 1
    z: list[Tensor] = []
    attention.dense.register_forward_pre_hook(lambda _, args: z.append(args[0]))
    mass = model(TOKENS, output_attentions=True).attentions[0].sum(dim=-1)  # [batch head dest]
    assert torch.allclose(z[0].unflatten(-1, (4, 4)), mass.mT.unsqueeze(-1).expand(-1, -1, -1, 4), atol=1e-5)
    assert mass.min() < 0.5


@torch.no_grad()
def test_the_sink_is_as_near_to_the_last_token_as_to_the_first():
    """Queries of zero, as far as 200 tokens in: the sink has the weight of one token at distance zero."""
    model = tiny()
    model.transformer.h[0].self_attention.query_key_value.weight.zero_()
    tokens = torch.randint(3, 30, (1, 200), generator=torch.Generator().manual_seed(0))
    lost = 1 - model(tokens, output_attentions=True).attentions[0][0].sum(dim=-1)
    slopes = torch.tensor([2.0 ** (-8 * (head + 1) / 4) for head in range(4)])
    tokens_weight = torch.exp(-slopes[:, None] * torch.arange(200)).cumsum(dim=-1)
    assert torch.allclose(lost, 1 / (1 + tokens_weight), atol=1e-5)


def test_a_new_model_has_the_weights_of_bloom_and_weak_sinks():
    config, plain = (ModelConfig(family, 2, 16, 4) for family in ("alibi_sink", "alibi"))
    model, expected = build_model(config, 30, seed=4), build_model(plain, 30, seed=4).state_dict()
    got = model.state_dict()
    extra = {f"transformer.h.{layer}.self_attention.sink_key" for layer in range(2)}
    assert set(got) - set(expected) == extra
    assert all(torch.equal(got[name], weight) for name, weight in expected.items())
    assert all(got[name].shape == (4, 4) and not got[name].any() for name in extra)


def test_the_gradient_reaches_every_sink():
    model = tiny(spread=0.0).train()
    model(TOKENS, labels=TOKENS).loss.backward()
    assert len(sinks_of(model)) == 2
    for sink in sinks_of(model):
        assert sink.grad is not None
        assert (sink.grad.norm(dim=-1) > 0).all()


@torch.no_grad()
def test_a_gradient_checkpointed_model_computes_the_same():
    model = tiny()
    expected = model(TOKENS).logits
    model.gradient_checkpointing_enable()
    assert torch.equal(model.train()(TOKENS, use_cache=False).logits, expected)


# Caches and padding


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("sizes", [[9], [1] * 9, [4, 1, 1, 3]], ids=str)
def test_logits_with_a_cache_are_those_without(sizes: list[int], static: bool):
    model = tiny()
    expected = model(TOKENS, use_cache=False).logits
    cache = StaticCache(model.config, max_cache_len=12) if static else DynamicCache(config=model.config)
    parts = [model(part, past_key_values=cache, use_cache=True).logits for part in TOKENS.split(sizes, dim=1)]
    assert torch.allclose(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_on_the_left_changes_nothing():
    model = tiny()
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), TOKENS], dim=1)
    mask = torch.cat([torch.zeros(2, 5, dtype=torch.long), torch.ones_like(TOKENS)], dim=1)
    got = model(padded, attention_mask=mask).logits[:, 5:]
    assert torch.allclose(got, model(TOKENS).logits, rtol=0, atol=1e-5)


def test_it_writes_what_the_loop_without_a_cache_writes():
    model, tokens = tiny(), TOKENS[:, :3]
    model.generation_config.eos_token_id = None
    got = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False)
    with torch.no_grad():
        for _ in range(12):
            tokens = torch.cat([tokens, model(tokens, use_cache=False).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(got, tokens)


# Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny().save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def retyped(folder: Path, model_type: str) -> str:
    """The same weights under another type."""
    copied = shutil.copytree(folder, folder.with_name("retyped"))
    config = json.loads((copied / "config.json").read_text()) | {"model_type": model_type}
    (copied / "config.json").write_text(json.dumps(config))
    return str(copied)


def test_it_comes_back_bit_for_bit(folder: Path):
    model, loaded = tiny(), load_raw(str(folder))
    assert type(loaded) is SinkBloomForCausalLM
    assert loaded.config.model_type == "bloom_key_sink"
    got = loaded.state_dict()
    assert got.keys() == model.state_dict().keys()
    assert all(torch.equal(got[name], weight) for name, weight in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)


def test_as_plain_bloom_it_is_refused(folder: Path):
    with pytest.raises(ValueError, match=r"of another model: 2 tensors that BloomForCausalLM does not have.*sink_key"):
        load_raw(retyped(folder, "bloom"))


def test_plain_bloom_is_refused_as_this(tmp_path: Path):
    tiny("alibi").save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"lack 2 tensors, such as transformer\.h\.0\.self_attention\.sink_key"):
        load_raw(retyped(tmp_path / "plain", "bloom_key_sink"))


def test_who_does_not_know_the_type_cannot_load_it(folder: Path):
    code = f"from transformers import AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bloom_key_sink" in done.stderr.rsplit("ValueError", 1)[1]


def test_hugging_faces_loader_fills_missing_sinks_with_zeros_and_says_so(tmp_path: Path):
    """Not with whatever is in memory: zeros are what a new model has."""
    tiny("alibi").save_pretrained(tmp_path / "plain")
    source = retyped(tmp_path / "plain", "bloom_key_sink")
    loaded: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True)
    assert not any(sink.any() for sink in sinks_of(loaded[0]))
    assert len(loaded[1]["missing_keys"]) == 2


def test_blooms_own_class_says_that_it_leaves_the_sinks_out(folder: Path):
    loaded: Any = BloomForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert len(loaded[1]["unexpected_keys"]) == 2


# Taken apart; the tests of patching and circuits go further, over every architecture


@torch.no_grad()
def test_taken_apart_the_patterns_are_the_models_own():
    model = tiny()
    anatomy = anatomy_of(model)
    expected = model(TOKENS, output_attentions=True).attentions
    q, k, _ = anatomy.blocks[0].project(anatomy.embed(TOKENS))
    at = torch.arange(9)
    assert torch.allclose(anatomy.pattern(anatomy.blocks[0], q, k, at, at), expected[0], rtol=0, atol=1e-6)
    assert expected[0].sum(dim=-1).min() < 0.5


@torch.no_grad()
def test_one_heads_sink_is_that_of_all_heads():
    anatomy = anatomy_of(tiny())
    block, at = anatomy.blocks[1], torch.tensor([3, 7])
    q = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = anatomy.sink(block, q, at)
    assert whole is not None
    assert whole.shape == (2, 4, 2, 1)
    for head in range(4):
        one = anatomy.sink(block, q[:, :, head : head + 1], at, slice(head, head + 1))
        assert one is not None
        assert torch.allclose(one, whole[:, head : head + 1])


def test_models_without_sinks_have_none():
    anatomy = anatomy_of(tiny("rotary"))
    assert anatomy.sink(anatomy.blocks[0], torch.zeros(1, 1, 4, 4), torch.zeros(1)) is None
