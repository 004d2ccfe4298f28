"""A model with its tokenizer and, where a task is posed, the task's format and vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.bridge import shared_bridge
from interp.models.families import family_of
from interp.models.folder import load_raw
from interp.models.no_task import NoTask
from interp.models.placement import choose_device, choose_dtype
from interp.models.record import RECORD, read_record
from interp.models.tokenizer_files import load_tokenizer
from interp.tasks import (
    LONGEST,
    Batch,
    Format,
    Vocabulary,
    check_length,
    fit_vocabulary,
    parse_format,
    sample,
    sequence_length,
    start_token,
)

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Names of the tables that hold learned absolute positions in Hugging Face models.
_POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
# `source` of a run whose model is in memory only.
MEMORY = "memory"
Bos = bool | Literal["auto"]


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A model with its tokenizer, and optionally its task. The model is loaded when it is first used.

    `raw` is the Hugging Face model and `model` a TransformerBridge on the same weights, for hooks; `raw` is faster.
    `format` and `vocabulary` are None until a task is posed. `bos` says whether prompts begin with the tokenizer's
    start token: "auto" as the tokenizer itself does, and as in training for a run with a `run.json`.
    """

    name: str
    source: str
    # None until a task is posed; `require_task` raises then.
    format: Format = None  # type: ignore[assignment]
    vocabulary: Vocabulary = None  # type: ignore[assignment]
    record: dict = field(default_factory=dict)
    placement: tuple[torch.device, torch.dtype | None] = (torch.device("cpu"), None)
    bos: Bos = "auto"

    def __repr__(self) -> str:
        posed = None if self.format is None else str(self.format)
        return f"Run({self.name!r}, format={posed!r}, source={self.source!r}, {self._sizes()})"

    def _sizes(self) -> str:
        """Return layers, width, heads, number format and device in words, where the model has been loaded."""
        if (raw := self.__dict__.get("raw")) is None:
            return "not loaded yet"
        config = raw.config.get_text_config()
        n_layers, d_model, n_heads, n_kv_heads = (
            getattr(config, name, None)
            for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
        )
        heads = "" if n_heads is None else f", {n_heads} heads"
        if n_kv_heads not in (None, n_heads):
            heads += f" ({n_kv_heads} key-value)"
        return f"{n_layers} layers x {d_model}{heads}, {str(raw.dtype).removeprefix('torch.')} on {raw.device}"

    @cached_property
    def raw(self) -> PreTrainedModel:
        """The Hugging Face model, in evaluation mode."""
        return self._load()

    @property
    def model(self) -> TransformerBridge:
        """A TransformerBridge on the weights of `raw`, checked to give its logits. Booted again if weights changed.

        Edits in place and new tensors count as changes, an edit of `weight.data` does not.
        """
        if (own := self.__dict__.get("own_bridge")) is not None:
            return own
        tokenizer = self.tokenizer if self.has_tokenizer else None
        bridge = shared_bridge(self.raw, tokenizer)
        if tokenizer is not None and isinstance(self.bos, bool):
            bridge.cfg.default_prepend_bos = self.bos
        return bridge

    def _load(self) -> PreTrainedModel:
        device, dtype = self.placement
        model = load_raw(self.source, device, dtype)
        size = model.config.vocab_size
        highest = -1 if self.vocabulary is None else max(self.vocabulary.ids.values(), default=-1)
        if highest >= size:
            raise ValueError(f"{self.name}'s vocabulary has token id {highest}; its model has {size} tokens")
        return model

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises `ValueError` where there is none."""
        if self.source == MEMORY:
            raise ValueError(f"{self.name} has no tokenizer; pass one: load(model, tokenizer=...)")
        return load_tokenizer(self.source)

    @cached_property
    def has_tokenizer(self) -> bool:
        """Whether `tokenizer` can be read."""
        try:
            return self.tokenizer is not None
        except ValueError:
            return False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.raw.device

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the weights."""
        return self.raw.dtype

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Self:
        """Move or cast the model in place, as `nn.Module.to` does, and return the run.

        Raises `ValueError` for a device that is not there, for a type that it cannot compute in, and for a run made
        from a bridge, which holds copies of weights.
        """
        if "own_bridge" in self.__dict__:
            raise ValueError("a run made from your bridge cannot be moved; boot the bridge where it is to be used")
        place = self.device if device is None else choose_device(device)
        chosen = choose_dtype(dtype, place)
        module: Any = self.raw
        module.to(device=place, dtype=chosen or self.dtype)
        return self

    @cached_property
    def family(self) -> str:
        """One of FAMILIES, by the positional encoding; else Hugging Face's `model_type`."""
        rope = getattr(self.raw.config, "rope_parameters", None) or {}
        return family_of(self.raw.config.model_type, rope.get("partial_rotary_factor"))

    @cached_property
    def max_positions(self) -> int | None:
        """The number of positions in the model's table of them; None where the encoding sets no limit."""
        for name, module in self.raw.named_modules():
            if name.rsplit(".", 1)[-1] in _POSITION_TABLES and isinstance(module, nn.Embedding):
                return min(module.num_embeddings, self.raw.config.max_position_embeddings)
        return None

    def require_task(self) -> tuple[Format, Vocabulary]:
        """Return the format and the vocabulary. Raises `NoTask`, a `ValueError`, when no task is posed."""
        if self.format is None or self.vocabulary is None:
            raise NoTask(f"no task is posed to {self.name}, which has no {RECORD}")
        return self.format, self.vocabulary

    def check_length(self, length: int | tuple[int, int]) -> None:
        """Raise `ValueError` for a length below 1, or beyond the vocabulary's labels or the model's positions.

        Makes no prompt. Raises `NoTask`, a `ValueError`, when no task is posed.
        """
        fmt, vocabulary = self.require_task()
        check_length(fmt, length, vocabulary)
        need = sequence_length(fmt, length) + (vocabulary.bos is not None)
        if self.max_positions is not None and need > self.max_positions:
            raise ValueError(f"length {length} of {fmt} takes {need} positions; {self.name} has {self.max_positions}")

    def sample(self, batch_size: int, length: int | tuple[int, int], seed: int) -> Batch:
        """Return random prompts in this run's format and tokens.

        Raises the errors of `check_length`.
        """
        fmt, vocabulary = self.require_task()
        self.check_length(length)
        return sample(fmt, batch_size, length, seed, vocabulary)


def run_in_memory(name: str, raw: PreTrainedModel, fmt: str | Format, vocabulary: Vocabulary) -> Run:
    """Return a run around a model that has no folder."""
    return around(raw, name, format=parse_format(fmt), vocabulary=vocabulary)


def around(raw: PreTrainedModel, name: str, **fields: Any) -> Run:
    """Return a run around a model in memory, which is put into evaluation mode. `fields` are those of `Run`."""
    run = Run(name, MEMORY, **fields)
    run.__dict__["raw"] = raw.eval()
    return run


def load_run(
    source: str | Path,
    fmt: str | Format | None = None,
    name: str | None = None,
    longest: int = LONGEST,
    *,
    tokenizer: Tokenizer | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    bos: Bos = "auto",
) -> Run:
    """Return a run from a folder that `save_pretrained` wrote, or from a hub name such as "bigscience/bloomz-560m".

    `fmt` poses a task. Without a `run.json`, the symbols of the task are mapped to single tokens of the model's
    tokenizer, for prompts of at most `longest` bits, and no task is posed where `fmt` is None. With a `run.json`, the
    run's own vocabulary is used, and must have the symbols. `interp.load` finds shipped runs by name, too.
    """
    source = str(source)
    folder = Path(source)
    record = read_record(folder) if folder.is_dir() else None
    name = name or (folder.resolve().name if folder.is_dir() else folder.name)
    named = fmt or (record["format"] if record else None)
    chosen = parse_format(named) if named else None
    place = choose_device(device)
    if record is not None:
        vocabulary = _vocabulary_of(record, source)
        if isinstance(bos, bool):
            start = start_token(tokenizer or load_tokenizer(source), bos) if bos else None
            vocabulary = replace(vocabulary, bos=start)
    else:
        vocabulary = None
        if chosen is not None:
            vocabulary = fit_vocabulary(tokenizer or load_tokenizer(source), chosen, longest, bos)
    run = Run(
        name,
        source,
        format=chosen,  # type: ignore[arg-type]
        vocabulary=vocabulary,  # type: ignore[arg-type]
        record=record or {},
        placement=(place, choose_dtype(dtype, place)),
        bos=bos,
    )
    if tokenizer is not None:
        run.__dict__["tokenizer"] = tokenizer
    return run


def _vocabulary_of(record: dict, source: str) -> Vocabulary:
    try:
        return Vocabulary.from_json(record["vocabulary"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the vocabulary in {source}/{RECORD} is damaged: {error!r}") from error
