"""Find the activations that hold the bit of step 25, by patching. An example to copy and change."""

from experiments import load
from interp.patching import logit_diff, patch
from interp.tasks import Role, counterfactual

run = load("parity-aligned-alibi")
clean = run.sample(batch_size=16, length=30, seed=0)
corrupted = counterfactual.swap_labels(clean, 25, 24, role=Role.OUTPUT_LABEL)
metric = logit_diff(clean, step=25)
for site in ("resid_pre", "attn_out", "mlp_out"):
    effect = patch(run, clean, corrupted, site=site, metric=metric)
    for cell, change in effect.top(5):
        print(site, *cell, f"{change:+.2f}")
