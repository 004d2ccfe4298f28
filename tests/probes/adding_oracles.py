"""An oracle of addition: its answers are defined by address, by index, or by a mixture of both."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from interp.tasks import Batch, Role
from tests.probes.oracle_models import Oracle


class AddingOracle(Oracle):
    """Adds the digits under the labels that a place of the sum cites, or the digits at the place itself.

    `share` is the address route's share of the margin, the rest the index route's. The carry comes from the place
    below: its digits, by index, and the digit of the sum that is written there. `margin=0` ignores everything.
    """

    def __init__(self, layout: Batch, share: float, margin: float = 3.0):
        self.vocab = max(layout.vocabulary.ids.values()) + 1
        super().__init__(self.vocab)
        self.layout, self.share, self.margin = layout, share, margin

    def __call__(self, tokens: Tensor, use_cache: bool, logits_to_keep: Tensor) -> SimpleNamespace:
        x = self.layout
        symbols = x.vocabulary.tokens(x.format.outputs)
        logits = torch.full((*tokens.shape, self.vocab), -20.0)
        logits[:, :-1].scatter_(2, tokens[:, 1:].unsqueeze(2), 20.0)  # copies every other token
        places = int(x.step.max()) - 1
        carry = torch.zeros(len(tokens), dtype=torch.long)
        for place in range(1, places + 2):
            at = int(x.at(Role.OUTPUT, place)[0])
            own = sum(self.digit(tokens, o, place, None) for o in (0, 1))
            cited = sum(self.digit(tokens, o, place, self.cited(tokens, o, place)) for o in (0, 1))
            logits[:, at - 1] = -20.0
            votes = torch.zeros(len(tokens), 10)
            for share, found in ((self.share, cited), (1 - self.share, own)):
                votes.scatter_add_(1, ((found + carry) % 10).unsqueeze(1), torch.full((len(tokens), 1), share))
            logits[:, at - 1, symbols] = votes * self.margin
            written = (tokens[:, at, None] == symbols).long().argmax(dim=1)
            carry = ((own >= 10) | ((own == 9) & (written == 0))).long()
        return SimpleNamespace(logits=logits[:, logits_to_keep])

    def inputs(self, role: Role, operand: int) -> list[int]:
        x = self.layout
        plus = int(x.at(Role.SEPARATOR)[0])
        return [p for p in x.at(role).tolist() if (p > plus) == bool(operand)]

    def cited(self, tokens: Tensor, operand: int, place: int) -> Tensor | None:
        """The label of an operand that the sum's place cites; None where it cites none."""
        x = self.layout
        found = ((x.role == Role.OUTPUT_LABEL) & (x.step == place)).nonzero().flatten().tolist()
        if not found:
            return None
        return tokens[:, found[1 - operand if x.format.name == "nonaligned" else 0]]

    def digit(self, tokens: Tensor, operand: int, place: int, label: Tensor | None) -> Tensor:
        """The digit right after a label within an operand (after none: 0), or at a place where there is no label."""
        x = self.layout
        symbols = x.vocabulary.tokens(x.format.inputs)
        at = torch.tensor(self.inputs(Role.INPUT_LABEL if label is not None else Role.INPUT, operand))
        found = tokens[:, at if label is None else at + 1].unsqueeze(2) == symbols
        wanted = (x.step[at] == place).expand(len(tokens), -1) if label is None else tokens[:, at] == label.unsqueeze(1)
        hits = (wanted & found.any(dim=2)) * torch.arange(1, len(at) + 1)
        last = hits.max(dim=1).values  # counted from 1; 0: nowhere
        read = found.long().argmax(dim=2).gather(1, (last - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.where(last > 0, read, 0)
