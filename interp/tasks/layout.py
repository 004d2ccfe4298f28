"""Put the columns of prompts in order, and draw random labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from interp.tasks.batch import Batch, Role
from interp.tasks.formats import Format
from interp.tasks.limits import is_whole, shown
from interp.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class Column:
    """One position: its token in every prompt, its role and its step."""

    tokens: Int[Tensor, " batch"]
    role: Role
    step: int = -1


def constant(token: int, batch_size: int, role: Role, step: int = -1) -> Column:
    """Return a column with the same token in every prompt."""
    return Column(torch.full((batch_size,), token, dtype=torch.long), role, step)


def assemble(columns: list[Column], fmt: Format, length: int | tuple[int, int], vocabulary: Vocabulary) -> Batch:
    """Return a batch from its columns, left to right, after the vocabulary's start token if it has one."""
    if vocabulary.bos is not None:
        columns = [constant(vocabulary.bos, len(columns[0].tokens), Role.BOS), *columns]
    return Batch(
        tokens=torch.stack([c.tokens for c in columns], dim=1),
        role=torch.tensor([c.role for c in columns]),
        step=torch.tensor([c.step for c in columns]),
        format=fmt,
        length=length,
        vocabulary=vocabulary,
        bos=vocabulary.bos is not None,
    )


def generator(seed: int) -> torch.Generator:
    """Return a CPU generator for a public integer seed.

    Torch's CPU generator ignores all but the low 32 bits of a seed, so larger ones would repeat smaller ones.
    """
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1; got {shown(seed)}")
    return torch.Generator().manual_seed(int(seed))


def draw_without_repeats(
    pool: Int[Tensor, " label"], batch_size: int, count: int, gen: torch.Generator
) -> Int[Tensor, "batch count"]:
    """Return `count` different entries of the pool for each prompt, drawn uniformly, in random order."""
    if count > len(pool):
        raise ValueError(f"a prompt needs {count} different labels; the vocabulary has {len(pool)}")
    if 4 * count < len(pool):  # repeats are rare: draw, and shuffle only for the prompts that have any
        drawn = torch.randint(len(pool), (batch_size, count), generator=gen)
        ordered = drawn.sort(dim=1).values
        repeats = (ordered[:, 1:] == ordered[:, :-1]).any(dim=1).nonzero().flatten()
        drawn[repeats] = shuffled(len(pool), len(repeats), gen)[:, :count]
        return pool[drawn]
    return pool[shuffled(len(pool), batch_size, gen)[:, :count]]


def draw_labels(
    fmt: Format, pool: Int[Tensor, " label"], batch_size: int, count: int, gen: torch.Generator
) -> Int[Tensor, "batch count"]:
    """Return `count` different labels of the pool for each prompt, in random order or as they follow each other."""
    drawn = draw_consecutive if fmt.row.consecutive else draw_without_repeats
    return drawn(pool, batch_size, count, gen)


def draw_consecutive(
    pool: Int[Tensor, " label"], batch_size: int, count: int, gen: torch.Generator
) -> Int[Tensor, "batch count"]:
    """Return `count` entries of the pool that follow each other, from a random start for each prompt."""
    if count > len(pool):
        raise ValueError(f"a prompt needs {count} different labels; the vocabulary has {len(pool)}")
    return pool[torch.randint(len(pool) - count + 1, (batch_size, 1), generator=gen) + torch.arange(count)]


def shuffled(n: int, batch_size: int, gen: torch.Generator) -> Int[Tensor, "batch n"]:
    """Return a random order of 0 to n-1 for each prompt."""
    return torch.rand(batch_size, n, generator=gen).argsort(dim=1)


def fixed(tokens: Int[Tensor, " n"], batch_size: int) -> Int[Tensor, "batch n"]:
    """Return the same row for every prompt."""
    return repeat(tokens, "n -> batch n", batch=batch_size)
