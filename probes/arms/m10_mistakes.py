"""M10: describe which bit the model uses after it wrote a wrong label by itself.

These are natural interventions: no token is edited. If the answer is right for the label that was written, and not
for the step, the label is the address. Parity only: see `probes.arms.registry` (probes/README.md, Battery).
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from interp.forward import correct, generate
from interp.tasks import Batch, Role
from probes import keys
from probes.evidence import Evidence
from probes.intervals import wilson

FEWEST = 10


def measure_mistakes(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """Measure M10 at one length: the share of steps with a wrong label M_j whose answer is p XOR b_j.

    p is the last parity that was written. Only steps where b_j differs from the step's own bit count, so that the
    control, the share whose answer follows the step, is the rest; chance is one half. `n` is the number of these
    steps. Return an empty list for a model with fewer than 10 such mistakes, or one that cannot write labels.
    """
    if not batch.format.labels or not batch.format.model_can_write_labels:
        return []
    written = written_by(model, batch).tokens
    _, one = batch.vocabulary.tokens(batch.format.inputs).tolist()
    zero_out, one_out = batch.vocabulary.tokens(batch.format.outputs).tolist()
    bits = batch.tokens[:, batch.at(Role.INPUT)] == one
    labels = batch.tokens[:, batch.at(Role.INPUT_LABEL)]
    chosen, answers = (written[:, batch.at(role)] for role in (Role.OUTPUT_LABEL, Role.OUTPUT))
    same = chosen.unsqueeze(2) == labels.unsqueeze(1)  # [batch step slot]
    slot = same.long().argmax(dim=2)
    own_slot = torch.arange(bits.shape[1])
    previous = torch.cat([torch.zeros_like(bits[:, :1]), answers[:, :-1] == one_out], dim=1)
    valid = torch.isin(answers, torch.tensor((zero_out, one_out))).cumprod(dim=1).bool()
    bit_of_label = bits.gather(1, slot)
    informative = same.any(dim=2) & (slot != own_slot) & valid & (bit_of_label != bits)
    n = int(informative.sum())
    if n < FEWEST:
        return []
    follows = (answers == one_out) == (previous ^ bit_of_label)
    hits = int((follows & informative).sum())
    return [
        Evidence(
            key=keys.OWN_MISTAKES,
            question="the model wrote another step's label by mistake: does its answer follow that label?",
            length=bits.shape[1],
            quantity="share of mistakes",
            value=wilson(hits, n),
            control=wilson(n - hits, n),
            n=n,
            unit="mistaken steps of one model",
            details={"chance": 0.5},
        ),
    ]


def written_by(model: PreTrainedModel, batch: Batch) -> Batch:
    """Return the prompts with the labels and answers that the model writes: `generate`, where it is needed.

    A prompt at which every prediction is right, teacher-forced, is what the model writes; only others are decoded.
    """
    wrong = ~correct(model, batch, batch.predicted(forced=False)).all(dim=1)
    written = batch.tokens.clone()
    if wrong.any():
        written[wrong] = generate(model, batch.rows(wrong), forced=False).tokens
    return batch.with_tokens(written)
