"""The words of what a verdict may claim, and what it may not."""

from __future__ import annotations

from collections.abc import Sequence

from probes import keys
from probes.evidence import Accuracy
from probes.statuses import Status

NO_MARGIN = "that margins need no attention to labels where these carry nothing"
# The largest interventions of each role's variable, without which ABSENT rests on the specific arms alone.
LARGEST = {
    "anchor": ("identity", keys.LARGEST_IDENTITY),
    "placeholder": ("content", keys.LARGEST_CONTENT),
    "sink": ("presence", keys.UNINFORMED),
}
SETTLED = (Status.PRESENT, Status.ABSENT)
# What the heads that read nothing from labels do without attention to them, by the status of the sink.
WITHOUT = {
    (Status.ABSENT, "answers"): "give the same answers",
    (Status.PRESENT, "answers"): "lose answers",
    (Status.PRESENT, "margins"): "but the right answer's lead in logits moves by that share",
    (Status.ABSENT, "margins"): "yet the right answer's lead in logits stays",
    (Status.INDETERMINATE, "margins"): "and whether the right answer's lead in logits moves is open",
}


def accuracies(accuracy: Sequence[Accuracy]) -> dict[str, float]:
    """Return accuracy by mode and metric, the mean over models."""
    found: dict[str, list[float]] = {}
    for a in accuracy:
        found.setdefault(f"{a.mode} {a.metric}", []).append(a.estimate.value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def listed(texts: list[str]) -> str:
    """Return texts as a list in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
