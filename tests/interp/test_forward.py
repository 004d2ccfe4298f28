from __future__ import annotations

import re
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from interp import forward
from interp.forward import correct, generate, predict, readout
from interp.models import FAMILIES, ModelConfig, build_model, load_raw
from interp.models.anatomy import Anatomy
from interp.tasks import Batch, default_vocabulary, known_formats, parse_format, sample

FORMATS = ("parity-scratchpad", "parity-aligned", "parity-interleaved", "parity-gap2", "addition-aligned")


def tiny(family: str, seed: int = 0) -> PreTrainedModel:
    config = ModelConfig(family, n_layers=2, d_model=16, n_heads=2, initializer_range=0.3)
    return build_model(config, len(default_vocabulary().ids), seed).eval()


@pytest.fixture(params=FAMILIES, scope="module")
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny(request.param)


@torch.no_grad()
def slow_generate(model: PreTrainedModel, batch: Batch, forced: bool) -> Tensor:
    """Greedy decoding, literally: the whole prompt again for each token, one prompt at a time."""
    rows = []
    for row in batch.tokens:
        tokens = row.clone()
        for position in batch.predicted(forced).tolist():
            tokens[position] = model(tokens[None, :position], use_cache=False).logits[0, -1].argmax()
        rows.append(tokens)
    return torch.stack(rows)


def count_calls(monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel) -> list[int]:
    """The batch size of each forward pass from now on."""
    sizes: list[int] = []
    original = model.forward

    def counted(input_ids: Tensor, *args, **kwargs):
        sizes.append(len(input_ids))
        return original(input_ids, *args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    return sizes


# predict


@pytest.mark.parametrize("fmt", FORMATS)
def test_predict_reads_the_full_logits_one_position_earlier(fmt: str, model: PreTrainedModel):
    batch = sample(fmt, 3, 4, seed=0)
    for at in (batch.predicted(), torch.arange(1, batch.n_pos), torch.tensor([7, 3, 3])):
        with torch.no_grad():
            expected = model(batch.tokens).logits[:, at - 1]
        logits = predict(model, batch, at)
        assert logits.shape == (3, len(at), 416)
        assert torch.allclose(logits, expected, rtol=0, atol=1e-5)
        assert not logits.requires_grad


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_predict_reads_models_of_others(kind: str, saved_foreign: Path):
    model, batch = load_raw(str(saved_foreign / f"{kind}-default")), sample("parity-aligned", 3, 4, seed=0)
    at = batch.predicted()
    with torch.no_grad():
        assert torch.allclose(predict(model, batch, at), model(batch.tokens).logits[:, at - 1], atol=1e-5)
    assert torch.equal(generate(model, batch).tokens, slow_generate(model, batch, forced=True))


def test_predict_gives_float32():
    batch = sample("parity-aligned", 2, 3, seed=0)
    half = tiny("rotary").bfloat16()
    assert predict(half, batch, batch.predicted()).dtype == torch.float32


@pytest.mark.parametrize("at", [[0], [3, 0], [-1]])
def test_nothing_predicts_position_0(at: list[int], model: PreTrainedModel):
    with pytest.raises(ValueError, match="predicted positions must be at least 1"):
        predict(model, sample("parity-aligned", 2, 3, seed=0), torch.tensor(at))


def test_a_readout_by_steps_is_that_of_the_raw_model(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 5, 4, seed=0)
    at, symbols = batch.predicted(), batch.vocabulary.tokens(batch.format.outputs)
    whole, sizes = predict(model, batch, at), count_calls(monkeypatch, model)
    found = readout(model, batch, at)
    assert max(sizes) <= forward.CHECKED  # the raw model runs for checks only
    assert torch.allclose(found.logits, whole[..., symbols], rtol=0, atol=1e-5)
    assert torch.equal(found.likeliest, whole.argmax(dim=-1))


def test_hooks_that_transformers_leaves_do_not_count():
    """It keeps them once hidden states or attentions were asked for; then they do nothing until asked again."""
    raw, batch = tiny("rotary"), sample("parity-aligned", 3, 4, seed=0)
    at, before = batch.predicted(), readout(raw, batch, batch.predicted())
    raw(batch.tokens, output_hidden_states=True, output_attentions=True)
    assert any(module._forward_hooks for module in raw.modules())
    assert forward.steps_of(raw, batch, at) is not None
    assert torch.equal(readout(raw, batch, at).logits, before.logits)
    head = raw.get_output_embeddings()
    assert head is not None
    handle = head.register_forward_pre_hook(lambda module, args: None)
    assert forward.steps_of(raw, batch, at) is None
    handle.remove()
    assert forward.steps_of(raw, batch, at) is not None


def test_a_readout_of_a_model_with_a_hook_runs_the_raw_model(model: PreTrainedModel):
    batch = sample("parity-aligned", 5, 4, seed=0)
    at, symbols = batch.predicted(), batch.vocabulary.tokens(batch.format.outputs)
    before = readout(model, batch, at).logits
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))

    def shift(_, args, out):  # type: ignore[no-untyped-def]
        return (out[0].flip(-1), *out[1:]) if isinstance(out, tuple) else out.flip(-1)

    handle = blocks[0].register_forward_hook(shift)
    try:
        found, expected = readout(model, batch, at).logits, predict(model, batch, at)[..., symbols]
    finally:
        handle.remove()
    assert torch.equal(found, expected)
    assert not torch.allclose(found, before, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("rows", "sizes"), [(0, [1] * 5), (1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (99, [5])])
def test_chunks_change_nothing(rows: int, sizes: list[int], model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    batch = sample("parity-aligned", 5, 4, seed=0)
    whole, written = predict(model, batch, batch.predicted()), generate(model, batch).tokens
    monkeypatch.setattr(forward, "CHUNK_TOKENS", rows * batch.n_pos)
    calls = count_calls(monkeypatch, model)
    assert torch.allclose(predict(model, batch, batch.predicted()), whole, rtol=0, atol=1e-5)
    assert calls == sizes
    calls.clear()
    assert torch.equal(generate(model, batch).tokens, written)
    assert calls == [size for size in sizes for _ in batch.predicted()]


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_logits_that_are_not_finite_name_the_first_prompt(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forward, "CHUNK_TOKENS", chunk)
    batch, model = sample("parity-aligned", 4, 3, seed=0), tiny("rotary")
    label = next(t for t in batch.tokens[2].tolist() if not (batch.tokens[:2] == t).any())
    with torch.no_grad():
        model.get_parameter("gpt_neox.embed_in.weight")[label] = torch.nan
    with pytest.raises(ValueError, match=re.escape(f"NaN or infinite, first in prompt 2: {batch.text(2)}")):
        predict(model, batch, batch.predicted())
    assert predict(model, batch.rows(slice(2)), batch.predicted()).isfinite().all()


def test_correct_compares_with_the_batch(model: PreTrainedModel):
    batch = sample("parity-aligned", 4, 3, seed=0)
    at = batch.predicted()
    best = predict(model, batch, at).argmax(-1)
    right = correct(model, batch, at)
    assert right.shape == (4, 3)
    assert torch.equal(right, best == batch.tokens[:, at])
    last = batch.tokens.clone()
    last[:, at[-1]] = best[:, -1]
    assert correct(model, batch.with_tokens(last), at)[:, -1].all()


@pytest.mark.parametrize("fmt", FORMATS)
def test_readout_keeps_the_likeliest_token_and_the_output_symbols(fmt: str, model: PreTrainedModel):
    batch = sample(fmt, 3, 4, seed=0)
    at = batch.predicted()
    logits, found = predict(model, batch, at), readout(model, batch, at)
    assert torch.equal(found.likeliest, logits.argmax(-1))
    assert found.logits.shape == (3, len(at), len(batch.format.outputs))
    for i, symbol in enumerate(batch.format.outputs):
        expected = logits[..., batch.vocabulary[symbol]]
        assert torch.allclose(found.logits[..., i], expected, rtol=0, atol=1e-5)  # by steps, not the raw model


@pytest.mark.parametrize(("rows", "sizes"), [(0, [1] * 5), (3, [3, 2]), (9, [5])])
def test_a_small_budget_makes_chunks_smaller(
    rows: int, sizes: list[int], model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    """What a prompt takes: the logits that are read, and inside of a layer the MLP and the attention."""
    batch, config = sample("parity-aligned", 5, 4, seed=0), model.config
    at = batch.predicted()
    whole = readout(model, batch, at)
    inside = batch.n_pos * (24 * config.hidden_size + 4 * config.num_attention_heads * batch.n_pos)
    monkeypatch.setattr(forward, "numbers", lambda share, device: rows * (len(at) * config.vocab_size + inside))
    by_steps, run = [], Anatomy.forward
    monkeypatch.setattr(Anatomy, "forward", lambda a, rows, keep: by_steps.append(len(rows)) or run(a, rows, keep))
    whole_passes = count_calls(monkeypatch, model)
    found = readout(model, batch, at)
    checked, *calls = by_steps
    assert calls == sizes
    assert checked == min(forward.CHECKED, *sizes[:1])
    assert max(whole_passes) <= max(1, checked)
    assert torch.equal(found.likeliest, whole.likeliest)
    assert torch.allclose(found.logits, whole.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "sizes"), [(0, [1] * 5), (3, [3, 2]), (9, [5])])
def test_decoding_keeps_keys_and_values_and_computes_one_token(
    rows: int, sizes: list[int], model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    """What a prompt takes: the inside of a layer for the tokens before the first one that is decoded, and its cache."""
    batch, config = sample("parity-aligned", 5, 4, seed=0), model.config
    whole, first = generate(model, batch), int(batch.predicted()[0])
    inside = first * (24 * config.hidden_size + 4 * config.num_attention_heads * first)
    cache = DynamicCache(config=config)
    model(batch.tokens[:1], past_key_values=cache, use_cache=True)
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)  # type: ignore[union-attr]
    monkeypatch.setattr(forward, "numbers", lambda share, device: rows * (inside + kept + config.vocab_size))
    calls = count_calls(monkeypatch, model)
    assert torch.equal(generate(model, batch).tokens, whole.tokens)
    assert calls == [size for size in sizes for _ in batch.predicted()]


def dynamic_rope() -> PreTrainedModel:
    """A Llama whose rotary encoding is rescaled for prompts longer than 32 tokens."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    sizes: dict = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    sizes["attn_implementation"] = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(default_vocabulary().ids),
            max_position_embeddings=32,
            num_key_value_heads=2,
            rope_parameters=rope,
            initializer_range=0.08,
            **sizes,
        )
        return LlamaForCausalLM(config).eval()


# generate


def test_generate_is_teacher_forcing_where_the_rotary_encoding_depends_on_length(monkeypatch: pytest.MonkeyPatch):
    """With a cache, keys of shorter prompts have another encoding, and decoding writes other tokens."""
    batch = sample("parity-aligned", 16, 20, seed=0)
    at = batch.predicted()
    # Each model is new: the encoding of the longest prompt so far stays in the rotary module.
    written = generate(dynamic_rope(), batch)
    assert correct(dynamic_rope(), written, at).all()
    monkeypatch.setattr(forward, "depends_on_length", lambda raw: False)
    cached = generate(dynamic_rope(), batch)
    assert not correct(dynamic_rope(), cached, at).all()


@pytest.mark.parametrize("kind", ["default", "linear", "dynamic", "longrope"])
def test_only_two_rotary_encodings_depend_on_length(kind: str):
    config = dynamic_rope().config
    config.rope_parameters = {"rope_type": kind, "rope_theta": 10000.0}
    raw = types.SimpleNamespace(config=config)
    assert forward.depends_on_length(raw) == (kind in ("dynamic", "longrope"))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fmt", ["parity-scratchpad", "parity-aligned", "addition-aligned"])
@pytest.mark.parametrize("family", FAMILIES)
def test_generate_is_hugging_faces_greedy_decoding(family: str, fmt: str, seed: int):
    model, batch = tiny(family, seed), sample(fmt, 4, 4, seed=seed)
    at = batch.predicted(forced=False)
    assert torch.equal(at, torch.arange(int(at[0]), batch.n_pos))
    assert model.generation_config is not None
    model.generation_config.eos_token_id = None  # a random model may write <eos> and stop
    prompt = batch.tokens[:, : int(at[0])]
    expected = model.generate(  # pyright: ignore[reportCallIssue]
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=len(at), do_sample=False
    )
    got = generate(model, batch, forced=False)
    assert torch.equal(got.tokens, expected)
    assert not torch.equal(got.tokens, batch.tokens)


@pytest.mark.parametrize(
    ("fmt", "forced"),
    [(f, True) for f in known_formats()]
    + [(f, False) for f in known_formats() if parse_format(f).model_can_write_labels],
)
def test_generate_is_the_loop_without_a_cache(fmt: str, forced: bool, model: PreTrainedModel):
    batch = sample(fmt, 3, 3, seed=1)
    got = generate(model, batch, forced)
    assert torch.equal(got.tokens, slow_generate(model, batch, forced))


def test_generate_changes_only_what_is_predicted(model: PreTrainedModel):
    batch = sample("parity-aligned", 3, 4, seed=0)
    before = batch.tokens.clone()
    got = generate(model, batch)
    assert torch.equal(batch.tokens, before)
    at = batch.predicted()
    given = torch.ones(batch.n_pos, dtype=torch.bool)
    given[at] = False
    assert torch.equal(got.tokens[:, given], before[:, given])
    assert not torch.equal(got.tokens[:, at], before[:, at])
    assert torch.equal(got.role, batch.role)
    assert torch.equal(got.step, batch.step)


def test_generate_ignores_the_answers_that_are_written_in(model: PreTrainedModel):
    batch = sample("parity-aligned", 3, 4, seed=0)
    tokens = batch.tokens.clone()
    tokens[:, batch.predicted()] = 7
    assert torch.equal(generate(model, batch.with_tokens(tokens)).tokens, generate(model, batch).tokens)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("forced", [True, False])
def test_exact_match_by_one_forward_is_exact_match_by_decoding(fmt: str, forced: bool, model: PreTrainedModel):
    """Rows: as the model writes them; one token off, at each predicted position; and as they were sampled."""
    original = sample(fmt, 2, 4, seed=0)
    at = original.predicted(forced)
    own = generate(model, original, forced).tokens
    spoiled = []
    for position in at.tolist():
        row = own[:1].clone()
        row[0, position] = (row[0, position] + 1) % 416
        spoiled.append(row)
    batch = original.with_tokens(torch.cat([own, *spoiled, original.tokens]))
    by_forward = correct(model, batch, at).all(dim=1)
    by_decoding = (generate(model, batch, forced).tokens == batch.tokens).all(dim=1)
    assert torch.equal(by_forward, by_decoding)
    assert by_forward.tolist() == [True, True] + [False] * (len(at) + 2)
