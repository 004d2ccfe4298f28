"""M12: describe whether a second route takes over when the first is cut.

Heads at the output labels lose their attention to the input: one at a time, in pairs, and all together. This is done
twice: with every later head's attention frozen, and with later heads free to change it. What is lost when they are
frozen and not when they are free is what a backup restores (probes/README.md, Battery).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from interp.patching import Knockout, groups, knock_out, pairwise, probability, single
from interp.patching.knockouts import Entry
from interp.tasks import Batch, Role
from probes import keys
from probes.arms.idle_heads import all_heads, sides_of
from probes.evidence import Evidence, EvidenceKey
from probes.intervals import mean

# Heads whose pairs are tried: those that lose most alone, frozen.
PAIRED = 4


def measure_backups(model: PreTrainedModel, batch: Batch) -> list[Evidence]:
    """Measure M12 at one length: probability of the answer (among the answers) lost, frozen; control: free.

    "single" is the head that loses most, "pair" the pair among the four worst, "all" every head at once; `details`
    of the first list each head. Removal is by null sink, so that nothing else is read instead.
    """
    metric = probability(batch, among_answers=True)
    input_positions = sides_of(batch)[0][1:]
    cut = Knockout(input_positions, Role.OUTPUT_LABEL, mode="null")

    def losses(entries: dict[str, Entry]) -> tuple[Float[Tensor, "entry batch"], Float[Tensor, "entry batch"]]:
        frozen, free = (-knock_out(model, batch, entries, metric, freeze_later=f).change for f in (True, False))
        return frozen, free

    def evidence(key: EvidenceKey, frozen: Tensor, free: Tensor, details: dict | None = None) -> Evidence:
        return Evidence(
            key=key,
            question="heads lose the input: what is lost with later attention frozen, and what with it free?",
            length=int(batch.at(Role.OUTPUT).numel()),
            quantity="probability lost",
            value=mean(frozen),
            control=mean(free),
            n=len(batch),
            details=details or {},
        )

    alone = single(model, cut)
    names = list(alone)
    frozen, free = losses(alone)
    order = frozen.mean(dim=-1).argsort(descending=True).tolist()
    by_head = {
        name: {"frozen": round(float(a.mean()), 4), "free": round(float(b.mean()), 4)}
        for name, a, b in zip(names, frozen, free, strict=True)
    }
    worst = order[0]
    results = [evidence(keys.KNOCKOUT_SINGLE.at(names[worst]), frozen[worst], free[worst], {"heads": by_head})]
    heads = all_heads(model)
    paired = [heads[k] for k in order[:PAIRED]]
    together: dict[str, Entry] = {}
    if len(paired) > 1:
        together |= pairwise(model, Knockout(input_positions, Role.OUTPUT_LABEL, heads=paired, mode="null"))
    together |= groups(model, cut, {"all": heads})
    frozen, free = losses(together)
    if len(together) > 1:
        k = int(frozen[:-1].mean(dim=-1).argmax())
        results.append(evidence(keys.KNOCKOUT_PAIR.at(list(together)[k]), frozen[k], free[k]))
    results.append(evidence(keys.KNOCKOUT_ALL, frozen[-1], free[-1]))
    return results
