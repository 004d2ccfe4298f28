"""The same question to first order: one backward pass for every residual, head, MLP and neuron."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp import attribution_patch, logit_diff, prompts
from interp.models import Run
from interp.sites import Site
from tests.interp.migration.ioi_patching import CLEAN, CORRUPTED

SITES: dict[Site, str] = {
    "resid_pre": "hook_resid_pre",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
    "mlp_post": "mlp.hook_post",
}


def here(run: Run) -> dict[str, Tensor]:
    pair = prompts(run, clean=[CLEAN], corrupted=[CORRUPTED])
    metric = logit_diff(answer=" Mary", other=" John")
    effects = attribution_patch(run, pair.clean, pair.corrupted, tuple(SITES), metric)
    return {site: effect.change[..., 0] for site, effect in effects.items()}


def there(run: Run) -> dict[str, Tensor]:
    model: Any = run.model
    clean, corrupted = model.to_tokens(CLEAN), model.to_tokens(CORRUPTED)
    mary, john = (model.to_single_token(name) for name in (" Mary", " John"))
    names = [f"blocks.{layer}.{hook}" for layer in range(model.cfg.n_layers) for hook in SITES.values()]
    _, cache = model.run_with_cache(clean, names_filter=names)
    own: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def keep(kept: dict[str, Tensor], name: str, value: Tensor, hook: Any) -> None:
        kept[name] = value.detach().clone()

    forward, backward = ([(n, partial(keep, kept, n)) for n in names] for kept in (own, gradients))
    with model.hooks(fwd_hooks=forward, bwd_hooks=backward):
        logits = model(corrupted)
        (logits[0, -1, mary] - logits[0, -1, john]).backward()
    model.zero_grad()
    found: dict[str, Tensor] = {}
    for site, hook in SITES.items():
        layers = []
        for layer in range(model.cfg.n_layers):
            name = f"blocks.{layer}.{hook}"
            product = ((cache[name] - own[name]) * gradients[name])[0]
            product = product if site == "mlp_post" else product.sum(dim=-1)
            layers.append(product.movedim(-1, 0))  # [neuron pos], [head pos] or [pos]
        found[site] = torch.stack(layers)
    return found
