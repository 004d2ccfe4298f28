"""Families, loading and saving. TransformerLens is imported only when a bridge is booted.

Names are imported when they are used: the import of the package alone imports no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.support.lazily import importing

if TYPE_CHECKING:
    from interp.models.bridge import boot_bridge
    from interp.models.checking import read_json
    from interp.models.families import ModelConfig, build_model
    from interp.models.folder import load_raw, save_run
    from interp.models.loading import load
    from interp.models.resolve import AnyModel, bridge_of, raw_of
    from interp.models.run import Run, load_run, run_in_memory
    from interp.models.tokenizer_files import load_tokenizer
    from interp.support.sizes import BRIDGED, FAMILIES

__getattr__, __dir__ = importing(
    __name__,
    {
        "interp.models.bridge": ("boot_bridge",),
        "interp.models.checking": ("read_json",),
        "interp.models.families": ("ModelConfig", "build_model"),
        "interp.models.folder": ("load_raw", "save_run"),
        "interp.models.loading": ("load",),
        "interp.models.resolve": ("AnyModel", "bridge_of", "raw_of"),
        "interp.models.run": ("Run", "load_run", "run_in_memory"),
        "interp.models.tokenizer_files": ("load_tokenizer",),
        "interp.support.sizes": ("BRIDGED", "FAMILIES"),
    },
)

__all__ = [
    "BRIDGED",
    "FAMILIES",
    "AnyModel",
    "ModelConfig",
    "Run",
    "boot_bridge",
    "bridge_of",
    "build_model",
    "load",
    "load_raw",
    "load_run",
    "load_tokenizer",
    "raw_of",
    "read_json",
    "run_in_memory",
    "save_run",
]
