"""Models whose mechanism is known because it is written down: they read token ids and compute logits.

They stand where a Hugging Face model stands for `interp.forward`: called with tokens, they return logits.
"""

from types import SimpleNamespace

import torch
from torch import Tensor

from interp.tasks import Batch, Role


class OracleModel:
    """Answers parity by `address` (the label at the output step), by `index`, or by a mixture of both.

    `share` is the address route's share of the margin: 1 follows the label wholly, 0 not at all. `offset` is
    added to the index that the index route reads. `noise` adds a fixed random logit difference by prompt.
    `margin=0` ignores everything.
    """

    def __init__(
        self, layout: Batch, share: float, offset: int = 0, noise: float = 0.0, margin: float = 3.0
    ):
        self.layout, self.share, self.offset, self.noise = layout, share, offset, noise
        self.margin = margin
        self.vocab = max(layout.vocabulary.ids.values()) + 1
        self.config = SimpleNamespace(vocab_size=self.vocab)
        self.device = torch.device("cpu")

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
        sign = torch.zeros(len(tokens), n)
        for share, slot in ((self.share, by_address), (1 - self.share, by_index)):
            answer = before ^ bits.gather(1, slot)
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
