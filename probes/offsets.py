"""Which bit does each step really read? (M11 of science 2.1)

An index solution reads a constant offset that must be extrapolated past the trained length; an address
follows the match. Causal: every input bit is edited in turn, with the written scratchpad kept, and the bit
whose edit moves a step's margin most is the one that the step reads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import readout
from interp.tasks import Batch, Role, counterfactual


@dataclass(frozen=True)
class Offsets:
    """What each output step reads.

    Shapes:
        influence: `[step slot]`, mean over prompts of |change in margin| in logits when a slot's bit is edited.
        offset:    `[batch step]`, slot read minus step: 0 is right, +3 reads three bits too late.
    """

    influence: Float[Tensor, "step slot"]
    offset: Int[Tensor, "batch step"]

    @property
    def histogram(self) -> dict[int, float]:
        """Share of steps by offset, the most frequent first."""
        counts = Counter(self.offset.flatten().tolist())
        return {offset: count / self.offset.numel() for offset, count in counts.most_common()}


def offsets_read(model: PreTrainedModel, batch: Batch) -> Offsets:
    """Edits each input bit in turn and sees which step's margin moves: one forward pass for each bit.

    Raises `ValueError` for formats without a step for each bit (direct) and for addition.
    """
    if batch.format.task != "parity" or batch.format.name == "direct":
        raise ValueError(f"{batch.format} has no output step for each bit, so no offset to read")
    at = batch.at(Role.OUTPUT)

    def margin(prompts: Batch) -> Float[Tensor, "batch step"]:
        logits = readout(model, prompts, at).logits
        return logits[..., 1] - logits[..., 0]

    base = margin(batch)
    steps = len(at)
    moved = torch.stack(
        [(margin(counterfactual.flip_input(batch, slot + 1)) - base).abs() for slot in range(steps)], dim=-1
    )  # [batch step slot]
    if batch.format.name == "interleaved":  # a later bit cannot have been read
        moved = moved.tril()
    return Offsets(moved.mean(dim=0), moved.argmax(dim=-1) - torch.arange(steps))
