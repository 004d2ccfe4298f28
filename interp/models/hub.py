"""Which folder of this machine holds a model that a hub name means? It is read like any other, with the same checks."""

from __future__ import annotations

import textwrap
from pathlib import Path

from huggingface_hub import snapshot_download

from interp.models.checking import CONFIG, TEXTS, check_config, check_folder
from interp.support.writing import is_full

# Shards and their index are called so by `save_pretrained`; pickles and code are never fetched.
WEIGHTS = "model*.safetensors"


def folder_of(source: str, weights: bool = False) -> Path:
    """The folder that a source means: itself, or for a hub name the cache's copy, fetched where it is not there.

    Configuration and tokenizer alone, or with `weights` those too, once the texts were found sound. Raises `ValueError`
    where there is neither such a folder nor such a name, and where the hub cannot be reached or HF_HUB_OFFLINE is set
    and the cache has none.
    """
    if Path(source).is_dir():
        return Path(source)
    folder = _fetched(source, [f"*{end}" for end in TEXTS])
    check_folder(folder)
    if weights and (folder / CONFIG).exists():
        check_config(folder)
        folder = _fetched(source, [WEIGHTS, *(f"*{end}" for end in TEXTS)])
    return folder


def _fetched(name: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except Exception as error:  # of the hub's, of its HTTP library, and of the disk
        if is_full(error):
            raise
        reason = textwrap.shorten(str(error), 240, placeholder=" ...") or type(error).__name__
        raise ValueError(f"there is no such folder; as a hub name it cannot be had: {reason}") from error
