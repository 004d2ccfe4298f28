"""Is there a second route that takes over when the first is cut? (M12 of science 2.1)

Heads at the output labels lose sight of the input, singly, in pairs, and all together, with every later head
looking where it looked before (frozen) and with later heads free to look elsewhere. What is lost when they are
frozen and not when they are free is what a backup restores.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from interp.patching import Knockout, groups, knock_out, pairwise, probability, single
from interp.tasks import Batch, Role
from probes.arms.m06_removal import sides_of
from probes.evidence import Evidence
from probes.intervals import mean

# Heads whose pairs are tried: those that lose most alone, frozen.
PAIRED = 4


def cut_routes(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """M12 on one length: probability of the answer (among the answers) lost, later layers frozen, control: free.

    "single" is the head that loses most, "pair" the pair among the four worst, "all" every head at once; in
    `details`, each single head. Removal is by null sink, so that nothing else is read in its place.
    """
    metric = probability(batch, among_answers=True)
    sources = sides_of(batch)[0][1:]
    cut = Knockout(sources, Role.OUTPUT_LABEL, mode="null")
    alone = single(model, cut)
    frozen, free = (-knock_out(model, batch, alone, metric, freeze_later=f).change for f in (True, False))
    names = list(alone)
    order = frozen.mean(dim=-1).argsort(descending=True).tolist()
    question = "heads lose sight of the input: what is lost with later heads frozen, and what when they may look?"

    def evidence(name: str, frozen_lost, free_lost, details: dict) -> Evidence:
        return Evidence(
            "M12",
            name,
            question,
            int(batch.at(Role.OUTPUT).numel()),
            "probability lost",
            mean(frozen_lost),
            mean(free_lost),
            len(batch),
            details=details,
        )

    listed = {
        name: {"frozen": round(float(a.mean()), 4), "free": round(float(b.mean()), 4)}
        for name, a, b in zip(names, frozen, free, strict=True)
    }
    found = [evidence(f"single, {names[order[0]]}", frozen[order[0]], free[order[0]], {"heads": listed})]
    heads = [(i, j) for i in range(model.config.num_hidden_layers) for j in range(model.config.num_attention_heads)]
    worst = [heads[k] for k in order[:PAIRED]]
    together = {}
    if len(worst) > 1:
        together |= pairwise(model, Knockout(sources, Role.OUTPUT_LABEL, heads=worst, mode="null"))
    together |= groups(model, cut, {"all": heads})
    frozen, free = (-knock_out(model, batch, together, metric, freeze_later=f).change for f in (True, False))
    if len(together) > 1:
        k = int(frozen[:-1].mean(dim=-1).argmax())
        found.append(evidence(f"pair, {list(together)[k]}", frozen[k], free[k], {}))
    found.append(evidence("all heads", frozen[-1], free[-1], {}))
    return found
