"""A hub name is read from the cache as a folder is: the same checks, no pickles, no code of others, no waiting."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp.models import hub as hub_module
from interp.models import load_raw, load_run, load_tokenizer
from interp.models.hub import folder_of
from interp.models.record import RECORD

NAME, COMMIT = "owner/model", "0" * 40


@pytest.fixture
def hub(saved_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of `owner/model` in a cache of the hub, as its own library lays it out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    there = tmp_path / "models--owner--model"
    snapshot, blobs = there / "snapshots" / COMMIT, there / "blobs"
    for folder in (snapshot, blobs, there / "refs"):
        folder.mkdir(parents=True)
    (there / "refs" / "main").write_text(COMMIT)
    for path in (saved_families / "alibi").iterdir():
        if path.name != RECORD:
            shutil.copy(path, blobs / path.name)
            (snapshot / path.name).symlink_to(blobs / path.name)
    return snapshot


def edit_config(hub: Path, **changes: object) -> None:
    path = (hub / "config.json").resolve()
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refuses(load: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        load()
    for part in (NAME, *parts):
        assert part in str(caught.value)


def test_a_name_in_the_cache_is_loaded_offline(hub: Path, saved_families: Path):
    assert folder_of(NAME) == folder_of(NAME, weights=True) == hub
    ours = load_raw(str(saved_families / "alibi"))
    tokens = torch.arange(6)[None]
    assert torch.equal(load_raw(NAME)(tokens).logits, ours(tokens).logits)
    run = load_run(NAME, "parity-aligned")
    assert (run.name, run.source) == ("model", NAME)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_layer": 10**9}, "n_layer 1000000000; at most 4096 are read"),
        ({"quantization_config": {"bits": 4}}, "the weights are quantised"),
        ({"transformers_weights": "other.bin"}, "names its own weights file"),
        ({"vocab_size": 10**9}, "times what the weights hold"),
    ],
)
def test_a_configuration_in_the_cache_is_checked(changes: dict, words: str, hub: Path):
    edit_config(hub, **changes)
    refuses(lambda: load_raw(NAME), words)


def test_a_configuration_is_checked_before_weights_are_fetched(hub: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []
    real = hub_module.snapshot_download

    def fetch(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return real(name, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)

    monkeypatch.setattr(hub_module, "snapshot_download", fetch)
    edit_config(hub, n_layer=10**9)
    refuses(lambda: load_raw(NAME), "at most 4096")
    assert len(asked) == 1
    edit_config(hub, n_layer=2)
    load_raw(NAME)
    ends = {pattern.rsplit(".", 1)[1] for patterns in asked for pattern in patterns}
    assert ends == {"json", "jinja", "txt", "model", "safetensors"}  # no bin, no pt, no py


def test_pickles_and_code_in_the_cache_are_not_read(hub: Path):
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    refuses_here = pytest.raises(ValueError, match=r"pytorch_model.bin is a pickle, which is never loaded")
    with refuses_here:
        load_raw(NAME)
    mark = hub.parent / "ran"
    (hub / "pytorch_model.bin").rename(hub / "model.safetensors")
    (hub / "modeling.py").write_text(f"open({str(mark)!r}, 'w')")
    edit_config(hub, model_type="foreign", auto_map={"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"})
    refuses(lambda: load_raw(NAME))
    assert not mark.exists()


def test_a_tokenizer_in_the_cache_is_checked(hub: Path):
    (hub / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/other"}')
    refuses(lambda: load_tokenizer(NAME), "an adapter")
    (hub / "adapter_config.json").unlink()
    for path in (*hub.glob("tokenizer*"), *hub.glob("vocab*")):
        path.unlink()
    refuses(lambda: load_tokenizer(NAME), "it has none of tokenizer.json")


def test_a_name_that_is_not_there_is_one_line_at_once(hub: Path):
    shutil.rmtree(hub.parents[1])
    began = time.monotonic()
    refuses(lambda: load_raw(NAME), "there is no such folder", "the hub's cache has no whole copy")
    refuses(lambda: load_run(NAME, "parity-aligned"), "no tokenizer can be loaded")
    assert time.monotonic() - began < 5
