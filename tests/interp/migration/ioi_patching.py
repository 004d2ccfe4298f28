"""Which residuals and which heads carry the name that is the answer?"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interp import logit_diff, patch, prompts
from interp.models import Run
from interp.patching import Joint

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"


def here(run: Run) -> dict[str, Tensor]:
    pair = prompts(run, clean=[CLEAN], corrupted=[CORRUPTED])
    metric = logit_diff(answer=" Mary", other=" John")
    residual = patch(run, pair.clean, pair.corrupted, "resid_pre", metric)
    everywhere = Joint(*range(pair.clean.n_pos))
    heads = patch(run, pair.clean, pair.corrupted, "z", metric, positions=everywhere)
    return {"resid_pre": residual.values[..., 0], "heads": heads.values[:, :, 0, 0]}


def there(run: Run) -> dict[str, Tensor]:
    from transformer_lens import patching

    model: Any = run.model
    clean, corrupted = model.to_tokens(CLEAN), model.to_tokens(CORRUPTED)
    mary, john = (model.to_single_token(name) for name in (" Mary", " John"))

    def metric(logits: Tensor) -> Tensor:
        return logits[0, -1, mary] - logits[0, -1, john]

    _, cache = model.run_with_cache(clean)
    residual: Any = patching.get_act_patch_resid_pre(model, corrupted, cache, metric)
    heads: Any = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, metric)
    return {"resid_pre": residual, "heads": heads}
