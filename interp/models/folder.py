"""Save runs, and load the raw models of folders, after checking them.

A run is what `save_pretrained` wrote (`config.json`, `model.safetensors`, a tokenizer) or an adapter on another model,
plus `run.json`. Weights are safetensors; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.adapters import check_base, merge_adapter, model_folder
from interp.models.checking import Held, check_config, check_folder, check_sizes, headers, one_line
from interp.models.hub import folder_of
from interp.models.masks import stray_tensors
from interp.models.quiet import quietly
from interp.models.record import write_record
from interp.models.trial import CHECKED, DoesNotRun, check_in_child, check_trial
from interp.support.writing import whole_folder


def save_run(
    folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, record: dict, beside: Mapping[str, bytes] | None = None
) -> None:
    """Write a run atomically. `record` is the contents of `run.json`; `beside` holds other files by name."""
    with whole_folder(folder) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        write_record(fresh, record)
        for name, data in (beside or {}).items():
            (fresh / name).write_bytes(data)


def load_raw(source: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return the raw Hugging Face model of a folder or of a hub name, in evaluation mode.

    `dtype` None keeps the type in which the weights were saved. Attention is eager, so that patterns exist. An adapter
    is added, in float32, to the weights of its base.
    Raises `ValueError` when weights are missing, truncated, not finite, or of names or shapes that the architecture
    does not have (Hugging Face alone would fill gaps with random numbers), for a model that reads later tokens (BERT),
    and for an adapter whose base is not here or has other weights than it was trained on.
    """
    folder = _folder_of(source)
    base = model_folder(folder, weights=True)
    if base == folder:
        model: Any = _load_whole(folder, source, dtype)
    else:
        check_base(folder, base)
        model = _load_whole(base, str(base), torch.float32)
        merge_adapter(model, folder)
        model.to(dtype=dtype)
    return model.to(device)


def _load_whole(folder: Path, source: str, dtype: torch.dtype | None) -> PreTrainedModel:
    """Return the model of a folder that holds all of its weights, on the CPU. `source` names it in messages."""
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
    return model


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
        raise ValueError(f"no model can be loaded from {source}: {one_line(error)}") from None
