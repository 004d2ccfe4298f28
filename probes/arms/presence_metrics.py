"""What presence reads: the accuracy among the answers, and how far margins move at all steps."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from interp.forward import readout
from interp.patching import Metric
from interp.patching.metrics import accuracy
from interp.tasks import Batch, Role


def leads(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "prompt step"]:
    """Return the margin at each step: logit(written answer) minus the largest of the other output symbols."""
    at = batch.at(Role.OUTPUT)
    return _leads(readout(model, batch, at).logits, _answers(batch, slice(None)))


def leads_of(
    batch: Batch, logits: Float[Tensor, "*stack row step symbol"], rows: Int[Tensor, " row"]
) -> Float[Tensor, "*stack row step"]:
    """Return the margins of some prompts from the logits of the output symbols at all steps."""
    return _leads(logits, _answers(batch, rows).to(logits.device).expand(logits.shape[:-1]))


def answer_accuracy(batch: Batch) -> Metric:
    """Return the accuracy among the answers, as M6 measures it."""
    return accuracy(batch, among_answers=True)


def _answers(batch: Batch, rows: Int[Tensor, " row"] | slice) -> Int[Tensor, "*row step"]:
    """Return the number of the written answer at each step of some prompts among the output symbols."""
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    return (batch.tokens[rows][..., batch.at(Role.OUTPUT)].unsqueeze(-1) == symbols).long().argmax(dim=-1)


def _leads(logits: Tensor, answers: Tensor) -> Tensor:
    own = answers.unsqueeze(-1)
    others = logits.scatter(-1, own, -torch.inf).amax(dim=-1)
    return logits.gather(-1, own).squeeze(-1) - others
