"""M11: describe which input bit decides the answer of each step.

An index solution reads a constant offset that must be extrapolated past the trained length; an address follows the
match. Every input bit is edited in turn, with the written scratchpad kept: the step reads the bit whose edit flips
its answer. Parity only: see `probes.arms.registry` (probes/README.md, Battery).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import Readout
from interp.patching.token_edits import readouts
from interp.tasks import Batch, Role, counterfactual
from probes import keys
from probes.evidence import Evidence
from probes.intervals import clustered_proportion


@dataclass(frozen=True)
class Offsets:
    """The bits that each output step reads.

    Shapes:
        influence: `[step slot]`, mean over prompts of |change in margin| in logits when a slot's bit is edited.
        flips:     `[batch step slot]`, whether editing a slot's bit flips the step's answer.
        offset:    `[batch step]`, slot read minus step: 0 is right, +3 reads three bits too late. Where several
                   edits flip the answer, the one that moves the margin most; undefined where none does.
    """

    influence: Float[Tensor, "step slot"]
    flips: Bool[Tensor, "batch step slot"]
    offset: Int[Tensor, "batch step"]

    @property
    def histogram(self) -> dict[int | None, float]:
        """Return the share of steps by offset, most frequent first; None for steps that no single bit decides."""
        decided = self.flips.any(dim=-1).flatten().tolist()
        pairs = zip(self.offset.flatten().tolist(), decided, strict=True)
        counts = Counter(offset if read else None for offset, read in pairs)
        return {offset: count / len(decided) for offset, count in counts.most_common()}


def offsets_read(model: PreTrainedModel, batch: Batch) -> Offsets:
    """Edit each input bit in turn and return which answers flip: one forward pass per bit, from the bit on.

    Raises `ValueError` for formats without a step for each bit (direct) and for addition.
    """
    if batch.format.task != "parity" or batch.format.name == "direct":
        raise ValueError(f"{batch.format} has no output step for each bit, so no offset to read")
    at = batch.at(Role.OUTPUT)

    def margin(found: Readout) -> Float[Tensor, "batch step"]:
        return found.logits[..., 1] - found.logits[..., 0]

    steps = len(at)
    edits = {str(slot): counterfactual.flip_input(batch, slot + 1) for slot in range(steps)}
    unedited, outputs = readouts(model, batch, edits, at)
    base = margin(unedited).unsqueeze(-1)
    edited = torch.stack([margin(found) for found in outputs.values()], dim=-1)
    # In interleaved prompts later bits follow the step: causality leaves those margins unchanged.
    flips = (base > 0) != (edited > 0)
    moved = (edited - base).abs()  # [batch step slot]
    slot = torch.where(flips, moved, -1.0).argmax(dim=-1)
    return Offsets(moved.mean(dim=0), flips, slot - torch.arange(steps))


def measure_offsets(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """Measure M11 at one length: the share of steps that their own bit decides; control: that any other bit decides.

    `details["histogram"]` has the share of steps by the offset read, "None" where no single bit decides.
    """
    offsets = offsets_read(model, batch)
    own = offsets.flips.diagonal(dim1=1, dim2=2)  # [batch step]
    others = offsets.flips.clone()
    others.diagonal(dim1=1, dim2=2).fill_(False)
    n, steps = own.shape
    return [
        Evidence(
            key=keys.OWN_BIT,
            question="which bit's edit flips the answer of a step?",
            length=steps,
            quantity="share of steps",
            value=clustered_proportion(own),
            control=clustered_proportion(others.any(dim=2)),
            n=n,
            details={"histogram": {str(k): v for k, v in offsets.histogram.items()}},
        )
    ]
