"""Teacher-forced predictions and greedy decoding, on the raw Hugging Face model or its steps.

Forward passes run without gradients, in chunks of prompts, on the model's device. Results are on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from interp.models.anatomy import Anatomy, anatomy_of, tolerance_of
from interp.models.architectures.steps import rope_type
from interp.models.changed import is_edited
from interp.models.resolve import AnyModel, raw_of
from interp.support.budget import numbers
from interp.support.finite import require_finite
from interp.support.locks import lock_of
from interp.tasks import Batch, Prompts

# Most tokens in one forward pass, and on a CPU: more of them leave its caches, and a pass takes up to twice the time.
CHUNK_TOKENS = 8192
CPU_TOKENS = 1024
# Most tokens in the first pass of decoding on a GPU, whose later passes are bound by launches, whatever their size.
DECODED_TOKENS = 65_536
# The module of the hooks with which transformers keeps hidden states and attentions.
CAPTURING = "transformers.utils.output_capturing"
# Prompts on which the steps of a model are compared with the raw model.
CHECKED = 2
# Share of the memory budget for the logits, the inside of a layer, and cached keys and values: 256 MiB of a GiB. With
# a vocabulary of 250,000 the logits determine the chunk.
SHARE = 1 / 4


@dataclass(frozen=True)
class Readout:
    """Teacher-forced predictions at some positions.

    Shapes:
        likeliest: `[batch predicted]`, the token with the highest logit of the whole vocabulary.
        logits:    `[batch predicted symbol]`, logits of the format's output symbols, in their order.
    """

    likeliest: Int[Tensor, "batch predicted"]
    logits: Float[Tensor, "batch predicted symbol"]


def predict(
    model: AnyModel, batch: Prompts, at: Int[Tensor, " predicted"], by_steps: bool = False
) -> Float[Tensor, "batch predicted d_vocab"]:
    """Return the teacher-forced logits for the tokens at positions `at`, read one position earlier.

    `at` may be one past the last position, to predict the next token. Only those positions are unembedded. Raises
    `ValueError` for position 0, which nothing predicts, for a position further past the end, and for logits that are
    not finite, naming the prompt. `by_steps` is that of `readout`; by default the raw model runs.
    """
    found, done = torch.empty(0), 0
    for logits in _chunks(raw_of(model), batch, at, by_steps):
        if not done:
            found = logits.new_empty(len(batch), *logits.shape[1:], device="cpu")
        found[done : done + len(logits)] = logits  # torch.cat would take the memory of all prompts twice
        done += len(logits)
    return found


def readout(model: AnyModel, batch: Batch, at: Int[Tensor, " predicted"], by_steps: bool = True) -> Readout:
    """Return the most likely token and the logits of the output symbols at positions `at`, as in `predict`.

    The logits of the whole vocabulary exist for one chunk of prompts at a time. In float32 and float64 a supported
    architecture is run step by step, with its last layer at these positions only: half of the raw model's time. The
    first prompts are compared with the raw model; where they differ, it runs for all, as with `by_steps=False`.
    """
    symbols, chunks = batch.vocabulary.tokens(batch.format.outputs), _chunks(raw_of(model), batch, at, by_steps)
    parts = [(x.argmax(dim=-1).cpu(), x[..., symbols.to(x.device)].cpu()) for x in chunks]
    return Readout(likeliest=torch.cat([p[0] for p in parts]), logits=torch.cat([p[1] for p in parts]))


def _chunks(raw: PreTrainedModel, prompts: Prompts, at: Tensor, by_steps: bool) -> Iterator[Tensor]:
    anatomy = steps_of(raw, prompts, at) if by_steps else None
    return _logits(raw, prompts, at) if anatomy is None else _logits_by_steps(anatomy, prompts, at)


@torch.no_grad()
def _logits(raw: PreTrainedModel, prompts: Prompts, at: Tensor) -> Iterator[Float[Tensor, "chunk predicted d_vocab"]]:
    keep = _kept_positions(prompts, at).to(raw.device)
    size = _size(raw, prompts, at)
    for start in range(0, len(prompts), size):
        rows = prompts.tokens[start : start + size].to(raw.device)
        with lock_of(raw):
            logits = raw(rows, use_cache=False, logits_to_keep=keep).logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        yield require_finite(logits, "a logit of the model", start, axis=0, batch=prompts)


def _kept_positions(prompts: Prompts, at: Tensor) -> Tensor:
    if not len(at) or (at < 1).any():
        raise ValueError(f"predicted positions must be at least 1, and at least one; got {at.tolist()}")
    if (at > prompts.n_pos).any():
        raise ValueError(f"position {int(at.max())} is past the end; these prompts have {prompts.n_pos} positions")
    return at - 1


def _size(raw: PreTrainedModel, prompts: Prompts, at: Tensor) -> int:
    size = _prompts_per_pass(raw, prompts.n_pos, len(at))
    if raw.device.type == "cpu":  # decoding, which runs one token per prompt, takes more prompts
        size = min(size, max(1, CPU_TOKENS // prompts.n_pos))
    return size


@torch.no_grad()
def steps_of(
    raw: PreTrainedModel, prompts: Prompts, at: Int[Tensor, " predicted"], half: bool = False
) -> Anatomy | None:
    """Return the model as steps; None where it has none, or where they differ from it on the first prompts.

    None too for a model with hooks and, without `half`, for half precision, which steps round in other places.
    """
    keep = _kept_positions(prompts, at).to(raw.device)
    few = prompts.tokens[: min(CHECKED, _size(raw, prompts, at))].to(raw.device)
    weight = next(raw.parameters(), None)
    edited = is_edited(raw) or _has_hooks(raw) or torch.is_autocast_enabled(raw.device.type)
    if weight is None or edited or not isinstance(raw, PreTrainedModel):
        return None
    if not half and weight.dtype not in (torch.float32, torch.float64):
        return None
    with lock_of(raw):
        try:
            anatomy = anatomy_of(raw, test=False)  # compared on these prompts
            ours = anatomy.forward(few, keep)
        except (ValueError, RuntimeError):
            return None
        theirs = raw(few, use_cache=False, logits_to_keep=keep).logits
    difference = (ours - theirs).abs().max() / theirs.std(correction=0).clamp_min(1e-6)
    return anatomy if bool(difference <= tolerance_of(weight.dtype)) else None  # not for a NaN


def _has_hooks(raw: PreTrainedModel) -> bool:
    """Return whether a module has a forward hook: it expects the raw model's passes, with all positions.

    Those of transformers do not count. They stay once a call has asked for hidden states or attentions, and do nothing
    in other calls.
    """
    hooks = (hook for m in raw.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return any(getattr(hook, "__module__", "") != CAPTURING for hook in hooks)


@torch.no_grad()
def _logits_by_steps(
    anatomy: Anatomy, prompts: Prompts, at: Tensor
) -> Iterator[Float[Tensor, "chunk predicted d_vocab"]]:
    size, keep = _size(anatomy.raw, prompts, at), (at - 1).to(anatomy.device)
    for start in range(0, len(prompts), size):
        rows = prompts.tokens[start : start + size].to(anatomy.device)
        with lock_of(anatomy.raw):
            logits = anatomy.forward(rows, keep)
        yield require_finite(logits, "a logit of the model", start, axis=0, batch=prompts)


def _prompts_per_pass(raw: PreTrainedModel, n_pos: int, n_read: int) -> int:
    """Return how many prompts of `n_pos` tokens fit, at least one."""
    floats = _inside(raw, n_pos) + n_read * raw.config.vocab_size
    return max(1, min(CHUNK_TOKENS // n_pos, numbers(SHARE, raw.device) // floats))


def _inside(raw: PreTrainedModel, n_pos: int) -> int:
    """Return the numbers inside a layer, for one prompt: MLP and non-linearity; scores and pattern."""
    return n_pos * (24 * raw.config.hidden_size + 4 * raw.config.num_attention_heads * n_pos)


def _prompts_decoded_at_once(raw: PreTrainedModel, n_pos: int, first: int) -> int:
    """Return how many prompts fit, at least one, if the first pass reads `first` tokens and later ones read one.

    All layers keep the keys and values of `n_pos` tokens.
    """
    config = raw.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * heads * width * config.num_hidden_layers * n_pos
    floats = _inside(raw, first) + kept + config.vocab_size
    most = CHUNK_TOKENS // n_pos if raw.device.type == "cpu" else DECODED_TOKENS // first
    return max(1, min(most, numbers(SHARE, raw.device) // floats))


def correct(
    model: AnyModel, batch: Batch, at: Int[Tensor, " predicted"], by_steps: bool = True
) -> Bool[Tensor, "batch predicted"]:
    """Return whether the most likely token at each position is the one in the batch, teacher-forced.

    Greedy decoding gives the batch's outputs if and only if every predicted position is correct here, so exact match
    costs one forward pass (probes/README.md, Paper and formats). `by_steps` is that of `readout`.
    """
    return readout(model, batch, at, by_steps).likeliest == batch.tokens[:, at]


@torch.no_grad()
def generate(model: AnyModel, batch: Batch, forced: bool = True) -> Batch:
    """Return the batch with the tokens at predicted positions replaced by greedy decoding; the others are given.

    `forced` is as in `Batch.predicted`. Decoding uses a key-value cache, except where the rotary encoding depends on
    the prompt's length (see `depends_on_length`). Raises `ValueError` for logits that are not finite, naming the
    prompt.
    """
    raw = raw_of(model)
    at = batch.predicted(forced).tolist()
    if depends_on_length(raw):
        decode, size = _decode_without_cache, _prompts_per_pass(raw, batch.n_pos, 1)
    else:
        decode, size = _decode, _prompts_decoded_at_once(raw, batch.n_pos, at[0])
    with lock_of(raw):
        chunks = [decode(raw, batch, at, first, size) for first in range(0, len(batch), size)]
    return batch.with_tokens(torch.cat(chunks))


def depends_on_length(raw: PreTrainedModel) -> bool:
    """Return whether a longer prompt changes the rotary encoding of all positions.

    It does for the types "dynamic" and "longrope" of Hugging Face's `rope_parameters`, the only ones that
    `transformers.modeling_rope_utils.dynamic_rope_update` recomputes. Cached keys would be of shorter prompts.
    """
    kind = rope_type(raw)
    return "dynamic" in kind or kind == "longrope"


def _decode(raw: PreTrainedModel, batch: Batch, at: list[int], first: int, size: int) -> Int[Tensor, "chunk pos"]:
    tokens = batch.tokens[first : first + size].to(raw.device).clone()
    cache, fed = DynamicCache(config=raw.config), 0
    for position in at:
        out = raw(tokens[:, fed:position], past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = require_finite(out.logits[:, -1], "a logit of the model", first, axis=0, batch=batch)
        tokens[:, position] = logits.argmax(dim=-1)
        fed = position
    return tokens.cpu()


def _decode_without_cache(
    raw: PreTrainedModel, batch: Batch, at: list[int], first: int, size: int
) -> Int[Tensor, "chunk pos"]:
    """Decode by one pass over the whole prompt per token, so that every pass has the encoding of its full length."""
    tokens = batch.tokens[first : first + size].to(raw.device).clone()
    for position in at:
        keep = torch.tensor([position - 1], device=raw.device)
        logits = raw(tokens, use_cache=False, logits_to_keep=keep).logits[:, 0]
        tokens[:, position] = require_finite(logits, "a logit of the model", first, axis=0, batch=batch).argmax(dim=-1)
    return tokens.cpu()
