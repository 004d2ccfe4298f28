"""Presence, sources: the prompts whose keys and values at labels are interchanged.

Prompts with the same labels in another order show who reads which label stands where. They are as good as the prompt's
own for a head that only asks which labels there are, and unrelated prompts show that one (probes/README.md, Battery).
"""

from __future__ import annotations

from interp.tasks import Batch, counterfactual
from probes.arms.largest_identity import INPUTS, OUTPUTS, reassign

# How a source reassigns input labels and output labels. The two sides differ, because a consistent renaming in all
# cells at once changes no address; a shift keeps neighbouring labels together.
SAME_LABELS = (("permutation", "shift by 1"), ("shift by 1", "permutation"))
# Sources by answer: the last one is the control. A binary answer that labels do inform stays as it is by chance in half
# of them.
N_BY_ANSWER = 7
# Added to the seeds of the sources.
REDRAWN, UNRELATED = 400_000_000, 500_000_000


def sources_by_cell(batch: Batch, seed: int) -> list[Batch]:
    """Return one source of each of `SAME_LABELS`, then unrelated prompts."""
    same = [source_of(batch, seed + k, *names) for k, names in enumerate(SAME_LABELS)]
    return [*same, unrelated(batch, seed + len(same))]


def sources_by_answer(batch: Batch, seed: int) -> list[Batch]:
    """Return unrelated prompts, and in turn prompts with the same labels, reassigned on each side by itself."""
    return [
        source_of(batch, seed + 17 * k, *SAME_LABELS[k // 2 % 2]) if k % 2 else unrelated(batch, seed + 17 * k)
        for k in range(N_BY_ANSWER)
    ]


def source_of(batch: Batch, seed: int, inputs: str, outputs: str) -> Batch:
    """Return prompts with the same labels and other bits, in which the labels of each side are reassigned."""
    redrawn = counterfactual.redraw(batch, REDRAWN + seed, keep="labels")
    return reassign(reassign(redrawn, INPUTS, inputs, seed), OUTPUTS, outputs, seed + 1)


def unrelated(batch: Batch, seed: int) -> Batch:
    """Return prompts of the same layout with other bits and, where the format draws them, other labels."""
    return counterfactual.redraw(batch, UNRELATED + seed)
