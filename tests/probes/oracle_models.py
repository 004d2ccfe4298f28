"""Models of known mechanism: oracles, defined by their answers, and planted transformers.

Oracles are Hugging Face models without weights: called with tokens, they return logits.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from interp.models import ModelConfig, build_model
from interp.models.run import Run
from interp.tasks import Batch, Role, default_vocabulary, parse_format
from probes.batteries import Battery, battery
from probes.planted import Plan, Planted, plant

# Bits of a prompt, and prompts: M6 believes no error below 1/prompts, so with 59 or fewer no sink is ever ABSENT.
LENGTH, PROMPTS = 10, 75
SHARES = {"mixture": 0.5, "A1 + unused": 0.5, "placeholder + unused": 0.5}


class Oracle(PreTrainedModel):
    """A model without weights: a subclass defines `__call__`."""

    def __init__(self, vocab: int):
        sizes = {"vocab_size": vocab, "hidden_size": 1, "num_attention_heads": 1, "num_hidden_layers": 1}
        super().__init__(PreTrainedConfig.from_dict(sizes))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


class OracleModel(Oracle):
    """Answers parity by `address` (the label at the output step), by `index`, or by a mixture of both.

    `share` is the address route's share of the margin: 1 follows the label wholly, 0 not at all. What it finds
    under the label is the `stored` thing: the bit, the parity up to it, or the parity before it. `offset` is
    added to the index that the index route reads. `noise` adds a fixed random logit difference by prompt.
    `margin=0` ignores everything.
    """

    def __init__(
        self,
        layout: Batch,
        share: float,
        offset: int = 0,
        noise: float = 0.0,
        margin: float = 3.0,
        stored: Literal["bit", "state", "state before"] = "bit",
    ):
        self.vocab = max(layout.vocabulary.ids.values()) + 1
        super().__init__(self.vocab)
        self.layout, self.share, self.offset, self.noise = layout, share, offset, noise
        self.margin, self.stored = margin, stored

    def __call__(self, tokens: Tensor, use_cache: bool, logits_to_keep: Tensor) -> SimpleNamespace:
        layout = self.layout
        _, one = layout.vocabulary.tokens(layout.format.inputs).tolist()
        out_zero, out_one = layout.vocabulary.tokens(layout.format.outputs).tolist()
        bits = (tokens[:, layout.at(Role.INPUT)] == one).long()
        in_labels = tokens[:, layout.at(Role.INPUT_LABEL)]
        out_labels = tokens[:, layout.at(Role.OUTPUT_LABEL)]
        written = (tokens[:, layout.at(Role.OUTPUT)] == out_one).long()
        before = torch.cat([torch.zeros_like(written[:, :1]), written[:, :-1]], dim=1)
        n = bits.shape[1]

        match = (out_labels.unsqueeze(2) == in_labels.unsqueeze(1)).long()
        by_address = match.argmax(dim=2)
        by_index = (torch.arange(n) + self.offset).clamp(0, n - 1).expand_as(by_address)
        state = bits.cumsum(dim=1) % 2
        sign = torch.zeros(len(tokens), n)
        for share, slot in ((self.share, by_address), (1 - self.share, by_index)):
            match self.stored:
                case "bit":
                    answer = before ^ bits.gather(1, slot)
                case "state":
                    answer = state.gather(1, slot)
                case "state before":
                    answer = bits ^ (state ^ bits).gather(1, slot)
            sign += share * (2.0 * answer - 1)
        noise = torch.randn(len(tokens), n, generator=torch.Generator().manual_seed(0)) * self.noise

        logits = torch.full((*tokens.shape, self.vocab), -20.0)
        logits[:, :-1].scatter_(2, tokens[:, 1:].unsqueeze(2), 20.0)  # copies every other token
        at = layout.at(Role.OUTPUT) - 1
        margins = sign * self.margin + noise
        logits[:, at] = -20.0
        logits[:, at, out_one] = margins / 2
        logits[:, at, out_zero] = -margins / 2
        return SimpleNamespace(logits=logits[:, logits_to_keep])


class MatchingOracle(Oracle):
    """Reads the bit of which the own label and `many - 1` labels before it match; where none does, half as clearly.

    There it reads the bit whose own label matches.
    """

    def __init__(self, layout: Batch, many: int):
        self.vocab = max(layout.vocabulary.ids.values()) + 1
        super().__init__(self.vocab)
        self.layout, self.many = layout, many

    def __call__(self, tokens: Tensor, use_cache: bool, logits_to_keep: Tensor) -> SimpleNamespace:
        layout = self.layout
        _, one = layout.vocabulary.tokens(layout.format.inputs).tolist()
        out_zero, out_one = layout.vocabulary.tokens(layout.format.outputs).tolist()
        bits, written = (
            (tokens[:, layout.at(role)] == symbol).long()
            for role, symbol in ((Role.INPUT, one), (Role.OUTPUT, out_one))
        )
        before = torch.cat([torch.zeros_like(written[:, :1]), written[:, :-1]], dim=1)
        match = tokens[:, layout.at(Role.OUTPUT_LABEL)].unsqueeze(2) == tokens[
            :, layout.at(Role.INPUT_LABEL)
        ].unsqueeze(1)
        all_match = match.clone()
        for k in range(1, self.many):
            all_match[:, k:, k:] &= match[:, :-k, :-k]
        whole = all_match.any(dim=2)
        slot = torch.where(whole, all_match.long().argmax(dim=2), match.long().argmax(dim=2))
        margins = (2.0 * (before ^ bits.gather(1, slot)) - 1) * torch.where(whole, 4.0, 2.0)
        logits = torch.zeros((*tokens.shape, self.vocab))
        at = layout.at(Role.OUTPUT) - 1
        logits[:, at, out_one], logits[:, at, out_zero] = margins / 2, -margins / 2
        return SimpleNamespace(logits=logits[:, logits_to_keep])


@dataclass(frozen=True, eq=False)
class MemoryRun(Run):
    """A run whose model is in memory only."""

    made: list[PreTrainedModel] = field(default_factory=list)

    def _load(self) -> PreTrainedModel:
        return copy.deepcopy(self.made[0])  # a bridge takes its model over


@cache
def planted(mechanism: str, architecture: str = "gpt2", longest: int = LENGTH, seed: int = 0) -> Planted:
    """Return a clean planted model; two routes have half of the margin each."""
    return plant(Plan(mechanism, architecture, longest, SHARES.get(mechanism, 1.0), seed=seed))


@cache
def planted_run(mechanism: str, architecture: str = "gpt2", fmt: str = "parity-aligned") -> MemoryRun:
    """Return a run of the planted model on a format."""
    model = planted(mechanism, architecture)
    return MemoryRun(mechanism, "", parse_format(fmt), model.vocabulary, made=[model.model])


@cache
def random_run(fmt: str = "parity-aligned") -> MemoryRun:
    """Return a run of an untrained model."""
    model = build_model(ModelConfig("absolute", 2, 16, 2), len(default_vocabulary().ids), seed=0).eval()
    return MemoryRun("random", "", parse_format(fmt), default_vocabulary(), made=[model])


@cache
def measured(mechanism: str, architecture: str = "gpt2") -> Battery:
    """Return the battery of the deciding arms on a planted model."""
    return battery(planted_run(mechanism, architecture), (LENGTH,), seed=1, prompts=PROMPTS)
