"""Steering and patching while a model runs or generates, against hooks written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp import capture, detect_heads, load, patch
from interp.circuits import describe_heads
from interp.erasure import residuals
from interp.forward import generate
from interp.models import boot_bridge
from interp.models.weights import share_weights
from interp.patching import logit_diff
from interp.steering import mean_difference, patched, steered
from interp.tasks import Role
from tests.interp.models.architecture_cases import tiny as tiny_case
from tests.interp.patching.models import prompts, tiny
from tests.interp.raw_hooks import FIVE, hooked, seen

SITES = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "mlp_pre", "mlp_post")
NEW = 6


def vector_for(model: Any, site: str) -> Tensor:
    shape = seen(model, torch.zeros(1, 1, dtype=torch.long), site, 1).shape[2:]
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def decoded(model: Any, tokens: Tensor, use_cache: bool) -> Tensor:
    """Greedy decoding by Hugging Face."""
    return model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
    )


def by_hand(model: Any, tokens: Tensor, site: str, add: Tensor, first: int) -> Tensor:
    """Greedy decoding by whole passes, with `add` at every position from `first` on."""

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, first:] += add
        return x

    for _ in range(NEW):
        with torch.no_grad(), hooked(model, {(site, 1): edit}):
            logits = model(tokens, use_cache=False).logits[:, -1:]
        logits[..., model.generation_config.eos_token_id] = -torch.inf  # `decoded` asks for NEW tokens
        tokens = torch.cat([tokens, logits.argmax(dim=-1)], dim=1)
    return tokens


@pytest.mark.parametrize("architecture", FIVE)
@pytest.mark.parametrize("site", SITES)
def test_steering_while_generating_is_the_loop_by_hand(architecture, site):
    model, tokens = tiny(architecture), prompts(2).tokens
    add = 3 * vector_for(model, site)
    for first in (0, 5, tokens.shape[1]):
        expected = by_hand(model, tokens, site, add, first)
        with steered(model, at=(site, 1), add=add / 2, scale=2.0, positions=slice(first, None)):
            for use_cache in (True, False):
                assert torch.equal(decoded(model, tokens, use_cache), expected)
    assert not torch.equal(expected, decoded(model, tokens, True)) or site == "mlp_pre"  # the before half


@pytest.mark.parametrize("architecture", FIVE)
def test_logits_are_those_of_the_loop_and_nothing_is_left(architecture):
    model, tokens = tiny(architecture), prompts(2).tokens
    add = vector_for(model, "z")[:1]

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 3, 2] += 5 * add[0]
        return x

    with torch.no_grad():
        before = model(tokens).logits
        with hooked(model, {("z", 0): edit, ("z", 2): edit}):
            expected = model(tokens).logits
        with steered(model, at=("z", (0, 2)), add=add[0], scale=5, heads=2, positions=3):
            assert torch.allclose(model(tokens).logits, expected, atol=1e-5)
        assert torch.equal(model(tokens).logits, before)
        with pytest.raises(IndexError), steered(model, at=("z", 0), add=add[0], heads=2):
            model(tokens + 10**6)
        assert torch.equal(model(tokens).logits, before)
    assert not torch.allclose(before, expected, atol=1e-2)


@pytest.mark.parametrize("site", ["q", "k", "v", "resid_mid"])
def test_sites_inside_attention_agree_with_and_without_a_cache(site):
    model, tokens = tiny("grouped"), prompts(2).tokens
    shape = (16,) if site == "resid_mid" else (4, 4) if site == "q" else (2, 4)
    add = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    plain = decoded(model, tokens, True)
    with steered(model, at=(site, 1), add=add, scale=8):
        cached = decoded(model, tokens, True)
        assert torch.equal(cached, decoded(model, tokens, False))
    assert not torch.equal(cached, plain)


@pytest.mark.parametrize("architecture", FIVE)
def test_patched_takes_values_of_another_prompt(architecture):
    model = tiny(architecture)
    tokens, other = prompts(2).tokens, prompts(2, seed=5).tokens
    for site in SITES:
        new = seen(model, other, site, 1)

        def edit(x: Tensor, new: Tensor = new) -> Tensor:
            x = x.clone()
            x[:, [3, 5]] = new[:, [3, 5]]
            return x

        with torch.no_grad(), hooked(model, {(site, 1): edit}):
            expected = model(tokens).logits
        with torch.no_grad(), patched(model, (site, 1), other, positions=[3, 5]):
            assert torch.allclose(model(tokens).logits, expected, atol=1e-5)
            cached = decoded(model, tokens, True)
            assert torch.equal(cached, decoded(model, tokens, False))
    with torch.no_grad(), patched(model, ("resid_pre", 0), other):  # all of it: the other prompt
        assert torch.allclose(model(tokens).logits, model(other).logits, atol=1e-4)


def test_our_own_generate_is_steered_too():
    model, batch = tiny("rotary"), prompts(2)
    add = 20 * vector_for(model, "resid_post")
    plain = generate(model, batch, forced=False)
    with steered(model, at=("resid_post", 1), add=add):
        changed = generate(model, batch, forced=False)
    assert not torch.equal(plain.tokens, changed.tokens)


@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "z", "mlp_post", "k"])
def test_a_bridge_is_steered_by_its_own_hooks(site):
    raw = tiny("absolute")
    bridge, tokens = boot_bridge(share_weights(raw)), prompts(2).tokens
    shape = (4, 4) if site in ("z", "k") else (64,) if site == "mlp_post" else (16,)
    add = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), steered(raw, (site, 1), add, positions=slice(4, 9)):
        expected = raw(tokens).logits
    with torch.no_grad(), steered(bridge, (site, 1), add, positions=slice(4, 9)):
        assert torch.allclose(bridge(tokens), expected, atol=1e-5)
    assert not torch.allclose(bridge(tokens), expected, atol=1e-3)


@pytest.mark.parametrize("use_past_kv_cache", [True, False])
def test_a_bridge_generates_under_an_edit(use_past_kv_cache):
    """`bridge.generate` under `steered` and `patched` writes what the raw model does under the same edit."""
    raw = tiny("absolute")
    bridge, tokens = boot_bridge(share_weights(raw)), prompts(1).tokens
    n = tokens.shape[1]
    add = 20 * vector_for(raw, "resid_post")

    def generated() -> Tensor:
        out = bridge.generate(
            tokens,
            max_new_tokens=NEW,
            do_sample=False,
            stop_at_eos=False,
            use_past_kv_cache=use_past_kv_cache,
            verbose=False,
            return_type="tokens",
        )
        assert isinstance(out, Tensor)
        return out

    def greedy() -> Tensor:
        ids = tokens
        for _ in range(NEW):
            with torch.no_grad():
                ids = torch.cat([ids, raw(ids, use_cache=False).logits[:, -1:].argmax(dim=-1)], dim=1)
        return ids

    plain = generated()
    assert torch.equal(plain, greedy())
    with steered(raw, ("resid_post", 1), add, positions=slice(n - 2, None)):
        expected = greedy()
    with steered(bridge, ("resid_post", 1), add, positions=slice(n - 2, None)):
        assert torch.equal(generated(), expected)
    assert not torch.equal(plain, expected)
    other = prompts(1, seed=5).tokens
    with patched(raw, ("resid_pre", 1), other):
        expected = greedy()
    with patched(bridge, ("resid_pre", 1), other):
        assert torch.equal(generated(), expected)
    assert not torch.equal(plain, expected)
    assert torch.equal(generated(), plain)  # nothing is left


def test_what_does_not_see_the_edit_refuses():
    model, batch = tiny("absolute"), prompts(2)
    add = vector_for(model, "resid_post")
    with steered(model, ("resid_post", 1), add):
        model(batch.tokens)
        with pytest.raises(ValueError, match="only its own passes show"):
            capture(model, batch, resid_post=[1])
        with pytest.raises(ValueError, match="only its own passes show"):
            patch(model, batch, prompts(2, seed=1), "z", logit_diff(batch, 2))
    capture(model, batch, resid_post=[1])
    with (
        pytest.raises(RuntimeError, match="the model did not run inside the block"),
        steered(model, ("z", 0), add.view(4, 4)),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match=r"no pass had the positions \[40\]"),
        steered(model, ("resid_post", 0), add, positions=[40]),
    ):
        model(batch.tokens)


def test_dynamic_scaling_of_the_rotary_encoding_is_refused_with_a_cache():
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 32, "vocab_size": 50, "max_position_embeddings": 12}
    config = LlamaConfig(rope_parameters=rope, **sizes)
    model: Any = LlamaForCausalLM(config).eval()
    tokens = torch.arange(20, 30).unsqueeze(0)
    with steered(model, ("resid_post", 0), torch.ones(16)):
        decoded(model, tokens, False)
        with pytest.raises(ValueError, match="pass use_cache=False"):
            decoded(model, tokens, True)
        decoded(model, tokens[:, :3], True)  # short enough: the encoding is the trained one


def test_mistakes_are_named():
    model, add = tiny("absolute"), torch.ones(16)
    wrong = [
        ((("pattern", 0), add), {}, "unknown site 'pattern'"),
        ((("resid_post", 9), add), {}, "layers 0 to 2; got 9"),
        (("resid_post", add), {}, "at is a site and a layer"),
        ((("resid_post", 0), torch.ones(3)), {}, r"must be \[16\]; got \[3\]"),
        ((("z", 0), torch.ones(4)), {}, r"must be \[4, 4\]; got \[4\]"),
        ((("z", 0), torch.ones(4)), {"heads": 4}, "z has heads 0 to 3; got 4"),
        ((("resid_post", 0), add), {"heads": 1}, "resid_post has no heads"),
        ((("resid_post", 0), add), {"positions": [-1]}, "count from 0"),
        ((("resid_post", 0), add * torch.nan), {}, "the steering vector is NaN"),
        ((("resid_post", 0), add), {"scale": float("nan")}, "scale must be a finite number; got nan"),
        ((("resid_post", 0), add), {"scale": "2"}, "scale must be a finite number; got '2'"),
        ((("resid_post", 0), add.numpy()), {}, "must be a tensor; got ndarray"),
    ]
    for args, kwargs, message in wrong:
        with pytest.raises(ValueError, match=message), steered(model, *args, **kwargs):
            pass
    with (
        pytest.raises(ValueError, match="parallel blocks have no resid_mid"),
        steered(tiny("parallel"), ("resid_mid", 0), add),
    ):
        pass
    with (
        pytest.raises(ValueError, match="positions and source_positions are pairs"),
        patched(model, ("z", 0), prompts(1), [1, 2], [3]),
    ):
        pass
    with (
        pytest.raises(ValueError, match="the source has 2 prompts, and this pass 3 rows"),
        patched(model, ("z", 0), prompts(2)),
    ):
        model(prompts(3).tokens)


def test_a_mean_difference_by_hand():
    model, a, b = tiny("rotary"), prompts(3, seed=1), prompts(2, seed=2)
    found = mean_difference(model, a, b, ("resid_post", 1))
    own, other = (seen(model, x.tokens, "resid_post", 1) for x in (a, b))
    assert torch.allclose(found, own[:, -1].mean(dim=0) - other[:, -1].mean(dim=0), atol=1e-5)
    everywhere = mean_difference(model, a, b, ("resid_post", 1), position=None)
    assert torch.allclose(everywhere, own.mean(dim=(0, 1)) - other.mean(dim=(0, 1)), atol=1e-5)
    assert mean_difference(model, a, a, ("z", 0)).abs().max() < 1e-6
    with pytest.raises(ValueError, match="and no position 99"):
        mean_difference(model, a, b, ("z", 0), position=99)


def test_a_mean_difference_in_a_block_is_that_of_the_steered_model():
    model, a, b = tiny("rotary"), prompts(3, seed=1), prompts(2, seed=2)
    plain = mean_difference(model, a, b, ("resid_post", 1))
    with steered(model, ("resid_post", 0), vector_for(model, "resid_post")):
        found = mean_difference(model, a, b, ("resid_post", 1))
        own, other = (seen(model, x.tokens, "resid_post", 1)[:, -1].mean(dim=0) for x in (a, b))
    assert torch.allclose(found, own - other, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3


def test_a_mean_difference_of_texts_of_different_lengths(saved_families):
    run = load(saved_families / "rotary")
    texts = ["1 a 2 b", "3 b"]
    found = mean_difference(run, texts, ["2 a"], ("mlp_out", 0))
    ends = [
        seen(run.raw, run.tokenizer(t, return_tensors="pt").input_ids, "mlp_out", 0)[0, -1] for t in (*texts, "2 a")
    ]
    assert torch.allclose(found, (ends[0] + ends[1]) / 2 - ends[2], atol=1e-5)


def test_blocks_nest():
    model, tokens = tiny("absolute"), prompts(2).tokens
    a, b = (torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in (1, 2))

    def plus(v: Tensor) -> Any:
        return lambda x: x + v

    with torch.no_grad(), hooked(model, {("resid_post", 0): plus(a), ("resid_post", 1): plus(b)}):
        expected = model(tokens).logits
    with torch.no_grad(), steered(model, ("resid_post", 0), a), steered(model, ("resid_post", 1), b):
        assert torch.allclose(model(tokens).logits, expected, atol=1e-5)
    patch(model, prompts(2), prompts(2, seed=1), "z", logit_diff(prompts(2), 2))  # nothing is left


@pytest.mark.parametrize("late", [False, True])
def test_an_edit_past_the_tokens_of_a_self_test_is_refused_too(late):
    model, batch = tiny("absolute"), prompts(2)
    add = vector_for(model, "resid_pre")
    with steered(model, ("resid_pre", 0), add, positions=slice(9, None) if late else None):
        model(batch.tokens)
        for measure in (detect_heads, describe_heads, lambda m, b: residuals(m, b, Role.INPUT)):
            with pytest.raises(ValueError, match="only its own passes show"):
                measure(model, batch)
    detect_heads(model, batch)


def test_a_bridge_that_is_edited_shows_it_to_capture_alone():
    raw, batch = tiny("absolute"), prompts(2)
    bridge = boot_bridge(share_weights(raw))
    add = vector_for(raw, "resid_post")
    plain = capture(bridge, batch, resid_post=[1], q=[2])
    with steered(bridge, ("resid_post", 1), add):
        seen_inside = capture(bridge, batch, resid_post=[1], q=[2])
        for measure in (
            lambda: patch(bridge, batch, batch, "z", logit_diff(batch, 2)),
            lambda: generate(bridge, batch),
        ):
            with pytest.raises(ValueError, match="edited by `steered` or `patched`"):
                measure()
    assert torch.allclose(seen_inside.resid_post[1], plain.resid_post[1] + add, atol=1e-5)
    assert not torch.allclose(seen_inside.q[2], plain.q[2], atol=1e-3)
    assert torch.equal(capture(bridge, batch, resid_post=[1]).resid_post[1], plain.resid_post[1])


@pytest.mark.parametrize("positions", [0, [2, 7], slice(6, None), None])
def test_a_recurrent_state_counts_the_positions_that_it_has_seen(positions):
    model, tokens = tiny_case("mamba"), torch.arange(1, 7)[None]
    add = 5 * torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with steered(model, ("resid_post", 0), add, positions=positions):
        cached, whole = (logits_while_decoding(model, tokens, use_cache) for use_cache in (True, False))
    assert torch.allclose(cached, whole, atol=1e-4)
    assert not torch.allclose(cached, logits_while_decoding(model, tokens, True), atol=1e-2)


def logits_while_decoding(model: Any, tokens: Tensor, use_cache: bool) -> Tensor:
    """Return the logits `[step vocab]` of greedy decoding, with all of them forced to one length."""
    found = model.generate(
        tokens,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.cat(found.logits)


def test_a_state_that_does_not_say_what_it_has_seen_is_refused():
    model, tokens = tiny_case("rwkv"), torch.arange(1, 7)[None]
    add = torch.ones(model.config.hidden_size)
    with (
        pytest.raises(ValueError, match="pass use_cache=False"),
        steered(model, ("resid_post", 0), add, positions=0),
    ):
        logits_while_decoding(model, tokens, True)
    with steered(model, ("resid_post", 0), add):  # all positions need no count
        cached = logits_while_decoding(model, tokens, True)
    mamba = tiny_case("mamba")
    state = mamba(tokens, use_cache=True).cache_params  # from before the block
    with (
        pytest.raises(ValueError, match="pass use_cache=False"),
        steered(mamba, ("resid_post", 0), torch.ones(mamba.config.hidden_size), positions=[6]),
    ):
        mamba(tokens[:, :1], cache_params=state)
    with steered(model, ("resid_post", 0), add):
        assert torch.allclose(cached, logits_while_decoding(model, tokens, False), atol=1e-4)


def test_positions_after_padding_are_refused_except_generated_ones():
    model: Any = tiny("absolute")
    row, pad = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[0, 0]])
    tokens = torch.cat([pad, row], dim=1)
    mask = (torch.arange(6) >= 2).long()[None]
    add = 5 * vector_for(model, "resid_post")

    def padded() -> Tensor:
        return model(tokens, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp_min(0)).logits[:, 2:]

    for positions in (1, slice(1, None), slice(0, 4)):
        with (
            pytest.raises(ValueError, match="begin with padding"),
            steered(model, ("resid_post", 1), add, positions=positions),
        ):
            padded()
    with torch.no_grad(), steered(model, ("resid_post", 1), add):
        assert torch.allclose(padded(), model(row).logits, atol=1e-4)  # all positions: padding changes nothing
    for use_cache in (True, False):
        with steered(model, ("resid_post", 1), add, positions=slice(6, None)):
            of_padded = model.generate(
                tokens, attention_mask=mask, max_new_tokens=4, do_sample=False, use_cache=use_cache, pad_token_id=0
            )
        with steered(model, ("resid_post", 1), add, positions=slice(4, None)):
            alone = model.generate(row, max_new_tokens=4, do_sample=False, use_cache=use_cache, pad_token_id=0)
        assert torch.equal(of_padded[:, 6:], alone[:, 4:])
