"""Families, loading and saving. TransformerLens is imported only when a bridge is booted."""

from interp.models.bridge import boot_bridge
from interp.models.checking import read_json
from interp.models.families import BRIDGED, FAMILIES, ModelConfig, build_model
from interp.models.folder import load_raw, save_run
from interp.models.loading import load
from interp.models.resolve import AnyModel, bridge_of, raw_of
from interp.models.run import Run, load_run, run_in_memory
from interp.models.tokenizer_files import load_tokenizer

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
