"""Prompts: token ids with a name per position, and optional roles, steps and spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.tasks.limits import is_whole, shown
from interp.tasks.roles import Role

# Data types of token ids, roles and steps.
INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

# How tokenizers write the space before a word: byte-level BPE and SentencePiece.
SPACE_MARKS = ("Ġ", "▁")


@dataclass(frozen=True, eq=False, repr=False)
class Prompts:
    """What a model reads: prompts of one length, without padding.

    Shapes:
        tokens: `[batch pos]` token ids.
        names:  one name per position. The default is the role in words where there are roles, else the token's
                text where all prompts have the same token there, else the span's name, else "pos 5".
        role:   `[pos]` values of `Role`, or None.
        step:   `[pos]` the step that a position belongs to, -1 for none; or None.
        spans:  positions by name, such as `{"b": (4, 11)}`.
        bos:    whether the first token is the tokenizer's start token; None if unknown.

    >>> Prompts(torch.tensor([[5, 6, 7], [5, 8, 7]]), spans={"name": (1,)}).at("name").tolist()
    [1]
    """

    tokens: Int[Tensor, "batch pos"]
    _: KW_ONLY
    names: tuple[str, ...] = ()
    role: Int[Tensor, " pos"] | None = None
    step: Int[Tensor, " pos"] | None = None
    spans: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bos: bool | None = None
    tokenizer: PreTrainedTokenizerBase | None = None

    def __post_init__(self) -> None:
        self._check_tensors()
        object.__setattr__(self, "tokens", self.tokens.long())  # what embeddings take
        spans = {str(name): tuple(positions) for name, positions in self.spans.items()}
        for name, positions in spans.items():
            for pos in positions:
                if not is_whole(pos) or not 0 <= pos < self.n_pos:
                    raise ValueError(f"span {name!r} has position {pos}; positions run from 0 to {self.n_pos - 1}")
        object.__setattr__(self, "spans", spans)
        names = tuple(self.names) or self._default_names()
        if len(names) != self.n_pos or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names must be {self.n_pos} strings, one per position; got {len(names)}: {shown(names)}")
        object.__setattr__(self, "names", names)

    def _check_tensors(self) -> None:
        per_position = [name for name in ("role", "step") if getattr(self, name) is not None]
        check_tokens(self.tokens)
        for name in per_position:
            if not isinstance(values := getattr(self, name), Tensor):
                raise ValueError(f"{name} must be a tensor of integers; got {type(values).__name__}")
            if (shape := getattr(self, name).shape) != self.tokens.shape[1:]:
                raise ValueError(f"{name} must be [pos] = [{self.n_pos}]; got {tuple(shape)}")
            if (dtype := getattr(self, name).dtype) not in INTEGER_DTYPES:
                raise ValueError(f"{name} must be a tensor of integers; got {dtype}")
        if self.role is not None and not ((self.role >= 0) & (self.role < len(Role))).all():
            raise ValueError(f"role must hold values of Role, from 0 to {len(Role) - 1}")

    def _default_names(self) -> tuple[str, ...]:
        if self.role is not None:
            words = {int(role): role.words for role in Role}
            steps = [-1] * self.n_pos if self.step is None else self.step.tolist()
            pairs = zip(self.role.tolist(), steps, strict=True)
            return tuple(words[role] if step < 0 else f"{words[role]} {step}" for role, step in pairs)
        names = [f"pos {pos}" for pos in range(self.n_pos)]
        for span, positions in self.spans.items():
            for pos in positions:
                names[pos] = span
        if self.tokenizer is not None and len(self):
            same = (self.tokens == self.tokens[:1]).all(dim=0).tolist()
            names = [self.symbol(int(self.tokens[0, pos])) if same[pos] else names[pos] for pos in range(self.n_pos)]
        return tuple(names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} x {self.n_pos} tokens of {self._kind()})"

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def n_pos(self) -> int:
        """Tokens per prompt."""
        return self.tokens.shape[1]

    def at(self, where: Role | str, step: int | None = None) -> Int[Tensor, " found"]:
        """Return the positions of a role or of a named span, in order; with `step`, of that step only.

        Raises `ValueError` that lists the spans, roles or steps which exist if there is no such position.
        """
        if isinstance(where, str):
            if step is not None:
                raise ValueError(f"a span has no steps; got span {where!r} with step {step}")
            if where not in self.spans:
                raise ValueError(f"no span {where!r}; {_listed('spans are', self.spans)}")
            return torch.tensor(self.spans[where], dtype=torch.long)
        if self.role is None:
            raise ValueError(f"these prompts have no roles; {_listed('spans are', self.spans)}")
        mask = (self.role == where).cpu()
        if not mask.any():
            present = ", ".join(Role(r).name for r in sorted(set(self.role.tolist())))
            raise ValueError(f"no {Role(where).words} in {self._kind()}; its roles are {present}")
        if step is not None:
            if self.step is None:
                raise ValueError("these prompts have roles but no steps")
            steps = self.step.cpu()
            of_role = steps[mask]
            mask = mask & (steps == step)
            if not mask.any():
                low, high = of_role.min(), of_role.max()
                raise ValueError(f"no {Role(where).words} with step {step}; steps run from {low} to {high}")
        return mask.nonzero().flatten()

    def _kind(self) -> str:
        """Return what the tokens are, for messages."""
        return "text"

    def name(self, pos: int) -> str:
        """Return the name of a position, such as "output label 25" or " John"."""
        if not -self.n_pos <= pos < self.n_pos:
            raise ValueError(f"position {pos} is outside 0 to {self.n_pos - 1}")
        return self.names[pos]

    def has_token_name(self, pos: int) -> bool:
        """Return whether a position's name is the text of the token that all prompts have there."""
        if self.role is not None or self.tokenizer is None or not len(self):
            return False
        tokens = self.tokens[:, pos]
        return bool((tokens == tokens[0]).all()) and self.name(pos) == self.symbol(int(tokens[0]))

    def symbol(self, token: int) -> str:
        """Return a token's text; `<id>` without a tokenizer."""
        return f"<{token}>" if self.tokenizer is None else token_text(self.tokenizer, token)

    def symbols(self, row: int = 0) -> list[str]:
        """Return the text of each token of one prompt."""
        return [self.symbol(token) for token in self.tokens[row].tolist()]

    def text(self, row: int = 0) -> str:
        """Return one prompt as text, start token included."""
        return "".join(self.symbols(row))

    def with_tokens(self, tokens: Int[Tensor, "batch pos"]) -> Self:
        """Return the same layout with other tokens. Names that are token texts follow the new tokens."""
        derived = self.role is None and self.names == self._default_names()
        return replace(self, tokens=tokens, names=() if derived else self.names)

    def rows(self, index: Int[Tensor, " rows"] | slice) -> Self:
        """Return some of the prompts."""
        return replace(self, tokens=self.tokens[index])


def check_tokens(tokens: object) -> None:
    """Raise `ValueError` unless these are token ids `[batch pos]`, with at least one position."""
    if not isinstance(tokens, Tensor):
        raise ValueError(f"tokens must be a tensor of integers; got {type(tokens).__name__}")
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"tokens must be [batch pos] with at least one position; got {tuple(tokens.shape)}")
    if tokens.dtype not in INTEGER_DTYPES:
        raise ValueError(f"tokens must be a tensor of integers; got {tokens.dtype}")


@dataclass(frozen=True, eq=False)
class Pair:
    """Clean and corrupted prompts of the same number and length."""

    clean: Prompts
    corrupted: Prompts

    def __post_init__(self) -> None:
        clean, corrupted = tuple(self.clean.tokens.shape), tuple(self.corrupted.tokens.shape)
        if clean != corrupted:
            raise ValueError(f"clean and corrupted prompts must have one shape; got {clean} and {corrupted}")


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Return a token's text, with its leading space where it has one; `<id>` for an id that it lacks."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if not isinstance(piece, str):
        return f"<{token}>"
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    # A SentencePiece decoder drops the space of the first token.
    return f" {text}" if piece.startswith(SPACE_MARKS) and not text.startswith(" ") else text


def _listed(what: str, names: Mapping[str, object]) -> str:
    return f"{what} {', '.join(names)}" if names else "there are no spans; template(...) makes them"
