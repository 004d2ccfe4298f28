"""How often the verdict was wrong on models that others built, as a sentence of the report."""

from __future__ import annotations

from experiments.tables.list_calibration import blind_lists, blind_statuses
from experiments.tables.outsiders import blind_rounds
from probes.statuses import Status


def others_built(by_round: bool = False) -> str:
    """Return the counts of `results/outsiders.json`, summed over blind rounds; `by_round` adds those of each round."""
    rounds = blind_rounds()
    judged, wrong, none = map(sum, zip(*rounds, strict=True))
    each = ", ".join(f"{k} of {n}" for n, k, _ in rounds)
    return (
        f"On {judged} models that others built by hand and that were judged blind, it gave a wrong label to {wrong} "
        f"({wrong / judged:.0%}) and no label to {none}. These were {len(rounds)} rounds, each judged by the version "
        "of its time and followed by changes, so the rate of the present version is not known"
        + (f" (wrong labels by round: {each})." if by_round else ".")
    )


def lists_others_built() -> str:
    """Return the counts of `results/outsiders-lists.json`: verdicts on lists, blind."""
    rounds = blind_lists()
    judged, wrong = map(sum, zip(*rounds, strict=True))
    each, statuses = ", ".join(f"{k} of {n}" for n, k in rounds), blind_statuses()
    return (
        f"On {judged} models of lists that outsiders built to fool it and that were judged blind, a status was wrong "
        f"on {wrong} ({wrong / judged:.0%}; by round {each}); {statuses[Status.ABSENT]} of the "
        f"{statuses.total()} wrong statuses were ABSENT. Arms were added after each round, so the rate of the present "
        "arms is not known."
    )
