"""Features of dictionaries patched, ablated and attributed, against formulas and hooks written out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from interp import (
    FeatureDictionary,
    ablate_features,
    attribute_features,
    directions,
    encode_features,
    load_dictionary,
    patch,
    patch_features,
    save_dictionary,
)
from interp.patching import logit_diff
from tests.interp.patching.models import prompts, tiny
from tests.interp.raw_hooks import FIVE, hooked, seen

CLEAN, OTHER = prompts(3), prompts(3, seed=1)
METRIC = logit_diff(CLEAN, step=3)
N = 24


def some(kind: str, site: str = "resid_post", d: int = 16, layer: int = 1, **kwargs: Any) -> FeatureDictionary:
    gen = torch.Generator().manual_seed(0)
    encoder, decoder, b, c = (torch.randn(s, generator=gen) for s in ((d, N), (N, d), (N,), (d,)))
    extra: dict[str, Any] = {"jumprelu": {"threshold": b.abs()}, "topk": {"k": 3}}.get(kind, {})
    return FeatureDictionary(encoder, decoder, (site, layer), b_enc=b, b_dec=c, activation=kind, **extra, **kwargs)  # type: ignore[arg-type]


def encoded(d: FeatureDictionary, x: Tensor) -> Tensor:
    """The formula, feature by feature."""
    assert d.b_enc is not None
    assert d.b_dec is not None
    x = x.flatten(2) - (d.b_dec if d.centred else 0)
    pre = torch.stack([(x * d.W_enc[:, j]).sum(dim=-1) + d.b_enc[j] for j in range(N)], dim=-1)
    match d.activation:
        case "identity":
            return pre
        case "relu":
            return pre.clamp_min(0)
        case "jumprelu":
            assert d.threshold is not None
            return torch.where(pre > d.threshold, pre.clamp_min(0), 0)
        case _:
            assert d.k is not None
            least = pre.sort(dim=-1, descending=True).values[..., d.k - 1 : d.k]
            return torch.where(pre >= least, pre.clamp_min(0), 0)


def measured(model: Any, d: FeatureDictionary, new: Any, at: list[int], group: list[int]) -> Tensor:
    """The metric with error + decode(changed features) put in with a hook, in a whole pass of the raw model."""
    own = encoded(d, seen(model, OTHER.tokens, *d.reads))
    changed = own.clone()
    for p in at:
        for j in group:
            changed[:, p, j] = new[:, p, j]

    def edit(x: Tensor) -> Tensor:
        error = x.flatten(2) - d.decode(own)
        return (d.decode(changed) + error).reshape(x.shape)

    with torch.no_grad(), hooked(model, {d.target: edit}):
        logits = model(OTHER.tokens, use_cache=False).logits[:, METRIC.positions]
    return METRIC.compute(logits, torch.arange(3))


@pytest.mark.parametrize("architecture", FIVE)
def test_patched_features_are_the_loop_by_hand(architecture):
    model = tiny(architecture)
    cases = [some("relu", centred=True), some("jumprelu", "mlp_out"), some("topk", "z"), some("identity", "resid_pre")]
    cases += [some("relu", "resid_pre", writes=("mlp_out", 2))]  # a transcoder over a layer
    for d in cases:
        effect = patch_features(model, CLEAN, OTHER, d, METRIC, features=[0, 5, (2, 7, 11)], positions=[4, 9])
        new = encoded(d, seen(model, CLEAN.tokens, *d.reads))
        for i, group in enumerate([[0], [5], [2, 7, 11]]):
            for j, p in enumerate([4, 9]):
                expected = measured(model, d, new, [p], group)
                assert torch.allclose(effect.values[i, j], expected, atol=2e-5)
        assert effect.labels["feature"] == (0, 5, "2+7+11")
        zero = ablate_features(model, OTHER, d, METRIC, features=[5, (2, 7)], positions=[4, 9])
        for i, group in enumerate([[5], [2, 7]]):
            expected = measured(model, d, torch.zeros_like(new), [4, 9], group)
            assert torch.allclose(zero.values[i], expected, atol=2e-5)
        assert torch.allclose(encode_features(model, CLEAN, d), new, atol=1e-4)
    everything = patch_features(model, CLEAN, OTHER, some("relu"), METRIC)
    assert everything.labels["feature"] == ("all",)
    assert everything.change.abs().max() > 1e-3


def test_a_complete_basis_is_the_site_itself_and_a_subspace_has_an_error_term():
    model = tiny("rotary")
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    whole = patch_features(model, CLEAN, OTHER, directions(basis, ("resid_post", 1)), METRIC)
    site = patch(model, CLEAN, OTHER, "resid_post", METRIC, layers=1)
    assert torch.allclose(whole.values[0], site.values[0].float(), atol=2e-5)
    part = patch_features(model, CLEAN, OTHER, directions(basis[:2] * 3, ("resid_post", 1)), METRIC)
    assert (part.change - whole.change).abs().max() > 1e-3
    for scale in (1.0, 5.0):  # coordinates do not depend on the lengths of directions
        again = patch_features(model, CLEAN, OTHER, directions(basis[:2] * scale, ("resid_post", 1)), METRIC)
        assert torch.allclose(again.values, part.values, atol=2e-5)
    same = patch_features(model, OTHER, OTHER, some("relu"), METRIC)
    assert same.change.abs().max() < 1e-5
    with pytest.raises(ValueError, match="linearly independent"):
        directions(torch.ones(2, 16), ("resid_post", 1))


def test_the_mean_and_the_gradient():
    model, d = tiny("absolute", torch.float64), some("relu").to(torch.float64, "cpu")
    new = encoded(d, seen(model, CLEAN.tokens, *d.reads)).mean(dim=(0, 1)).expand(3, CLEAN.n_pos, -1)
    effect = ablate_features(model, OTHER, d, METRIC, features=4, kind="mean", source=CLEAN)
    assert torch.allclose(effect.values[0], measured(model, d, new, list(range(CLEAN.n_pos)), [4]), atol=1e-9)
    # The estimate is the slope of the exact effect: features moved by a thousandth of the way.
    estimate = attribute_features(model, CLEAN, OTHER, d, METRIC)
    own, there = (encoded(d, seen(model, x.tokens, *d.reads)) for x in (OTHER, CLEAN))
    base = measured(model, d, own, [], [])
    for p, j in ((4, 0), (9, 3), (9, 8)):
        step = measured(model, d, own + 1e-5 * (there - own), [p], [j])
        assert torch.allclose(estimate.change[j, p] * 1e-5, step - base, atol=1e-9)
    assert estimate.change.abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_a_folder_in_sae_lens_layout_is_read_back(kind, tmp_path):
    d = some(kind, centred=True)
    save_dictionary(d, tmp_path)
    again = load_dictionary(tmp_path)
    x = torch.randn(5, 16)
    assert torch.equal(again.encode(x), d.encode(x))
    assert torch.equal(again.decode(d.encode(x)), d.decode(d.encode(x)))
    assert (again.reads, again.target) == (d.reads, d.target)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert config["architecture"] == {"relu": "standard"}.get(kind, kind)


def test_transcoders_older_files_and_rescaled_features(tmp_path):
    transcoder = some("relu", "mlp_in", writes=("mlp_out", 1))
    save_dictionary(transcoder, tmp_path / "t")
    again = load_dictionary(tmp_path / "t")
    assert (again.reads, again.target, again.centred) == (("mlp_in", 1), ("mlp_out", 1), False)
    d = some("topk", "z", centred=True)
    (tmp_path / "old").mkdir()
    tensors = {name: getattr(d, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    save_file(tensors, tmp_path / "old" / "sae_weights.safetensors")
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    old |= {"hook_name": "blocks.1.attn.hook_z", "apply_b_dec_to_input": True, "hook_layer": 1}
    (tmp_path / "old" / "cfg.json").write_text(json.dumps(old))
    x = torch.randn(5, 16)
    assert torch.equal(load_dictionary(tmp_path / "old").encode(x), d.encode(x))
    (tmp_path / "old" / "cfg.json").write_text(json.dumps(old | {"rescale_acts_by_decoder_norm": True}))
    rescaled = load_dictionary(tmp_path / "old")
    assert d.b_enc is not None
    assert d.b_dec is not None
    norms = d.W_dec.norm(dim=-1)
    pre = ((x - d.b_dec) @ d.W_enc + d.b_enc) * norms
    best = pre.topk(3, dim=-1).indices
    acts = torch.zeros_like(pre).scatter(-1, best, pre.gather(-1, best).relu())
    assert torch.allclose(rescaled.decode(rescaled.encode(x)), (acts / norms) @ d.W_dec + d.b_dec, atol=1e-4)


def test_mistakes_are_named(tmp_path):
    d = some("relu")
    save_dictionary(d, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    wrong = [
        ({"architecture": "gated"}, "architecture 'gated' with activation 'relu' is not read"),
        ({"normalize_activations": "layer_norm"}, "fold the factor into the weights"),
        ({"metadata": {"hook_name": "blocks.1.ln2.hook_normalized"}}, "is no site of a dictionary; give reads="),
        ([], "must be an object"),
    ]
    for change, message in wrong:
        (tmp_path / "cfg.json").write_text(json.dumps({**config, **change} if isinstance(change, dict) else change))
        with pytest.raises(ValueError, match=message):
            load_dictionary(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    save_file({"W_enc": d.W_enc}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=r"sae_weights.safetensors has no W_dec"):
        load_dictionary(tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="is no dictionary in SAELens's layout"):
        load_dictionary(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_dictionary(tmp_path / "nowhere")
    model = tiny("absolute")
    calls = [
        (some("relu", layer=7), {}, "reads resid_post of layer 7; layers are 0 to 2"),
        (some("relu", d=8), {}, "reads 8 numbers; resid_post of this model has 16"),
        (d, {"features": [99]}, "there is no feature 99; features run from 0 to 23"),
        (d, {"features": [1, 1]}, "each once"),
    ]
    for dictionary, kwargs, message in calls:
        with pytest.raises(ValueError, match=message):
            patch_features(model, CLEAN, OTHER, dictionary, METRIC, **kwargs)
    with pytest.raises(ValueError, match="b_enc must be"):
        FeatureDictionary(d.W_enc, d.W_dec, ("z", 0), b_enc=torch.ones(3))
    with pytest.raises(ValueError, match="unknown site 'pattern'"):
        FeatureDictionary(d.W_enc, d.W_dec, ("pattern", 0))


@pytest.mark.slow
def test_an_sae_that_is_trained_on_the_spot_is_exact_and_finds_the_features_that_matter():
    """A small SAE on the shipped run: it reconstructs most of the site, and all cells equal the literal loop."""
    from interp import load
    from interp.tasks import counterfactual

    run = load("parity-aligned-alibi")
    data = seen(run.raw, run.sample(64, 12, seed=1).tokens, "resid_post", 0).flatten(0, 1)
    torch.manual_seed(0)
    d_in, width = data.shape[1], 256
    decoder = torch.nn.functional.normalize(torch.randn(width, d_in), dim=1)
    weights = [decoder.T.clone(), decoder.clone(), torch.zeros(width), data.mean(dim=0)]
    for w in weights:
        w.requires_grad_()
    optimiser = torch.optim.Adam(weights, lr=3e-3)

    def current() -> FeatureDictionary:
        e, d, b, c = (w.detach() for w in weights)
        return FeatureDictionary(e, d, ("resid_post", 0), b_enc=b, b_dec=c, centred=True)

    for _ in range(1500):
        x = data[torch.randint(len(data), (256,))]
        acts = ((x - weights[3]) @ weights[0] + weights[2]).relu()
        loss = (acts @ weights[1] + weights[3] - x).square().sum(dim=-1).mean() + 0.02 * acts.sum(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    sae = current()
    left = (data - sae.decode(sae.encode(data))).square().sum() / (data - data.mean(dim=0)).square().sum()
    assert left < 0.2
    clean = run.sample(8, 8, seed=2)
    corrupted = counterfactual.flip_input(clean, 3)
    metric = logit_diff(clean, step=5)
    estimate = attribute_features(run, clean, corrupted, sae, metric)
    score = estimate.change.mean(dim=-1).abs().amax(dim=1)
    best = score.argsort(descending=True)[:8].tolist()
    effect = patch_features(run, clean, corrupted, sae, metric, features=best)
    own, there = (sae.encode(seen(run.raw, x.tokens, "resid_post", 0)) for x in (corrupted, clean))
    for i, j in enumerate(best[:3]):
        for p in range(0, clean.n_pos, 5):
            delta = (there - own)[:, p, j, None] * sae.W_dec[j]

            def edit(x: Tensor, delta: Tensor = delta, p: int = p) -> Tensor:
                x = x.clone()
                x[:, p] += delta
                return x

            with torch.no_grad(), hooked(run.raw, {("resid_post", 0): edit}):
                logits = run.raw(corrupted.tokens).logits[:, metric.positions]
            assert torch.allclose(effect.values[i, p], metric.compute(logits, torch.arange(8)), atol=1e-4)
    everything = patch_features(run, clean, corrupted, sae, metric)
    worst = score.argsort()[:8].tolist()
    none = patch_features(run, clean, corrupted, sae, metric, features=worst)
    assert effect.change.abs().max() > 5 * none.change.abs().max()
    assert everything.change.abs().max() > 0.1
