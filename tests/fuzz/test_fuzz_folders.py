"""Folders that someone else made: a run, or one line that says what is wrong, soon and in little memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from experiments import load
from interp.models import ModelConfig, build_model, load_tokenizer, save_run
from interp.tasks import default_tokenizer, default_vocabulary
from tests.fuzz.counting import counts, hammer, refusal
from tests.fuzz.junk import ABSURD, json_junk, leaves, mutated

FAMILIES = ("alibi", "rotary", "absolute")
# Keys that transformers reads in a configuration, of other architectures too.
KEYS = (
    "n_layer",
    "num_hidden_layers",
    "n_head",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_size",
    "n_embd",
    "vocab_size",
    "intermediate_size",
    "head_dim",
    "max_position_embeddings",
    "n_positions",
    "num_labels",
    "dtype",
    "layer_types",
    "rope_parameters",
    "rope_scaling",
    "quantization_config",
    "text_config",
    "num_local_experts",
    "tie_word_embeddings",
    "hidden_act",
    "auto_map",
    "architectures",
    "pad_token_id",
    "is_decoder",
    "id2label",
    "layer_norm_epsilon",
    "torch_dtype",
    "transformers_weights",
    "use_cache",
    "return_dict",
    "sliding_window",
    "output_attentions",
    "attn_implementation",
    "_attn_implementation",
    "is_encoder_decoder",
)
TYPES = ("bloom", "gpt_neox", "gpt2", "llama", "qwen2", "gemma2", "mixtral", "opt", "bert", "t5", "gptj", "mamba", "x")
sizes = st.sampled_from((0, 1, 2, 3, 4, 8, 16, 17, 32, 64, 416, 10**4, 10**6, 10**9, 10**12, -1, -7))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A tiny run of each family. Read only."""
    folder = tmp_path_factory.mktemp("tiny")
    for family in FAMILIES:
        model = build_model(
            ModelConfig(family, n_layers=1, d_model=8, n_heads=2), len(default_vocabulary().ids), seed=0
        )
        record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json()}
        save_run(folder / family, model, default_tokenizer(), record)
    return folder


def load_all(folder: Path) -> None:
    """Everything that any verb reads of a run's folder."""
    run = load(folder)
    batch = run.sample(1, 2, 0)
    load_tokenizer(str(folder))
    run.raw(batch.tokens)
    assert run.family
    run.check_length(2)


def try_folder(tiny: Path, family: str, change) -> None:  # type: ignore[no-untyped-def]
    folder = tiny.parent / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny / family, folder)
    before = sorted(tiny.parent.iterdir())
    change(folder)
    refusal(lambda: load_all(folder))
    assert sorted(tiny.parent.iterdir()) == before


def edit(name: str, changes: dict) -> Any:
    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({**data, **changes}), encoding="utf-8")

    return change


configs = st.dictionaries(st.sampled_from(KEYS), sizes | sizes | leaves, min_size=1, max_size=3) | st.builds(
    lambda kind, more: {"model_type": kind, **more},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(KEYS), sizes | leaves, max_size=3),
)


@counts(40, 3_000)
def test_configurations(count, tiny):
    given = st.tuples(st.sampled_from(FAMILIES), configs)
    hammer("folders", count, given, lambda g: try_folder(tiny, g[0], edit("config.json", g[1])))


@st.composite
def headers(draw: st.DrawFn) -> Any:
    """Header entries replaced by lies about type, shape and place; lengths of the header, too."""
    kinds = ("F32", "F16", "BF16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "C64", "X")
    lie = st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(kinds) | leaves,
            "shape": st.lists(sizes, max_size=3) | leaves,
            "data_offsets": st.lists(st.integers(-5, 10**5) | sizes, max_size=3) | leaves,
        },
    )
    which, lies, grown = draw(st.integers(0, 30)), draw(lie | leaves), draw(st.sampled_from((0, 0, 0, 1, -3, 2**62)))

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        name = sorted(header)[which % len(header)]
        inner = header[name]
        header[name] = {**inner, **lies} if isinstance(lies, dict) else lies
        text = json.dumps(header).encode()
        path.write_bytes((len(text) + grown).to_bytes(8, "little", signed=False) + text + data[8 + size :])

    return change


@st.composite
def flips(draw: st.DrawFn) -> Any:
    """Bytes replaced, files cut short or lengthened."""
    name = draw(
        st.sampled_from(
            (
                "model.safetensors",
                "config.json",
                "tokenizer.json",
                "run.json",
                "tokenizer_config.json",
                "generation_config.json",
            )
        )
    )
    places = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
    keep, more = draw(st.sampled_from((1.0, 1.0, 0.0, 0.3, 0.999))), draw(st.binary(max_size=4))

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        for share, byte in places:
            data[min(int(share * len(data)), len(data) - 1)] = byte
        (folder / name).write_bytes(bytes(data[: int(len(data) * keep)]) + more)

    return change


@counts(40, 2_000)
def test_weights_and_damaged_files(count, tiny):
    given = st.tuples(st.sampled_from(FAMILIES), headers() | flips())
    hammer("folders", count, given, lambda g: try_folder(tiny, *g))


@st.composite
def others(draw: st.DrawFn, tiny: Path) -> Any:
    """Another JSON file, mutated or replaced, or one that should not be there."""
    name = draw(st.sampled_from(("tokenizer.json", "tokenizer_config.json", "generation_config.json", "run.json")))
    extra = draw(
        st.sampled_from(
            (
                "special_tokens_map.json",
                "added_tokens.json",
                "model.safetensors.index.json",
                "chat_template.jinja",
                "adapter_config.json",
                "vocab.json",
                name,
            )
        )
    )
    right = json.loads((tiny / "alibi" / name).read_text(encoding="utf-8"))
    if name == "tokenizer.json":
        right["model"]["vocab"] = {word: i for word, i in right["model"]["vocab"].items() if i < 40}
    new = draw(mutated(right) | mutated(right) | json_junk)
    target = name if draw(st.integers(0, 3)) else extra
    return lambda folder: (folder / target).write_text(json.dumps(new), encoding="utf-8")


@counts(40, 2_000)
def test_tokenizers_records_and_strangers(count, tiny):
    hammer("folders", count, others(tiny), lambda change: try_folder(tiny, "alibi", change))


@counts(30, 500)
def test_names_of_runs(count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = st.lists(
        st.sampled_from(("..", ".", "a", "~", "", "parity-aligned-alibi", "mnemoscope-out", "C:", "*")), max_size=4
    ).map("/".join)
    names = parts | st.text(max_size=30) | st.sampled_from([x for x in ABSURD if isinstance(x, str)])

    def check(name: str) -> None:
        refusal(lambda: load(name))
        assert not list(tmp_path.iterdir())

    hammer("folders", count, names, check)


ABSURD_CONFIGS = (
    {"n_layer": 10**9},
    {"n_layer": 4000},
    {"vocab_size": 10**11},
    {"num_labels": 10**9},
    {"hidden_size": 10**7},
    {"model_type": "gemma2", "num_hidden_layers": 10**8},
    {"model_type": "mixtral", "num_local_experts": 10**9},
    {"model_type": "gptj", "n_positions": 10**9, "n_layer": 1, "n_embd": 8},
    {"model_type": "llama", "vocab_size": 10**9},
)
MEASURE = """
import json, resource, shutil, sys
from pathlib import Path
from interp.models import load_raw
source, work, configs = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
load_raw(str(source))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
right = json.loads((source / "config.json").read_text())
for changes in configs:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    (work / "config.json").write_text(json.dumps({**right, **changes}))
    try:
        load_raw(str(work))
        print("loaded", changes)
    except ValueError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_absurd_sizes_take_no_memory(tiny, tmp_path):
    argv = [sys.executable, "-c", MEASURE, str(tiny / "alibi"), str(tmp_path / "work"), json.dumps(ABSURD_CONFIGS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    *loaded, grown = done.stdout.split("\n")[:-1]
    assert not loaded
    assert int(grown) < 150_000, f"{grown} KiB more"
