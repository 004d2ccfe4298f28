"""Counted operations of the fused attention kernel are those of the same attention in steps."""

import torch
from torch.nn import functional

from interp.support.flops import flop_counter


def counted(work, gradients: bool) -> int:
    q, k, v = (torch.randn(2, 3, 5, 4, requires_grad=gradients) for _ in range(3))
    with flop_counter() as counter:
        out = work(q, k, v)
        if gradients:
            out.sum().backward()
    return counter.get_total_flops()


def fused(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v)


def in_steps(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def test_the_forward_pass_is_counted():
    assert counted(fused, False) == counted(in_steps, False) == 2 * 2 * (2 * 3 * 5 * 5 * 4)


def test_the_backward_pass_is_counted_with_what_it_computes_again():
    again = 2 * (2 * 3 * 5 * 5 * 4)  # the scores
    assert counted(fused, True) == counted(in_steps, True) + again
