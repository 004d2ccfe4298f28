"""Knockouts are what hooks on the raw model and on the bridge do, edge by edge."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from interp.forward import predict
from interp.models import FAMILIES, ModelConfig, build_model
from interp.models.anatomy import anatomy_of
from interp.models.bridge import boot_bridge
from interp.patching import editing
from interp.patching.effect import PatchEffect
from interp.patching.knocking_out import knock_out, knock_out_for
from interp.patching.knockouts import MODES, Knockout, groups, pairwise, single
from interp.patching.metrics import Metric, accuracy, kl, logit_diff
from interp.places import describe, positions_at
from interp.tasks import Batch, Role, default_vocabulary, sample

KINDS = (*FAMILIES, "parallel", "grouped")
VOCAB = len(default_vocabulary().ids)
LABELS, BITS, OUT, OUT_LABEL = Role.INPUT_LABEL, Role.INPUT, Role.OUTPUT, Role.OUTPUT_LABEL


def tiny(kind: str, n_layers: int = 2) -> PreTrainedModel:
    """Each family, GPT-NeoX with parallel blocks and Llama with grouped queries; no bias is zero."""
    common = {"hidden_size": 16, "num_hidden_layers": n_layers, "vocab_size": VOCAB, "initializer_range": 0.3}
    common |= {"attn_implementation": "eager", "intermediate_size": 32, "pad_token_id": 0}
    torch.manual_seed(0)
    match kind:
        case "parallel":
            model: Any = GPTNeoXForCausalLM(GPTNeoXConfig(num_attention_heads=2, use_parallel_residual=True, **common))
        case "grouped":
            model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **common))
        case family:
            config = ModelConfig(family, n_layers, d_model=16, n_heads=2, initializer_range=0.3, rotary_pct=0.5)
            model = build_model(config, VOCAB, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith("sink_key"):
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def probe(batch: Batch, positions: Iterable[int] | None = None) -> Metric:
    """A random functional of all logits at the last six positions (or others), so that no change goes unseen."""
    at = torch.tensor(sorted(positions) if positions is not None else range(batch.n_pos - 6, batch.n_pos))
    weights = torch.randn(len(at), VOCAB, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        return (logits * weights.to(logits.dtype)).sum(dim=(-1, -2)) / 10

    return Metric("probe", at, compute)


def parts(raw: Any, layer: int) -> tuple[Any, tuple[Any, ...], Any, Any]:
    """Of one layer: what feeds q, k and v, the attention's output projection, the MLP's last projection."""
    match raw.config.model_type:
        case "bloom" | "bloom_key_sink":
            b = raw.transformer.h[layer]
            return b, (b.self_attention.query_key_value,), b.self_attention.dense, b.mlp.dense_4h_to_h
        case "gpt_neox":
            b = raw.gpt_neox.layers[layer]
            return b, (b.attention.query_key_value,), b.attention.dense, b.mlp.dense_4h_to_h
        case "gpt2":
            b = raw.transformer.h[layer]
            return b, (b.attn.c_attn,), b.attn.c_proj, b.mlp.c_proj
        case _:
            b = raw.model.layers[layer]
            a = b.self_attn
            return b, (a.q_proj, a.k_proj, a.v_proj), a.o_proj, b.mlp.down_proj


def qkv(raw: Any, outputs: list[Tensor], which: str) -> Tensor:
    """A view `[... pos head d_head]` of q, k or v in the outputs of the projections."""
    n, i = raw.config.num_attention_heads, "qkv".index(which)
    if len(outputs) == 3:
        return outputs[i].unflatten(-1, (-1, raw.config.hidden_size // n))
    if raw.config.model_type == "gpt2":
        return outputs[0].unflatten(-1, (3, n, -1))[..., i, :, :]
    return outputs[0].unflatten(-1, (n, 3, -1))[..., i, :]


def edge_mask(batch: Batch, dest: Iterable[int], src: Iterable[int]) -> Tensor:
    mask = torch.zeros(batch.n_pos, batch.n_pos, dtype=torch.bool)
    for d in dest:
        for s in src:
            mask[d, s] = s <= d
    return mask


@torch.no_grad()
def by_bridge(
    bridge: Any,
    batch: Batch,
    metric: Metric,
    mode: str,
    mask: Tensor,
    heads: Iterable[tuple[int, int]],
    freeze: int | None = None,
) -> Tensor:
    """The metric with `hook_pattern` edited in (layer, head)s; from layer `freeze` on, of the intact patterns."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    _, cache = bridge.run_with_cache(batch.tokens)
    fired: list[int] = []

    def edit(layer: int) -> Any:
        def hook(pattern: Tensor, hook: Any) -> Tensor:
            fired.append(layer)
            intact = cache[f"blocks.{layer}.attn.hook_pattern"]
            pattern = (intact if freeze is not None and layer >= freeze else pattern).clone()
            for head in by_layer.get(layer, []):
                pattern[:, head][:, mask] = 0
                if mode == "renormalise":
                    pattern[:, head] /= pattern[:, head].sum(dim=-1, keepdim=True)
            return pattern

        return hook

    layers = range(len(bridge.blocks))
    hooks = [(f"blocks.{layer}.attn.hook_pattern", edit(layer)) for layer in layers]
    logits = bridge.run_with_hooks(batch.tokens, fwd_hooks=hooks)
    assert fired == list(layers)
    return metric.compute(logits[:, metric.positions], torch.arange(len(batch)))


@torch.no_grad()
def mean_by_loop(raw: Any, batch: Batch, metric: Metric, mask: Tensor, heads: set[tuple[int, int]], by: str) -> Tensor:
    """Mode "mean", literally: one layer, prompt, head, destination and source after the other."""
    n_layers, n_heads = raw.config.num_hidden_layers, raw.config.num_attention_heads
    instead: dict[int, Tensor] = {}

    def run() -> tuple[Any, dict[int, Tensor]]:
        outputs: dict[int, list[Tensor]] = {}
        with ExitStack() as stack:
            for layer in range(n_layers):
                _, projections, out, _ = parts(raw, layer)
                for projection in projections:

                    def record(_m: Any, _a: Any, y: Tensor, layer: int = layer) -> None:
                        outputs.setdefault(layer, []).append(y)

                    stack.callback(projection.register_forward_hook(record).remove)
                if layer in instead:

                    def write(_m: Any, args: Any, layer: int = layer) -> tuple[Tensor]:
                        return (args[0] + instead[layer],)

                    stack.callback(out.register_forward_pre_hook(write).remove)
            result = raw(batch.tokens, output_attentions=True, use_cache=False)
        values = {i: qkv(raw, o, "v") for i, o in outputs.items()}
        return result, {i: v.repeat_interleave(n_heads // v.shape[-2], dim=-2) for i, v in values.items()}

    _, intact = run()
    for layer in range(n_layers):
        result, values = run()
        pattern, v = result.attentions[layer], values[layer]
        extra = torch.zeros_like(v)
        for d, s in mask.nonzero().tolist():
            like = batch.role == batch.role[s]
            like = like & (batch.step == batch.step[s]) if by == "step" else like
            if by == "token":
                constant = (batch.tokens == batch.tokens[0]).all(dim=0)
                alone = torch.arange(batch.n_pos) == s
                like = constant & (batch.tokens[0] == batch.tokens[0, s]) if constant[s] else alone
            for head in range(n_heads):
                if (layer, head) in heads:
                    mean = intact[layer][:, like, head].mean(dim=(0, 1))
                    for prompt in range(len(batch)):
                        extra[prompt, d, head] += pattern[prompt, head, d, s] * (mean - v[prompt, s, head])
        instead[layer] = extra.flatten(-2)
    result, _ = run()
    return metric.compute(result.logits[:, metric.positions], torch.arange(len(batch)))


@pytest.fixture(scope="module")
def batch() -> Batch:
    return sample("parity-aligned", 3, 3, seed=0)


def only(effect: PatchEffect) -> Tensor:
    assert effect.values.shape[0] == 1
    return effect.values[0]


HEADS = [None, {(0, 1)}, {(1, 0)}, {(0, 0), (1, 1)}]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "alibi_sink"])
def test_renormalise_and_null_are_edits_of_the_bridges_pattern(kind: str, batch: Batch):
    raw, bridge, metric = tiny(kind), boot_bridge(tiny(kind)), probe(batch)
    every = {(layer, head) for layer in range(2) for head in range(raw.config.num_attention_heads)}
    mask = edge_mask(batch, batch.at(OUT).tolist() + batch.at(OUT_LABEL, 2).tolist(), batch.at(LABELS).tolist())
    for mode in ("renormalise", "null"):
        for heads in HEADS:
            knockout = Knockout(LABELS, (OUT, (OUT_LABEL, 2)), heads=heads, mode=mode)
            effect = knock_out(raw, batch, knockout, metric)
            expected = by_bridge(bridge, batch, metric, mode, mask, heads or every)
            assert torch.allclose(only(effect), expected, rtol=0, atol=3e-5), (mode, heads)
            assert effect.change.abs().max() > 1e-2
        assert torch.equal(
            only(knock_out(raw, batch, Knockout(LABELS, OUT, layers=(1,), mode=mode), metric)),
            only(
                knock_out(raw, batch, Knockout(LABELS, OUT, heads={h for h in every if h[0] == 1}, mode=mode), metric)
            ),
        )
    intact = by_bridge(bridge, batch, metric, "null", mask, [])
    assert torch.allclose(effect.base, intact, atol=3e-5)


def test_where_there_is_a_sink_a_knockout_is_a_mask_of_the_raw_model(batch: Batch):
    """No bridge knows sinks. What is taken from labels goes to the other keys and to the sink."""
    raw, metric = tiny("alibi_sink"), probe(batch)
    mask = edge_mask(batch, batch.at(OUT).tolist(), batch.at(LABELS).tolist())

    def masked(_m: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "attention_mask": kwargs["attention_mask"].masked_fill(mask, -1e30)}

    handle = raw.get_submodule("transformer.h.1.self_attention").register_forward_pre_hook(masked, with_kwargs=True)
    with torch.no_grad():
        out = raw(batch.tokens, output_attentions=True)
    handle.remove()
    expected = metric.compute(out.logits[:, metric.positions], torch.arange(3))
    effect = knock_out(raw, batch, Knockout(LABELS, OUT, layers=(1,)), metric)
    assert torch.allclose(only(effect), expected, rtol=0, atol=3e-5)
    assert effect.change.abs().max() > 1e-2
    assert out.attentions[1].sum(dim=-1).min() < 0.8


@pytest.mark.parametrize("by", ["role", "step"])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_is_the_literal_loop(kind: str, by: Any, batch: Batch):
    raw, metric = tiny(kind), probe(batch)
    every = {(layer, head) for layer in range(2) for head in range(raw.config.num_attention_heads)}
    mask = edge_mask(batch, range(batch.n_pos), batch.at(LABELS).tolist())
    for heads in (None, {(0, 1), (1, 0)}):
        knockout = Knockout(LABELS, tuple(range(batch.n_pos)), heads=heads, mode="mean", mean_by=by)
        effect = knock_out(raw, batch, knockout, metric)
        expected = mean_by_loop(raw, batch, metric, mask, heads or every, by)
        assert torch.allclose(only(effect), expected, rtol=0, atol=3e-5)
        assert effect.change.abs().max() > 1e-2


@pytest.mark.parametrize("name", ["parity-constant", "parity-aligned"])
def test_mean_over_like_tokens_is_the_literal_loop(name: str):
    """The labels `#` of input and output are averaged together; labels that differ between prompts are by position."""
    given = sample(name, 3, 3, seed=0)
    raw, metric = tiny("rotary"), probe(given)
    every = {(layer, head) for layer in range(2) for head in range(raw.config.num_attention_heads)}
    mask = edge_mask(given, range(given.n_pos), given.at(LABELS).tolist())
    by_token, by_role = (
        only(knock_out(raw, given, Knockout(LABELS, tuple(range(given.n_pos)), mode="mean", mean_by=by), metric))
        for by in ("token", "role")
    )
    assert torch.allclose(by_token, mean_by_loop(raw, given, metric, mask, every, "token"), rtol=0, atol=3e-5)
    assert (by_token - by_role).abs().max() > 1e-3


def test_means_differ_by_role_and_by_step(batch: Batch):
    raw, metric = tiny("absolute"), probe(batch)
    knockouts: Any = [Knockout(LABELS, OUT, mode="mean", mean_by=by) for by in ("role", "step")]
    by_role, by_step = knock_out(raw, batch, knockouts, metric).values
    assert (by_role - by_step).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["alibi", "rotary", "grouped"])
@pytest.mark.parametrize("heads", [{(0, 0)}, {(0, 1), (2, 0)}])
def test_later_patterns_can_be_frozen(kind: str, heads: Any, batch: Batch):
    raw, bridge, metric = tiny(kind, 3), boot_bridge(tiny(kind, 3)), probe(batch)
    mask = edge_mask(batch, batch.at(OUT).tolist(), batch.at(LABELS).tolist())
    for mode in ("renormalise", "null"):
        knockout = Knockout(LABELS, OUT, heads=heads, mode=mode)
        frozen = knock_out(raw, batch, knockout, metric, freeze_later=True)
        expected = by_bridge(bridge, batch, metric, mode, mask, heads, freeze=0)
        assert torch.allclose(only(frozen), expected, rtol=0, atol=3e-5)
        assert (only(frozen) - only(knock_out(raw, batch, knockout, metric))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_everything_nulled_in_a_row_leaves_the_attentions_bias(kind: str, batch: Batch):
    raw, metric = tiny(kind), probe(batch)
    at = batch.n_pos - 2
    knockout = Knockout(tuple(range(batch.n_pos)), (at,), layers=(1,), mode="null")
    out = parts(raw, 1)[2]

    def bias_only(_m: Any, _a: Any, y: Tensor) -> Tensor:
        # BLOOM's projection is wrapped by nothing else: the residual is added after it.
        y = y.clone()
        y[:, at] = 0 if getattr(out, "bias", None) is None else out.bias
        return y

    handle = out.register_forward_hook(bias_only)
    with torch.no_grad():
        logits = raw(batch.tokens).logits
    handle.remove()
    expected = metric.compute(logits[:, metric.positions], torch.arange(3))
    effect = knock_out(raw, batch, knockout, metric)
    assert torch.allclose(only(effect), expected, rtol=0, atol=3e-5)
    assert effect.change.abs().max() > 1e-2


@pytest.mark.parametrize("mode", MODES)
def test_an_edge_of_weight_zero_is_worth_nothing(mode: Any, batch: Batch):
    raw: Any = tiny("rotary")
    with torch.no_grad():  # attention so sharp that most weights underflow to zero
        for layer in raw.gpt_neox.layers:
            layer.attention.query_key_value.weight *= 40
        attention = raw(batch.tokens, output_attentions=True).attentions[0][:, 1]
    d = batch.n_pos - 3
    unread = (attention[:, d, : d + 1] == 0).all(dim=0).nonzero().flatten().tolist()
    assert unread
    inputs = batch.at(LABELS).tolist() + batch.at(BITS).tolist()
    read = [max(set(inputs) - set(unread), key=lambda s: float(attention[:, d, s].max()))]
    metric = probe(batch)
    nothing = Knockout(tuple(unread), (d,), heads={(0, 1)}, mode=mode)
    something = Knockout((*unread, *read), (d,), heads={(0, 1)}, mode=mode)
    changes = knock_out(raw, batch, [nothing, something], metric).change
    # Both runs round alike on some processors only: products of fewer rows may be summed in another order.
    assert torch.allclose(changes[0], torch.zeros(3), atol=1e-5)
    assert changes[1].abs().max() > 0.1


# M6 by hand


def sink_model(value: float, varied: bool = False) -> Any:
    """One layer, one head, no MLP: attention uniform; labels of value `value` along dimension 0, others 1 along 1.

    LayerNorm is made the identity up to a known factor: embeddings are one-hot pairs of mean zero.
    """
    config = ModelConfig("absolute", n_layers=1, d_model=8, n_heads=1)
    raw: Any = build_model(config, VOCAB, seed=0).double().eval()
    labels = default_vocabulary().pool
    block = raw.transformer.h[0]
    with torch.no_grad():
        for p in raw.parameters():
            p.zero_()
        for norm in (block.ln_1, block.ln_2, raw.transformer.ln_f):
            norm.weight.fill_(1)
        raw.lm_head.weight = torch.nn.Parameter(torch.zeros(VOCAB, 8, dtype=torch.float64))  # untied
        raw.lm_head.weight[0, 4] = 1  # logit 0 reads dimension 4 of the normed residual
        embedding = raw.transformer.wte.weight
        embedding[:, 1], embedding[:, 2] = 1, -1
        embedding[labels] = 0
        embedding[labels, 0], embedding[labels, 2] = 1, -1
        if varied:  # half of the labels say something else
            embedding[labels[1::2]] = 0
            embedding[labels[1::2], 3], embedding[labels[1::2], 2] = 1, -1
        # Normed entries are +2 and -2: mean 0, variance 2 / 8. Value of a token: along dimensions 4 and -5.
        v = block.attn.c_attn.weight[:, 16:]
        for token, size in ((0, value), (1, 1.0), (3, -value)):
            v[token, 4], v[token, 5] = size / 2, -size / 2
        block.attn.c_proj.weight.copy_(torch.eye(8))
    return raw


def by_hand(batch: Batch, row: int, d: int, weight: dict[int, float], value: dict[int, float]) -> float:
    """Logit 0 at d: the residual is the token's pair of +1 and -1 and z along dimensions 4 and 5, normed."""
    z = sum(w * value[s] for s, w in weight.items())
    return z / ((2 + 2 * z * z) / 8 + 1e-5) ** 0.5


@pytest.mark.parametrize("case", ["sink", "constant", "varied"])
def test_m6_by_hand(case: str):
    batch = sample("parity-aligned", 4, 3, seed=0)
    raw = sink_model({"sink": 0.0, "constant": 3.0, "varied": 3.0}[case], varied=case == "varied")
    d = int(batch.at(Role.SEPARATOR)[0])
    metric = Metric("logit 0", torch.tensor([d]), lambda logits, rows: logits[:, 0, 0])
    knockouts: Any = {mode: Knockout(LABELS, Role.SEPARATOR, mode=mode) for mode in MODES}
    effect = knock_out(raw, batch, knockouts, metric)
    assert not effect.values.requires_grad
    labels, odd = set(batch.at(LABELS).tolist()), set(default_vocabulary().pool[1::2].tolist())
    sizes = []
    for row in range(4):
        own = {s: int(batch.tokens[row, s]) for s in range(d + 1)}
        size = {"sink": 0.0, "constant": 3.0, "varied": 3.0}[case]
        # A normed embedding is 2 (up to LayerNorm's epsilon) where the embedding is 1.
        scale = 1 / (2 / 8 + 1e-5) ** 0.5 / 2
        value = {
            s: scale * ((-size if case == "varied" and own[s] in odd else size) if s in labels else 1.0) for s in own
        }
        sizes.append(value)
        rest = [s for s in own if s not in labels]
        even = {s: 1 / (d + 1) for s in own}
        expected = {
            "renormalise": by_hand(batch, row, d, {s: 1 / len(rest) for s in rest}, value),
            "null": by_hand(batch, row, d, {s: 1 / (d + 1) for s in rest}, value),
        }
        assert float(effect.base[row]) == pytest.approx(by_hand(batch, row, d, even, value), abs=1e-9)
        for i, mode in enumerate(("renormalise", "null")):
            assert float(effect.values[i, row]) == pytest.approx(expected[mode], abs=1e-9)
    mean = sum(value[s] for value in sizes for s in labels) / (4 * len(labels))
    for row, value in enumerate(sizes):
        dull = {s: mean if s in labels else value[s] for s in value}
        found = by_hand(batch, row, d, dict.fromkeys(dull, 1 / (d + 1)), dull)
        assert float(effect.values[2, row]) == pytest.approx(found, abs=1e-9)
    lost = effect.change.abs().mean(dim=-1)
    denominator, constant, content = lost[0] - lost[1], lost[1] - lost[2], lost[2]
    assert float(denominator + constant + content) == pytest.approx(float(lost[0]))
    match case:
        case "sink":
            assert denominator > 0.1 and abs(constant) < 1e-9 and content < 1e-9  # noqa: PT018
        case "constant":
            assert constant > 0.1 and content < 1e-9  # noqa: PT018
        case "varied":
            assert content > 0.1


# Entries, chunks and mistakes


def test_a_tuple_is_one_run_and_a_list_is_several(batch: Batch):
    raw, metric = tiny("rotary"), probe(batch)
    one, two = (Knockout(LABELS, OUT, heads={h}, mode="null") for h in ((0, 0), (1, 1)))
    both = Knockout(LABELS, OUT, heads={(0, 0), (1, 1)}, mode="null")
    effect = knock_out(raw, batch, [one, two, (one, two), both], metric)
    assert effect.labels["knockout"] == (
        "input label -> output L0H0 (null)",
        "input label -> output L1H1 (null)",
        "input label -> output L0H0 (null) + input label -> output L1H1 (null)",
        "input label -> output L0H0,L1H1 (null)",
    )
    assert torch.equal(effect.values[2], effect.values[3])
    assert not torch.allclose(effect.values[2], effect.values[0])
    assert torch.equal(only(knock_out(raw, batch, (one, two), metric)), effect.values[2])
    with pytest.raises(ValueError, match="look at `change`"):
        _ = effect.recovered


def test_modes_join_in_one_entry(batch: Batch):
    """Masked, then nulled, then replaced: an edge that is nulled has no attention left to carry a mean."""
    raw, metric = tiny("absolute"), probe(batch)
    null, mean = (Knockout(LABELS, OUT, layers=(1,), mode=mode) for mode in ("null", "mean"))
    masked = Knockout(BITS, OUT, layers=(1,))
    effect = knock_out(raw, batch, [null, (null, mean), (masked, null), masked, mean], metric)
    assert torch.equal(effect.values[0], effect.values[1])
    assert len({round(float(v[0]), 4) for v in effect.values}) == 4
    bridge = boot_bridge(tiny("absolute"))

    def edit(pattern: Tensor, hook: Any) -> Tensor:
        pattern = pattern.clone()
        pattern[..., edge_mask(batch, batch.at(OUT).tolist(), batch.at(BITS).tolist())] = 0
        pattern /= pattern.sum(dim=-1, keepdim=True)
        pattern[..., edge_mask(batch, batch.at(OUT).tolist(), batch.at(LABELS).tolist())] = 0
        return pattern

    with torch.no_grad():
        logits = bridge.run_with_hooks(batch.tokens, fwd_hooks=[("blocks.1.attn.hook_pattern", edit)])
    expected = metric.compute(logits[:, metric.positions], torch.arange(3))
    assert torch.allclose(effect.values[2], expected, rtol=0, atol=3e-5)


def test_sweeps_name_their_heads(batch: Batch):
    raw, metric = tiny("grouped"), probe(batch)
    knockout = Knockout(LABELS, OUT, layers=(0, 1))
    alone = single(raw, knockout)
    assert list(alone) == [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
    assert list(single(raw, Knockout(LABELS, OUT, heads={(1, 2), (0, 3)}))) == ["L0H3", "L1H2"]
    pairs = pairwise(raw, Knockout(LABELS, OUT, heads={(1, 2), (0, 3), (0, 1)}))
    assert list(pairs) == ["L0H1+L0H3", "L0H1+L1H2", "L0H3+L1H2"]
    effect = knock_out(raw, batch, alone | pairs | groups(raw, knockout, {"late": [(1, 0), (1, 1)]}), metric)
    assert effect.labels["knockout"] == (*alone, *pairs, "late")
    for name, heads in (("L1H2", {(1, 2)}), ("L0H3+L1H2", {(0, 3), (1, 2)}), ("late", {(1, 0), (1, 1)})):
        cell = effect.values[effect.labels["knockout"].index(name)]
        assert torch.equal(cell, only(knock_out(raw, batch, Knockout(LABELS, OUT, heads=heads), metric)))


@pytest.mark.parametrize("freeze", [False, True])
def test_several_metrics_of_the_same_runs(freeze: bool, batch: Batch, monkeypatch: pytest.MonkeyPatch):
    """Each is what it is alone, in the order asked for, whatever positions the others read."""
    raw = tiny("rotary")
    metrics = [logit_diff(batch, 2), probe(batch), kl(batch, predict(raw, batch, batch.at(OUT))), accuracy(batch, 3)]
    knockouts: Any = {mode: Knockout(LABELS, OUT, mode=mode) for mode in MODES}
    for floats in (editing.numbers(editing.SHARE), 1):
        monkeypatch.setattr(editing, "numbers", lambda share, device, itemsize, floats=floats: floats)
        found = knock_out_for(raw, batch, knockouts, metrics, freeze_later=freeze)
        assert [e.metric for e in found] == [m.name for m in metrics]
        for effect, metric in zip(found, metrics, strict=True):
            alone = knock_out(raw, batch, knockouts, metric, freeze_later=freeze)
            assert effect.labels == alone.labels == {"knockout": MODES}
            assert torch.allclose(effect.values, alone.values, rtol=0, atol=1e-5)
            assert torch.allclose(effect.base, alone.base, rtol=0, atol=1e-5)
            assert effect.details["freeze_later"] == freeze
    assert found[1].change.abs().max() > 1e-2
    assert torch.allclose(found[2].base, torch.zeros(len(batch)), atol=1e-5)
    assert (found[2].values > 1e-4).any()


def test_no_metric_is_a_mistake(batch: Batch):
    with pytest.raises(ValueError, match="at least one metric"):
        knock_out_for(tiny("rotary"), batch, Knockout(LABELS, OUT), [])


def test_each_of_several_metrics_is_checked(batch: Batch):
    with pytest.raises(ValueError, match="reads position 99; these prompts have 0 to"):
        knock_out_for(tiny("rotary"), batch, Knockout(LABELS, OUT), [probe(batch), probe(batch, [99])])


@pytest.mark.parametrize("freeze", [False, True])
def test_each_prompt_is_worked_out_by_itself(freeze: bool, batch: Batch, monkeypatch: pytest.MonkeyPatch):
    """The metric of the batch must know the prompts by their numbers in each chunk; means span the chunks."""
    raw, metric = tiny("alibi"), logit_diff(batch, step=3)
    knockouts: Any = [Knockout(LABELS, OUT, mode=mode) for mode in MODES]
    whole = knock_out(raw, batch, knockouts, metric, freeze_later=freeze)
    monkeypatch.setattr(editing, "numbers", lambda share, device, itemsize: 1)
    chunked = knock_out(raw, batch, knockouts, metric, freeze_later=freeze)
    assert torch.allclose(chunked.values, whole.values, rtol=0, atol=1e-5)
    for i in range(3):
        alone = batch.rows(slice(i, i + 1))
        found = knock_out(raw, alone, knockouts[:2], logit_diff(alone, step=3), freeze_later=freeze)
        assert torch.allclose(found.values[:, 0], whole.values[:2, i], rtol=0, atol=1e-5)
    assert whole.values.std(dim=-1).min() > 1e-3


@pytest.mark.parametrize(
    ("knockout", "message"),
    [
        (lambda: Knockout(Role.FILLER, OUT), "no filler in .*its roles are"),
        (lambda: Knockout((LABELS, 9), OUT), "no input label with step 9; steps run from 1 to 3"),
        (lambda: Knockout((99,), OUT), "position 99 is outside 0 to"),
        (lambda: Knockout("labels", OUT), "no span 'labels'; there are no spans"),
        (lambda: Knockout(1.5, OUT), "a place is a Role .START, SEPARATOR"),  # pyright: ignore
        (lambda: Knockout((), OUT), "a place is a Role"),
        (lambda: Knockout((LABELS, 1, 2), OUT), "may be steps or positions"),
        (lambda: Knockout(OUT, LABELS), "has no edge: every source is after"),
        (lambda: Knockout(LABELS, OUT, layers=(2,)), "no layer 2; layers are 0 to 1"),
        (lambda: Knockout(LABELS, OUT, heads={(0, 2)}), "no head 2; heads are 0 to 1"),
        (lambda: Knockout(LABELS, OUT, heads={(-1, 0)}), "no layer -1"),
        (lambda: Knockout(LABELS, OUT, layers=()), "layers is empty"),
        (lambda: Knockout(LABELS, OUT, heads=[]), "heads is empty"),
        (lambda: Knockout(LABELS, OUT, layers=(1,), heads={(0, 1)}), r"heads \[\(0, 1\)\] are not in layers \[1\]"),
        (lambda: Knockout(LABELS, OUT, mode="zero"), "mode must be one of renormalise, null, mean"),  # pyright: ignore
        (lambda: Knockout(LABELS, OUT, mean_by="x"), "mean_by must be 'role', 'step', 'pos' or 'token'"),  # pyright: ignore
        (lambda: Knockout((0,), (0,)), r"L0H0 is left without a key at start \(position 0\)"),
        (
            lambda: (Knockout((0,), (1,), layers=(1,)), Knockout((1,), (1,), heads={(1, 1)})),
            r"L1H1 is left without a key at input label 1 \(position 1\)",
        ),
        (
            lambda: tuple(Knockout(LABELS, OUT, mode="mean", mean_by=by) for by in ("role", "step")),
            "must have the same mean_by; got role and step",
        ),
        (lambda: [Knockout(LABELS, OUT), Knockout(LABELS, OUT)], "two entries are the same"),
        (lambda: [], "no knockouts were given"),
    ],
)
def test_mistakes_are_named(knockout: Any, message: str, batch: Batch):
    with pytest.raises(ValueError, match=message):
        knock_out(tiny("rotary"), batch, knockout(), probe(batch))


def test_other_mistakes_are_named(batch: Batch):
    raw, knockout = tiny("rotary"), Knockout(LABELS, OUT)
    with pytest.raises(ValueError, match="reads position 99; these prompts have 0 to"):
        knock_out(raw, batch, knockout, probe(batch, [99]))
    with pytest.raises(ValueError, match="no head 7"):
        groups(raw, knockout, {"odd": [(0, 7)]})
    with pytest.raises(ValueError, match="there are no prompts"):
        knock_out(raw, batch.rows(slice(0, 0)), knockout, probe(batch))


# forward_with_edits


@pytest.mark.parametrize("kind", KINDS)
def test_the_pass_is_the_raw_model(kind: str, batch: Batch):
    raw = tiny(kind)
    anatomy = anatomy_of(raw)
    with torch.no_grad():
        final, kept = editing.forward_with_edits(
            anatomy, anatomy.embed(batch.tokens), keep=[("pattern", 1), ("resid_pre", 1)]
        )
        expected = raw(batch.tokens, output_attentions=True, output_hidden_states=True)
        assert torch.allclose(anatomy.unembed(final), expected.logits, atol=3e-5)
        assert torch.allclose(kept["pattern", 1], expected.attentions[1], atol=1e-5)
        assert torch.allclose(kept["resid_pre", 1], expected.hidden_states[1], atol=1e-5)
        assert torch.equal(editing.forward_with_edits(anatomy, kept["resid_pre", 1], start=1)[0], final)


def test_the_pass_names_a_place_that_does_not_exist(batch: Batch):
    anatomy = anatomy_of(tiny("rotary"))
    for place in (("patern", 0), ("z", 2), ("z", 0)):
        with pytest.raises(
            ValueError, match=f"no {place[0]!r} in layer {place[1]}; sites: resid_pre, q, .*layers 1 to 1"
        ):
            editing.forward_with_edits(anatomy, anatomy.embed(batch.tokens), start=1, keep=[place])  # pyright: ignore


def test_a_pass_that_is_not_the_raw_model_is_refused(batch: Batch):
    anatomy, metric = anatomy_of(tiny("rotary")), probe(batch)
    final, _ = editing.forward_with_edits(anatomy, anatomy.embed(batch.tokens))
    assert editing.difference_from_raw(anatomy, batch.tokens, final, metric) < 1e-5
    with pytest.raises(RuntimeError, match="differs from the raw model by"):
        editing.difference_from_raw(anatomy, batch.tokens, final + torch.randn(16), metric)


@pytest.mark.parametrize(
    ("at", "words", "positions"),
    [
        (Role.INPUT, "input", [2, 4, 6]),
        ((Role.INPUT, 2), "input 2", [4]),
        ((Role.OUTPUT, Role.INPUT), "output and input", [2, 4, 6, 9, 11, 13]),
        (((Role.OUTPUT, 1), Role.INPUT), "output 1 and input", [2, 4, 6, 9]),
        ((5, 3, 5), "positions 5, 3, 5", [3, 5]),
        ((4,), "position 4", [4]),
        (None, "all positions", list(range(14))),
    ],
)
def test_places(at: Any, words: str, positions: list[int], batch: Batch):
    assert positions_at(batch, at).tolist() == positions
    assert describe(at) == words


def test_a_list_under_a_name_is_one_entry(batch: Batch):
    parts, metric = [Knockout(LABELS, OUT), Knockout(Role.INPUT, OUT, mode="null")], logit_diff(batch, 2)
    both = [knock_out(tiny("rotary"), batch, {"both": some}, metric).values for some in (parts, tuple(parts))]
    assert torch.equal(*both)


@pytest.mark.parametrize(
    ("given", "got"), [("L0H1", "str"), (None, "NoneType"), ([["L0H1"]], "list"), ({"a": 3}, "int")]
)
def test_what_is_no_knockout_is_refused(given: Any, got: str, batch: Batch):
    with pytest.raises(TypeError, match=f"an entry must be a Knockout or a tuple of them; got {got}"):
        knock_out(tiny("rotary"), batch, given, logit_diff(batch, 2))


def test_heads_are_pairs():
    with pytest.raises(ValueError, match=r"heads must be \(layer, head\) pairs, such as \[\(0, 1\)\]; got 1"):
        Knockout(LABELS, OUT, heads=1)  # type: ignore[arg-type]
