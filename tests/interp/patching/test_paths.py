"""Path patching is the four forward passes of Wang et al., written here with hooks on the raw model's modules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.models import ModelConfig, build_model
from interp.patching import editing
from interp.patching.metrics import Metric, logit_diff
from interp.patching.paths import Receiver, Sender, path_patch
from interp.places import positions_at
from interp.tasks import Batch, Role, counterfactual, sample
from tests.interp.patching.test_knockouts import KINDS, VOCAB, parts, probe, qkv, tiny

LABELS, BITS, OUT = Role.INPUT_LABEL, Role.INPUT, Role.OUTPUT
N_LAYERS = 3
# The softmax of BLOOM, GPT-NeoX and Llama is float32 in float64 models too, and rotary angles are float32:
# only GPT-2 is float64 throughout, so that two orders of the same sums agree to more digits.
FLOAT64 = {"absolute": 1e-9}


@dataclass
class Log:
    """One run of the raw model: at each layer the residual-free parts, before any edit of this run."""

    embed: Tensor = field(default_factory=lambda: torch.empty(0))
    z: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    qkv: dict[int, list[Tensor]] = field(default_factory=dict)
    final: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


Edit = Callable[[int, Tensor], Tensor]


def ends(raw: Any) -> tuple[Any, Any]:
    """The module that gives the first residual, and the final norm."""
    match raw.config.model_type:
        case "bloom" | "bloom_key_sink":
            return raw.transformer.word_embeddings_layernorm, raw.transformer.ln_f
        case "gpt_neox":
            return raw.gpt_neox.embed_in, raw.gpt_neox.final_layer_norm
        case "gpt2":
            return raw.transformer.drop, raw.transformer.ln_f
        case _:
            return raw.model.embed_tokens, raw.model.norm


@torch.no_grad()
def run(
    raw: Any,
    batch: Batch,
    embed: Edit | None = None,
    z: Edit | None = None,
    mlp: Edit | None = None,
    fused: Callable[[int, int, Tensor], Tensor] | None = None,
    final: Edit | None = None,
) -> Log:
    """The raw model with edits, each a function of the layer and the value that was computed."""
    log, start_end = Log(), ends(raw)
    with ExitStack() as stack:

        def on_embed(_m: Any, _a: Any, y: Tensor) -> Tensor | None:
            log.embed = y.clone()
            return embed(0, y.clone()) if embed else None

        def on_final(_m: Any, args: Any) -> tuple[Tensor] | None:
            log.final = args[0].clone()
            return (final(0, args[0].clone()),) if final else None

        stack.callback(start_end[0].register_forward_hook(on_embed).remove)
        stack.callback(start_end[1].register_forward_pre_hook(on_final).remove)
        for layer in range(N_LAYERS):
            _, projections, out, mlp_last = parts(raw, layer)

            def on_z(_m: Any, args: Any, layer: int = layer) -> tuple[Tensor] | None:
                log.z[layer] = args[0].clone()
                return (z(layer, args[0].clone()),) if z else None

            def on_mlp(_m: Any, _a: Any, y: Tensor, layer: int = layer) -> Tensor | None:
                log.mlp[layer] = y.clone()
                return mlp(layer, y.clone()) if mlp else None

            stack.callback(out.register_forward_pre_hook(on_z).remove)
            stack.callback(mlp_last.register_forward_hook(on_mlp).remove)
            for i, projection in enumerate(projections):

                def on_qkv(_m: Any, _a: Any, y: Tensor, layer: int = layer, i: int = i) -> Tensor | None:
                    log.qkv.setdefault(layer, []).append(y.clone())
                    return fused(layer, i, y.clone()) if fused else None

                stack.callback(projection.register_forward_hook(on_qkv).remove)
        log.logits = raw(batch.tokens, use_cache=False).logits
    return log


def brute(
    raw: Any,
    base: Batch,
    source: Batch,
    sender: Sender,
    receivers: list[Receiver],
    metric: Metric,
    direct: bool,
    freeze_downstream: bool,
) -> Tensor:
    """Passes A and B record; C sends with all else frozen; D lets the receivers have what C showed them."""
    a, b = run(raw, base), run(raw, source)
    d_head = raw.config.hidden_size // raw.config.num_attention_heads
    at = positions_at(base, sender.at)

    def own(kind: str, layer: int) -> bool:
        return sender.kind == kind and sender.layer == layer

    def send_embed(_: int, y: Tensor) -> Tensor:
        if sender.kind == "embed":
            y[:, at] = b.embed[:, at]
        return y

    def send_z(layer: int, _: Tensor) -> Tensor:
        y = a.z[layer].clone()
        if own("head", layer):
            assert sender.head is not None
            here = slice(sender.head * d_head, (sender.head + 1) * d_head)
            y[:, at, here] = b.z[layer][:, at, here]
        return y

    def send_mlp(layer: int, y: Tensor) -> Tensor:
        y = a.mlp[layer].clone() if direct else y
        if own("mlp", layer):
            y[:, at] = b.mlp[layer][:, at]
        return y

    c = run(raw, base, embed=send_embed, z=send_z, mlp=send_mlp)

    def receive(layer: int, i: int, y: Tensor) -> Tensor:
        now: Any = [y if j == i else torch.zeros_like(x) for j, x in enumerate(a.qkv[layer])]
        for r in receivers:
            if r.layer == layer and r.kind in "qkv" and (len(now) == 1 or "qkv".index(r.kind) == i):
                where = positions_at(base, r.at)
                qkv(raw, now, r.kind)[:, where, r.head] = qkv(raw, c.qkv[layer], r.kind)[:, where, r.head]
        return now[i]

    def receive_mlp(layer: int, y: Tensor) -> Tensor:
        for r in receivers:
            if r.kind == "mlp" and r.layer == layer:
                where = positions_at(base, r.at)
                y[:, where] = c.mlp[layer][:, where]
        return y

    def receive_final(_: int, y: Tensor) -> Tensor:
        for r in receivers:
            if r.kind == "logits":
                where = positions_at(base, r.at)
                y[:, where] += c.final[:, where] - a.final[:, where]
        return y

    if not freeze_downstream:
        d = run(raw, base, mlp=receive_mlp, fused=receive, final=receive_final)
    else:
        frozen_z, frozen_mlp = (lambda layer, _: a.z[layer].clone()), (lambda layer, _: a.mlp[layer].clone())
        heard = run(raw, base, z=frozen_z, mlp=frozen_mlp, fused=receive)
        d = run(
            raw,
            base,
            z=lambda layer, _: heard.z[layer].clone(),
            final=receive_final,
            mlp=lambda layer, _: receive_mlp(layer, a.mlp[layer].clone()),
        )
    return metric.compute(d.logits[:, metric.positions], torch.arange(len(base)))


@pytest.fixture(scope="module")
def pair() -> tuple[Batch, Batch]:
    base = sample("parity-aligned", 3, 3, seed=0)
    return base, counterfactual.redraw(base, seed=5)


CASES: dict[str, tuple[Sender, list[Receiver]]] = {
    "head to q, all positions": (Sender("head", 0, 1), [Receiver("q", 1, 0)]),
    "head to k": (Sender("head", 0, 1, at=BITS), [Receiver("k", 2, 1, at=BITS)]),
    "head to v at one step": (Sender("head", 0, 0, at=(LABELS, 2)), [Receiver("v", 1, 1, at=LABELS)]),
    "head to the next mlp": (Sender("head", 0, 1), [Receiver("mlp", 1)]),
    "mlp to several kinds": (Sender("mlp", 0), [Receiver(x, 1, 1, at=(LABELS, BITS)) for x in ("q", "k", "v")]),  # pyright: ignore
    "embed to two layers": (Sender("embed", at=LABELS), [Receiver("k", 1, 1), Receiver("v", 2, 0)]),
    "embed to the first layer": (Sender("embed"), [Receiver("k", 0, 0), Receiver("q", 0, 1, at=OUT)]),
    "embed to mlps": (Sender("embed"), [Receiver("mlp", 0, at=BITS), Receiver("mlp", 2), Receiver("mlp", 2, at=BITS)]),
    "head to logits": (Sender("head", 0, 1), [Receiver("logits")]),
    "last mlp to logits": (Sender("mlp", 2), [Receiver("logits")]),
    "last head to logits at outputs": (Sender("head", 2, 0), [Receiver("logits", at=OUT)]),
    "mlp to a layer of everything": (
        Sender("mlp", 0, at=(OUT, LABELS, BITS)),
        [Receiver("q", 2, 0), Receiver("v", 1, 1), Receiver("mlp", 1, at=OUT), Receiver("logits")],
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_brute_force_of_hooks_agrees(kind: str, case: str, pair: tuple[Batch, Batch]):
    raw, (base, source), metric = tiny(kind, N_LAYERS), pair, probe(pair[0])
    sender, receivers = CASES[case]
    differ = []
    for direct in (True, False):
        for freeze in (False, True):
            effect = path_patch(raw, base, source, sender, receivers, metric, direct, freeze)
            expected = brute(raw, base, source, sender, receivers, metric, direct, freeze)
            assert torch.allclose(effect.values[0], expected, rtol=0, atol=3e-5), (direct, freeze)
            assert effect.change.abs().max() > 1e-3
            differ.append(effect.values[0])
    assert torch.allclose(effect.source, run_metric(raw, source, metric), atol=3e-5)
    if case == "head to k" and kind != "parallel":  # layers lie between and after: the four questions have four answers
        assert min(float((x - y).abs().max()) for i, x in enumerate(differ) for y in differ[:i]) > 1e-3


def run_metric(raw: Any, batch: Batch, metric: Metric) -> Tensor:
    return metric.compute(run(raw, batch).logits[:, metric.positions], torch.arange(len(batch)))


@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_it_agrees_to_more_digits(kind: str, pair: tuple[Batch, Batch]):
    raw: Any = tiny(kind, N_LAYERS).double()
    (base, source), metric = pair, probe(pair[0])
    for case in ("head to k", "embed to two layers", "mlp to a layer of everything"):
        for direct, freeze in ((True, False), (False, False), (True, True)):
            effect = path_patch(raw, base, source, *CASES[case], metric, direct, freeze)
            assert effect.values.dtype == torch.float64
            expected = brute(raw, base, source, *CASES[case], metric, direct, freeze)
            assert torch.allclose(effect.values[0], expected, rtol=0, atol=FLOAT64.get(kind, 1e-6)), case


# What must hold of any model


def everything(raw: Any, first: int) -> list[Receiver]:
    """All that reads the residual stream from layer `first` on."""
    n, n_kv = raw.config.num_attention_heads, getattr(raw.config, "num_key_value_heads", None)
    some = [Receiver("logits")]
    for layer in range(first, N_LAYERS):
        some += [Receiver("mlp", layer), *(Receiver("q", layer, h) for h in range(n))]
        some += [Receiver(x, layer, h) for x in ("k", "v") for h in range(n_kv or n)]
    return some


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_is_the_base_changes_exactly_nothing(kind: str, pair: tuple[Batch, Batch]):
    raw, base, metric = tiny(kind, N_LAYERS), pair[0], probe(pair[0])
    senders = [Sender("embed"), Sender("head", 0, 1), Sender("mlp", 0)]
    for options in ({}, {"direct": False}, {"chain": True}, {"freeze_downstream": True}):
        effect = path_patch(raw, base, base, senders, everything(raw, 1), metric, **options)
        assert torch.equal(effect.values, effect.base.expand(3, 3)), options
        assert torch.equal(effect.source, effect.base)


@pytest.mark.parametrize("kind", KINDS)
def test_all_receivers_in_a_chain_are_the_plain_patch(kind: str, pair: tuple[Batch, Batch]):
    """Every reader after the sender, each seeing the others: nothing is left of the path's restriction."""
    raw, (base, source), metric = tiny(kind, N_LAYERS), pair, probe(pair[0])
    b = run(raw, source)
    at, d_head = positions_at(base, (BITS, OUT)), raw.config.hidden_size // raw.config.num_attention_heads

    def patch_z(layer: int, y: Tensor) -> Tensor:
        if layer == 0:
            y[:, at, d_head : 2 * d_head] = b.z[0][:, at, d_head : 2 * d_head]
        return y

    def patch_mlp(layer: int, y: Tensor) -> Tensor:
        if layer == 1:
            y[:, at] = b.mlp[1][:, at]
        return y

    def patch_embed(_: int, y: Tensor) -> Tensor:
        y[:, at] = b.embed[:, at]
        return y

    parallel = kind == "parallel"
    for sender, plain, first in (
        (Sender("head", 0, 1, at=(BITS, OUT)), run(raw, base, z=patch_z), 1),
        (Sender("mlp", 1, at=(BITS, OUT)), run(raw, base, mlp=patch_mlp), 2),
        (Sender("embed", at=(BITS, OUT)), run(raw, base, embed=patch_embed), 0),
    ):
        receivers = everything(raw, first)
        if sender.kind == "head" and not parallel:
            receivers.append(Receiver("mlp", 0))
        expected = metric.compute(plain.logits[:, metric.positions], torch.arange(3))
        effect = path_patch(raw, base, source, sender, receivers, metric, chain=True)
        assert torch.allclose(effect.values[0], expected, rtol=0, atol=3e-5)
        assert effect.change.abs().max() > 1e-3
        unchained = path_patch(raw, base, source, sender, receivers, metric)
        if first < 2:
            assert (unchained.values[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_all_receivers_of_a_last_sender_are_the_plain_patch(kind: str, pair: tuple[Batch, Batch]):
    raw, (base, source), metric = tiny(kind, N_LAYERS), pair, probe(pair[0])
    b, d_head = run(raw, source), raw.config.hidden_size // raw.config.num_attention_heads

    def patch_z(layer: int, y: Tensor) -> Tensor:
        y[..., :d_head] = b.z[2][..., :d_head] if layer == 2 else y[..., :d_head]
        return y

    expected = metric.compute(run(raw, base, z=patch_z).logits[:, metric.positions], torch.arange(3))
    receivers = [Receiver("logits")] + ([] if kind == "parallel" else [Receiver("mlp", 2)])
    for freeze in (False, True):
        effect = path_patch(raw, base, source, Sender("head", 2, 0), receivers, metric, freeze_downstream=freeze)
        assert torch.allclose(effect.values[0], expected, rtol=0, atol=3e-5)


def test_a_linear_case_by_hand():
    """One layer, one head, no MLP: uniform attention counts the ones so far, and logit 0 reads the count.

    Embeddings are pairs of +1 and -1, so that LayerNorm multiplies by a known factor.
    """
    base = sample("parity-scratchpad", 2, 3, seed=0)
    source = counterfactual.flip_input(base, 2)
    config = ModelConfig("absolute", n_layers=1, d_model=8, n_heads=1)
    raw: Any = build_model(config, VOCAB, seed=0).double().eval()
    zero, one = base.vocabulary["0"], base.vocabulary["1"]
    with torch.no_grad():
        for parameter in raw.parameters():
            parameter.zero_()
        raw.lm_head.weight = torch.nn.Parameter(torch.zeros(VOCAB, 8, dtype=torch.float64))
        raw.lm_head.weight[0, 4] = 1
        raw.transformer.h[0].ln_1.weight.fill_(1)
        raw.transformer.ln_f.weight.fill_(1)
        embedding = raw.transformer.wte.weight
        embedding[:, 1], embedding[:, 2] = 1, -1
        embedding[one] = 0
        embedding[one, 0], embedding[one, 2] = 1, -1
        attn = raw.transformer.h[0].attn
        attn.c_attn.weight[0, 16 + 4], attn.c_attn.weight[0, 16 + 5] = 1, -1  # a one is worth (1, -1) in v
        attn.c_proj.weight.copy_(torch.eye(8))
    d = int(base.at(Role.SEPARATOR)[0])
    metric = Metric("logit 0", torch.tensor([d]), lambda logits, rows: logits[:, 0, 0])
    to_logits = path_patch(raw, base, source, Sender("head", 0, 0), Receiver("logits"), metric)
    embed = path_patch(raw, base, source, Sender("embed"), [Receiver("v", 0, 0)], metric)
    only_ones = path_patch(raw, base, source, Sender("embed", at=BITS), [Receiver("q", 0, 0)], metric)
    factor = (2 / 8 + 1e-5) ** -0.5  # LayerNorm of a pair of +1 and -1
    for row in range(2):

        def logit(batch: Batch, row: int = row) -> float:
            ones = sum(int(t) == one for t in batch.tokens[row, : d + 1])
            assert all(int(t) in (zero, one) for t in batch.tokens[row, base.at(BITS)])
            z = ones * factor / (d + 1)  # uniform attention over d + 1 positions
            return z / ((2 + 2 * z * z) / 8 + 1e-5) ** 0.5

        assert float(to_logits.base[row]) == pytest.approx(logit(base), abs=1e-9)
        assert float(to_logits.values[0, row]) == pytest.approx(logit(source), abs=1e-9)
        assert float(embed.values[0, row]) == pytest.approx(logit(source), abs=1e-9)
        assert float(only_ones.values[0, row]) == float(only_ones.base[row])
        assert abs(logit(base) - logit(source)) > 0.1


# Grids, chunks, names and mistakes


def test_a_grid_is_each_to_each_and_counts_what_cannot_be(pair: tuple[Batch, Batch]):
    raw, (base, source), metric = tiny("rotary", N_LAYERS), pair, probe(pair[0])
    senders = [Sender("head", 0, 1), Sender("mlp", 1, at=BITS), Sender("embed")]
    receivers = [Receiver("k", 1, 0), Receiver("v", 2, 1, at=LABELS), Receiver("logits"), Receiver("k", 0, 1)]
    effect = path_patch(raw, base, source, senders, receivers, metric, grid=True)
    assert effect.axes == ("sender", "receiver")
    assert effect.labels == {
        "sender": ("L0H1", "L1 MLP at input", "embed"),
        "receiver": ("L1H0 k", "L2H1 v at input label", "logits", "L0H1 k"),
    }
    assert effect.values.shape == (3, 4, 3)
    # From the MLP: k is before it, v stands elsewhere, and so do the logits that are read. From a head: L0H1 k.
    assert effect.details["impossible"] == 5
    for i, sender in enumerate(senders):
        for j, receiver in enumerate(receivers):
            if i == 1 or (i, j) == (0, 3):
                assert torch.equal(effect.values[i, j], effect.base)
            else:
                alone = path_patch(raw, base, source, sender, receiver, metric)
                assert torch.equal(effect.values[i, j], alone.values[0])
                assert effect.change[i, j].abs().max() > 1e-3


def test_names_stand_for_components_at_all_positions(pair: tuple[Batch, Batch]):
    raw, metric = tiny("rotary", N_LAYERS), probe(pair[0])
    senders = [Sender("head", 0, 1), Sender("mlp", 0), Sender("embed")]
    receivers = [Receiver(kind, 1, 0) for kind in ("q", "k", "v")] + [Receiver("mlp", 1), Receiver("logits")]
    names = ["L0H1", "L0 MLP", "embed"], ["L1H0 q", "L1H0 k", "L1H0 v", "L1 MLP", "logits"]
    assert ([str(s) for s in senders], [str(r) for r in receivers]) == names
    expected, found = (path_patch(raw, *pair, *ends, metric, grid=True) for ends in ((senders, receivers), names))
    assert torch.equal(found.values, expected.values)
    assert found.labels == expected.labels
    one = path_patch(raw, *pair, "L0H1", "logits", metric)
    assert torch.equal(one.values, path_patch(raw, *pair, senders[0], LOGITS, metric).values)


@pytest.mark.parametrize("options", [{}, {"freeze_downstream": True}, {"direct": False}])
def test_each_prompt_is_worked_out_by_itself(options: Any, pair: tuple[Batch, Batch], monkeypatch: pytest.MonkeyPatch):
    raw, (base, source) = tiny("alibi", N_LAYERS), pair
    arguments = ([Sender("head", 0, 1), Sender("embed")], [Receiver("v", 1, 0), Receiver("q", 2, 1)])
    whole = path_patch(raw, base, source, *arguments, logit_diff(base, step=3), **options)
    monkeypatch.setattr(editing, "numbers", lambda share, device, itemsize: 1)
    chunked = path_patch(raw, base, source, *arguments, logit_diff(base, step=3), **options)
    assert torch.allclose(chunked.values, whole.values, rtol=0, atol=1e-5)
    assert torch.allclose(chunked.source, whole.source, rtol=0, atol=1e-5)
    for i in range(3):
        one, other = base.rows(slice(i, i + 1)), source.rows(slice(i, i + 1))
        found = path_patch(raw, one, other, *arguments, logit_diff(one, step=3), **options)
        assert torch.allclose(found.values[:, 0], whole.values[:, i], rtol=0, atol=1e-5)
    assert whole.change.abs().max() > 1e-3
    assert not whole.values.requires_grad


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (Sender("head", 0, 1, at=LABELS), "L0H1 at input label"),
        (Sender("mlp", 2, at=(OUT, 3)), "L2 MLP at output 3"),
        (Sender("embed", at=(4, 7)), "embed at positions 4, 7"),
        (Receiver("k", 1, 0, at=((BITS, 1), OUT)), "L1H0 k at input 1 and output"),
        (Receiver("mlp", 0), "L0 MLP"),
        (Receiver("logits"), "logits"),
    ],
)
def test_nodes_have_names(node: Sender | Receiver, text: str):
    assert str(node) == text


HEAD, LOGITS = Sender("head", 1, 0), Receiver("logits")
MISTAKES: list[tuple[Any, Any, str]] = [
    (HEAD, Receiver("q", 1, 1), "L1H1 q reads the residual before L1H0 writes to it"),
    (HEAD, Receiver("mlp", 0), "L0 MLP reads the residual before L1H0 writes"),
    (Sender("mlp", 1), Receiver("mlp", 1), "L1 MLP reads the residual before L1 MLP writes"),
    (Sender("mlp", 1), Receiver("v", 1, 0), "reads the residual before"),
    (Sender("head", 2, 0), [LOGITS, Receiver("v", 2, 0)], "reads the residual before"),
    (Sender("head", 0, 0, at=BITS), Receiver("q", 1, 0, at=OUT), "L0H0 at input and L1H0 q at output have no position"),
    (Sender("head", 0, 0, at=(0, 1)), LOGITS, "probe reads positions .*, and L0H0 at positions 0, 1 changes none"),
    (Sender("head", 0, 2), LOGITS, "L0H2: no head 2; heads are 0 to 1"),
    (Sender("head", 3, 0), LOGITS, "no layer 3; layers are 0 to 2"),
    (Sender("mlp", -1), LOGITS, "no layer -1"),
    (HEAD, Receiver("k", 2, 5), "L2H5 k: no head 5; heads are 0 to 1"),
    (Sender("embed", at=Role.FILLER), LOGITS, "no filler in"),
    (Sender("embed", at=(BITS, 9)), LOGITS, "no input with step 9; steps run from 1 to 3"),
    ([], LOGITS, "give at least one sender and one receiver"),
    (HEAD, [], "give at least one sender and one receiver"),
    ("L0N3", LOGITS, "'L0N3' is no sender; give a Sender, or a name such as L1H3"),
    ("L1H0 q", LOGITS, "'L1H0 q' is no sender"),
    (["L1H0", LOGITS], LOGITS, "is no sender"),
    (HEAD, "L2H0", "'L2H0' is no receiver; give a Receiver, or a name such as L1H3 q"),
    (HEAD, "output", "'output' is no receiver; .* or logits"),
    (HEAD, ["logits", 3], "3 is no receiver"),
    ("L3H0", "logits", "no layer 3; layers are 0 to 2"),
]


@pytest.mark.parametrize(("senders", "receivers", "message"), MISTAKES)
def test_paths_that_are_not_there_are_refused(senders: Any, receivers: Any, message: str, pair: tuple[Batch, Batch]):
    with pytest.raises(ValueError, match=message):
        path_patch(tiny("rotary", N_LAYERS), *pair, senders, receivers, probe(pair[0]))


def test_other_mistakes_are_named(pair: tuple[Batch, Batch]):
    (base, source), raw = pair, tiny("rotary", N_LAYERS)
    metric = probe(base)
    other_role, other_step = replace(base, role=base.role.flip(0)), replace(base, step=base.step.flip(0))
    for wrong in (source.rows(slice(2)), sample("parity-aligned", 3, 4, seed=0), other_role, other_step):
        with pytest.raises(ValueError, match="base and source must have the same"):
            path_patch(raw, base, wrong, HEAD, LOGITS, metric)
    with pytest.raises(ValueError, match="chain=True needs"):
        path_patch(raw, base, source, HEAD, LOGITS, metric, chain=True, freeze_downstream=True)
    with pytest.raises(ValueError, match="before L1H0 writes"):
        path_patch(raw, base, source, HEAD, [Receiver("q", 0, 0), Receiver("k", 1, 0)], metric, grid=True)
    with pytest.raises(ValueError, match="key-value heads are 0 to 1"):
        path_patch(tiny("grouped", N_LAYERS), base, source, HEAD, Receiver("k", 2, 2), metric)
    # Only parallel MLPs read before their layer's attention.
    with pytest.raises(ValueError, match="L1 MLP reads the residual before L1H0"):
        path_patch(tiny("parallel", N_LAYERS), base, source, HEAD, Receiver("mlp", 1), metric)
    path_patch(raw, base, source, HEAD, Receiver("mlp", 1), metric)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sender("z", 0, 0), "a sender is one of head, mlp, embed; got 'z'"),  # pyright: ignore
        (lambda: Sender("head", 0), "a sender of kind 'head' needs a head"),
        (lambda: Sender("mlp"), "a sender of kind 'mlp' needs a layer"),
        (lambda: Sender("mlp", 0, 1), "a sender of kind 'mlp' has no head"),
        (lambda: Sender("embed", 0), "a sender of kind 'embed' has no layer"),
        (lambda: Receiver("head", 0, 0), "a receiver is one of q, k, v, mlp, logits; got 'head'"),  # pyright: ignore
        (lambda: Receiver("q", 0), "a receiver of kind 'q' needs a head"),
        (lambda: Receiver("logits", 2), "a receiver of kind 'logits' has no layer"),
    ],
)
def test_nodes_of_the_wrong_form_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_receivers_that_overlap_receive_once(pair: tuple[Batch, Batch]):
    base, source = pair
    raw, metric = tiny("absolute", N_LAYERS), logit_diff(base, 2)
    at = int(metric.positions[-1])

    def changed(*receivers: Receiver) -> Tensor:
        return path_patch(raw, base, source, Sender("head", 0, 0), list(receivers), metric).change

    once = changed(Receiver("logits"))
    assert once.abs().max() > 0
    assert torch.equal(changed(Receiver("logits"), Receiver("logits")), once)
    assert torch.equal(changed(Receiver("logits", at=at), Receiver("logits", at=(at - 1, at))), once)
