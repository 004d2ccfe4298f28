"""Induction heads on repeated random tokens: the stripe of attention, and the loss without the strongest head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp import ablate, capture
from interp.models import Run
from interp.patching import Metric

LENGTH, BATCH = 12, 4


def tokens(run: Run) -> Tensor:
    gen = torch.Generator().manual_seed(0)
    half = torch.randint(run.raw.config.vocab_size, (BATCH, LENGTH), generator=gen)
    bos = run.tokenizer.bos_token_id
    assert isinstance(bos, int)
    return torch.cat([torch.full((BATCH, 1), bos), half, half], dim=1)


def here(run: Run) -> dict[str, Tensor]:
    repeated = tokens(run)
    patterns = capture(run, repeated, pattern=True).pattern
    stripe = torch.stack([p.diagonal(1 - LENGTH, -2, -1).mean(dim=(0, -1)) for p in patterns.values()])
    layer, head = divmod(int(stripe.argmax()), stripe.shape[1])
    at = torch.arange(LENGTH, 2 * LENGTH)

    def log_prob(logits: Tensor, rows: Tensor) -> Tensor:
        answers = repeated[rows][:, at + 1].unsqueeze(-1).to(logits.device)
        return logits.log_softmax(dim=-1).gather(-1, answers.expand(*logits.shape[:-1], 1)).mean(dim=(-2, -1))

    effect = ablate(run, repeated, f"L{layer}H{head}", Metric("log probability", at, log_prob), kind="zero")
    return {"stripe": stripe, "loss": -effect.base, "loss without": -effect.values[0]}


def there(run: Run) -> dict[str, Tensor]:
    model: Any = run.model
    repeated = tokens(run)
    with torch.no_grad():
        logits, cache = model.run_with_cache(repeated)
        stripe = torch.stack(
            [
                cache["pattern", layer].diagonal(1 - LENGTH, -2, -1).mean(dim=(0, -1))
                for layer in range(model.cfg.n_layers)
            ]
        )
        layer, head = divmod(int(stripe.argmax()), stripe.shape[1])

        def zero(z: Tensor, hook: Any) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0
            return z

        ablated = model.run_with_hooks(repeated, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])

    def loss(logits: Tensor) -> Tensor:
        own = logits.log_softmax(dim=-1)[:, :-1].gather(-1, repeated[:, 1:, None])[..., 0]
        return -own[:, LENGTH:].mean(dim=-1)

    return {"stripe": stripe, "loss": loss(logits), "loss without": loss(ablated)}
