"""Attribution of nodes, against gradients by hooks on the raw model, and against exact patches where it deceives."""

from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from interp.circuits import node_scores
from interp.circuits.nodes import Node
from interp.models.bridge import boot_bridge
from interp.patching import Joint, Metric, accuracy, logit_diff, patch
from interp.tasks import Batch, Role, counterfactual, sample
from probes.planted import plant
from probes.planted.plan import Plan
from tests.interp.patching.models import prompts
from tests.interp.patching.test_knockouts import KINDS, parts, probe, tiny

CLEAN = prompts(3, 3)
CORRUPTED = counterfactual.redraw(CLEAN, 1)


def by_hooks(
    raw: PreTrainedModel, batch: Batch, metric: Metric, dropped: int | None
) -> tuple[list[Tensor], list[Tensor]]:
    """What goes into each attention's output projection and out of each MLP, and its gradient, on the raw model."""
    kept: dict[tuple[str, int], Tensor] = {}
    model: Any = raw
    with ExitStack() as stack, torch.enable_grad():
        for layer in range(raw.config.num_hidden_layers):
            _, _, out, mlp = parts(raw, layer)

            def before(module, args, layer=layer):
                kept["z", layer] = args[0]

            def attn(module, args, output, layer=layer):
                return output.detach() if layer == dropped else output

            def after(module, args, output, layer=layer):
                kept["mlp", layer] = output
                return output.detach() if layer == dropped else output

            stack.enter_context(out.register_forward_pre_hook(before))
            stack.enter_context(out.register_forward_hook(attn))
            stack.enter_context(mlp.register_forward_hook(after))
        logits = model(batch.tokens, use_cache=False, logits_to_keep=metric.positions).logits
        keys = sorted(kept)
        found = torch.autograd.grad(
            metric.compute(logits, torch.arange(len(batch))).sum(), [kept[k] for k in keys], allow_unused=True
        )
    values = [kept[k].detach() for k in keys]
    return values, [torch.zeros_like(v) if g is None else g for v, g in zip(values, found, strict=True)]


def slow(raw: PreTrainedModel, metric: Metric, dropped: int | None) -> Tensor:
    """z of each head and output of each MLP: difference times gradient, `[node batch]`, mlps first."""
    other, _ = by_hooks(raw, CLEAN, metric, None)
    own, gradients = by_hooks(raw, CORRUPTED, metric, dropped)
    rows = []
    n_heads = raw.config.num_attention_heads
    for a, b, g in zip(other, own, gradients, strict=True):
        product = (a - b) * g
        product = (
            product.sum(dim=-1, keepdim=True)
            if len(rows) < raw.config.num_hidden_layers
            else (product.unflatten(-1, (n_heads, -1)).sum(dim=-1))
        )
        rows.append(product.sum(dim=1))
    return torch.cat([r.T for r in rows])


def in_order(raw: PreTrainedModel, nodes: tuple[Node, ...]) -> list[int]:
    """The numbers of MLPs, then of z by layer and head."""
    wanted = [Node("mlp_out", i, None, "anywhere") for i in range(raw.config.num_hidden_layers)]
    wanted += [
        Node("z", i, h, "anywhere")
        for i in range(raw.config.num_hidden_layers)
        for h in range(raw.config.num_attention_heads)
    ]
    return [nodes.index(node) for node in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_magnitudes_are_those_of_gradients_by_hooks(kind):
    raw, metric = tiny(kind, n_layers=3), probe(CLEAN)
    found = node_scores(raw, CLEAN, CORRUPTED, metric, saturation=False)
    order = in_order(raw, found.nodes)
    expected = slow(raw, metric, None)
    scale = float(expected.abs().max())
    assert scale > 0.05
    torch.testing.assert_close(found.values[order], expected.mean(dim=1).double(), rtol=0, atol=1e-5 * scale)
    assert found.magnitude is not None
    sizes = torch.stack([slow(raw, metric, layer).abs() for layer in range(3)]).sum(dim=0) / 2
    torch.testing.assert_close(found.magnitude[order], sizes.mean(dim=1).double(), rtol=0, atol=1e-5 * scale)


def test_plain_scores_are_those_of_transformer_lens():
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    raw: Any = tiny("absolute", n_layers=2)
    metric = logit_diff(CLEAN)
    plain = node_scores(raw, CLEAN, CORRUPTED, metric, saturation=False, cancellation=False)
    bridge: Any = boot_bridge(tiny("absolute", n_layers=2))
    expected = torch.zeros(len(plain.nodes), dtype=torch.float64)
    for i in range(len(CLEAN)):
        result = attribution_patch(
            bridge,
            CLEAN.tokens[[i]],
            CORRUPTED.tokens[[i]],
            lambda logits, i=i: metric.compute(logits[:, metric.positions], torch.tensor([i])).sum(),
        )
        for node, score in result.node_scores.items():
            if node.kind != "embed":
                site = "mlp_out" if node.kind == "mlp_out" else "z"
                assert node.layer is not None
                expected[plain.nodes.index(Node(site, node.layer, node.head, "anywhere"))] += score / len(CLEAN)
    compared = [i for i, node in enumerate(plain.nodes) if node.site in ("z", "mlp_out")]
    scale = float(expected.abs().max())
    torch.testing.assert_close(plain.values[compared], expected[compared], rtol=0, atol=1e-5 * scale)


@cache
def anchor() -> tuple[Any, Batch, Batch]:
    """A planted anchor whose match is sharp, and prompts whose output labels 5 and 2 trade places."""
    planted = plant(Plan("A1", "gpt2", longest=8))
    many = sample("parity-aligned", 80, 8, 0, planted.vocabulary)
    bits = torch.stack([many.tokens[:, many.at(Role.INPUT, s)[0]] for s in (5, 2)])
    clean = many.rows((bits[0] != bits[1]).nonzero().flatten()[:16])
    return planted.model, clean, counterfactual.swap_labels(clean, 5, 2, role=Role.OUTPUT_LABEL)


def exact(raw: Any, clean: Batch, corrupted: Batch, metric: Metric, role: Role) -> Tensor:
    """What patching q at all positions of a role changes, `[layer head]`."""
    found = patch(raw, clean, corrupted, "q", metric, positions=[Joint(role)])
    return found.change.mean(dim=-1).squeeze(found.axes.index("pos")).double()


def test_a_saturated_match_is_missed_by_the_gradient_and_found_by_the_pattern():
    raw, clean, corrupted = anchor()
    metric = logit_diff(clean, step=5)
    truth = exact(raw, clean, corrupted, metric, Role.OUTPUT_LABEL)
    layer, head = divmod(int(truth.abs().argmax()), truth.shape[1])
    assert layer == 1  # where A1 matches
    full = float(truth[layer, head])
    node = Node("q", layer, head, "output label")
    kept = {}
    for saturation in (False, True):
        found = node_scores(raw, clean, corrupted, metric, saturation, cancellation=False, places="role")
        kept[saturation] = float(found.values[found.nodes.index(node)])
    assert abs(kept[False]) < 0.05 * abs(full)
    assert kept[True] * full > 0  # the right sign, and far more than the gradient sees
    assert abs(kept[True]) > 10 * abs(kept[False])


def test_q_and_k_of_equal_patterns_are_worth_nothing():
    """Where attention rests, both ways of scoring say so."""
    raw, clean, corrupted = anchor()
    found = node_scores(raw, clean, corrupted, logit_diff(clean, step=5), places="role")
    still = ("input", "start", "input label")
    quiet = [i for i, n in enumerate(found.nodes) if n.site in ("q", "k") and n.place in still]
    assert float(found.values[quiet].abs().max()) < 1e-4


def test_equal_prompts_score_nothing_and_top_is_in_order():
    raw = tiny("grouped", n_layers=2)
    none = node_scores(raw, CLEAN, CLEAN, probe(CLEAN))
    assert float(none.values.abs().max()) == 0
    found = node_scores(raw, CLEAN, CORRUPTED, probe(CLEAN), places="role")
    assert found.magnitude is not None
    sizes = [float(found.magnitude[found.nodes.index(n)]) for n, _ in found.top(9)]
    assert sizes == sorted(sizes, reverse=True)
    table = found.to_dataframe()
    assert len(table) == len(found.nodes) == len(set(found.nodes))
    assert set(table["site"]) == {"q", "k", "v", "z", "mlp_out"}
    assert set(table.query("site == 'k'")["head"]) == {0, 1}  # key-value heads


def test_places_add_up_to_anywhere_to_first_order():
    raw = tiny("rotary", n_layers=2)
    whole, parts_ = (
        node_scores(raw, CLEAN, CORRUPTED, probe(CLEAN), False, False, places) for places in ("anywhere", "role")
    )
    for node, value in zip(whole.nodes, whole.values.tolist(), strict=True):
        same = [(n.site, n.layer, n.head) == (node.site, node.layer, node.head) for n in parts_.nodes]
        assert float(parts_.values[torch.tensor(same)].sum()) == pytest.approx(value, abs=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="this model has one"):
        node_scores(tiny("alibi", n_layers=1), CLEAN, CORRUPTED, probe(CLEAN))
    with pytest.raises(ValueError, match="has no gradient"):
        node_scores(tiny("alibi"), CLEAN, CORRUPTED, accuracy(CLEAN))
    with pytest.raises(ValueError, match="must have the same number"):
        node_scores(tiny("alibi"), CLEAN, prompts(2, 3), probe(CLEAN))
