"""Replaces the forward pass of a raw model by a circuit's, inside a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from interp.circuits.ablation import Ablation, Replacement
from interp.circuits.edge_forward import EdgeModel
from interp.models.architectures.generic import with_forwards
from interp.models.changed import INSTALLED, is_installed
from interp.support.locks import own_thread


def require_no_circuit(raw: PreTrainedModel) -> None:
    """Raise `ValueError` where a circuit is already installed in the model."""
    if is_installed(raw):
        raise ValueError("a circuit is already installed in this model; leave its `with` block first")


@contextmanager
def installed_forward(
    edge_model: EdgeModel,
    kept: Bool[Tensor, "place reader writer"],
    tokens: Int[Tensor, "batch pos"],
    ablation: Ablation,
) -> Iterator[PreTrainedModel]:
    """Yield the raw model with a `forward` that keeps only the edges `kept`; see `Circuit.installed`.

    The block holds the model's lock; a forward pass in another thread raises `ValueError`. The model may be run on
    rows of `tokens` only, unless the ablation is the same for every prompt (mean, zero).
    """
    anatomy, n_pos = edge_model.anatomy, edge_model.places.n_pos
    raw = anatomy.raw
    require_no_circuit(raw)
    replacement = ablation.replacement(edge_model, tokens)
    row_of = _rows_by_tokens(tokens, replacement)

    @torch.no_grad()
    def forward(
        input_ids: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutput:
        check_thread()
        given = [name for name, value in others.items() if value is not None and name != "return_dict"]
        if input_ids is None or use_cache or given:
            what = "use_cache" if use_cache else ", ".join(given) or "no input_ids"
            raise ValueError(f"a circuit takes input_ids and logits_to_keep, whole prompts at once; got {what}")
        rows = [row_of.get(tuple(row), -1) for row in input_ids.tolist()]
        if -1 in rows and replacement.constant is None:
            raise ValueError(f"prompt {rows.index(-1)} of this call is none of those the circuit was set up for")
        if input_ids.shape[1] != n_pos:
            raise ValueError(f"the circuit was set up for {n_pos} positions; got {input_ids.shape[1]}")
        final, _ = edge_model.forward(input_ids, replacement[torch.tensor(rows)], kept)
        if isinstance(logits_to_keep, int):
            final = final[:, -logits_to_keep:] if logits_to_keep else final
        else:
            final = final[:, logits_to_keep]
        return CausalLMOutput(logits=anatomy.unembed(final))  # pyright: ignore[reportArgumentType]

    with own_thread(raw, "circuit.installed") as check_thread, with_forwards({raw: forward}):
        raw.__dict__[INSTALLED] = True
        try:
            yield raw
        finally:
            del raw.__dict__[INSTALLED]


def _rows_by_tokens(tokens: Int[Tensor, "batch pos"], replacement: Replacement) -> dict[tuple[int, ...], int]:
    """Return the index of each prompt. Raises `ValueError` for equal prompts with different replacements."""
    row_of: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(tokens.tolist()):
        first = row_of.setdefault(tuple(row), i)
        if replacement.constant is None and not torch.equal(replacement.tokens[first], replacement.tokens[i]):
            raise ValueError(
                f"prompts {first} and {i} are the same, but their corrupted prompts differ: the circuit could not "
                "tell which pair it runs on; give each prompt once"
            )
    return row_of
