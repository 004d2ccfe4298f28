"""Planted heads of known structure, and a prompt whose tokens try to break out of a page."""

from dataclasses import fields

import torch

from interp.tasks import Batch, sample

NASTY = ["<bos>", "</script><script>bad()</script>", "a & b", '"quoted"', "<!--", "&lt;"]


class NastyBatch(Batch):
    """A batch whose first tokens are NASTY."""

    def symbols(self, row: int = 0) -> list[str]:
        return [*NASTY, *super().symbols(row)[len(NASTY) :]]


def prompts(length: int, format: str = "parity-aligned", batch_size: int = 1) -> Batch:
    """Aligned parity of length n has 4 n + 2 tokens."""
    return sample(format, batch_size=batch_size, length=length, seed=0)


def nasty(length: int = 3) -> Batch:
    batch = prompts(length)
    return NastyBatch(**{field.name: getattr(batch, field.name) for field in fields(batch)})


def planted(n_heads: int, n: int, seed: int = 0) -> torch.Tensor:
    """`[1 head dest src]`: head 0 looks at the previous token, head 1 at the first, the others at random."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tril(torch.ones(n, n)).log()
    heads = torch.softmax(mask + 1.5 * torch.randn(n_heads, n, n, generator=generator), -1)
    heads[0] = 0
    heads[0, torch.arange(1, n), torch.arange(n - 1)] = 1
    heads[0, 0, 0] = 1
    if n_heads > 1:
        heads[1] = 0
        heads[1, :, 0] = 1
    return heads[None]


def noise(n_heads: int, n: int) -> torch.Tensor:
    """Weights that deflate worst: each cell random."""
    return torch.rand(1, n_heads, n, n, generator=torch.Generator().manual_seed(0)).tril()
