"""Load the tokenizer of a folder, after its files were checked for sizes and numbers that no tokenizer has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from interp.models.adapters import model_folder
from interp.models.checking import check_folder, one_line, read_json
from interp.models.hub import folder_of
from interp.models.quiet import quietly, silent_if_it_fails
from interp.tasks.limits import shown

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
# Added tokens cost time quadratically: 16,384 take two seconds, 100,000 a minute. Known tokenizers have up to 7,000.
MOST_ADDED = 2**14
# Characters. The longest added tokens have some 50, the longest texts (character maps, chat templates) 400,000.
LONGEST_ADDED = 2**10
LONGEST_TEXT = 2**20
_ADDED = ("added_tokens", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")


def load_tokenizer(source: str) -> Tokenizer:
    """Return the tokenizer of a folder or of a hub name. Raises `ValueError` in one line where none can be loaded."""
    try:
        folder = model_folder(folder_of(source))
        if not any((folder / name).exists() for name in TOKENIZER_FILES):
            raise ValueError(f"it has none of {', '.join(TOKENIZER_FILES)}")
        check_folder(folder)
        check_tokenizer(folder)
        with quietly(), silent_if_it_fails():
            return _tried(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of the tokenizers library are BaseExceptions, and fuzzing found all kinds
        raise ValueError(f"no tokenizer can be loaded from {source}: {one_line(error)}") from error


def check_tokenizer(folder: Path) -> None:
    """Raise `ValueError` for tokenizer files with too many or too long added tokens, or with a text without end."""
    for name in SETTINGS:
        if not (folder / name).exists():
            continue
        data = read_json(folder / name)
        added = [data] if name == "added_tokens.json" else []
        added += [data[key] for key in _ADDED if isinstance(data, dict) and key in data]
        for tokens in added:
            if isinstance(tokens, dict | list) and len(tokens) > MOST_ADDED:
                raise ValueError(f"{name} adds {len(tokens)} tokens; at most {MOST_ADDED} are read")
            if any(len(text) > LONGEST_ADDED for text in _texts(tokens)):
                raise ValueError(f"{name} adds a token of more than {LONGEST_ADDED} characters")
        for text in _texts(data):
            if len(text) > LONGEST_TEXT:
                raise ValueError(f"{name} has a text of {len(text)} characters, {shown(text[:40])}")


def _tried(tokenizer: Any) -> Tokenizer:
    """Return the tokenizer after one use. Raises whatever the use raises."""
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"{type(tokenizer).__name__} is not a tokenizer of one vocabulary")
    tokenizer.get_vocab()
    tokenizer("0")
    _ = tokenizer.all_special_ids
    return tokenizer


def _texts(data: Any) -> Iterator[str]:
    """Yield every string in nested objects and lists, keys included."""
    rest = [data]
    while rest:
        value = rest.pop()
        match value:
            case str():
                yield value
            case dict():
                rest += [*value, *value.values()]
            case list():
                rest += value
