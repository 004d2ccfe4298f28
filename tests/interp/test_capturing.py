from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from interp import capturing, recording
from interp.capturing import Capture, capture, reduce
from interp.models import BRIDGED, ModelConfig, build_model
from interp.models.anatomy import anatomy_of
from interp.models.bridge import boot_bridge
from interp.reducers import HeadStatistics, Mean
from interp.sites import SITES as ALL_SITES
from interp.sites import Site, hook_name
from interp.tasks import Batch, default_vocabulary, sample

D_VOCAB = len(default_vocabulary().ids)
FOREIGN = ("llama", "opt", "parallel")
SITES: tuple[Site, ...] = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "q",
    "k",
    "v",
    "z",
    "attn_out",
    "pattern",
    "mlp_out",
)


def tiny(family: str) -> PreTrainedModel:
    if family in BRIDGED:
        config = ModelConfig(family, n_layers=2, d_model=16, n_heads=4, initializer_range=0.3)
        return build_model(config, D_VOCAB, seed=0).eval()
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": D_VOCAB, "attn_implementation": "eager"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        match family:
            case "llama":
                config = LlamaConfig(intermediate_size=32, num_key_value_heads=2, initializer_range=0.3, **sizes)
                return LlamaForCausalLM(config).eval()
            case "opt":
                return OPTForCausalLM(OPTConfig(ffn_dim=32, word_embed_proj_dim=16, init_std=0.3, **sizes)).eval()
            case _:
                return GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=32, initializer_range=0.3, **sizes)).eval()


BRIDGES: dict[str, Any] = {}


def bridge_of(family: str) -> Any:
    if family not in BRIDGES:
        BRIDGES[family] = boot_bridge(tiny(family))
    return BRIDGES[family]


@torch.no_grad()
def taken_apart(raw: PreTrainedModel, batch: Batch) -> dict[str, dict[int, Tensor]]:
    """Every site by the steps of `interp.models.anatomy`, on the raw model."""
    anatomy = anatomy_of(raw)
    found: dict[str, dict[int, Tensor]] = {site: {} for site in SITES}
    resid, at = anatomy.embed(batch.tokens), torch.arange(batch.n_pos)
    for i, block in enumerate(anatomy.blocks):
        q, k, v = block.project(resid)
        pattern = anatomy.pattern(block, q, k, at, at)
        z = anatomy.mix(pattern, v)
        mid = resid + block.attn_out(z)
        mlp_out = block.mlp_out(resid if block.parallel else mid)
        values = {
            "resid_pre": resid,
            "q": q,
            "k": k,
            "v": v,
            "pattern": pattern,
            "z": z,
            "attn_out": block.attn_out(z),
            "resid_mid": mid,
            "mlp_out": mlp_out,
            "resid_post": mid + mlp_out,
        }
        for site, value in values.items():
            found[site][i] = value
        resid = mid + mlp_out
    return found


# Capture


@pytest.mark.parametrize("family", [*BRIDGED, "llama", "parallel"])
def test_every_site_is_what_the_raw_model_taken_apart_computes(family: str):
    batch, raw = sample("parity-aligned", 3, 3, seed=0), tiny(family)
    sites = [site for site in SITES if (family, site) != ("parallel", "resid_mid")]
    got = capture(bridge_of(family), batch, logits=True, **dict.fromkeys(sites, True))
    expected = taken_apart(raw, batch)
    for site in sites:
        assert getattr(got, site).keys() == expected[site].keys()
        for layer, value in getattr(got, site).items():
            assert torch.allclose(value, expected[site][layer], rtol=0, atol=2e-5), (site, layer)
            assert expected[site][layer].std() > 1e-3
    with torch.no_grad():
        assert got.logits is not None
        assert torch.allclose(got.logits, raw(batch.tokens).logits, rtol=0, atol=1e-4)
    assert got.k[0].shape[2] == (2 if family == "llama" else 4)


@pytest.mark.parametrize("family", [*BRIDGED, *FOREIGN])
def test_every_site_is_what_the_bridges_own_cache_holds(family: str):
    batch, bridge = sample("addition-aligned", 2, 2, seed=0), bridge_of(family)
    extra: tuple[Site, ...] = () if family == "opt" else ("attn_scores",)
    sites: list[Site] = [site for site in (*SITES, *extra) if (family, site) != ("parallel", "resid_mid")]
    got = capture(bridge, batch, **dict.fromkeys(sites, True))
    assert got.logits is None
    with torch.no_grad():
        _, cache = bridge.run_with_cache(batch.tokens)
    for site in sites:
        for layer in range(2):
            assert torch.equal(getattr(got, site)[layer], cache[hook_name(site, layer)])


@pytest.mark.parametrize("family", [*BRIDGED, *FOREIGN])
def test_rows_of_patterns_sum_to_1_and_see_no_future(family: str):
    batch = sample("parity-scratchpad", 3, 4, seed=0)
    for pattern in capture(bridge_of(family), batch, pattern=True).pattern.values():
        assert pattern.shape == (3, 4, batch.n_pos, batch.n_pos)
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-6)
        assert (pattern.triu(1) == 0).all()


@pytest.mark.parametrize("family", [*BRIDGED, *FOREIGN])
def test_only_what_is_asked_for_is_kept_and_later_layers_are_not_run(family: str, monkeypatch: pytest.MonkeyPatch):
    bridge, batch = bridge_of(family), sample("parity-aligned", 2, 3, seed=0)
    everything = capture(bridge, batch, pattern=True, resid_pre=True, z=True)
    seen: list[Any] = []
    run = bridge.run_with_hooks
    monkeypatch.setattr(bridge, "run_with_hooks", lambda *a, **k: seen.append(k["stop_at_layer"]) or run(*a, **k))
    got = capture(bridge, batch, pattern=[0], resid_pre={0}, z=(0, 0))
    assert (list(got.pattern), list(got.resid_pre), list(got.z)) == ([0], [0], [0])
    assert [site for site in SITES if getattr(got, site)] == ["resid_pre", "z", "pattern"]
    assert torch.equal(got.pattern[0], everything.pattern[0])
    assert torch.equal(got.resid_pre[0], everything.resid_pre[0])
    assert list(capture(bridge, batch, resid_post=[1, 0]).resid_post) == [0, 1]
    assert capture(bridge, batch, logits=True, pattern=[0]).logits is not None
    assert seen == [1, None, None]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    bridge, batch = bridge_of("alibi"), sample("parity-aligned", 5, 3, seed=0)
    whole = capture(bridge, batch, logits=True, pattern=True, resid_post=[1])
    sizes: list[int] = []
    run = bridge.run_with_hooks
    monkeypatch.setattr(bridge, "run_with_hooks", lambda t, **k: sizes.append(len(t)) or run(t, **k))
    per_prompt = batch.n_pos * (8 * 16 + 4 * batch.n_pos + D_VOCAB + 2 * 4 * batch.n_pos + 16)
    for budget, expected in ((2 * per_prompt, [2, 2, 1]), (2 * per_prompt - 1, [1] * 5), (1, [1] * 5)):
        sizes.clear()
        monkeypatch.setattr(recording, "numbers", lambda share, device, budget=budget: budget)
        got = capture(bridge, batch, logits=True, pattern=True, resid_post=[1])
        assert sizes == expected
        assert got.logits is not None
        assert whole.logits is not None
        assert torch.allclose(got.logits, whole.logits, atol=1e-5)
        assert torch.allclose(got.pattern[1], whole.pattern[1], atol=1e-6)
        assert torch.allclose(got.resid_post[1], whole.resid_post[1], atol=1e-5)


def test_captures_are_copies_without_a_graph():
    bridge, batch = bridge_of("absolute"), sample("parity-aligned", 2, 3, seed=0)
    first = capture(bridge, batch, logits=True, **dict.fromkeys(SITES, True))
    pointers = set()
    for value in (first.logits, *(value for site in SITES for value in getattr(first, site).values())):
        assert value is not None
        assert not value.requires_grad
        pointers.add(value.data_ptr())
        value.zero_()
    assert len(pointers) == 2 * len(SITES) + 1
    again = capture(bridge, batch, resid_pre=True, pattern=True)
    assert all(value.abs().max() > 0 for value in (*again.resid_pre.values(), *again.pattern.values()))


@pytest.mark.parametrize("family", ["alibi", "rotary", "absolute"])
def test_embeddings_and_the_inside_of_the_mlp_can_be_captured(family: str):
    bridge, batch = bridge_of(family), sample("parity-aligned", 2, 3, seed=0)
    sites: list[Site] = [site for site in ALL_SITES if hook_name(site, 1) in bridge.hook_dict and site != "mlp_in"]
    assert {"embed", "mlp_pre", "mlp_post", "attn_scores"} <= set(sites)
    got = capture(bridge, batch, **dict.fromkeys(sites, True))
    with torch.no_grad():
        _, cache = bridge.run_with_cache(batch.tokens)
    for site in sites:
        for layer, value in getattr(got, site).items():
            assert torch.equal(value, cache[hook_name(site, layer)]), (site, layer)


def test_a_raw_model_is_captured_as_its_bridge():
    batch = sample("parity-aligned", 2, 3, seed=0)
    sites: dict[str, Any] = {"pattern": [1], "resid_pre": [0]}
    one, other = (capture(model, batch, **sites) for model in (tiny("rotary"), bridge_of("rotary")))
    assert torch.allclose(one.pattern[1], other.pattern[1], atol=1e-6)


def test_a_capture_is_shown_in_one_line():
    got = capture(bridge_of("rotary"), sample("parity-aligned", 2, 3, seed=0), logits=True, pattern=[1])
    assert repr(got) == "Capture(2 prompts of 14 tokens: logits, pattern=[1])"
    assert list(got.to_dataframe()["site"]) == ["pattern", "logits"]


def test_no_hook_is_left_behind():
    bridge, batch = bridge_of("rotary"), sample("parity-aligned", 2, 3, seed=0)
    capture(bridge, batch, **dict.fromkeys(SITES, True))
    assert not any(point.fwd_hooks for point in bridge.hook_dict.values())


# Errors


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ({"pattern": [2]}, "pattern has layers 0 to 1; got 2"),
        ({"q": [-1]}, "q has layers 0 to 1; got -1"),
        ({"resid_pre": [0, 3]}, "resid_pre has layers 0 to 1; got 3"),
        ({}, "no site was given; sites are logits, embed, resid_pre, resid_mid"),
    ],
)
def test_mistakes_are_named(sites: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        capture(bridge_of("rotary"), sample("parity-aligned", 2, 3, seed=0), **sites)


def test_parallel_blocks_have_no_resid_mid_and_the_error_says_why():
    batch = sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(ValueError, match="no resid_mid: its blocks run attention and MLP in parallel"):
        capture(bridge_of("parallel"), batch, resid_mid=[0])
    assert capture(bridge_of("rotary"), batch, resid_mid=[0]).resid_mid


def test_a_hook_that_does_not_fire_is_an_error():
    """`use_attn_result` silences BLOOM's hook_attn_out in TransformerLens 4.3."""
    bridge, batch = boot_bridge(tiny("alibi")), sample("parity-aligned", 2, 3, seed=0)
    assert capture(bridge, batch, attn_out=[1]).attn_out
    bridge.set_use_attn_result(True)
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_attn_out fired 0 times, not once"):
        capture(bridge, batch, attn_out=[1])


def test_training_mode_is_refused():
    batch = sample("parity-aligned", 2, 3, seed=0)
    bridge = boot_bridge(tiny("rotary"))
    bridge.blocks[1].train()
    for call in (lambda: capture(bridge, batch, pattern=True), lambda: reduce(bridge, [batch], [HeadStatistics()])):
        with pytest.raises(ValueError, match="training mode"):
            call()


def test_values_of_another_batch_are_refused():
    batch = sample("parity-aligned", 2, 3, seed=0)
    with pytest.raises(ValueError, match="z of layer 1"):
        Capture(batch, z={1: torch.zeros(2, 13, 4, 4)})
    with pytest.raises(ValueError, match="pattern of layer 0"):
        Capture(batch, pattern={0: torch.zeros(2, 14, 4, 14)})
    Capture(batch, pattern={0: torch.zeros(2, 4, 14, 14)}, z={1: torch.zeros(2, 14, 4, 4)})


@pytest.mark.parametrize(
    ("reducers", "message"),
    [
        ([], "one or more reducers of different names; got []"),
        ([HeadStatistics(), HeadStatistics(0.5)], "of different names"),
        (
            [Mean("residual", 0)],  # pyright: ignore[reportArgumentType]
            "unknown site 'residual'; sites are embed, resid_pre",
        ),
        ([Mean("z", 2)], "z has layers 0 to 1; got 2"),
    ],
)
def test_mistakes_of_reduce_are_named(reducers: list, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        reduce(bridge_of("rotary"), [sample("parity-aligned", 2, 3, seed=0)], reducers)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="no batch was given"):
        reduce(bridge_of("rotary"), [], [Mean("z", 0)])


# Memory


def batches(n_prompts: int) -> Iterator[Batch]:
    for seed in range(n_prompts // 10):
        yield sample("parity-aligned", 10, 4, seed=seed)


def peak(monkeypatch: pytest.MonkeyPatch, source: Iterator[Batch]) -> int:
    """The most numbers alive at once among all activations that hooks have given out."""
    alive = most = 0
    run = capturing.activations

    def freed(size: int) -> None:
        nonlocal alive
        alive -= size

    def watched(*args: Any) -> Iterator[Any]:
        nonlocal alive, most
        for rows, out, got in run(*args):
            for key in got:
                alive += got[key].numel()
                weakref.finalize(got[key], freed, got[key].numel())
            most = max(most, alive)
            yield rows, out, got
            del got

    with monkeypatch.context() as patch:
        patch.setattr(capturing, "activations", watched)
        reduce(bridge_of("rotary"), source, [HeadStatistics(), Mean("resid_post", 1, by="pos")])
    return most


def test_memory_does_not_depend_on_the_number_of_prompts(monkeypatch: pytest.MonkeyPatch):
    few, many = peak(monkeypatch, batches(10)), peak(monkeypatch, batches(300))
    assert few == 10 * (2 * 4 * 18 * 18 + 2 * 18 * 16 + 18 * 16)
    assert many == few


def test_a_large_batch_is_reduced_in_chunks_of_bounded_size(monkeypatch: pytest.MonkeyPatch):
    bridge, sizes = bridge_of("rotary"), []
    run = bridge.run_with_hooks
    monkeypatch.setattr(bridge, "run_with_hooks", lambda t, **k: sizes.append(len(t)) or run(t, **k))
    monkeypatch.setattr(recording, "numbers", lambda share, device: 18 * 1600)
    for n in (10, 300):
        sizes.clear()
        reduce(bridge, [sample("parity-aligned", n, 4, seed=0)], [HeadStatistics()])
        assert max(sizes) < 10
        assert sum(sizes) == n
