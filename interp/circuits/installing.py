"""How does a circuit take the place of its model, for everything that runs the model?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from interp.circuits.ablation import Ablation, Instead
from interp.circuits.edge_forward import Passing
from interp.circuits.graph import Places, Prompts, graph_of, tokens_of
from interp.models.anatomy import anatomy_of

if TYPE_CHECKING:
    from interp.circuits.circuit import Circuit


@contextmanager
def install(
    circuit: Circuit, raw: PreTrainedModel, prompts: Prompts, ablation: Ablation, where: Places
) -> Iterator[PreTrainedModel]:
    """What `Circuit.installed` says, for a raw model and places that are settled."""
    if "forward" in raw.__dict__:
        raise ValueError("a circuit is already installed in this model; leave its `with` block first")
    anatomy = anatomy_of(raw)
    tokens = tokens_of(prompts)
    graph = graph_of(anatomy, where, torch.arange(tokens.shape[1]))
    circuit.require_of(graph)
    passing, kept = Passing(anatomy, graph, where), circuit.on(where)
    instead = ablation.prepared(passing, tokens)
    number = _numbers(tokens, instead)

    @torch.no_grad()
    def forward(
        input_ids: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutput:
        given = [name for name, value in others.items() if value is not None and name != "return_dict"]
        if input_ids is None or use_cache or given:
            what = "use_cache" if use_cache else ", ".join(given) or "no input_ids"
            raise ValueError(f"a circuit takes input_ids and logits_to_keep, whole prompts at once; got {what}")
        rows = [number.get(tuple(row), -1) for row in input_ids.tolist()]
        if -1 in rows and instead.mean is None:
            raise ValueError(f"prompt {rows.index(-1)} of this call is none of those the circuit was set up for")
        if input_ids.shape[1] != where.n_pos:
            raise ValueError(f"the circuit was set up for {where.n_pos} positions; got {input_ids.shape[1]}")
        final, _ = passing.run(input_ids, instead[torch.tensor(rows)], kept)
        if isinstance(logits_to_keep, int):
            final = final[:, -logits_to_keep:] if logits_to_keep else final
        else:
            final = final[:, logits_to_keep]
        return CausalLMOutput(logits=anatomy.unembed(final))  # pyright: ignore[reportArgumentType]

    raw.__dict__["forward"] = forward
    try:
        yield raw
    finally:
        del raw.__dict__["forward"]


def _numbers(tokens: Int[Tensor, "batch pos"], instead: Instead) -> dict[tuple[int, ...], int]:
    """The number of each prompt. Raises `ValueError` for equal prompts whose twins differ."""
    number: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(tokens.tolist()):
        first = number.setdefault(tuple(row), i)
        if instead.mean is None and not torch.equal(instead.tokens[first], instead.tokens[i]):
            raise ValueError(
                f"prompts {first} and {i} are the same, and their twins are not: the circuit could not tell "
                "which of them it is run on; give each prompt once"
            )
    return number
