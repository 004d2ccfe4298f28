"""Resolve and check the arguments that public functions share: the model, prompts and pairs of prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.models.resolve import checked_once, raw_of
from interp.support.locks import lock_of
from interp.tasks import Batch, Prompts
from interp.tasks.encoding import answer_id, find_tokenizer
from interp.tasks.texts import prompts as encoded

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M")
# What functions take as prompts: text and token ids are resolved with the model's tokenizer.
PromptsLike = Prompts | str | Sequence[str] | Tensor


def exclusive(function: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """Decorate a function of a model: it holds the model's lock and refuses to run under autocast.

    Under autocast its arithmetic would mix precisions, and checks against the raw model would fail.
    """

    @wraps(function)
    def guarded(model: M, *args: P.args, **kwargs: P.kwargs) -> T:
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                raise ValueError(
                    f"{function.__name__} does not run under torch.autocast; leave the block, or load the model with "
                    "another dtype"
                )
        raw = raw_of(model)  # type: ignore[arg-type]
        with lock_of(raw), checked_once(raw):
            return function(model, *args, **kwargs)

    return guarded


def require_gradients(what: str) -> None:
    """Raise `ValueError` under `torch.inference_mode()`, which forbids the gradients that `what` needs."""
    if torch.is_inference_mode_enabled():
        raise ValueError(f"{what} needs gradients, which torch.inference_mode() forbids; use torch.no_grad() instead")


def prompts_of(model: object, prompts: PromptsLike, name: str = "prompts") -> Prompts:
    """Return `Prompts` from themselves, from text or from token ids `[batch pos]`.

    Text needs a tokenizer: the model's. Raises `ValueError` without one, for floats, for token ids outside the
    vocabulary and for texts of different token counts. Warns of prompts, other than a task's, that are longer than the
    configuration's `max_position_embeddings`.
    """
    if not isinstance(prompts, Prompts):
        try:
            prompts = encoded(model, prompts)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    elif prompts.tokenizer is not None and not _is_of(model, prompts.tokenizer):
        raise ValueError(f"{name} are of another tokenizer than the model's; make them by prompts(model, ...)")
    config = raw_of(model).config  # type: ignore[arg-type]
    n_vocab, made_for = config.vocab_size, getattr(config, "max_position_embeddings", None)
    if made_for is not None and prompts.n_pos > made_for and not isinstance(prompts, Batch):
        warnings.warn(f"{name}: {prompts.n_pos} tokens, more than the {made_for} that the model is for", stacklevel=4)
    if len(prompts) and not 0 <= (token := _extreme(prompts.tokens, n_vocab)) < n_vocab:
        raise ValueError(f"{name}: token id {token} is outside 0 to {n_vocab - 1}, the model's vocabulary")
    return prompts


def prompts_by_length(model: object, prompts: PromptsLike, name: str = "prompts") -> list[Prompts]:
    """Return prompts in sets of one length: a list of texts may have texts of different token counts.

    Raises as `prompts_of`.
    """
    if isinstance(prompts, Prompts | Tensor | str):
        return [prompts_of(model, prompts, name)]
    by_length: dict[int, list[Prompts]] = {}
    for text in prompts:
        own = prompts_of(model, [text], name)
        by_length.setdefault(own.n_pos, []).append(own)
    return [
        some[0] if len(some) == 1 else prompts_of(model, torch.cat([one.tokens for one in some]), name)
        for some in by_length.values()
    ]


def _is_of(model: object, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer has the tokens of the model's own, where the model has one."""
    own = find_tokenizer(model)
    return own is None or own is tokenizer or own.get_vocab() == tokenizer.get_vocab()


def _extreme(tokens: Tensor, n_vocab: int) -> int:
    """Return the largest token id, or the smallest if the largest is in the vocabulary."""
    low, high = (int(x) for x in tokens.aminmax())
    return high if high >= n_vocab else low


def pair_of(
    model: object, first: PromptsLike, second: PromptsLike, names: tuple[str, str] = ("clean", "corrupted")
) -> tuple[Prompts, Prompts]:
    """Return two sets of prompts of one layout, as `prompts_of` and `require_same_layout`."""
    one, other = prompts_of(model, first, names[0]), prompts_of(model, second, names[1])
    require_same_layout(one, other, names)
    return one, other


def require_same_layout(first: Prompts, second: Prompts, names: tuple[str, str] = ("clean", "corrupted")) -> None:
    """Raise `ValueError` unless both have the same number of prompts and tokens, and the same roles and steps."""
    a, b = names
    if len(first) != len(second):
        raise ValueError(f"{a} and {b} must have the same number of prompts; got {len(first)} and {len(second)}")
    if first.n_pos != second.n_pos:
        shown = "; ".join(f"{name}: {'|'.join(p.symbols(0))}" for name, p in zip(names, (first, second), strict=True))
        raise ValueError(
            f"{a} and {b} must have the same number of tokens; got {first.n_pos} and {second.n_pos}: {shown}"
        )
    for what in ("role", "step"):
        values, others = getattr(first, what), getattr(second, what)
        if values is not None and others is not None and not torch.equal(values, others):
            at = int((values != others).nonzero()[0])
            raise ValueError(
                f"{a} and {b} must have the same roles and steps; at position {at} they have "
                f"{first.name(at)!r} and {second.name(at)!r}"
            )


def token_ids(model: object, prompts: Prompts, name: str, answer: Any) -> Int[Tensor, " batch"]:
    """Return `listed_token_ids` as a tensor; raise its errors."""
    return torch.tensor(listed_token_ids(model, prompts, name, answer), dtype=torch.long)


def listed_token_ids(model: object, prompts: Prompts, name: str, answer: Any) -> list[int]:
    """Return one token id per prompt from a string, a token id, or one of these per prompt.

    Raises `ValueError` for a string of several tokens, without a tokenizer, for ids outside the vocabulary, and for a
    number of answers that is not the number of prompts.
    """
    n_vocab = raw_of(model).config.vocab_size  # type: ignore[arg-type]
    if isinstance(answer, Tensor):
        answer = answer.tolist() if answer.ndim < 2 else [answer]
    if isinstance(answer, str | int) and not isinstance(answer, bool):
        answer = [answer] * max(1, len(prompts))
    if isinstance(answer, bool) or not isinstance(answer, Sequence) or len(answer) != max(1, len(prompts)):
        some = f"{len(answer)} of them" if isinstance(answer, list | tuple) else repr(answer)
        each = f"one of these per prompt ({len(prompts)})"
        raise ValueError(f"{name} must be a string, a token id, or {each}; got {some}")
    distinct = dict.fromkeys(one for one in answer if isinstance(one, str))  # each text is encoded once
    texts = {one: _token_id(model, prompts, name, one) for one in distinct}
    ids = [texts[one] if isinstance(one, str) else _token_id(model, prompts, name, one) for one in answer]
    if bad := [i for i in ids if not 0 <= i < n_vocab]:
        raise ValueError(f"{name} has token id {bad[0]}; the model has 0 to {n_vocab - 1}")
    return ids[: len(prompts)]


def _token_id(model: object, prompts: Prompts, name: str, answer: object) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    if not isinstance(answer, str):
        raise ValueError(f"{name} must be a string or a token id; got {answer!r}")
    return answer_id(find_tokenizer(prompts) or find_tokenizer(model) or model, answer)
