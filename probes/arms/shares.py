"""How is the margin divided between address, content and normalisation? (science 3, mixtures)

Three binary factors, in all eight combinations in one prompt: attention scores from the run on traded labels
(address), values at labels from the run with another history (content), and labels taken out of the softmax of
heads in which they carry nothing (normalisation). All scores are given, so that each factor acts by itself.
"""

from __future__ import annotations

from itertools import combinations

import torch
from transformers import PreTrainedModel

from interp.patching import Interchange, interchange
from probes.arms.m01_identity import full_effect
from probes.arms.m04_routes import answer_margin
from probes.arms.m06_removal import HARMLESS, Idle
from probes.evidence import Evidence, Interval
from probes.intervals import ratio
from probes.statistics import shapley
from probes.trials.parity import Trials

FACTORS = ("address", "content", "normalisation")
# Effects of one prompt are kept within these: a flood that a removed sink lets in has no size of its own. It pushes
# the margin both ways, so a sink's share of the margin is about half its share of the accuracy.
BOUNDS = (-0.5, 1.5)


def divide_margin(model: PreTrainedModel, trials: Trials, idle: Idle, address: bool = True) -> list[Evidence]:
    """Shapley shares of the margin with what they leave: address, content, normalisation, interaction, remainder.

    Trials are those where every answer map of a trade says that the answer changes (`Trials.all_differ`), so that an
    address counts whatever it leads to; others are left out.
    The three shares and the remainder sum to 1; the interaction is already in the shares. A share is one of this
    margin; another readout would divide otherwise. `address=False` where labels cannot be traded. Normalisation is a
    factor where discovery found that the model rests on it (`Idle.rests`); else its share is 0.
    """
    both = trials.rows(trials.all_differ)
    x, swapped, flipped = both.batch, both.swapped_inputs if address else both.batch, both.other_history
    knockouts = idle.knockouts(x, "renormalise") if idle.rests > HARMLESS else ()
    factors = [f for f, possible in zip(FACTORS, (address, True, bool(knockouts)), strict=True) if possible]
    subsets = [frozenset(c) for size in range(1, len(factors) + 1) for c in combinations(factors, size)]
    entries = {}
    for on in subsets:
        parts = [Interchange("scores", swapped if "address" in on else x)]
        parts += [Interchange("v", flipped, both.labels)] if "content" in on else []
        entries[" + ".join(sorted(on))] = [*parts, *(knockouts if "normalisation" in on else ())]
    full = full_effect(model, both)
    moved = -interchange(model, x, entries, answer_margin(both)).change.double()
    # In units of the mean full effect, so that the mean of the prompts' shares is the share.
    scale = float(full.mean())
    values = {frozenset(): torch.zeros_like(moved[0]).numpy()}
    values |= {on: (m / scale).clamp(*BOUNDS).numpy() for on, m in zip(subsets, moved, strict=True)}
    found = shapley(values)
    amounts = {name: found.share.get(name, values[frozenset()]) for name in FACTORS}
    amounts |= {"interaction": found.interaction, "remainder": 1 - sum(found.share.values())}
    questions = {
        "interaction": "what do factors do together beyond what each does alone?",
        "remainder": "what is left that no factor explains?",
    }
    return [
        Evidence(
            "shares",
            name,
            questions.get(name, f"how much of the margin is {name}?"),
            trials.length,
            "share of the margin",
            _ratio(torch.as_tensor(amount), full, scale, name),
            None,
            len(both),
        )
        for name, amount in amounts.items()
    ]


def _ratio(amount: torch.Tensor, full: torch.Tensor, scale: float, name: str) -> Interval:
    """The ratio of means with its interval; the remainder is one minus a ratio, and is as uncertain."""
    if name == "remainder":
        e = ratio((1 - amount) * scale, full)
        return Interval(1 - e.value, 1 - e.high, 1 - e.low, e.error, e.df)
    return ratio(amount * scale, full)
