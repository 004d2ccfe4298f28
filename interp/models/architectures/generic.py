"""GenericAnatomy: any decoder whose layers each map a residual stream to a residual stream.

Nothing is taken apart. A run from a layer on is the model's own forward pass in which earlier layers are skipped and
the layer's input is replaced, so that masks, rotary encodings and other arguments are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.models.architectures.checks import tolerance_of
from interp.support.finite import difference_of_finite

Place = tuple[str, int]
Edit = Callable[[Tensor], Tensor]


class _Stop(Exception):
    """Ends a forward pass whose result is known."""


@dataclass(frozen=True, kw_only=True)
class GenericAnatomy:
    """A model as a sequence of layers.

    layers: the decoder layers, in the order in which they run.
    outputs: how many values each layer returns; 0 for a bare tensor.
    modules: the modules whose (first) output is attn_out or mlp_out, by site, where every layer has one. A norm that
        follows such a module is not part of it.
    reads_tokens: whether layers read the tokens beside the residual stream (Gemma 4's per-layer embeddings), so that
        `run` needs them.
    causal: whether a change at a position leaves earlier positions as they are.
    """

    generic: ClassVar[bool] = True

    raw: PreTrainedModel
    layers: tuple[nn.Module, ...]
    outputs: int
    modules: Mapping[str, tuple[nn.Module, ...]]
    reads_tokens: bool = False
    causal: bool = True

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that can be patched."""
        return ("resid_pre", "resid_post", *self.modules)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.raw.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.raw.dtype

    arithmetic = dtype

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.raw.config.hidden_size

    @torch.no_grad()
    def trace(self, tokens: Int[Tensor, "batch pos"]) -> dict[Place, Float[Tensor, "batch pos d_model"]]:
        """Return every site of every layer in one unedited forward pass."""
        kept: dict[Place, Tensor] = {}

        def keep(place: Place) -> Edit:
            def edit(x: Tensor) -> Tensor:
                kept[place] = x.clone()
                return x

            return edit

        with ExitStack() as stack:
            for site in self.sites:
                for layer in range(len(self.layers)):
                    stack.enter_context(self.edited((site, layer), keep((site, layer))))
            self._logits(tokens.to(self.device))
        return kept

    @torch.no_grad()
    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """Return resid_pre of layer 0."""
        kept: list[Tensor] = []

        def first(hidden: Tensor, *_: Any, **__: Any) -> Any:
            kept.append(hidden)
            raise _Stop

        with with_forwards({self.layers[0]: first}):
            self._logits(tokens.to(self.device))
        return kept[0]

    def run_block(
        self, layer: int, resid: Float[Tensor, "row pos d_model"], tokens: Int[Tensor, "row pos"] | None = None
    ) -> Float[Tensor, "row pos d_model"]:
        """Return resid_post of one layer, from its resid_pre; `tokens` as in `run`."""
        return self.run(resid, layer, layer + 1, tokens=tokens)

    @torch.no_grad()
    def run(
        self,
        resid: Float[Tensor, "row pos d_model"],
        start: int = 0,
        stop: int | None = None,
        edits: Mapping[Place, Edit] | None = None,
        tokens: Int[Tensor, "row pos"] | None = None,
    ) -> Float[Tensor, "row pos d_model"]:
        """Return the residual before layer `stop` (default: after the last), from that before layer `start`.

        `edits` map (site, layer) to a function of the site's activations `[row pos d_model]`. `tokens` are needed
        where the model `reads_tokens`, and otherwise ignored.
        Raises `ValueError` where they are missing.
        """
        if not self.reads_tokens:
            tokens = self._any_tokens(resid)
        elif tokens is None:
            raise ValueError(f"the layers of {self.raw.config.model_type} read the tokens too; pass them")
        stop = len(self.layers) if stop is None else stop
        kept: list[Tensor] = []

        def done(_: nn.Module, __: tuple, out: Any) -> None:
            kept.append(first_of(out))
            raise _Stop

        with ExitStack() as stack:
            stack.enter_context(with_forwards({layer: self._skip for layer in self.layers[:start]}))
            stack.enter_context(self.edited(("resid_pre", start), lambda _: resid))
            for place, edit in (edits or {}).items():
                if not start <= place[1] < stop:
                    raise ValueError(f"an edit of layer {place[1]} in a run of layers {start} to {stop - 1}")
                stack.enter_context(self.edited(place, edit))
            handle = self.layers[stop - 1].register_forward_hook(done)
            stack.callback(handle.remove)
            self._logits(tokens.to(self.device))
        return kept[0]

    @torch.no_grad()
    def unembed(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        """Return the logits from the last resid_post, at any positions."""
        rows = resid.reshape(-1, *resid.shape[-2:]) if resid.ndim > 1 else resid.view(1, 1, -1)
        forwards: dict[nn.Module, Callable] = {layer: self._skip for layer in self.layers}
        forwards[self.layers[-1]] = lambda *_, **__: self._wrap(rows)
        with with_forwards(forwards):
            logits = self._logits(self._any_tokens(rows))
        assert logits is not None
        return logits.reshape(*resid.shape[:-1], logits.shape[-1])

    @contextmanager
    def edited(self, place: Place, edit: Edit) -> Iterator[None]:
        """Within the block, a site of the model's own forward pass goes through `edit`, exactly once."""
        site, layer = place
        if site not in self.sites:
            raise ValueError(f"this model has a generic anatomy, with the sites {', '.join(self.sites)}; got {site!r}")

        fired = 0

        def counted(x: Tensor) -> Tensor:
            nonlocal fired
            fired += 1
            return edit(x)

        def on_output(_: nn.Module, __: tuple, out: Any) -> Any:
            edited = counted(first_of(out))
            if isinstance(out, tuple | list):
                return type(out)((edited, *out[1:]))
            return edited

        def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if args:
                return (counted(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": counted(kwargs["hidden_states"])}

        if site == "resid_pre":
            handle = self.layers[layer].register_forward_pre_hook(on_input, with_kwargs=True)
        else:
            module = self.layers[layer] if site == "resid_post" else self.modules[site][layer]
            handle = module.register_forward_hook(on_output)
        try:
            yield
            assert fired == 1, f"{site} of layer {layer} fired {fired} times"
        finally:
            handle.remove()

    @torch.no_grad()
    def check_on(self, tokens: Int[Tensor, "batch pos"]) -> float:
        """Return the largest difference of layer-by-layer runs from the raw model's logits, over their spread.

        Raises `RuntimeError` where it is more than rounding: the layers read more than the residual stream then.
        """
        tokens = tokens.to(self.device)
        resid = self.embed(tokens)
        for layer in range(len(self.layers)):
            resid = self.run_block(layer, resid, tokens)
        difference = difference_of_finite(self.unembed(resid), self.raw(tokens, use_cache=False).logits)
        if not difference <= tolerance_of(self.dtype):
            raise RuntimeError(
                f"{type(self.raw).__name__} run layer by layer differs from the raw model by {difference:.1e} of its "
                "logits' spread: its layers read more than the residual stream"
            )
        return difference

    def _any_tokens(self, resid: Tensor) -> Int[Tensor, "row pos"]:
        return torch.zeros(resid.shape[:2], dtype=torch.long, device=self.device)

    def _logits(self, tokens: Tensor) -> Tensor | None:
        try:
            return self.raw(tokens, use_cache=False).logits
        except _Stop:
            return None

    def _wrap(self, hidden: Tensor) -> Any:
        return (hidden, *[None] * (self.outputs - 1)) if self.outputs else hidden

    def _skip(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrap(args[0] if args else kwargs["hidden_states"])


@contextmanager
def with_forwards(forwards: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Within the block, some modules have another forward function; afterwards their own, also one set on the module.

    Offloading and other libraries set functions on modules, which are put back.
    """
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, own in before.items():
            if own is not None:
                module.forward = own
            else:
                vars(module).pop("forward", None)


def first_of(out: Any) -> Any:
    return out[0] if isinstance(out, tuple | list) else out
