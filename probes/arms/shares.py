"""Divide the margin between address, content and normalisation by Shapley shares.

Three binary factors, in all eight combinations per prompt: attention scores from the run with swapped labels
(address), values at labels from the run with another history (content), and labels removed from the softmax of heads
in which they carry nothing (normalisation). All attention scores are set, so that each factor acts by itself
(probes/README.md, Decision).
"""

from __future__ import annotations

from itertools import combinations

import torch
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange
from interp.patching.interchange_parts import whole_run
from probes import keys
from probes.arms.idle_heads import HARMLESS, IdleHeads
from probes.arms.m01_identity import answer_margin
from probes.evidence import Evidence, Interval
from probes.intervals import ratio
from probes.statistics import shapley
from probes.trials.parity import Trials

FACTORS = ("address", "content", "normalisation")
# The entry of prompts with the step's own input edited, whose effect is the full one.
EDITED = "edited"
# Bounds on the effect in one prompt: what follows when a sink is removed has no size of its own. It moves margins both
# ways, so a sink's share of the margin is about half its share of the accuracy.
BOUNDS = (-0.5, 1.5)
QUESTIONS = {
    keys.SHARE_ADDRESS: "how much of the margin is address?",
    keys.SHARE_CONTENT: "how much of the margin is content?",
    keys.SHARE_NORMALISATION: "how much of the margin is normalisation?",
    keys.SHARE_INTERACTION: "how much do factors do together beyond the sum of their effects alone?",
    keys.SHARE_REMAINDER: "how much of the margin does no factor explain?",
}


def measure_shares(model: PreTrainedModel, trials: Trials, idle: IdleHeads, address: bool = True) -> list[Evidence]:
    """Measure Shapley shares of the margin: address, content, normalisation, interaction and remainder.

    Only trials in which every answer map says that a swap changes the answer count (`Trials.all_differ`), so that an
    address has its full effect whatever it leads to. The three shares and the remainder sum to 1; the interaction is
    already divided among the shares. A share depends on the readout, here the margin. `address=False` where labels
    cannot be swapped. Normalisation is a factor only where the model needs labels in idle heads
    (`IdleHeads.renormalise_loss`); otherwise its share is 0.
    """
    both = trials.rows(trials.all_differ)
    x, swapped, flipped = both.batch, both.swapped_inputs if address else both.batch, both.other_history
    knockouts = idle.knockouts(x, "renormalise") if idle.renormalise_loss > HARMLESS else ()
    factors = [f for f, possible in zip(FACTORS, (address, True, bool(knockouts)), strict=True) if possible]
    subsets = [frozenset(c) for size in range(1, len(factors) + 1) for c in combinations(factors, size)]
    entries = {}
    for on in subsets:
        parts = [Interchange("attn_scores", swapped if "address" in on else x)]
        parts += [Interchange("v", flipped, both.labels)] if "content" in on else []
        entries[" + ".join(sorted(on))] = [*parts, *(knockouts if "normalisation" in on else ())]
    entries[EDITED] = [whole_run(both.edited)]
    *changes, full = -interchange(model, x, entries, answer_margin(both)).change.double()
    # In units of the mean full effect, so that the mean of the prompts' shares is the share.
    scale = float(full.mean())
    values = {frozenset(): torch.zeros_like(changes[0]).numpy()}
    values |= {on: (change / scale).clamp(*BOUNDS).numpy() for on, change in zip(subsets, changes, strict=True)}
    shares = shapley(values)
    zero = values[frozenset()]
    amounts = {
        keys.SHARE_ADDRESS: shares.share.get("address", zero),
        keys.SHARE_CONTENT: shares.share.get("content", zero),
        keys.SHARE_NORMALISATION: shares.share.get("normalisation", zero),
        keys.SHARE_INTERACTION: shares.interaction,
        keys.SHARE_REMAINDER: 1 - sum(shares.share.values()),
    }
    return [
        Evidence(
            key=key,
            question=QUESTIONS[key],
            length=trials.length,
            quantity="share of the margin",
            value=_ratio(torch.as_tensor(amount), full, scale, is_remainder=key == keys.SHARE_REMAINDER),
            control=None,
            n=len(both),
        )
        for key, amount in amounts.items()
    ]


def _ratio(amount: torch.Tensor, full: torch.Tensor, scale: float, is_remainder: bool) -> Interval:
    """Return a ratio of means with its interval. The remainder is one minus a ratio and has that ratio's error."""
    if is_remainder:
        e = ratio((1 - amount) * scale, full)
        return Interval(1 - e.value, 1 - e.high, 1 - e.low, e.error, e.df)
    return ratio(amount * scale, full)
