from __future__ import annotations

import dataclasses
import doctest
import re
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedConfig, PreTrainedModel

from interp import attribution, gradients
from interp.attribution import Attribution, gradient_x_input, integrated_gradients
from interp.models import FAMILIES, ModelConfig, build_model
from interp.tasks import Batch, Role, default_vocabulary, sample
from interp.tasks.counterfactual import flip_input, redraw, swap_labels

D_VOCAB = len(default_vocabulary().ids)
BLOOMS = ("bloom", "bloom_key_sink")
KINDS: tuple[Literal["signed", "absolute", "l2"], ...] = ("signed", "absolute", "l2")
# Central differences in float64: their relative step, and their largest error relative to the largest cell.
# GPT-2 computes in float64 throughout. The others take softmax, rotary tables (GPT-NeoX, Llama) or RMSNorm
# (Llama) in float32, so that a difference carries noise of about 1e-7 / step. OPT is left out: ReLU has kinks.
STEP = {"absolute": 1e-4, "rotary": 1e-2, "none": 1e-2, "alibi": 1e-2, "alibi_sink": 1e-2, "llama": 1e-2}
TOLERANCE = {"absolute": 1e-7, "rotary": 1e-3, "none": 1e-3, "alibi": 1e-3, "alibi_sink": 1e-3, "llama": 1e-3}


def tiny(family: str, n_layers: int = 2) -> PreTrainedModel:
    if family in FAMILIES:
        config = ModelConfig(family, n_layers, d_model=16, n_heads=2, initializer_range=0.3)
        return build_model(config, D_VOCAB, seed=0).eval()
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": n_layers, "num_attention_heads": 2}
    sizes |= {"vocab_size": D_VOCAB, "attn_implementation": "eager"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "llama":
            return LlamaForCausalLM(LlamaConfig(intermediate_size=32, initializer_range=0.3, **sizes)).eval()
        return OPTForCausalLM(OPTConfig(ffn_dim=32, word_embed_proj_dim=16, init_std=0.3, **sizes)).eval()


class Linear(PreTrainedModel):
    """Logits at p are the sum over j <= p of mix[p, j] * x_j @ head: both maps are known by hand."""

    config_class = PreTrainedConfig

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig())
        self.config.vocab_size = D_VOCAB
        gen = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(D_VOCAB, 8, _weight=torch.randn(D_VOCAB, 8, generator=gen))
        self.head = nn.Parameter(torch.randn(8, D_VOCAB, generator=gen))
        self.mix = torch.rand(64, 64, generator=gen).tril()

    def get_input_embeddings(self) -> nn.Embedding:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.table

    def forward(self, inputs_embeds: Tensor, use_cache: bool, logits_to_keep: Tensor) -> SimpleNamespace:
        n = inputs_embeds.shape[1]
        return SimpleNamespace(logits=(self.mix[:n, :n] @ inputs_embeds @ self.head)[:, logits_to_keep])


@torch.no_grad()
def margins(model: PreTrainedModel, x: Tensor, batch: Batch, dest: Tensor) -> Tensor:
    """logit(answer) - logit(other bit) from the whole model's logits, `[row dest]`; the first prompt's answers."""
    logits = model(inputs_embeds=x).logits[:, dest - 1]
    answers = batch.tokens[0, dest]
    zero, one = (batch.vocabulary[s] for s in batch.format.outputs)
    others = torch.where(answers == zero, one, zero)
    rows = torch.arange(len(dest))
    return logits[:, rows, answers] - logits[:, rows, others]


def embed(model: PreTrainedModel, batch: Batch) -> Tensor:
    return entry(model)[1](batch.tokens).detach()


def entry(model: PreTrainedModel) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The module that gives out the embeddings which the map is about, and what leads from tokens to there."""
    table = model.get_input_embeddings()
    if model.config.model_type not in BLOOMS:
        return table, table
    norm = model.get_submodule("transformer.word_embeddings_layernorm")
    return norm, lambda tokens: norm(table(tokens))


def without_norm(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model that takes normed embeddings as its `inputs_embeds`."""
    copy = deepcopy(model)
    if model.config.model_type in BLOOMS:
        copy.get_submodule("transformer").word_embeddings_layernorm = nn.Identity()
    return copy


def same(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


# Gradient x input


@pytest.mark.parametrize("family", TOLERANCE)
def test_each_cell_is_the_central_difference_over_its_coordinates(family: str):
    """Each coordinate of each embedding is scaled by 1 +- step: the change is x * dm/dx."""
    model, batch = tiny(family).double(), sample("parity-aligned", 1, 2, seed=1)
    dest = batch.at(Role.OUTPUT)
    x = embed(model, batch)
    n, d = x.shape[1:]
    change = STEP[family] * torch.eye(n * d, dtype=torch.float64).view(n * d, n, d)
    up, down = (margins(without_norm(model), x * s, batch, dest) for s in (1 + change, 1 - change))
    products = ((up - down) / (2 * STEP[family])).T.view(-1, n, d)
    expected = (products.sum(-1), products.abs().sum(-1), products.square().sum(-1).sqrt())
    for kind, cells in zip(KINDS, expected, strict=True):
        found = gradient_x_input(model, batch, kind=kind)
        assert found.values.dtype == torch.float64
        assert same(found.values[0], cells, TOLERANCE[family])


@pytest.mark.parametrize("family", TOLERANCE)
def test_a_row_sums_to_the_derivative_along_scaling_all_embeddings(family: str):
    model, batch = tiny(family).double(), sample("parity-scratchpad", 1, 4, seed=2)
    found = gradient_x_input(model, batch)
    x = embed(model, batch)
    step, plain = STEP[family], without_norm(model)
    up, down = (margins(plain, x * s, batch, found.dest)[0] for s in (1 + step, 1 - step))
    assert same(found.values[0].sum(-1), (up - down) / (2 * step), TOLERANCE[family])
    assert torch.allclose(found.margin[0], margins(plain, x, batch, found.dest)[0], atol=1e-6)


@pytest.mark.parametrize("family", [*FAMILIES, "llama", "opt"])
def test_the_maps_are_the_literal_loop_over_prompts_and_steps(family: str):
    """Through the tokens and a hook on the embedding, not through `inputs_embeds`; one answer at a time."""
    model, batch = tiny(family), sample("parity-aligned", 3, 3, seed=0)
    found = gradient_x_input(model, batch)
    seen: list[Tensor] = []

    def catch(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        seen.append(out.detach().requires_grad_())
        return seen[-1]

    handle = entry(model)[0].register_forward_hook(catch)
    zero, one = batch.vocabulary["0"], batch.vocabulary["1"]
    for row in range(3):
        for i, at in enumerate(found.dest.tolist()):
            logits = model(batch.tokens[row : row + 1]).logits[0, at - 1]
            answer = int(batch.tokens[row, at])
            m = logits[answer] - logits[zero + one - answer]
            (gradient,) = torch.autograd.grad(m, seen[-1])
            expected = (seen[-1] * gradient)[0].sum(-1)
            assert torch.allclose(found.values[row, i], expected, rtol=1e-4, atol=1e-5)
            assert found.margin[row, i] == pytest.approx(m.item(), abs=1e-5)
    handle.remove()


def test_a_linear_model_gives_the_map_computed_by_hand():
    model, batch = Linear().eval(), sample("parity-aligned", 2, 3, seed=0)
    other = swap_labels(batch, 1, 3)
    x, x0 = embed(model, batch), embed(model, other)
    found, path = gradient_x_input(model, batch), integrated_gradients(model, batch, other, n=1)
    for row in range(2):
        for i, at in enumerate(batch.at(Role.OUTPUT).tolist()):
            answer = int(batch.tokens[row, at])
            other_answer = batch.vocabulary["1"] if answer == batch.vocabulary["0"] else batch.vocabulary["0"]
            direction = model.head[:, answer] - model.head[:, other_answer]
            weight = model.mix[at - 1, : batch.n_pos]
            assert torch.allclose(found.values[row, i], weight * (x[row] @ direction), atol=1e-5)
            assert torch.allclose(path.values[row, i], weight * ((x - x0)[row] @ direction), atol=1e-5)
    assert path.gap is not None
    assert path.gap.abs().max() < 1e-4


@pytest.mark.parametrize("family", [*FAMILIES, "llama", "opt"])
def test_nothing_right_of_the_reading_position_counts(family: str):
    model, batch = tiny(family), sample("parity-aligned", 2, 3, seed=0)
    maps = [gradient_x_input(model, batch), integrated_gradients(model, batch, redraw(batch, seed=5), n=2)]
    for found in maps:
        for i, at in enumerate(found.dest.tolist()):
            assert (found.values[:, i, at:] == 0).all()
            assert (found.values[:, i, at - 1] != 0).any()


def test_without_values_only_the_reading_position_counts():
    model, batch = tiny("rotary", n_layers=1), sample("parity-aligned", 2, 3, seed=0)
    assert (gradient_x_input(model, batch, steps=[2]).values[:, 0, :10] != 0).all()  # the "before" half
    with torch.no_grad():
        fused = model.get_parameter("gpt_neox.layers.0.attention.query_key_value.weight")
        fused.view(2, 3, 8, 16)[:, 2] = 0
    found = gradient_x_input(model, batch, steps=[2])
    at = int(found.dest)
    others = torch.arange(batch.n_pos) != at - 1
    assert (found.values[:, 0, others] == 0).all()
    assert (found.values[:, 0, at - 1] != 0).all()


def share_left(values: Tensor, absolute: Tensor, dest: Tensor) -> float:
    """How much of the absolute map is left in the signed one, left of the reading positions."""
    columns = torch.arange(values.shape[-1]) < (dest - 1).unsqueeze(1)
    return float(values.abs()[:, columns].sum() / absolute[:, columns].sum())


@pytest.mark.parametrize(("embeddings", "least", "most"), [("raw", 0.0, 1e-4), ("normed", 1e-2, 1.0)])
def test_bloom_is_read_after_its_layernorm_for_before_it_all_signed_maps_are_zero(
    embeddings: Any, least: float, most: float
):
    model, batch = tiny("alibi"), sample("parity-aligned", 4, 3, seed=0)
    signed, absolute = (gradient_x_input(model, batch, kind=k, embeddings=embeddings) for k in ("signed", "absolute"))
    assert least <= share_left(signed.values, absolute.values, signed.dest) <= most
    path = integrated_gradients(model, batch, swap_labels(batch, 1, 2), n=64, embeddings=embeddings)
    assert path.gap is not None
    assert path.values.abs().max() > 1e-2
    assert path.gap.abs().max() < 0.05 * path.values.abs().max()


@pytest.mark.parametrize(
    ("family", "least", "most"),
    [("rotary", 0.0, 1e-3), ("none", 0.0, 1e-3), ("llama", 0.0, 1e-3), ("absolute", 0.05, 1.0)],
)
def test_the_trap_of_layernorm_one_block_shows_signed_zeros_unless_positions_are_added(
    family: str, least: float, most: float
):
    """Sources are read through the LayerNorm alone, so scaling them does nothing, however much they matter."""
    model, batch = tiny(family, n_layers=1), sample("parity-aligned", 4, 3, seed=0)
    signed, absolute = (gradient_x_input(model, batch, kind=k) for k in ("signed", "absolute"))
    assert absolute.values.max() > 0.05
    assert least <= share_left(signed.values, absolute.values, signed.dest) <= most


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_chunks_and_order_of_prompts_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch):
    model, batch = tiny("alibi"), sample("parity-aligned", 5, 3, seed=0)
    other, order = redraw(batch, seed=3), torch.tensor([3, 0, 4, 2, 1])
    whole, path = gradient_x_input(model, batch), integrated_gradients(model, batch, other, n=3)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda m, args, kw: sizes.append(len(kw["inputs_embeds"])), with_kwargs=True)
    monkeypatch.setattr(gradients, "CHUNK_TOKENS", rows * batch.n_pos)
    again = gradient_x_input(model, batch.rows(order))
    assert max(sizes) == rows
    assert len(sizes) == -(-5 // rows)
    assert torch.allclose(again.values, whole.values[order], atol=1e-5)
    assert torch.allclose(again.margin, whole.margin[order], atol=1e-5)
    again = integrated_gradients(model, batch.rows(order), other.rows(order), n=3)
    assert torch.allclose(again.values, path.values[order], atol=1e-5)
    assert again.gap is not None
    assert path.gap is not None
    assert torch.allclose(again.gap, path.gap[order], atol=1e-5)


def test_many_logits_and_gradients_make_chunks_smaller(monkeypatch: pytest.MonkeyPatch):
    model, batch = tiny("rotary"), sample("parity-aligned", 4, 3, seed=0)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda m, args, kw: sizes.append(len(kw["inputs_embeds"])), with_kwargs=True)
    for budget, expected in ((3 * D_VOCAB * 2, [2, 2]), (3 * D_VOCAB, [1] * 4), (1, [1] * 4)):
        sizes.clear()
        monkeypatch.setattr(gradients, "numbers", lambda share, device, budget=budget: budget)
        gradient_x_input(model, batch)
        assert sizes == expected


def test_chosen_steps_come_in_the_order_given():
    model, batch = tiny("none"), sample("parity-aligned", 2, 4, seed=0)
    every, some = gradient_x_input(model, batch), gradient_x_input(model, batch, steps=[4, 2])
    assert every.steps == (1, 2, 3, 4)
    assert some.steps == (4, 2)
    assert torch.equal(some.dest, every.dest[[3, 1]])
    assert torch.allclose(some.values, every.values[:, [3, 1]], atol=1e-5)


def test_against_names_the_other_answer_of_addition():
    model, batch = tiny("absolute"), sample("addition-aligned", 2, 2, seed=0)
    against = flip_input(batch, 1, scratchpad="recompute")
    for role in (Role.OUTPUT, Role.ANSWER):
        found = gradient_x_input(model, batch, steps=[1], against=against, role=role)
        at = int(found.dest)
        assert at == int(batch.at(role, 1))
        with torch.no_grad():
            logits = model(batch.tokens).logits[:, at - 1]
        rows = torch.arange(2)
        expected = logits[rows, batch.tokens[:, at]] - logits[rows, against.tokens[:, at]]
        assert torch.allclose(found.margin[:, 0], expected, atol=1e-5)
        reverse = gradient_x_input(model, batch.with_tokens(batch.tokens), steps=[1], against=against, role=role)
        assert torch.equal(reverse.values, found.values)


def test_against_the_other_bit_is_the_default_of_parity():
    model, batch = tiny("absolute"), sample("parity-aligned", 2, 3, seed=0)
    at = batch.at(Role.OUTPUT)
    tokens = batch.tokens.clone()
    tokens[:, at] = batch.vocabulary.tokens("01").sum() - tokens[:, at]
    found = gradient_x_input(model, batch, against=batch.with_tokens(tokens))
    assert torch.equal(found.values, gradient_x_input(model, batch).values)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_model_and_torch_are_left_as_they_were(frozen: bool):
    model, batch = tiny("rotary"), sample("parity-aligned", 2, 3, seed=0)
    weight = next(model.parameters())
    weight.requires_grad_(not frozen)
    flags = [p.requires_grad for p in model.parameters()]
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    if not frozen:
        weight.grad = torch.ones_like(weight)
    random = torch.random.get_rng_state()
    with torch.no_grad():
        found = gradient_x_input(model, batch)
        integrated_gradients(model, batch, redraw(batch, seed=1), n=2)
        assert not torch.is_grad_enabled()
    assert found.values.abs().max() > 0
    assert not found.values.requires_grad
    assert not found.margin.requires_grad
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(weights[name], p) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert weight.grad is None if frozen else bool((weight.grad == 1).all())
    assert torch.equal(random, torch.random.get_rng_state())


def test_half_precision_gives_float32_near_the_full_one():
    batch = sample("parity-aligned", 2, 3, seed=0)
    full, half = gradient_x_input(tiny("rotary"), batch), gradient_x_input(tiny("rotary").bfloat16(), batch)
    assert half.values.dtype == half.margin.dtype == torch.float32
    assert same(half.values, full.values, 0.1)


# Integrated gradients


@pytest.mark.parametrize("family", [*FAMILIES, "llama"])
def test_integrated_gradients_are_complete(family: str):
    """The gap is what is reported, shrinks with n, and is small against the change of the margin."""
    model, batch = tiny(family), sample("parity-aligned", 2, 3, seed=0)
    other, plain = swap_labels(batch, 1, 3), without_norm(model)
    gaps = {}
    for n in (1, 64):
        found = integrated_gradients(model, batch, other, n=n)
        change = torch.cat(
            [
                margins(plain, embed(model, batch)[r : r + 1], batch.rows(slice(r, r + 1)), found.dest)
                - margins(plain, embed(model, other)[r : r + 1], batch.rows(slice(r, r + 1)), found.dest)
                for r in range(2)
            ]
        )
        assert found.gap is not None
        assert torch.allclose(found.gap, found.values.sum(-1) - change, atol=1e-4)
        gaps[n] = float(found.gap.abs().max() / change.abs().max())
    assert gaps[1] > 1e-2
    assert gaps[64] < 1e-3


def test_only_tokens_that_differ_count_on_the_path():
    model, batch = tiny("rotary"), sample("parity-aligned", 3, 3, seed=0)
    other = swap_labels(batch, 1, 3)
    differs = batch.tokens != other.tokens
    for kind in KINDS:
        values = integrated_gradients(model, batch, other, n=4, kind=kind).values
        assert (values.transpose(1, 2)[~differs] == 0).all()
        assert (values[:, -1][differs] != 0).all()
    same_ends = integrated_gradients(model, batch, batch, n=2)
    assert (same_ends.values == 0).all()
    assert same_ends.gap is not None
    assert (same_ends.gap == 0).all()


def test_kinds_of_integrated_gradients_bound_each_other():
    model, batch = tiny("rotary"), sample("parity-aligned", 2, 3, seed=0)
    signed, absolute, l2 = (integrated_gradients(model, batch, redraw(batch, seed=2), n=4, kind=kind) for kind in KINDS)
    assert (absolute.values + 1e-6 >= signed.values.abs()).all()
    assert (absolute.values + 1e-6 >= l2.values).all()
    assert (4 * l2.values + 1e-6 >= absolute.values).all()  # Cauchy-Schwarz with 16 dimensions
    assert signed.gap is not None
    assert absolute.gap is not None
    assert torch.allclose(signed.gap, absolute.gap)
    assert (absolute.values > 1.05 * signed.values.abs()).any()


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "squared"}, "unknown kind 'squared'; kinds are signed, absolute, l2"),
        ({"embeddings": "table"}, "unknown embeddings 'table'; choices are normed, raw"),
        ({"steps": [4]}, "no output with step 4; steps run from 1 to 3"),
        ({"steps": []}, "no step was chosen"),
        ({"role": Role.INPUT}, "an answer's role is one of OUTPUT, ANSWER; got INPUT"),
        ({"against": sample("parity-aligned", 2, 3, seed=0)}, "has the same answers at these steps"),
        ({"against": sample("parity-aligned", 2, 4, seed=0)}, "batch and against must have the same number of tokens"),
    ],
)
def test_mistakes_are_named(arguments: dict, message: str):
    model, batch = tiny("rotary"), sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(ValueError, match=re.escape(message)):
        gradient_x_input(model, batch, **arguments)
    with pytest.raises(ValueError, match=re.escape(message)):
        integrated_gradients(model, batch, batch, **arguments)


def test_mistakes_of_the_path_are_named():
    model, batch = tiny("rotary"), sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        integrated_gradients(model, batch, batch, n=0)
    with pytest.raises(ValueError, match=r"a whole number of at least 1; got 1\.5"):
        integrated_gradients(model, batch, batch, n=1.5)  # type: ignore[arg-type]
    longer, fewer = sample("parity-aligned", 2, 4, seed=0), batch.rows(slice(1))
    shifted = dataclasses.replace(batch, role=batch.role.roll(1), names=())
    for other in (longer, fewer, shifted):
        with pytest.raises(ValueError, match="prompts and other must have the same"):
            integrated_gradients(model, batch, other)


def test_answers_that_are_none_are_named():
    model, batch = tiny("rotary"), sample("addition-aligned", 2, 2, seed=0)
    with pytest.raises(ValueError, match="addition-aligned has 10 answers; pass `against`"):
        gradient_x_input(model, batch)
    parity = sample("parity-aligned", 2, 3, seed=0)
    tokens = parity.tokens.clone()
    tokens[1, parity.at(Role.OUTPUT, 2)] = parity.vocabulary["M3"]
    with pytest.raises(ValueError, match="prompt 1 has no answer"):
        gradient_x_input(model, parity.with_tokens(tokens))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        gradient_x_input(tiny("rotary").train(), sample("parity-aligned", 2, 3, seed=0))


def test_values_that_are_not_finite_name_the_first_prompt():
    batch, model = sample("parity-aligned", 4, 3, seed=0), tiny("rotary")
    label = next(t for t in batch.tokens[2].tolist() if not (batch.tokens[:2] == t).any())
    with torch.no_grad():
        model.get_parameter("gpt_neox.embed_in.weight")[label] = torch.nan
    with pytest.raises(ValueError, match=re.escape(f"first in prompt 2: {batch.text(2)}")):
        gradient_x_input(model, batch)


def test_values_of_another_shape_are_refused():
    batch = sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(ValueError, match=re.escape("[batch dest src_pos] = (2, 3, 14); got (2, 3, 13)")):
        Attribution(torch.zeros(2, 3, 13), batch, batch.at(Role.OUTPUT), "signed", "", torch.zeros(2, 3))


def test_the_example_gives_what_it_says():
    assert doctest.testmod(attribution).failed == 0
    assert doctest.testmod(attribution).attempted > 3
