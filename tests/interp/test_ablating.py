"""Heads, MLPs and neurons ablated and patched, against hooks written out by hand on five architectures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp import ablate, attribution_patch, load, node_scores, patch
from interp.ablating import Kind
from interp.patching import Joint, logit_diff
from interp.sites import Site
from interp.tasks import Batch
from tests.interp.patching.models import prompts, tiny
from tests.interp.raw_hooks import FIVE, hooked, seen

CLEAN, OTHER = prompts(3), prompts(3, seed=1)
METRIC = logit_diff(CLEAN, step=3)
ROWS = torch.arange(3)
NAMES = ["L0H2", "L1 MLP", "L2N5", "L1N0+L1N7", "L0H1+L1 MLP"]
PARTS = {
    "L0H2": [("z", 0, [2])],
    "L1 MLP": [("mlp_out", 1, None)],
    "L2N5": [("mlp_post", 2, [5])],
    "L1N0+L1N7": [("mlp_post", 1, [0, 7])],
    "L0H1+L1 MLP": [("z", 0, [1]), ("mlp_out", 1, None)],
}


def put(x: Tensor, new: Tensor, parts: list[int] | None, at: list[int]) -> Tensor:
    """`new` broadcasts to x; z is indexed by head, mlp_post by neuron."""
    x, new = x.clone(), new.expand_as(x)
    for p in at:
        for part in parts or [slice(None)]:
            x[:, p, part] = new[:, p, part]
    return x


def measured(model, edits) -> Tensor:
    with torch.no_grad(), hooked(model, edits):
        logits = model(CLEAN.tokens, use_cache=False).logits[:, METRIC.positions]
    return METRIC.compute(logits, ROWS)


def expected_of(model, name: str, replacement, at: list[int]) -> Tensor:
    edits = {
        (site, layer): lambda x, site=site, layer=layer, parts=parts: put(x, replacement(site, layer, x), parts, at)
        for site, layer, parts in PARTS[name]
    }
    return measured(model, edits)


@pytest.mark.parametrize("architecture", FIVE)
def test_every_kind_is_the_loop_by_hand(architecture):
    model, everywhere = tiny(architecture), list(range(CLEAN.n_pos))
    places = {(site, layer) for parts in PARTS.values() for site, layer, _ in parts}
    other = {place: seen(model, OTHER.tokens, *place) for place in places}
    kinds: dict[Kind, tuple[Batch | None, Callable[[Site, int, Tensor], Tensor]]] = {
        "zero": (None, lambda site, layer, x: torch.zeros_like(x)),
        "mean": (OTHER, lambda site, layer, x: other[site, layer].mean(dim=0, keepdim=True)),
        "corrupted": (OTHER, lambda site, layer, x: other[site, layer]),
    }
    for kind, (source, replacement) in kinds.items():
        effect = ablate(model, CLEAN, NAMES, METRIC, kind=kind, source=source)
        expected = torch.stack([expected_of(model, name, replacement, everywhere) for name in NAMES])
        assert torch.allclose(effect.values, expected, atol=1e-5)
        assert effect.labels["component"] == tuple(NAMES)
        assert effect.change.abs().max() > 1e-2
    some = ablate(model, CLEAN, NAMES, METRIC, kind="zero", positions=[3, 8])
    expected = torch.stack([expected_of(model, name, kinds["zero"][1], [3, 8]) for name in NAMES])
    assert torch.allclose(some.values, expected, atol=1e-5)


def test_resampling_draws_another_prompt_and_means_may_be_over_all_positions():
    model = tiny("absolute")
    effect = ablate(model, CLEAN, "L1 MLP", METRIC, kind="resample", seed=3)
    candidates = [measured_from(model, shift) for shift in (1, 2)]
    for row in range(3):
        assert min(abs(float(effect.values[0, row] - c[row])) for c in candidates) < 1e-5
    assert torch.equal(effect.values, ablate(model, CLEAN, "L1 MLP", METRIC, kind="resample", seed=3).values)
    whole = ablate(model, CLEAN, "L1 MLP", METRIC, mean_over="all")
    mean = seen(model, CLEAN.tokens, "mlp_out", 1).mean(dim=(0, 1), keepdim=True)
    assert torch.allclose(whole.values[0], measured(model, {("mlp_out", 1): lambda x: mean.expand_as(x)}), atol=1e-5)


def measured_from(model, shift: int) -> Tensor:
    new = seen(model, CLEAN.tokens.roll(shift, dims=0), "mlp_out", 1)
    return measured(model, {("mlp_out", 1): lambda x: new.clone()})


def test_names_of_your_own_and_mistakes():
    model = tiny("absolute")
    effect = ablate(model, CLEAN, {"early": ["L0H0", "L0H1"], "one": "L2N5"}, METRIC, kind="zero")
    assert effect.labels["component"] == ("early", "one")
    wrong = [
        ("L0H9", {}, "no head 9; heads are 0 to 3"),
        ("L9 MLP", {}, "no layer 9; layers are 0 to 2"),
        ("L0N64", {}, "no neuron 64; neurons are 0 to 63"),
        ("MLP 3", {}, "is no component; names are such as"),
        ([], {}, "no component was given"),
        ("L0H0", {"kind": "noise"}, "an ablation is one of zero, mean, resample, corrupted"),
        ("L0H0", {"kind": "zero", "source": OTHER}, "takes no source"),
        ("L0H0", {"kind": "corrupted"}, "needs source="),
        ("L0H0", {"source": prompts(2, 4)}, "source must have 14 tokens"),
        ("L0H0", {"mean_over": "row"}, "mean_over must be"),
        ("L0H0", {"kind": "zero", "mean_over": "row"}, "mean_over must be"),
    ]
    for names, kwargs, message in wrong:
        with pytest.raises(ValueError, match=message):
            ablate(model, CLEAN, names, METRIC, **kwargs)


def test_texts(saved_families):
    run = load(saved_families / "rotary")
    effect = ablate(run, ["1 a 2 b", "2 b 3 a"], ["L0H1", "L1N3"], logit_diff(answer="a", other="b"), kind="zero")
    assert effect.values.shape == (2, 2)
    assert len(effect.to_dataframe()) == 4


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("site", ["mlp_pre", "mlp_post"])
def test_patched_neurons_alone_and_in_groups_are_the_loop_by_hand(architecture, site):
    model = tiny(architecture)
    at = [4, 9, Joint(3, 8)]
    effect = patch(model, CLEAN, OTHER, site, METRIC, positions=at, neurons=[0, 5, (3, 7, 11)])
    assert effect.axes == ("layer", "neuron", "pos")
    assert effect.labels["neuron"] == (0, 5, "3+7+11")
    clean = {layer: seen(model, CLEAN.tokens, site, layer) for layer in range(3)}
    for layer in range(3):
        for n, neurons in enumerate([[0], [5], [3, 7, 11]]):
            for p, positions in enumerate([[4], [9], [3, 8]]):

                def edit(x: Tensor, layer=layer, neurons=neurons, positions=positions) -> Tensor:
                    return put(x, clean[layer], neurons, positions)

                with torch.no_grad(), hooked(model, {(site, layer): edit}):
                    logits = model(OTHER.tokens, use_cache=False).logits[:, METRIC.positions]
                found = effect.values[layer, n, p]
                assert torch.allclose(found.float(), METRIC.compute(logits, ROWS), atol=1e-5)
    assert effect.change.abs().max() > 1e-4
    assert effect.checks is not None
    assert effect.checks.spot_cells == 4


def test_neuron_mistakes_are_named():
    model = tiny("absolute")
    with pytest.raises(ValueError, match="z has no neurons; mlp_pre and mlp_post have"):
        patch(model, CLEAN, OTHER, "z", METRIC, neurons=[1])
    with pytest.raises(ValueError, match="there is no neuron 64; neurons run from 0 to 63"):
        patch(model, CLEAN, OTHER, "mlp_post", METRIC, neurons=[64])
    with pytest.raises(ValueError, match="the same neurons are given twice"):
        patch(model, CLEAN, OTHER, "mlp_post", METRIC, neurons=[(1, 2), (2, 1)])


@pytest.mark.parametrize("architecture", FIVE)
def test_attribution_patching_is_the_derivative_of_patching(architecture):
    """The estimate is the difference of activations times the gradient at a leaf that a hook adds."""
    model = tiny(architecture, torch.float64)
    metric = logit_diff(CLEAN, step=3)
    for site in ("resid_pre", "attn_out", "mlp_out", "z", "q", "k", "v", "mlp_pre", "mlp_post", "pattern"):
        estimate = attribution_patch(model, CLEAN, OTHER, site, metric, layers=1).change[0]
        own = gradient_by_hand(model, site)
        if own is not None:
            difference = seen(model, CLEAN.tokens, site, 1) - seen(model, OTHER.tokens, site, 1)
            product = difference * own
            product = product.sum(dim=-1) if site != "mlp_pre" and site != "mlp_post" else product
            expected = product.T if product.ndim == 2 else product.permute(2, 1, 0)
            assert torch.allclose(estimate, expected, atol=1e-9)
        assert estimate.abs().max() > 1e-3


def test_several_sites_share_one_backward_pass():
    model = tiny("rotary")
    together = attribution_patch(model, CLEAN, OTHER, ["resid_pre", "z", "mlp_post"], METRIC)
    assert list(together) == ["resid_pre", "z", "mlp_post"]
    for site, found in together.items():
        alone = attribution_patch(model, CLEAN, OTHER, site, METRIC)
        assert found.labels == alone.labels
        assert torch.allclose(found.values, alone.values, atol=1e-6)
    with pytest.raises(ValueError, match="unknown site 'heads'"):
        attribution_patch(model, CLEAN, OTHER, ["z", "heads"], METRIC)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(ValueError, match="give a site, or several"):
        attribution_patch(model, CLEAN, OTHER, [], METRIC)


def gradient_by_hand(model, site: str) -> Tensor | None:
    """The gradient of the metric at a site of layer 1, in the corrupted run, by a leaf put in with a hook."""
    if site in ("q", "k", "v", "pattern"):
        return None
    offset = torch.zeros_like(seen(model, OTHER.tokens, site, 1)).requires_grad_()
    with hooked(model, {(site, 1): lambda x: x + offset}):
        logits = model(OTHER.tokens, use_cache=False).logits[:, METRIC.positions]
    return torch.autograd.grad(METRIC.compute(logits, ROWS).sum(), offset)[0]


def test_attribution_patching_agrees_with_node_scores():
    """Sums over positions and means over prompts are the scores of nodes without corrections."""
    model = tiny("grouped")
    nodes = node_scores(model, CLEAN, OTHER, METRIC, saturation=False, cancellation=False)
    for site in ("q", "k", "v", "z", "mlp_out"):
        found = attribution_patch(model, CLEAN, OTHER, site, METRIC).change.sum(dim=-2).mean(dim=-1).flatten()
        expected = [float(x) for node, x in zip(nodes.nodes, nodes.values, strict=True) if node.site == site]
        assert torch.allclose(found, torch.tensor(expected, dtype=found.dtype), atol=1e-5)
    noise = attribution_patch(model, OTHER, CLEAN, "mlp_post", METRIC, layers=[0, 2], direction="noise")
    assert torch.allclose(noise.change, attribution_patch(model, CLEAN, OTHER, "mlp_post", METRIC).change[[0, 2]])
    assert noise.axes == ("layer", "neuron", "pos")
    with pytest.raises(ValueError, match="direction must be"):
        attribution_patch(model, CLEAN, OTHER, "z", METRIC, direction="both")  # pyright: ignore[reportArgumentType, reportCallIssue]
