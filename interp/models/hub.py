"""Find the folder of a model on this machine, downloading it by its hub name where needed, with the usual checks."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from interp.models.checking import CONFIG, TEXTS, check_config, check_folder, one_line
from interp.models.pretrained import without_hub
from interp.models.quiet import quietly
from interp.support.writing import is_full

# The names that `save_pretrained` gives to shards and their index. Pickles and code are never downloaded.
WEIGHTS = "model*.safetensors"


def folder_of(source: str, weights: bool = False) -> Path:
    """Return the folder itself, or for a hub name the copy in the hub's cache, downloaded if it is not there.

    Configuration and tokenizer come first; with `weights` the weights follow when those files are sound. Raises
    `ValueError` when there is neither such a folder nor such a name, when the hub cannot be reached, and when
    HF_HUB_OFFLINE is set and the cache has no copy.
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
        with quietly():
            return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except LocalEntryNotFoundError as error:
        offline = isinstance(error.__cause__, OfflineModeIsEnabled)
        reason = "HF_HUB_OFFLINE is set" if offline else f"the hub gives none ({type(error.__cause__).__name__})"
        raise ValueError(
            f"there is no such folder, the hub's cache has no whole copy, and {reason}; {without_hub(name)}"
        ) from None
    except Exception as error:  # the hub's client, its HTTP library and the disk raise many kinds
        if is_full(error):
            raise
        raise ValueError(f"there is no such folder, and the hub's model cannot be loaded: {one_line(error)}") from None
