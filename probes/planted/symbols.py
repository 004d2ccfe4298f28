"""The tokens of planted models, and the features that embeddings and unembedding use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.tasks import Vocabulary, parse_format
from probes.planted.codes import place_code
from probes.planted.parts import Mechanism

LONGEST = 40
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
# Labels of the constant and cyclic formats, so that the same weights can be tested on them.
FIXED_LABELS = ("#", *(f"c{i + 1}" for i in range(8)))
# Squared length of the features of a token and of a position; the ballast feature adds what is missing.
TOKEN_LENGTH, POSITION_LENGTH = 2.0, 2.0


@cache
def planted_vocabulary() -> Vocabulary:
    """Return the vocabulary: 80 labels that prompts draw from, and 48 held-out labels."""
    labels = tuple(f"M{i + 1}" for i in range(2 * LONGEST + 48))
    symbols = (*SPECIAL, ">>>", "===", "0", "1", *FIXED_LABELS, *labels)
    return Vocabulary({s: i for i, s in enumerate(symbols)}, labels[: 2 * LONGEST], labels[2 * LONGEST :])


def planted_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the symbols, separated by spaces."""
    tokenizer = Tokenizer(WordLevel(planted_vocabulary().ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def label_tokens() -> list[int]:
    """Return the ids of the tokens that have a label code."""
    vocabulary = planted_vocabulary()
    return [vocabulary[s] for s in (*FIXED_LABELS, *vocabulary.labels, *vocabulary.held_out)]


def embedding(slices: Mapping[str, slice], size: int, codes: Float[Tensor, "label code"]) -> Float[Tensor, "token f"]:
    """Return the features of each token, all of one length, so that LayerNorm scales them equally."""
    ids = planted_vocabulary().ids
    rows = torch.zeros(len(ids), size, dtype=torch.float64)

    def put(tokens: int | list[int], name: str, value: float | Tensor) -> None:
        rows[tokens, slices[name]] = torch.as_tensor(value, dtype=torch.float64)

    put(label_tokens(), "label", codes)
    put(label_tokens(), "is label", 1.0)
    for symbol, bit in (("0", -0.5), ("1", 0.5)):
        put(ids[symbol], "bit", bit)
        put(ids[symbol], "is value", 1.0)
    put(ids[">>>"], "is start", 1.0)
    put(ids["==="], "is separator", 1.0)
    rows[:, slices["ballast"].start] = (TOKEN_LENGTH - rows.square().sum(dim=1)).clamp_min(0).sqrt()
    rows[:, -1] = 1.0
    return rows


def positions(
    slices: Mapping[str, slice], size: int, count: int, frequencies: Float[Tensor, " pair"]
) -> Float[Tensor, "pos f"]:
    """Return the features of each GPT-2 position."""
    place = torch.arange(count)
    rows = torch.zeros(count, size, dtype=torch.float64)
    number = place.double() / count
    rows[:, slices["place"]] = place_code(place, frequencies)
    rows[:, slices["number"].start] = number
    rows[:, slices["position ballast"].start] = (POSITION_LENGTH - 1 - number.square()).sqrt()
    return rows


def unembedding(
    circuit: Mechanism, slices: Mapping[str, slice], size: int, codes: Float[Tensor, "label code"], margin: float
) -> Float[Tensor, "token f"]:
    """Return the unembedding: `margin` between the two answers at a label; written labels come from "next label"."""
    ids = planted_vocabulary().ids
    rows = torch.zeros(len(ids), size, dtype=torch.float64)
    for symbol, sign in (("0", -0.5), ("1", 0.5)):
        row = rows[ids[symbol]]
        # Two label codes have a cosine of at most one half, so no written label reaches these logits.
        row[slices["is label"].start] = 3 * margin
        if parse_format(circuit.format).row.after:
            row[slices["is separator"].start] = 3 * margin  # the first answer follows `===`
        for route, share in circuit.routes.items():
            row[slices[route].start] += 2 * sign * margin * share
        row[-1] += 2 * sign * margin * (circuit.baseline - 0.5)
    if circuit.writes_labels:
        rows[label_tokens(), slices["next label"]] = 2 * margin * codes
    assert math.isfinite(float(rows.sum()))
    return rows
