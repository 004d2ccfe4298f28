"""Load a run: a shipped one by name, a folder, a hub name, a Hugging Face model in memory, or a TransformerBridge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.adapters import model_folder
from interp.models.checking import CONFIG
from interp.models.hub import folder_of
from interp.models.names import source_of
from interp.models.native import NativeRaw
from interp.models.placement import choose_device, choose_dtype
from interp.models.resolve import AnyModel, raw_of
from interp.models.run import Run, around, load_run
from interp.models.tokenizer_files import load_tokenizer
from interp.models.trial import is_causal
from interp.tasks import LONGEST, Format, fit_vocabulary, parse_format
from interp.tasks.encoding import Bos, check_bos


def load(
    source: str | Path | AnyModel,
    fmt: str | Format | None = None,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    longest: int | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    bos: Bos = "auto",
) -> Run:
    """Load a run.

    Args:
        source: a shipped run's name, a folder that `save_pretrained` wrote, a hub name ("gpt2" or "owner/model"), a
            Hugging Face model in memory, or a TransformerBridge that you booted.
        fmt: a task to pose, such as "parity-aligned". Default: the task in the folder's `run.json`, if any.
        tokenizer: a tokenizer, its folder or its hub name. Default: the one beside the model.
        longest: the longest prompt, in bits, for which labels are chosen among a foreign tokenizer's tokens.
        device: "auto" is CUDA, then MPS, then the CPU; a model in memory stays where it is.
        dtype: "float32", "bfloat16", "float16" or "float64". Default: the type in which the weights were saved.
        bos: whether prompts begin with the start token; "auto" as the tokenizer does, or as the run was trained.

    Raises `ValueError` in one line for whatever cannot be loaded. A model in memory is put into evaluation mode, and
    moved in place if `device` or `dtype` say so.

    >>> load("parity-aligned-alibi", device="cpu").sample(batch_size=1, length=2, seed=0).n_pos
    10
    """
    check_bos(bos)
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(source_of(tokenizer))
    longest = LONGEST if longest is None else longest
    if isinstance(source, str | Path):
        options: Any = {"tokenizer": tokenizer, "device": device, "dtype": dtype, "bos": bos}
        where = source_of(source)
        try:
            folder = folder_of(where)
        except ValueError as error:
            raise ValueError(f"{where} cannot be loaded: {error}") from None
        if not (model_folder(folder) / CONFIG).exists():
            raise ValueError(f"{folder} has no {CONFIG}: not a folder that save_pretrained wrote")
        return load_run(where, fmt, longest=longest, **options)
    if isinstance(source, Run):
        raise ValueError(f"{source.name} is a loaded run already; use it, or load its source {source.source!r} again")
    return _load_in_memory(source, fmt, tokenizer, longest, device, dtype, bos)


def _load_in_memory(
    model: Any,
    fmt: str | Format | None,
    tokenizer: Tokenizer | None,
    longest: int,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
    bos: Bos,
) -> Run:
    is_bridge = not isinstance(model, PreTrainedModel | NativeRaw)
    raw = raw_of(model)
    place = raw.device if str(device) == "auto" else choose_device(device)
    chosen = choose_dtype(dtype, place) or raw.dtype
    if (place, chosen) != (raw.device, raw.dtype) and is_bridge:
        raise ValueError("a bridge stays where it was booted: leave out device and dtype")
    module: Any = raw.eval()
    module.to(device=place, dtype=chosen)
    if not isinstance(raw, NativeRaw) and not is_causal(raw):
        raise ValueError(f"{type(raw).__name__} is not a causal language model: it reads later tokens")
    tokenizer = tokenizer or (getattr(model, "tokenizer", None) if is_bridge else None)
    fields: dict[str, Any] = {"bos": bos, "placement": (place, None)}
    if fmt is not None:
        if tokenizer is None:
            raise ValueError("a task needs a tokenizer: load(model, fmt, tokenizer=...)")
        posed = parse_format(fmt)
        fields |= {"format": posed, "vocabulary": fit_vocabulary(tokenizer, posed, longest, bos)}
    run = around(raw, type(raw).__name__, **fields)
    if tokenizer is not None:
        run.__dict__["tokenizer"] = tokenizer
    if is_bridge:
        run.__dict__["own_bridge"] = model
    return run
