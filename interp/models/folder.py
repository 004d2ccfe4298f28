"""Save runs, read their records, and load the raw models of folders, after checking them.

A run is what `save_pretrained` wrote (`config.json`, `model.safetensors`, a tokenizer) plus `run.json`:
task, format, vocabulary, recipe, seed and versions. Weights are safetensors; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.checking import Held, check_config, check_folder, check_sizes, headers, one_line, read_json
from interp.models.hub import folder_of
from interp.models.masks import stray_tensors
from interp.models.quiet import quietly
from interp.models.trial import CHECKED, DoesNotRun, check_in_child, check_trial
from interp.support.writing import whole_folder
from interp.tasks.limits import MOST_POSITIONS, shown

RECORD = "run.json"
RECORD_VERSION = 1
LARGEST_RECORD = 2**26
# Entries that a record must have, and those of its recipe that are read; others are kept.
NEEDED = ("format", "vocabulary")
TRAINING = {"longest": int, "rehearsal": (int, float), "rehearsal_longest": int}


def save_run(
    folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, record: dict, beside: Mapping[str, bytes] | None = None
) -> None:
    """Write a run atomically. `record` is the contents of `run.json`; `beside` holds other files by name."""
    with whole_folder(folder) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        text = json.dumps({"version": RECORD_VERSION, **record}, indent=1, ensure_ascii=False)
        (fresh / RECORD).write_text(text + "\n", encoding="utf-8")
        for name, data in (beside or {}).items():
            (fresh / name).write_bytes(data)


def read_record(folder: Path) -> dict | None:
    """Return the contents of `run.json`; None for a folder without one. Raises `ValueError` for a damaged one."""
    path = folder / RECORD
    if not path.exists() and not path.is_symlink():
        return None
    try:
        record = read_json(path, LARGEST_RECORD)
    except ValueError as error:
        raise ValueError(f"{path} is not a run record: {one_line(error)}") from error
    if not isinstance(record, dict) or "version" not in record:
        raise ValueError(f"{path} is not a run record: it has no version")
    version = record["version"]
    if version != RECORD_VERSION or type(version) is not int:
        raise ValueError(f"{path} has version {shown(version)}; this mnemoscope reads version {RECORD_VERSION}")
    if missing := [key for key in NEEDED if key not in record]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    if not isinstance(record["format"], str):
        raise ValueError(f"{path} is not a run record: the format is not a name")
    recipe = record.get("recipe", {})
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is not a run record: the recipe is {shown(recipe)}")
    for key, kind in TRAINING.items():
        if key in recipe and (not isinstance(recipe[key], kind) or not 0 <= recipe[key] <= MOST_POSITIONS):
            raise ValueError(f"{path} is not a run record: the recipe's {key} is {shown(recipe[key])}")
    if recipe.get("rehearsal") and "rehearsal_longest" not in recipe:
        raise ValueError(f"{path} is not a run record: the recipe has rehearsal but no rehearsal_longest")
    return record


def load_raw(source: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return the raw Hugging Face model of a folder or of a hub name, in evaluation mode.

    `dtype` None keeps the type in which the weights were saved. Attention is eager, so that patterns exist.
    Raises `ValueError` when weights are missing, truncated, not finite, or of names or shapes that the architecture
    does not have (Hugging Face alone would fill gaps with random numbers), and for a model that reads later tokens
    (BERT).
    """
    folder = _folder_of(source)
    tensors = _weights_in(folder)
    try:
        config = _config_of(folder, tensors)
        if config.model_type not in CHECKED:
            check_in_child(folder)
        with quietly():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype or "auto",
                attn_implementation="eager",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except DoesNotRun as error:
        raise ValueError(f"the model in {source} does not run: {error}") from error
    except Exception as error:  # Hugging Face raises anything for damaged files, as fuzzing found
        if "ignore_mismatched_sizes" in str(error):  # names a report that is silenced here
            raise ValueError(f"the weights in {source} have other shapes than in its config.json") from error
        raise ValueError(f"no model can be loaded from {source}: {one_line(error)}") from error
    model, info = loaded
    _check_weights(model, info, folder, source)
    model.eval()
    try:
        causal = check_trial(model)
    except Exception as error:  # sizes that fit the file and not each other
        raise ValueError(f"the model in {source} does not run: {one_line(error)}") from error
    if not causal:
        raise ValueError(f"{source} is not a causal language model: {type(model).__name__} reads later tokens")
    return model.to(device)


def _config_of(folder: Path, tensors: dict[str, Held]) -> PretrainedConfig:
    """Return the configuration. Raises `ValueError` when it is absurd, or not that of a causal language model."""
    check_config(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"{config.model_type!r} is not a causal language model")
    check_sizes(config, tensors)
    config.return_dict = True  # outputs are read by name
    return config


def _check_weights(model: PreTrainedModel, info: dict, folder: Path, source: str) -> None:
    """Raise `ValueError` for weights that are missing, those of another model, or not finite."""
    if keys := sorted(map(str, info["missing_keys"])):
        raise ValueError(f"the weights in {source} lack {len(keys)} tensors, such as {keys[0]}")
    if keys := stray_tensors(model, folder, map(str, info["unexpected_keys"])):
        raise ValueError(
            f"the weights in {source} are of another model: {len(keys)} tensors that "
            f"{type(model).__name__} does not have, such as {keys[0]}"
        )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"the weights in {source} hold NaN or infinity, in {name}")


def _weights_in(folder: Path) -> dict[str, Held]:
    """Return the headers of a folder's weights. Raises `ValueError` where there are none that may be read."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} has no config.json: not a folder that save_pretrained wrote")
    check_folder(folder)
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt*")))
        hint = f" ({pickled[0]} is a pickle, which is never loaded; convert it)" if pickled else ""
        raise ValueError(f"{folder} has no weights: no model.safetensors{hint}")
    return headers(folder)


def _folder_of(source: str) -> Path:
    try:
        return folder_of(source, weights=True)
    except ValueError as error:
        raise ValueError(f"no model can be loaded from {source}: {one_line(error)}") from error
