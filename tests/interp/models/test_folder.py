from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel

from interp.models import (
    FAMILIES,
    ModelConfig,
    build_model,
    load_raw,
    load_run,
    load_tokenizer,
    save_run,
)
from interp.models.checking import one_line
from interp.models.record import RECORD, RECORD_VERSION, read_record
from interp.support.writing import whole_folder, write_whole
from interp.tasks import default_tokenizer

Edit = Callable[[Path], object]


@pytest.fixture
def folder(saved_families: Path, tmp_path: Path) -> Path:
    """A copy of the saved alibi run, to be damaged."""
    return shutil.copytree(saved_families / "alibi", tmp_path / "run")


def edit_json(folder: Path, name: str = "config.json", **changes: object) -> None:
    data = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**data, **changes}))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


def refuses(load: Callable[[], object], *parts: str) -> None:
    """`load` raises a `ValueError` of one line that holds each part."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        load()
    assert type(caught.value) is ValueError
    for part in parts:
        assert part in str(caught.value)


# Whole folders and files


def test_whole_folder_appears_when_the_block_ends_and_not_before(tmp_path: Path):
    target = tmp_path / "parent" / "run"
    with whole_folder(target) as fresh:
        (fresh / "inner").mkdir()
        (fresh / "inner" / "file").write_text("x")
        assert not target.exists()
        assert fresh.parent == target.parent
    assert (target / "inner" / "file").read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def test_whole_folder_is_readable_by_others(tmp_path: Path):
    with whole_folder(tmp_path / "run") as fresh:
        (fresh / "inner").mkdir(mode=0o700)
        (fresh / "inner" / "file").write_text("x")
        (fresh / "inner" / "file").chmod(0o600)
    modes = [(tmp_path / p).stat().st_mode & 0o777 for p in ("run", "run/inner", "run/inner/file")]
    assert modes == [0o755, 0o755, 0o644]


def test_whole_folder_replaces_the_old_folder_wholly(tmp_path: Path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")
    with whole_folder(target) as fresh:
        (fresh / "new").write_text("new")
        assert (target / "old").exists()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def write_half(target: Path, error: type[BaseException]) -> None:
    with whole_folder(target) as fresh:
        (fresh / "old").write_text("half")
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_whole_folder_leaves_nothing_behind_on_an_exception(error: type[BaseException], tmp_path: Path):
    with pytest.raises(error):
        write_half(tmp_path / "run", error)
    assert list(tmp_path.iterdir()) == []


def test_whole_folder_keeps_the_old_folder_on_an_exception(tmp_path: Path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(target, ZeroDivisionError)
    assert (target / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_write_whole_writes_and_replaces(tmp_path: Path):
    path = tmp_path / "new" / "file.json"
    write_whole(path, "one")
    write_whole(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert list(path.parent.iterdir()) == [path]


def test_write_whole_keeps_the_old_file_when_writing_fails(tmp_path: Path):
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# Saving and loading


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_come_back_byte_for_byte(family: str, tmp_path: Path):
    config = ModelConfig(family, n_layers=2, d_model=16, n_heads=2)
    model = build_model(config, vocab_size=30, seed=3)
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_run(tmp_path / "run", model, default_tokenizer(), {"format": "parity-aligned", "vocabulary": {}})
    loaded = load_raw(str(tmp_path / "run"))
    assert not loaded.training
    assert loaded.config._attn_implementation == "eager"
    got = loaded.state_dict()
    assert got.keys() == expected.keys()
    for name, weight in expected.items():
        assert got[name].dtype == weight.dtype
        assert got[name].numpy().tobytes() == weight.numpy().tobytes(), name


def test_a_saved_run_is_plain_files_without_pickles(saved_families: Path):
    names = {p.name for p in (saved_families / "alibi").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", RECORD} <= names
    assert {Path(n).suffix for n in names} == {".json", ".safetensors"}
    assert sorted(p.name for p in saved_families.iterdir()) == sorted(FAMILIES)


def test_a_save_that_fails_leaves_the_old_run(folder: Path):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    model = build_model(ModelConfig("rotary", 2, 16, 2), vocab_size=30, seed=1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_run(folder, model, default_tokenizer(), {"format": object()})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_the_record_comes_back_with_its_version(saved_families: Path):
    record = read_record(saved_families / "alibi")
    assert record is not None
    assert (record["version"], record["format"]) == (RECORD_VERSION, "parity-aligned")
    assert record["vocabulary"]["ids"]["==="] == default_tokenizer().convert_tokens_to_ids("===")


def test_a_folder_without_a_record_has_none(folder: Path):
    (folder / RECORD).unlink()
    assert read_record(folder) is None


def test_the_tokenizer_comes_back(saved_families: Path):
    tokenizer = load_tokenizer(str(saved_families / "alibi"))
    assert tokenizer.get_vocab() == default_tokenizer().get_vocab()
    text = ">>> M1 0 M2 1 === M1 0"
    assert tokenizer(text)["input_ids"] == default_tokenizer()(text)["input_ids"]


# Weights that must not be loaded


def test_no_config(folder: Path):
    (folder / "config.json").unlink()
    refuses(lambda: load_raw(str(folder)), str(folder), "no config.json")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("load", [load_raw, load_tokenizer])
def test_a_path_that_is_not_utf8_is_named_as_the_reason(load: Callable[[str], object], folder: Path):
    """The libraries cannot open it, and would call sound weights damaged."""
    try:
        there = str(folder.rename(folder.parent / os.fsdecode(b"caf\xe9")))
    except OSError:
        pytest.skip("this file system has no such names")
    refuses(lambda: load(there), r"caf\udce9' is not UTF-8 text, so its files cannot be read; rename it")


def test_no_weights(folder: Path):
    (folder / "model.safetensors").unlink()
    refuses(lambda: load_raw(str(folder)), "no model.safetensors")


class Boom:
    """Unpickling this creates a file beside it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_a_pickle_is_named_and_never_loaded(name: str, folder: Path):
    (folder / "model.safetensors").unlink()
    torch.save(Boom(folder / "boom"), folder / name)
    refuses(lambda: load_raw(str(folder)), "no weights", f"{name} is a pickle, which is never loaded")
    assert not (folder / "boom").exists()


def test_a_pickle_is_not_loaded_beside_other_safetensors(folder: Path):
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.rename(folder / "adapter.safetensors")
    refuses(lambda: load_raw(str(folder)), "no file named model.safetensors")


@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.01, 0.1, 0.5, 0.9, 0.999999])
def test_truncated_weights(keep: float, folder: Path):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refuses(lambda: load_raw(str(folder)), "model.safetensors is not a whole safetensors file")


@pytest.mark.parametrize("header", [b"\xff" * 8, b"\x00" * 8, b"\x02" + b"\x00" * 7 + b"{]"])
def test_garbage_weights(header: bytes, folder: Path):
    (folder / "model.safetensors").write_bytes(header + b"\x00" * 100)
    refuses(lambda: load_raw(str(folder)), "not a whole safetensors file")


def test_a_missing_shard(folder: Path):
    (folder / "model.safetensors").unlink()
    raw = build_model(ModelConfig("alibi", 2, 16, 2), vocab_size=416, seed=0)
    raw.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(load_raw(str(folder)).lm_head.weight, raw.lm_head.weight)
    shards[-1].unlink()
    refuses(lambda: load_raw(str(folder)), str(folder), shards[-1].name)


def test_weights_of_another_architecture(folder: Path, saved_families: Path):
    shutil.copy(saved_families / "rotary" / "model.safetensors", folder)
    refuses(lambda: load_raw(str(folder)), "the weights in", "lack")


def change(name: str, to: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], dict]:
    return lambda weights: {k: to(v) if k.endswith(name) else v for k, v in weights.items()}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: {k.replace("mlp.", "ffn."): v for k, v in w.items()}, "lack 8 tensors"),
        (lambda w: {k: v for k, v in w.items() if not k.endswith("ln_f.bias")}, "lack 1 tensors"),
        (lambda w: {**w, "extra": torch.zeros(2)}, "are of another model: 1 tensors"),
        (change("ln_f.bias", lambda v: v[:-1].clone()), "other shapes"),
        (change("ln_f.bias", lambda v: v * torch.nan), "hold NaN or infinity, in transformer.ln_f.bias"),
        (change("1.mlp.dense_h_to_4h.weight", lambda v: v / v.new_zeros(())), "hold NaN or infinity"),
    ],
    ids=["renamed", "one less", "one more", "shape", "nan", "infinity"],
)
def test_foreign_weights(edit: Callable, message: str, folder: Path):
    edit_weights(folder, edit)
    refuses(lambda: load_raw(str(folder)), f"the weights in {folder}", message)


@pytest.mark.parametrize("n_layer", [1, 3])
def test_weights_with_another_number_of_layers(n_layer: int, folder: Path):
    edit_json(folder, n_layer=n_layer)
    refuses(lambda: load_raw(str(folder)), "the weights in", "12 tensors")


def test_buffers_of_old_hub_checkpoints_are_not_foreign(saved_families: Path, tmp_path: Path):
    folder = shutil.copytree(saved_families / "rotary", tmp_path / "run")
    before = load_raw(str(folder)).state_dict()
    old = {f"gpt_neox.layers.0.attention.{name}": torch.ones(1) for name in ("bias", "masked_bias")}
    edit_weights(folder, lambda w: {**w, **old})
    assert load_raw(str(folder)).state_dict().keys() == before.keys()


def gpt2(folder: Path, **extra: torch.Tensor) -> Path:
    """A saved GPT-2 with more tensors in its weights file, by the end of their names in each block."""
    build_model(ModelConfig("absolute", 2, 16, 2, n_ctx=8), vocab_size=30, seed=0).save_pretrained(folder)
    more = {f"transformer.h.{k}.attn.{name}": x for k in range(2) for name, x in extra.items()}
    edit_weights(folder, lambda w: {**w, **{name: x.clone() for name, x in more.items()}})
    return folder


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_constant_masks_of_older_versions_are_not_foreign(dtype: torch.dtype, tmp_path: Path):
    triangle = torch.ones(1, 1, 8, 8).tril().to(dtype)
    loaded = load_raw(str(gpt2(tmp_path, masked_bias=torch.tensor(-1e4), mask=triangle)))
    assert loaded.config.model_type == "gpt2"


@pytest.mark.parametrize(
    "extra",
    [
        {"masked_bias": torch.tensor(0.5)},
        {"masked_bias": torch.full((3,), -1e4)},
        {"mask": torch.ones(1, 1, 8, 8)},
        {"mask": torch.ones(1, 2, 8, 8).tril()},
        {"weight": torch.tensor(-1e4)},
    ],
    ids=["no mask", "three numbers", "not causal", "two masks", "another name"],
)
def test_other_unexpected_tensors_are_foreign(extra: dict[str, torch.Tensor], tmp_path: Path):
    refuses(lambda: load_raw(str(gpt2(tmp_path, **extra))), "are of another model: 2 tensors")


def sparse(path: Path, n_bytes: int) -> None:
    """A weights file with a true header and holes for numbers."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [n_bytes // 4], "data_offsets": [0, n_bytes]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + n_bytes)


def test_a_sparse_weights_file(folder: Path):
    sparse(folder / "model.safetensors", 2**37)
    began = time.monotonic()
    refuses(lambda: load_raw(str(folder)), "model.safetensors", "is sparse: ", "bytes are on the disk")
    assert time.monotonic() - began < 2


def test_weights_that_need_more_memory_than_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interp.models.checking.free_memory", lambda: 2**10)
    refuses(lambda: load_raw(str(folder)), "need more memory than there is: 0.0 GiB, and 0.0 GiB are available")


def test_memory_that_ends_while_loading_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*args: object, **more: object) -> None:
        raise MemoryError

    monkeypatch.setattr("interp.models.folder.AutoModelForCausalLM.from_pretrained", fails)
    refuses(lambda: load_raw(str(folder)), "no model can be loaded from", "not enough memory")


def test_outputs_are_read_by_name_whatever_the_config_says(folder: Path):
    edit_json(folder, return_dict=False)
    assert load_raw(str(folder))(torch.tensor([[1, 2]])).logits.shape == (1, 2, 416)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_floats(dtype: torch.dtype, folder: Path):
    edit_weights(folder, lambda w: {k: v.to(dtype) for k, v in w.items()})
    refuses(lambda: load_raw(str(folder)), "weights are floating-point numbers")


def test_an_index_that_names_a_file_elsewhere(folder: Path):
    weights = (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "a.safetensors")
    for name in ("../outside.safetensors", str(weights), 5):
        text = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(load_file(weights), name)})
        (folder / "model.safetensors.index.json").write_text(text)
        refuses(lambda: load_raw(str(folder)), "is no safetensors file of this folder")


def test_an_adapter_that_names_another_model(folder: Path):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/model"}')
    refuses(lambda: load_raw(str(folder)), "an adapter, which names another model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", RECORD])
@pytest.mark.parametrize("kind", ["device", "pipe", "loop", "nowhere"])
def test_entries_that_are_no_files(name: str, kind: str, folder: Path):
    path = folder / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case _:
            path.symlink_to(folder / "gone")

    def load() -> None:
        load_run(folder)
        load_tokenizer(str(folder))
        load_raw(str(folder))

    refuses(load, str(path) if kind in ("pipe", "device") else str(folder))


def test_links_to_files_are_followed_as_in_the_cache_of_the_hub(folder: Path):
    for path in list(folder.iterdir()):
        path.symlink_to(path.rename(folder.parent / path.name))
    assert load_run(folder).raw.config.vocab_size == 416


# Configurations that must not be loaded


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_damaged_config(text: str, folder: Path):
    (folder / "config.json").write_text(text)
    refuses(lambda: load_raw(str(folder)), f"no model can be loaded from {folder}")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "wide"},
        {"vocab_size": None},
        {"n_head": 0},
        {"n_head": 3},
        {"model_type": "no-such-type"},
    ],
    ids=str,
)
def test_a_senseless_config(changes: dict, folder: Path):
    edit_json(folder, **changes)
    refuses(lambda: load_raw(str(folder)), f"no model can be loaded from {folder}")


def test_what_is_senseless_in_a_config_is_said(folder: Path):
    edit_json(folder, n_head=0)
    refuses(lambda: load_raw(str(folder)), "a size in its configuration is 0")
    assert one_line(KeyError("foo")) == "unknown or missing key 'foo'"  # an activation of a Llama's configuration


@pytest.mark.parametrize("vocab_size", [415, 417])
def test_a_config_of_other_sizes(vocab_size: int, folder: Path):
    edit_json(folder, vocab_size=vocab_size)
    refuses(lambda: load_raw(str(folder)), "have other shapes than in its config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 10**12}, "asks for more than 4 times what the weights hold, 29 tensors with "),
        ({"n_layer": 4000}, "asks for more than 4 times what the weights hold"),
        ({"n_layer": 10**9}, "config.json says n_layer 1000000000; at most 4096 are read"),
        ({"num_labels": 10**9}, "config.json says num_labels 1000000000; at most 4096"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "says text_config.num_hidden_layers 1000000000"),
        ({"n_head": -2}, "config.json says n_head -2, which cannot be a number of things"),
        ({"layer_norm_epsilon": math.nan}, "config.json says layer_norm_epsilon nan"),
        ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantised"),
        ({"transformers_weights": "adapter_model.bin"}, "names its own weights file"),
    ],
    ids=str,
)
def test_absurd_numbers_are_refused_before_anything_is_built(changes: dict, message: str, folder: Path):
    edit_json(folder, **changes)
    began = time.monotonic()
    refuses(lambda: load_raw(str(folder)), f"no model can be loaded from {folder}", message)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("model_type", ["t5", "vit"])
def test_a_config_of_a_model_of_another_kind(model_type: str, folder: Path):
    edit_json(folder, model_type=model_type)
    refuses(lambda: load_raw(str(folder)), f"{model_type!r} is not a causal language model")


@pytest.mark.parametrize("is_decoder", [False, True])
def test_bert_is_refused_unless_it_is_a_decoder(is_decoder: bool, tmp_path: Path):
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=30,
        is_decoder=is_decoder,
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    if is_decoder:
        assert load_raw(str(tmp_path)).config.model_type == "bert"
    else:
        refuses(lambda: load_raw(str(tmp_path)), "not a causal language model: BertLMHeadModel reads later tokens")


@pytest.mark.parametrize("model_type", ["bloom", "no-such-type"])
def test_code_of_the_folder_is_never_run(model_type: str, folder: Path):
    ran = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    auto_map = {name: "evil.Evil" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")}
    edit_json(folder, auto_map=auto_map, model_type=model_type)
    edit_json(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    load_tokenizer(str(folder))
    if model_type == "bloom":
        assert type(load_raw(str(folder))).__module__.startswith("transformers.")
    else:
        refuses(lambda: load_raw(str(folder)), "custom code")
    assert not ran.exists()


# Tokenizers, records, names


@pytest.mark.parametrize("text", [None, "", "{", "{}"])
def test_a_missing_or_damaged_tokenizer(text: str | None, folder: Path):
    if text is None:
        for path in folder.glob("tokenizer*"):
            path.unlink()
    else:
        (folder / "tokenizer.json").write_text(text)
    refuses(lambda: load_tokenizer(str(folder)), f"no tokenizer can be loaded from {folder}")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"version": 1, "format": 5, "vocabulary": {}}',
        b'{"version": 1, "format": "", "vocabulary": {}, "recipe": []}',
        b"[" * 100_000,
        b"9" * 5000,
        b'{"version": 1, "format": "", "vocabulary": {}, "recipe": {"longest": "x"}}',
        b'{"version": 1, "format": "", "vocabulary": {}, "recipe": {"rehearsal": 0.5}}',
        b'{"version": 1, "format": "", "vocabulary": {}, "recipe": {"condition": 5}}',
    ],
)
def test_a_damaged_record(data: bytes, folder: Path):
    (folder / RECORD).write_bytes(data)
    refuses(lambda: load_run(folder), f"{folder / RECORD} is not a run record")


def test_a_record_that_is_a_folder(folder: Path):
    (folder / RECORD).unlink()
    (folder / RECORD).mkdir()
    refuses(lambda: load_run(folder), f"{folder / RECORD} is not a run record")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_record_of_another_version(version: object, folder: Path):
    edit_json(folder, RECORD, version=version)
    expected = f"has version {version!r}; this mnemoscope reads version {RECORD_VERSION}"
    refuses(lambda: load_run(folder), expected)


@pytest.mark.parametrize("key", ["format", "vocabulary"])
def test_a_record_that_lacks_a_key(key: str, folder: Path):
    record = json.loads((folder / RECORD).read_text())
    del record[key]
    (folder / RECORD).write_text(json.dumps(record))
    refuses(lambda: load_run(folder), f"{RECORD} lacks {key}")


@pytest.mark.parametrize(
    "vocabulary",
    [
        {},
        [],
        None,
        {"ids": [], "labels": [], "held_out": []},
        {"ids": {"a": "x"}, "labels": [], "held_out": []},
        {"ids": {"a": -1}, "labels": [], "held_out": []},
        {"ids": {"a": 1, "b": 1}, "labels": [], "held_out": []},
        {"ids": {"a": 1}, "labels": ["M1"], "held_out": []},
        {"ids": {"a": 1}, "labels": 3, "held_out": []},
        {"ids": {"a": 1}, "labels": "a", "held_out": []},
        {"ids": {"a": 1}, "labels": ["a", "a"], "held_out": []},
        {"ids": {"a": 1}, "labels": ["a"], "held_out": ["a"]},
        {"ids": {"a": 10**30}, "labels": [], "held_out": []},
        {"ids": {"a": True}, "labels": [], "held_out": []},
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_damaged_vocabulary(vocabulary: object, folder: Path):
    edit_json(folder, RECORD, vocabulary=vocabulary)
    refuses(lambda: load_run(folder), f"the vocabulary in {folder / RECORD} is damaged")


@pytest.mark.parametrize("name", ["no-such/no-such", "nosuchmodel", "/no/such/folder", "a/b/c", "bad name!"])
@pytest.mark.parametrize("load", [load_raw, load_tokenizer, lambda name: load_run(name, "parity-aligned")])
def test_a_name_that_is_neither_here_nor_cached(load: Callable[[str], object], name: str):
    refuses(lambda: load(name), name, "there is no such folder")
