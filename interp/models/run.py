"""A trained model together with the task it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedModel

from interp.models.bridge import boot_bridge
from interp.models.families import family_of
from interp.models.folder import RECORD, load_raw, load_tokenizer, read_record
from interp.tasks import LONGEST, Batch, Format, Vocabulary, fit_vocabulary, parse_format, sample, sequence_length

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Names of the tables that hold learned absolute positions in Hugging Face models.
_POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")


@dataclass(frozen=True, eq=False)
class Run:
    """A model with its task. `raw` and `model` are two copies of the same weights.

    `model` is a TransformerBridge, for hooks; `raw` is the Hugging Face model, for everything that needs
    none (it is faster, and it is the reference that the bridge is held to). Each is loaded when first used.
    """

    name: str
    source: str
    format: Format
    vocabulary: Vocabulary
    record: dict = field(default_factory=dict)

    @cached_property
    def raw(self) -> PreTrainedModel:
        """The Hugging Face model, in evaluation mode."""
        return self._load()

    @cached_property
    def model(self) -> TransformerBridge:
        """The model as a TransformerBridge, proved equal to `raw` when it is booted."""
        return boot_bridge(self._load())

    def _load(self) -> PreTrainedModel:
        model = load_raw(self.source)
        size, top = model.config.vocab_size, max(self.vocabulary.ids.values(), default=-1)
        if top >= size:
            raise ValueError(f"{self.name}'s vocabulary has token id {top}; its model has {size} tokens")
        return model

    @cached_property
    def family(self) -> str:
        """One of FAMILIES, by the positional encoding; else Hugging Face's `model_type`."""
        rope = getattr(self.raw.config, "rope_parameters", None) or {}
        return family_of(self.raw.config.model_type, rope.get("partial_rotary_factor"))

    @cached_property
    def max_positions(self) -> int | None:
        """Positions in the model's table of them; None where the encoding sets no limit."""
        for name, module in self.raw.named_modules():
            if name.rsplit(".", 1)[-1] in _POSITION_TABLES and isinstance(module, nn.Embedding):
                return min(module.num_embeddings, self.raw.config.max_position_embeddings)
        return None

    def check_length(self, length: int | tuple[int, int]) -> None:
        """Raises `ValueError` when prompts of this length have more positions than the model."""
        limit = self.max_positions
        if limit is not None and (need := sequence_length(self.format, length)) > limit:
            raise ValueError(f"length {length} of {self.format} takes {need} positions; {self.name} has {limit}")

    def sample(self, batch_size: int, length: int | tuple[int, int], seed: int) -> Batch:
        """Random prompts in this run's format and tokens.

        Raises `ValueError` for a length below 1, or beyond the model's positions or the vocabulary's labels.
        """
        batch = sample(self.format, batch_size, length, seed, self.vocabulary)
        self.check_length(length)
        return batch


def run_in_memory(name: str, raw: PreTrainedModel, fmt: str | Format, vocabulary: Vocabulary) -> Run:
    """A run around a model that has no folder; its bridge cannot be had, because booting would take the model over."""
    run = Run(name, "memory", parse_format(fmt), vocabulary)
    run.__dict__["raw"] = raw.eval()
    return run


def load_run(
    source: str | Path, fmt: str | Format | None = None, name: str | None = None, longest: int = LONGEST
) -> Run:
    """A run from a folder that `save_pretrained` wrote, or from a hub name such as "bigscience/bloomz-560m".

    Where there is no `run.json`, `fmt` must say which task to pose, and its symbols are mapped to single
    tokens of the model's tokenizer, for prompts of at most `longest` bits. Where there is one, `fmt` may pose
    another format to the same weights (the run's vocabulary must have its symbols).
    """
    source = str(source)
    record = read_record(Path(source)) if Path(source).is_dir() else None
    name = name or (Path(source).resolve().name if Path(source).is_dir() else Path(source).name)
    if record is None:
        if fmt is None:
            what = "has no run.json" if Path(source).is_dir() else "is no folder here; as a hub name it has no run.json"
            raise ValueError(f"{source} {what}, so its task is not known: name a format, such as 'parity-aligned'")
        fmt = parse_format(fmt)
        return Run(name, source, fmt, fit_vocabulary(load_tokenizer(source), fmt, longest))
    try:
        vocabulary = Vocabulary.from_json(record["vocabulary"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the vocabulary in {source}/{RECORD} is damaged: {error!r}") from error
    return Run(name, source, parse_format(fmt or record["format"]), vocabulary, record)
