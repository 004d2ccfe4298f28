"""Grids against `transformer_lens.patching` itself, function by function, on small bridges."""

import warnings
from functools import cache
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
import torch
from transformer_lens import patching as theirs
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from interp import capture, logit_diff
from interp.models import boot_bridge, raw_of
from interp.models.anatomy import anatomy_of
from interp.patching import grids as ours
from interp.patching.cells import Cell
from interp.patching.grids import callables
from interp.patching.metric import bind_metric
from interp.patching.reference import literal, record
from interp.tasks import Prompts

N_LAYERS, N_HEADS, N_POS, VOCAB = 2, 2, 5, 24
TOLERANCE = 1e-5
FAMILIES = ("gpt2", "qwen2", "bloom", "llama", "neox")
QUICK = ("gpt2", "qwen2")
BY_FAMILY = [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]

BLOCK = ("resid_pre", "resid_mid", "attn_out", "mlp_out")
HEADS = ("out", "q", "k", "v", "pattern")
GRIDS = [
    *(f"get_act_patch_{site}" for site in BLOCK),
    *(f"get_act_patch_attn_head_{site}_{at}" for site in HEADS for at in ("by_pos", "all_pos")),
    "get_act_patch_attn_head_pattern_dest_src_pos",
]
STACKS = [f"get_act_patch_{name}_every" for name in ("block", "attn_head_all_pos", "attn_head_by_pos")]


def raw_model(family, n_layers=N_LAYERS, width=16, heads=N_HEADS, vocab=VOCAB):
    """A random model with weights large enough that every site matters."""
    sizes: dict[str, Any] = {"vocab_size": vocab, "initializer_range": 0.3, "attn_implementation": "eager"}
    common: dict[str, Any] = sizes | {
        "hidden_size": width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
    }
    common |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match family:
            case "gpt2":
                return GPT2LMHeadModel(
                    GPT2Config(n_embd=width, n_layer=n_layers, n_head=heads, bos_token_id=0, eos_token_id=0, **sizes)
                ).eval()
            case "bloom":
                return BloomForCausalLM(
                    BloomConfig(hidden_size=width, n_layer=n_layers, n_head=heads, pad_token_id=0, **sizes)
                ).eval()
            case "neox":
                return GPTNeoXForCausalLM(GPTNeoXConfig(use_parallel_residual=False, **common)).eval()
            case "parallel":
                return GPTNeoXForCausalLM(GPTNeoXConfig(use_parallel_residual=True, **common)).eval()
            case "llama":
                return LlamaForCausalLM(LlamaConfig(**common)).eval()
            case "qwen2":  # grouped queries
                return Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=1, **common)).eval()
            case "opt":
                return OPTForCausalLM(OPTConfig(ffn_dim=2 * width, word_embed_proj_dim=width, **common)).eval()
    raise AssertionError(family)


@cache
def setting(family):
    """A bridge, clean and corrupted tokens that differ from position 1 on, and the clean and corrupted caches."""
    bridge = boot_bridge(raw_model(family))
    gen = torch.Generator().manual_seed(1)
    clean, corrupted = (torch.randint(1, VOCAB, (2, N_POS), generator=gen) for _ in range(2))
    corrupted[:, 0] = clean[:, 0]
    with torch.no_grad():
        clean_cache, corrupted_cache = (bridge.run_with_cache(tokens)[1] for tokens in (clean, corrupted))
    return SimpleNamespace(
        bridge=bridge, clean=clean, corrupted=corrupted, cache=clean_cache, corrupted_cache=corrupted_cache
    )


def mean_metric(logits):
    return per_prompt(logits).mean()


def per_prompt(logits):
    """Reads two positions, so that an early position's logits count too."""
    return logits[:, -1, 3] - logits[:, -1, 5] + 0.5 * logits[:, 2, 7]


def unpatched(s):
    with torch.no_grad():
        return mean_metric(s.bridge(s.corrupted))


@pytest.fixture(autouse=True)
def hint():
    """Every test but that of the hint runs after it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callables._hint()


def close(mine, expected):
    assert mine.shape == expected.shape
    assert mine.dtype == expected.dtype
    scale = max(1.0, float(expected.abs().max()))
    assert float((mine - expected).abs().max()) <= TOLERANCE * scale


@pytest.mark.parametrize("family", BY_FAMILY)
@pytest.mark.parametrize("name", GRIDS + STACKS)
def test_a_grid_equals_theirs(name, family):
    s = setting(family)
    with torch.no_grad():
        expected = getattr(theirs, name)(s.bridge, s.corrupted, s.cache, mean_metric)
    mine = getattr(ours, name)(s.bridge, s.corrupted, s.cache, mean_metric)
    close(mine, expected)
    assert float((mine - mine.flatten()[0]).abs().max()) > 1e-3  # the patches do something


@pytest.mark.parametrize("family", BY_FAMILY)
@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_direct_paths_equal_theirs(family, component):
    s = setting(family)
    arguments = (s.bridge, s.corrupted, s.cache, s.corrupted_cache, mean_metric)
    if component != "q" and family == "qwen2":
        for module in (theirs, ours):
            with pytest.raises(ValueError, match=r"component='[kv]'"):
                module.get_act_patch_direct_path(*arguments, 0, 1, component)
        return
    with torch.no_grad():
        expected = theirs.get_act_patch_direct_path(*arguments, 0, 1, component, verbose=False)
    mine = ours.get_act_patch_direct_path(*arguments, 0, 1, component, verbose=False)
    close(mine, expected)
    assert float(mine[0].abs().max()) == 0
    assert float((mine[1] - unpatched(s)).abs().max()) > 1e-3
    every = ours.get_act_patch_direct_path_all_sources(*arguments, component)
    assert every.shape == (N_LAYERS, N_HEADS, N_LAYERS, N_HEADS)
    close(every[0, 1], expected)
    assert float(every[1].abs().max()) == 0


@pytest.mark.parametrize("metrics", [per_prompt, {"a": per_prompt, "b": lambda logits: logits[:, 1, 2]}])
@pytest.mark.parametrize("reduce", ["mean", "none"])
@pytest.mark.parametrize("name", ["get_act_patch_attn_head_k_by_pos", "get_act_patch_attn_head_by_pos_every"])
def test_reduction_baseline_and_several_metrics_equal_theirs(name, reduce, metrics):
    s = setting("qwen2")
    options = {"reduce": reduce, "baseline": True}
    with torch.no_grad():
        expected = getattr(theirs, name)(s.bridge, s.corrupted, s.cache, metrics, **options)
    mine = getattr(ours, name)(s.bridge, s.corrupted, s.cache, metrics, **options)
    close(mine.values, expected.values)
    close(mine.baseline, expected.baseline)
    pandas.testing.assert_frame_equal(mine.index_df, expected.index_df)
    for field in ("axis_names", "metric_names", "reduced", "has_metric_axis", "patch_type_names"):
        assert getattr(mine, field) == getattr(expected, field), field
    close(mine.effect(), expected.effect())


def test_rows_of_indices_equal_theirs():
    s = setting("gpt2")
    rows = pandas.DataFrame({"layer": [1, 0, 0], "pos": [2, 4, 1]})
    name = "get_act_patch_resid_pre"
    arguments = (s.bridge, s.corrupted, s.cache, mean_metric)
    with torch.no_grad():
        expected = getattr(theirs, name)(*arguments, index_axis_names=None, index_df=rows)
    close(getattr(ours, name)(*arguments, index_axis_names=None, index_df=rows), expected)
    values, index = getattr(ours, name)(*arguments, return_index_df=True)
    _, their_index = getattr(theirs, name)(*arguments, return_index_df=True)
    assert values.shape == (N_LAYERS, N_POS)
    pandas.testing.assert_frame_equal(index, their_index)
    for bad in (pandas.DataFrame({"layer": [0], "pos": [N_POS]}), pandas.DataFrame({"layer": [0]})):
        with pytest.raises(ValueError, match=r"index_df (has pos|must have rows of layer, pos)"):
            getattr(ours, name)(*arguments, index_df=bad)


@pytest.mark.parametrize("name", ["get_act_patch_resid_pre", "get_act_patch_attn_head_pattern_by_pos"])
def test_a_cache_of_the_corrupted_run_changes_nothing(name):
    s = setting("gpt2")
    mine = getattr(ours, name)(s.bridge, s.corrupted, s.corrupted_cache, mean_metric)
    assert float((mine - unpatched(s)).abs().max()) < 1e-6


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_models_caches_and_metrics_of_every_kind_agree(family):
    s = setting(family)
    raw = raw_of(s.bridge)
    tokens = Prompts(s.corrupted)
    kept = capture(s.bridge, Prompts(s.clean), z=True)
    grid = ours.get_act_patch_attn_head_out_by_pos

    def difference(logits):
        return (logits[:, -1, 3] - logits[:, -1, 5]).mean()

    declared = logit_diff(answer=3, other=5)
    expected = grid(s.bridge, s.corrupted, s.cache, difference)
    hooks = {f"blocks.{layer}.attn.hook_z": kept.z[layer] for layer in range(N_LAYERS)}
    for model, cached, metric in ((raw, kept, declared), (raw, hooks, difference), (s.bridge, s.cache, declared)):
        close(grid(model, tokens, cached, metric), expected)
    result = grid(s.bridge, s.corrupted, s.cache, {"declared": declared}, reduce="none")
    assert result.values.shape == (1, N_LAYERS, N_POS, N_HEADS, 2)
    close(result.mean()[0], expected)


def test_only_the_cached_values_matter():
    """An edited cache, here zeros, is patched in as it is."""
    s = setting("gpt2")
    zeros = {f"blocks.{layer}.attn.hook_z": torch.zeros(1, N_POS, N_HEADS, 8) for layer in range(N_LAYERS)}
    with torch.no_grad():
        expected = theirs.get_act_patch_attn_head_out_all_pos(s.bridge, s.corrupted, zeros, mean_metric)  # type: ignore[call-arg]
    close(ours.get_act_patch_attn_head_out_all_pos(s.bridge, s.corrupted, zeros, mean_metric), expected)


def test_prompts_in_several_parts_give_the_same_as_all_at_once():
    """A declared metric runs at most 32 prompts together, a callable all of them."""
    s = setting("gpt2")
    gen = torch.Generator().manual_seed(2)
    clean, corrupted = (torch.randint(1, VOCAB, (40, N_POS), generator=gen) for _ in range(2))
    with torch.no_grad():
        _, kept = s.bridge.run_with_cache(clean)
    declared = logit_diff(answer=3, other=5)
    for name in ("get_act_patch_attn_head_pattern_dest_src_pos", "get_act_patch_block_every"):
        function = getattr(ours, name)
        close(
            function(s.bridge, corrupted, kept, declared),
            function(s.bridge, corrupted, kept, lambda logits: float((logits[:, -1, 3] - logits[:, -1, 5]).mean())),
        )


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["get_act_patch_resid_pre", "get_act_patch_attn_head_v_by_pos"])
def test_a_bridge_that_the_user_booted(name, folded):
    """Also in compatibility mode, in which weights are folded and activations are other numbers."""
    raw, s = raw_model("gpt2"), setting("gpt2")
    bridge = build_bridge_from_module(raw, type(raw).__name__, hf_config=raw.config)
    if folded:
        bridge.enable_compatibility_mode()
    with torch.no_grad():
        _, kept = bridge.run_with_cache(s.clean)
        expected = getattr(theirs, name)(bridge, s.corrupted, kept, mean_metric)
    close(getattr(ours, name)(bridge, s.corrupted, kept, mean_metric), expected)
    bridge.train()
    with pytest.raises(ValueError, match="training mode"):
        getattr(ours, name)(bridge, s.corrupted, kept, mean_metric)


def test_their_resid_mid_with_gradients_misses_the_residual_stream():
    s = setting("gpt2")
    partly = theirs.get_act_patch_resid_mid(s.bridge, s.corrupted, s.cache, mean_metric)
    mine = ours.get_act_patch_resid_mid(s.bridge, s.corrupted, s.cache, mean_metric)
    assert float((mine - partly).abs().max()) > 0.01
    anatomy = anatomy_of(raw_of(s.bridge))
    metric = bind_metric(logit_diff(answer=3, other=5), s.bridge, Prompts(s.corrupted))
    mine = ours.get_act_patch_resid_mid(s.bridge, s.corrupted, s.cache, metric)
    source = record(anatomy, s.clean, "resid_mid", 0)
    one = literal(anatomy, s.corrupted, "resid_mid", Cell(0, (2,)), source, metric, torch.arange(2))
    assert float(mine[0, 2] - one.mean()) == pytest.approx(0, abs=1e-5)


def test_patterns_and_direct_paths_of_opt():
    """TransformerLens patches none of OPT's patterns, and has no direct paths there."""
    s = setting("opt")
    metric = bind_metric(logit_diff(answer=3, other=5), s.bridge, Prompts(s.corrupted))
    mine = ours.get_act_patch_attn_head_pattern_by_pos(s.bridge, s.corrupted, s.cache, metric)
    anatomy = anatomy_of(raw_of(s.bridge))
    source = record(anatomy, s.clean, "pattern", 0)
    one = literal(anatomy, s.corrupted, "pattern", Cell(0, (3,), 1), source, metric, torch.arange(2))
    assert float(mine[0, 1, 3] - one.mean()) == pytest.approx(0, abs=1e-5)
    paths = ours.get_act_patch_direct_path(s.bridge, s.corrupted, s.cache, s.corrupted_cache, metric, 0, 0)
    assert float((paths[1] - mine[0, 0, 0]).abs().max()) > 1e-3


def test_refusals_name_the_reason():
    s = setting("gpt2")
    parallel = setting("parallel")
    with pytest.raises(ValueError, match="parallel blocks have no resid_mid"):
        ours.get_act_patch_resid_mid(parallel.bridge, parallel.corrupted, parallel.cache, mean_metric)
    few = {"blocks.0.hook_resid_pre": s.cache["blocks.0.hook_resid_pre"]}
    with pytest.raises(ValueError, match=r"no blocks\.1\.hook_resid_pre; make it with run_with_cache"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, few, mean_metric)
    kept = capture(s.bridge, Prompts(s.clean), z=[0])
    with pytest.raises(ValueError, match="no z of layer 1"):
        ours.get_act_patch_attn_head_out_all_pos(s.bridge, s.corrupted, kept, mean_metric)
    with pytest.raises(ValueError, match="the same number of tokens"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted[:, :-1], s.cache, mean_metric)
    with pytest.raises(ValueError, match="must return a scalar"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, s.cache, per_prompt)
    with pytest.raises(ValueError, match=r"must return \[batch\]"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, s.cache, mean_metric, reduce="none")
    with pytest.raises(ValueError, match="reduce must be one of"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, s.cache, mean_metric, reduce="sum")
    with pytest.raises(ValueError, match="a function of logits"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, s.cache, "logit_diff")
    with pytest.raises(ValueError, match="of the corrupted run"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, s.cache, lambda logits: logits.mean() * torch.nan)
    with pytest.raises(ValueError, match="component must be q, k or v"):
        ours.get_act_patch_direct_path(s.bridge, s.corrupted, s.cache, s.corrupted_cache, mean_metric, 0, 0, "z")  # type: ignore[arg-type]


def test_a_hook_that_is_another_site_is_refused():
    """A cache whose bridge computes a site differently than the engine would be patched in at the wrong place."""
    s = setting("gpt2")

    class Shifted(dict):
        model = SimpleNamespace(
            run_with_cache=lambda *_, names_filter, **__: (None, {n: torch.zeros(1) for n in names_filter})
        )

    with pytest.raises(ValueError, match=r"differs by 1\.0e"):
        ours.get_act_patch_resid_pre(s.bridge, s.corrupted, Shifted(s.cache.cache_dict), mean_metric)


def test_the_hint_comes_once():
    s = setting("gpt2")
    callables._hint.cache_clear()
    with pytest.warns(UserWarning, match="a declared metric"):
        ours.get_act_patch_block_every(s.bridge, s.corrupted, s.cache, mean_metric)
    ours.get_act_patch_block_every(s.bridge, s.corrupted, s.cache, mean_metric)  # pytest makes a warning an error


def test_every_name_of_theirs_is_here():
    names = [name for name in vars(theirs) if name.startswith("get_act_patch")]
    assert len(names) >= 20
    assert all(name in vars(ours) for name in names)
    assert ours.generic_activation_patch is theirs.generic_activation_patch
    with pytest.raises(AttributeError, match="neither"):
        _ = ours.get_act_patch_nothing
