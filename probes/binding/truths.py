"""Which statuses of a verdict on a list are wrong, where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping

from probes.binding.sinks import TOGETHER
from probes.statuses import Status


def wrong_statuses(case: Mapping) -> list[str]:
    """Return the addresses and sinks that are PRESENT or ABSENT against the truth, each with its status.

    `case` has the statuses, "addresses" and "sinks", and "truth": the names of those that are there, and "unjudged".
    """
    truth, wrong = case["truth"], []
    for kind in ("addresses", "sinks"):
        for name, status in case[kind].items():
            is_there = name in truth[kind] or (name == TOGETHER and bool(truth["sinks"]))
            open_ = bool(truth["unjudged"]) if name == TOGETHER else name in truth["unjudged"]
            if not open_ and status == (Status.ABSENT if is_there else Status.PRESENT):
                wrong.append(f"{name} {status}")
    return wrong
