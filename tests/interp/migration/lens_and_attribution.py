"""The logit lens before each layer, and what each head and MLP adds directly to the answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp import direct_logit_attribution, logit_lens, prompts
from interp.models import Run
from tests.interp.migration.ioi_patching import CLEAN


def here(run: Run) -> dict[str, Tensor]:
    text = prompts(run, CLEAN)
    lens = logit_lens(run, text, answer=" Mary", other=" John")
    added = direct_logit_attribution(run, text, answer=" Mary", other=" John")
    parts = dict(zip(added.components, added.parts[:, 0, 0], strict=True))
    n_layers, n_heads = run.raw.config.n_layer, run.raw.config.n_head
    heads = torch.stack([parts[f"L{x}H{h}"] for x in range(n_layers) for h in range(n_heads)])
    mlps = torch.stack([parts[f"L{x} MLP"] for x in range(n_layers)])
    return {"lens": lens.margin[:, 0, 0], "heads": heads, "MLPs": mlps}


@torch.no_grad()
def there(run: Run) -> dict[str, Tensor]:
    model: Any = run.model
    _, cache = model.run_with_cache(CLEAN)
    mary, john = (model.to_single_token(name) for name in (" Mary", " John"))
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    resid = [cache["resid_pre", layer][0, -1] for layer in range(n_layers)] + [cache["resid_post", n_layers - 1][0, -1]]
    lens = []
    for x in resid:
        logits = model.unembed(model.ln_final(x.view(1, 1, -1)))[0, 0]
        lens.append(logits[mary] - logits[john])
    direction = (run.raw.lm_head.weight[mary] - run.raw.lm_head.weight[john]) * run.raw.transformer.ln_f.weight  # type: ignore[union-attr,index]
    direction = direction - direction.mean()  # the norm subtracts the mean
    scale = cache["ln_final.hook_scale"][0, -1]
    heads = [
        cache["z", layer][0, -1, head] @ model.blocks[layer].attn.W_O[head]
        for layer in range(n_layers)
        for head in range(n_heads)
    ]
    mlps = [cache["mlp_out", layer][0, -1] for layer in range(n_layers)]
    found = {"heads": torch.stack(heads) @ direction / scale, "MLPs": torch.stack(mlps) @ direction / scale}
    return {"lens": torch.stack(lens), **found}
