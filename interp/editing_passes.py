"""Where a pass of a model stands whose own passes are edited: which positions it has, and which of them are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.forward import depends_on_length
from interp.models.anatomy import Anatomy, GenericAnatomy, anatomy_or_generic
from interp.models.changed import EDITED
from interp.models.native import NativeRaw
from interp.models.resolve import AnyModel, raw_of

# Positions, counted from the first token of the prompt: all (None), some, or a range such as slice(12, None).
Positions = int | Sequence[int] | slice | None
# Arguments with what earlier passes left: keys and values, or the state of a recurrent model (Mamba, RWKV).
STATES = ("past_key_values", "cache_params", "state")
# Anatomies of the models that are being edited, by identity: they are checked before the first edit.
_EDITED: dict[int, Anatomy | GenericAnatomy] = {}


def anatomy_now(model: AnyModel) -> Anatomy | GenericAnatomy:
    """Return a model's anatomy; inside a block that edits the model, the one from before the block."""
    raw = raw_of(model)
    return _EDITED[id(raw)] if id(raw) in _EDITED else anatomy_or_generic(raw)


class Chosen:
    """Positions that an edit is of. Raises `ValueError` for none, negative ones, and ranges with a step."""

    def __init__(self, positions: Positions) -> None:
        self.given = [positions] if isinstance(positions, int) else positions
        if isinstance(self.given, slice):
            bounds = [x for x in (self.given.start, self.given.stop) if x is not None]
            if self.given.step not in (None, 1) or any(x < 0 for x in bounds):
                raise ValueError(f"a range of positions has no step and counts from 0; got {positions}")
        elif self.given is not None and (not self.given or any(x < 0 for x in self.given)):
            raise ValueError(
                f"positions count from 0, the first token of the prompt; got {positions}. For generated tokens use "
                "slice(n, None), with n the number of tokens of the prompt"
            )

    def begin_at(self, n: int) -> bool:
        """Return whether all chosen positions come at `n` or later."""
        match self.given:
            case None:
                return False
            case slice(start=start):
                return (start or 0) >= n
            case some:
                return min(some) >= n

    def among(self, now: Int[Tensor, " pos"]) -> Bool[Tensor, " pos"]:
        """Return which positions of a pass are chosen."""
        match self.given:
            case None:
                return torch.ones_like(now, dtype=torch.bool)
            case slice(start=start, stop=stop):
                late = now >= (start or 0)
                return late if stop is None else late & (now < stop)
            case some:
                return torch.isin(now, torch.tensor(list(some), device=now.device))


class Window:
    """Where the current pass stands: the number of positions that its cache holds already."""

    def __init__(self, raw: Any, chosen: Chosen, check_thread: Callable[[], None]) -> None:
        self.raw, self.start, self.passes, self.check_thread = raw, 0, 0, check_thread
        self.chosen, self.width = chosen, None  # the positions of the first pass with padding
        self.seen = dict[int, tuple[Any, int]]()  # recurrent states, by identity, with the positions they have seen
        self.longest = _longest(raw) if depends_on_length(raw) else None

    def follow(self, stack: ExitStack, target: Any) -> None:
        """Watch the passes of a model, or of the model under a bridge."""
        whole = getattr(target, "original_model", target)
        body = getattr(whole, "base_model", whole)
        stack.callback(body.register_forward_pre_hook(self._before, with_kwargs=True).remove)
        _EDITED[id(self.raw)] = anatomy_now(self.raw)  # its check runs the model
        if target is not self.raw and not isinstance(self.raw, NativeRaw):  # a pass of it would not see the edit
            stack.callback(self.raw.register_forward_pre_hook(_refuse).remove)
        for model in {id(target): target, id(self.raw): self.raw}.values():
            vars(model)[EDITED] = vars(model).get(EDITED, 0) + 1
            stack.callback(self._leave, model)

    def _leave(self, model: Any) -> None:
        vars(model)[EDITED] -= 1
        if not vars(model)[EDITED]:
            del vars(model)[EDITED]
            if model is self.raw:
                del _EDITED[id(model)]

    def _before(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        self.check_thread()
        self.passes += 1
        given = args[0] if args else kwargs.get("input_ids")
        given = kwargs.get("inputs_embeds") if given is None else given
        n = 0 if given is None else given.shape[1]
        self.start = self._positions_before(kwargs, n)
        self._require_no_padding(kwargs.get("attention_mask"), n)
        if self.longest is not None and self.start and self.start + n > self.longest:
            raise ValueError(
                "the rotary encoding of this model depends on the length of the prompt, and cached keys are those of "
                "shorter prompts; pass use_cache=False"
            )

    def _positions_before(self, kwargs: dict, n: int) -> int:
        """Return how many positions the cache of a pass with `n` holds already."""
        state = next((kwargs[name] for name in STATES if kwargs.get(name) is not None), None)
        if state is None:
            return 0
        if hasattr(state, "get_seq_length"):
            with suppress(ValueError):  # of a cache without keys
                return int(state.get_seq_length())
        if self.chosen.given is None:
            return 0
        seen = 0
        if not hasattr(state, "has_previous_state") or state.has_previous_state():
            _, seen = self.seen.get(id(state), (None, None))
        if seen is None:
            raise ValueError(
                "this model's state does not say how many positions it has seen, and the edit is of some positions; "
                "pass use_cache=False, or edit all positions"
            )
        self.seen[id(state)] = state, seen + n
        return seen

    def _require_no_padding(self, mask: Any, n: int) -> None:
        """Raise `ValueError` where padding before the prompts makes a position another token in each row."""
        if self.chosen.given is None or not isinstance(mask, Tensor) or mask.ndim != 2 or not (mask[:, 0] == 0).any():
            return
        self.width = n if not self.start and self.width is None else self.width
        if self.width is None or not self.chosen.begin_at(self.width):
            raise ValueError(
                "rows of this pass begin with padding, so that a position is another token in each; pass prompts of "
                "one length, edit all positions, or those of generated tokens: slice(n, None), with n the padded length"
            )


def _refuse(*_: Any) -> None:
    raise ValueError(
        "the TransformerBridge of this model is edited by `steered` or `patched`, which a pass of the raw model does "
        "not see; run the bridge, or leave the block"
    )


def _longest(raw: Any) -> int:
    """Return the most positions for which the rotary encoding is that of every shorter prompt; 0 where unknown."""
    anatomy = anatomy_now(raw)
    longest = anatomy.longest if isinstance(anatomy, Anatomy) else None
    return 0 if longest is None else longest
