"""When the model writes a wrong label by itself, which bit does it then use? (M10 of science 2.1)

Natural interventions: nobody traded anything. If the answer is right for the label that was written rather than
for the step, the label is the address, and the model's own mistakes show it.
For parity alone: `probes.batteries` leaves it out for addition, and says why.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from interp.forward import generate
from interp.tasks import Batch, Role
from probes.evidence import Evidence
from probes.intervals import wilson

FEWEST = 10


def learn_from_mistakes(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """M10 on one length: share of steps with a wrong label M_j whose answer is p XOR b_j, p the last one written.

    Only steps where b_j differs from the step's own bit, so that the control, the share whose answer follows the
    step, is the rest; chance is one half. `n` counts those steps. Empty where the model makes fewer than 10 such
    mistakes, or where it cannot write labels.
    """
    if not batch.format.labels or not batch.format.model_can_write_labels:
        return []
    written = generate(model, batch, forced=False).tokens
    _, one = batch.vocabulary.tokens(batch.format.inputs).tolist()
    zero_out, one_out = batch.vocabulary.tokens(batch.format.outputs).tolist()
    bits = batch.tokens[:, batch.at(Role.INPUT)] == one
    labels = batch.tokens[:, batch.at(Role.INPUT_LABEL)]
    chosen, answers = (written[:, batch.at(role)] for role in (Role.OUTPUT_LABEL, Role.OUTPUT))
    same = chosen.unsqueeze(2) == labels.unsqueeze(1)  # [batch step slot]
    slot = same.long().argmax(dim=2)
    own = torch.arange(bits.shape[1])
    before = torch.cat([torch.zeros_like(bits[:, :1]), answers[:, :-1] == one_out], dim=1)
    sound = torch.isin(answers, torch.tensor((zero_out, one_out))).cumprod(dim=1).bool()
    followed = bits.gather(1, slot)
    telling = same.any(dim=2) & (slot != own) & sound & (followed != bits)
    n = int(telling.sum())
    if n < FEWEST:
        return []
    follows = (answers == one_out) == (before ^ followed)
    hits = int((follows & telling).sum())
    question = "the model wrote another step's label by mistake: does its answer follow that label?"
    return [
        Evidence(
            "M10",
            "own mistakes",
            question,
            bits.shape[1],
            "share of mistakes",
            wilson(hits, n),
            wilson(n - hits, n),
            n,
            unit="mistaken steps of one model",
            details={"chance": 0.5},
        ),
    ]
