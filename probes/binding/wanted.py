"""What is measured after the first arms: only what can still change a status.

Two addresses at once matter where one of them is not shown to be used alone, and removing several candidates for sinks
where one of them does nothing alone.
"""

from __future__ import annotations

from probes.binding.checking import ADDRESSES, NEEDED, is_small, none_leads_alone
from probes.binding.edits import LABEL_POSITION, NEXT, ORDER_POSITION
from probes.binding.found import Binding, Share
from probes.binding.sinks import SINKS, sets_of
from probes.binding.trials import DEEP_CHECKS, LABEL_MOVED, ORDER_MOVED

# Arms that are measured where they are wanted.
LATER = (LABEL_POSITION, ORDER_POSITION, LABEL_MOVED, ORDER_MOVED)
_OF_TWO = {LABEL_POSITION: ("own label", "position"), ORDER_POSITION: ("order", "position")}


def wanted_arms(found: Binding) -> tuple[str, ...]:
    """Return the arms that can still change a status: whether an address is ABSENT, or two are needed together."""
    absent = {name for name in ADDRESSES if (shares := _of(found, name)) and all(map(is_small, shares))}
    arms = [arm for arm, names in _OF_TWO.items() if absent & set(names)]
    arms += [LABEL_MOVED, ORDER_MOVED, *DEEP_CHECKS] if absent else []
    for names, needed in NEEDED:
        if none_leads_alone(found.shares, names):
            arms += [arm for arm in needed if arm in LATER]
    return tuple(dict.fromkeys(arms))


def wanted_next(found: Binding) -> tuple[str, ...]:
    """Return the addresses whose edit that leads to the next item can still change a status."""
    return tuple(name for name in NEXT if (shares := _of(found, name)) and all(map(is_small, shares)))


def wanted_removals(found: Binding) -> tuple[tuple[str, ...], ...]:
    """Return the sets of two or more candidates to remove, where one of them does nothing alone."""
    if not any(map(is_small, found.sinks.values())):
        return ()
    return tuple(some for some in sets_of([sink for sink in SINKS if sink in found.sinks]) if len(some) > 1)


def _of(found: Binding, address: str) -> list[Share]:
    return [found.shares[arm] for arm in ADDRESSES[address] if arm in found.shares]
