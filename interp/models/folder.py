"""What is in a run's folder, and is it safe and whole?

A run is what `save_pretrained` wrote (`config.json`, `model.safetensors`, a tokenizer) plus `run.json`:
task, format, vocabulary, recipe, seed and versions. Weights are safetensors; nothing is unpickled.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.checking import Held, check_config, check_folder, check_sizes, headers, read_json
from interp.models.hub import folder_of
from interp.support.writing import whole_folder
from interp.tasks.limits import MOST_POSITIONS, shown

RECORD = "run.json"
RECORD_VERSION = 1
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
LARGEST_RECORD = 2**26
# What a record must hold, and what it may; the other entries are kept and not read.
NEEDED = ("format", "vocabulary")
TRAINING = {"longest": int, "rehearsal": (int, float), "rehearsal_longest": int}

# What Hugging Face raises for files that are missing, damaged or senseless: anything, as fuzzing found.
_BAD_FILES = Exception


def save_run(
    folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, record: dict, beside: Mapping[str, bytes] | None = None
) -> None:
    """Writes a run, whole or not at all. `record` is what `run.json` shall hold; `beside`, other files by name."""
    with whole_folder(folder) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        text = json.dumps({"version": RECORD_VERSION, **record}, indent=1, ensure_ascii=False)
        (fresh / RECORD).write_text(text + "\n", encoding="utf-8")
        for name, data in (beside or {}).items():
            (fresh / name).write_bytes(data)


def read_record(folder: Path) -> dict | None:
    """The contents of `run.json`, or None where there is none (a folder that someone else made)."""
    path = folder / RECORD
    if not path.exists() and not path.is_symlink():
        return None
    try:
        record = read_json(path, LARGEST_RECORD)
    except ValueError as error:
        raise ValueError(f"{path} is not a run record: {_one_line(error)}") from error
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
        raise ValueError(f"{path} is not a run record: the recipe has rehearsal, of no rehearsal_longest")
    return record


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a folder or of a hub name. Raises `ValueError` where there is none."""
    folder = _folder_of(source, "tokenizer")
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ValueError(f"no tokenizer can be loaded from {source}: it has none of {', '.join(TOKENIZER_FILES)}")
    check_folder(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except _BAD_FILES as error:
        raise ValueError(f"no tokenizer can be loaded from {source}: {_one_line(error)}") from error


def load_raw(
    source: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """Return the raw Hugging Face model of a folder or of a hub name, in evaluation mode.

    `dtype` None keeps the type in which the weights were saved. Attention is eager, so that patterns exist.
    Raises `ValueError` when weights are missing, truncated,
    foreign (names or shapes that the architecture does not have) or not finite; Hugging Face alone would
    fill the gaps with random numbers and go on. Raises it too for a model that reads later tokens (BERT).
    """
    folder = _folder_of(source, "model")
    there = _weights_in(folder)
    try:
        check_config(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise ValueError(f"{config.model_type!r} is not a causal language model")
        check_sizes(config, there)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, info = loaded
    except _BAD_FILES as error:
        if "ignore_mismatched_sizes" in str(error):  # names a report that went elsewhere
            raise ValueError(f"the weights in {source} have other shapes than in its config.json") from error
        raise ValueError(f"no model can be loaded from {source}: {_one_line(error)}") from error
    if keys := sorted(map(str, info["missing_keys"])):
        raise ValueError(f"the weights in {source} lack {len(keys)} tensors, such as {keys[0]}")
    if keys := sorted(map(str, info["unexpected_keys"])):
        raise ValueError(
            f"the weights in {source} are of another model: {len(keys)} tensors that "
            f"{type(model).__name__} does not have, such as {keys[0]}"
        )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"the weights in {source} hold NaN or infinity, in {name}")
    model.to(device).eval()
    try:
        causal = is_causal(model)
        _runs_with_cache(model)
    except Exception as error:  # sizes that fit the file and not each other
        raise ValueError(f"the model in {source} does not run: {_one_line(error)}") from error
    if not causal:
        raise ValueError(f"{source} is not a causal language model: {type(model).__name__} looks ahead")
    return model


@torch.no_grad()
def is_causal(model: PreTrainedModel) -> bool:
    """Whether another last token leaves the earlier logits alone; `is_decoder` is False for GPT-NeoX too."""
    tokens = torch.arange(4).remainder(model.config.vocab_size)[None].to(model.device)
    edited = tokens.clone()
    edited[0, -1] = 0
    logits, other = (model(t, use_cache=False).logits[:, :-1] for t in (tokens, edited))
    return not (logits - other).abs().max() > 1e-4 * logits.std()  # NaN is for `predict` to name


@torch.no_grad()
def _runs_with_cache(model: PreTrainedModel) -> None:
    """Raises whatever a cache of senseless sizes makes a model raise, before a model that writes labels meets it."""
    model(torch.zeros(1, 4, dtype=torch.long, device=model.device), use_cache=True)


def _weights_in(folder: Path) -> dict[str, Held]:
    """The headers of a folder's weights. Raises `ValueError` where there are none that may be read."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} has no config.json: not a folder that save_pretrained wrote")
    check_folder(folder)
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt*")))
        hint = f" ({pickled[0]} is a pickle, which is never loaded; convert it)" if pickled else ""
        raise ValueError(f"{folder} has no weights: no model.safetensors{hint}")
    return headers(folder)


def _folder_of(source: str, what: str) -> Path:
    try:
        return folder_of(source, weights=what == "model")
    except ValueError as error:
        raise ValueError(f"no {what} can be loaded from {source}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
