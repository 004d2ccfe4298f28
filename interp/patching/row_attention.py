"""Attention of stacked rows, whose keys and values before a position are those of the unpatched run."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.anatomy import Anatomy, Block

# Keys of which a CPU computes a softmax at once. Fewer take up to four times as long, so that masked ones are added.
VECTOR = 16


def attend_rows(
    anatomy: Anatomy,
    block: Block,
    before: tuple[Float[Tensor, "batch head pos d_head"], Float[Tensor, "batch head pos d_head"]],
    q: Float[Tensor, "cell batch dest head d_head"],
    k: Float[Tensor, "cell batch src head d_head"],
    v: Float[Tensor, "cell batch src head d_head"],
    bias: Float[Tensor, "head dest pos"],
    sink: Float[Tensor, "cell batch head dest 1"] | None,
    start: int,
) -> Float[Tensor, "cell batch dest head d_head"]:
    """Return z of the rows, from `k` and `v` of positions from `start` on.

    `before` are the unpatched keys and values as attention uses them; only positions before `start` are read.
    """
    n_cells, n_dest = q.shape[0], q.shape[2]
    # The fused kernel needs all keys of every row. It saves more than copying them takes where there are many queries,
    # whose scores would take more memory than the copies, too.
    if start and sink is None and anatomy.d_head <= 2 * n_dest and anatomy.is_fused(block, q.flatten(0, 1)):
        copied = (x[:, :, :start].transpose(1, 2).expand(n_cells, -1, -1, -1, -1) for x in before)
        k, v = (torch.cat(both, dim=2) for both in zip(copied, (k, v), strict=True))
        start = 0
    if start == 0:  # every row has its own keys: rows are a batch of prompts
        sink = sink if sink is None else sink.flatten(0, 1)
        rows = (x.flatten(0, 1) for x in (k, v))
        return attend_own_keys(anatomy, block, q.flatten(0, 1), *rows, bias=bias, sink=sink).unflatten(0, q.shape[:2])
    sink = sink if sink is None else sink.permute(1, 2, 0, 3, 4)
    q, k, v = (x.permute(1, 3, 0, 2, 4) for x in (q * block.scale, k, v))  # [batch head cell dest d_head]
    before_k, before_v = (x[:, :, :start] for x in before)
    # The prefix is the same for every cell: cells are folded into queries, so that it is never copied.
    prefix = (q.flatten(2, 3) @ before_k.mT).unflatten(2, (n_cells, n_dest))
    scores = block.cap(torch.cat([prefix, q @ k.mT], dim=-1))
    pattern = anatomy.softmax(scores.add_(bias.unsqueeze(1)), sink)
    z = (pattern[..., :start].flatten(2, 3) @ before_v).unflatten(2, (n_cells, n_dest))
    return (z + pattern[..., start:] @ v).permute(2, 0, 3, 1, 4)


def attend_own_keys(
    anatomy: Anatomy,
    block: Block,
    q: Float[Tensor, "row dest head d_head"],
    k: Float[Tensor, "row src head d_head"],
    v: Float[Tensor, "row src head d_head"],
    bias: Float[Tensor, "head dest src"],
    sink: Float[Tensor, "row head dest 1"] | None,
) -> Float[Tensor, "row dest head d_head"]:
    """Return z of rows that have all of their keys and values to themselves."""
    if sink is None and VECTOR // 2 < k.shape[1] < VECTOR <= 2 * q.shape[1] and anatomy.is_fused(block, q):
        more = VECTOR - k.shape[1]
        k, v = (nn.functional.pad(x, (0, 0, 0, 0, 0, more)) for x in (k, v))
        bias = nn.functional.pad(bias, (0, more), value=torch.finfo(bias.dtype).min)
    return anatomy.attend(block, q, k, v, bias, sink)
