"""What is measured after the first arms: only what can still change a status.

An address whose arms do nothing is ABSENT only if it adds nothing to others, and no edit of it leads to the next item.
Two addresses may be needed together where none of one leads anywhere.
"""

from __future__ import annotations

from probes.binding.checking import ADDRESSES, NEEDED, is_small, none_leads_alone, shares_of
from probes.binding.edits import LABEL_POSITION, NEXT, ORDER_POSITION
from probes.binding.found import Binding
from probes.binding.trials import DEEP_CHECKS, LABEL_MOVED, ORDER_MOVED

# Arms that are measured where they are wanted.
LATER = (LABEL_POSITION, ORDER_POSITION, LABEL_MOVED, ORDER_MOVED)
_OF_TWO = {LABEL_POSITION: ("own label", "position"), ORDER_POSITION: ("order", "position")}


def wanted_arms(found: Binding) -> tuple[str, ...]:
    """Return the arms that can still change a status: whether an address is ABSENT, or two are needed together."""
    absent = {name for name in ADDRESSES if _does_nothing(found, name)}
    arms = [arm for arm, names in _OF_TWO.items() if absent & set(names)]
    arms += [LABEL_MOVED, ORDER_MOVED, *DEEP_CHECKS] if absent else []
    for names, needed in NEEDED:
        if none_leads_alone(found.shares, names):
            arms += [arm for arm in needed if arm in LATER]
    return tuple(dict.fromkeys(arms))


def wanted_next(found: Binding) -> tuple[str, ...]:
    """Return the addresses whose edit that leads to the next item can still change a status."""
    return tuple(name for name in NEXT if _does_nothing(found, name))


def _does_nothing(found: Binding, address: str) -> bool:
    shares = shares_of(found.shares, address)
    return bool(shares) and all(map(is_small, shares))
