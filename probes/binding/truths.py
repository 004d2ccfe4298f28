"""Which statuses of a verdict on a list are wrong, where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping

from probes.binding.checking import ADDRESSES
from probes.binding.sinks import SINKS
from probes.statuses import Status


def wrong_statuses(case: Mapping) -> list[str]:
    """Return the addresses and sinks that are PRESENT or ABSENT against the truth, each with its status.

    `case` has the statuses, "addresses" and "sinks", and "truth": the names of those that are there, and "unjudged".
    Only addresses and candidates for sinks are judged; older results have a status for all candidates together.
    """
    truth, wrong = case["truth"], []
    for kind, names in (("addresses", ADDRESSES), ("sinks", SINKS)):
        for name in names:
            status, is_there = case[kind].get(name), name in truth[kind]
            if name not in truth["unjudged"] and status == (Status.ABSENT if is_there else Status.PRESENT):
                wrong.append(f"{name} {status}")
    return wrong
