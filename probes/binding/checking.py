"""What an arm of lists shows, and the checks on a status: both sides, other addresses, other candidates for sinks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from probes.binding.edits import BOTH, BOTH_LISTED
from probes.binding.found import Binding, Share
from probes.binding.lattice import RENAMED, added_by, beyond
from probes.binding.trials import ALL_BEFORE, ALL_MOVED, BEFORE_LISTED, LABEL_MOVED, ORDER_MOVED
from probes.evidence import Interval
from probes.statuses import Status

# Within this share of the full effect, an address counts as absent.
MARGIN = 0.10
LISTED = "order at list"
# The arms that are evidence of each address. The others are checks: "label at both" must be 0, "joint" about 1.
ADDRESSES = {
    "own label": ("label at list", "label at query"),
    "order": ("order", "order, value", "order, label", ALL_BEFORE, LISTED, BEFORE_LISTED),
    "position": (ALL_MOVED, "position"),
}
# Addresses of which two are needed: both, and the arms that must lead to the other item where none of one alone does.
NEEDED = (
    (("own label", "order"), (BOTH, BOTH_LISTED)),
    (("own label", "position"), (LABEL_MOVED,)),
    (("order", "position"), (ORDER_MOVED,)),
)


def checked_label(measured: Binding, status: Status, reason: str) -> tuple[Status, str]:
    """Return status and reason of the own label: PRESENT needs the list and the query, and more than a renaming moves.

    The query's label alone may be a learned index, and the list's may be found by something else that is written.
    """
    if status != Status.PRESENT:
        return status, reason
    sides = {arm: measured.shares.get(arm) for arm in ADDRESSES["own label"]}
    if sides["label at list"] is None:
        return Status.INDETERMINATE, f"{reason}; labels of the list were not traded, and the query's may be an index"
    for arm, share in sides.items():
        if share is not None and not is_found(share):
            may = "the query's label may be a learned index" if arm == "label at list" else "it may not be read there"
            return Status.INDETERMINATE, f"{reason}; but {arm}: {share.value}, control {share.control}: {may}"
    more = measured.added.get(beyond(*RENAMED))
    if more is not None and more.low <= MARGIN:
        says = f"a renaming in list and query, which leads nowhere else, moves {measured.shares[RENAMED[1]].value}"
        return Status.INDETERMINATE, f"{reason}; but {says}; the trade in the list moves {more} more"
    queried = sides["label at query"]
    if queried is None:
        return status, reason
    return status, f"{reason}; label at query: {queried.value}, control {queried.control}"


def checked_order(shares: Mapping[str, Share], status: Status, reason: str) -> tuple[Status, str]:
    """Return status and reason of the order: PRESENT needs what the query shows and what the list has before the item.

    What the query shows can lead to an item by its index or its label, and what the list has before an item can be
    found by the query's own label; either alone leaves the order INDETERMINATE.
    """
    if status != Status.PRESENT or LISTED not in shares:  # labels of other lengths cannot be traded
        return status, reason
    shown = ("order", "order, value", "order, label")
    for arms, listed in ((shown, LISTED), ((ALL_BEFORE,), BEFORE_LISTED)):
        found = [arm for arm in arms if arm in shares and is_found(shares[arm])]
        if found and listed in shares and is_found(shares[listed]):
            share, also = shares[found[0]], f"{listed}: {shares[listed].value}, control {shares[listed].control}"
            return Status.PRESENT, f"{found[0]}: {share.value}, control {share.control}; {also}"
    others = [f"{name}: {shares[name].value}" for name in (LISTED, BEFORE_LISTED) if name in shares]
    says = "not both what the query shows and what the list has before the item lead there"
    return Status.INDETERMINATE, f"{reason}; but {says} ({', '.join(others)})"


def checked_position(shares: Mapping[str, Share], status: Status, reason: str) -> tuple[Status, str]:
    """Return status and reason of the position: PRESENT needs every trade that was measured.

    A trade of two items each also moves an order that reads more than the item before; one of all items before makes
    the target the neighbour of the first item.
    """
    if status != Status.PRESENT:
        return status, reason
    for arm in ADDRESSES["position"]:
        if arm in shares and not is_found(shares[arm]):
            return Status.INDETERMINATE, f"{reason}; but {said_of(arm, shares[arm])}"
    return status, reason


def checked_absent(measured: Binding, name: str, status: Status, reason: str) -> tuple[Status, str]:
    """Return status and reason of an address or a sink: ABSENT needs that it adds nothing to any set of the others.

    For an address it also needs that its arms overtake the answer in few prompts: a share is a ratio of means, which a
    few prompts with large margins decide.
    """
    if status != Status.ABSENT:
        return status, reason
    for arm in ADDRESSES.get(name, ()):
        if arm in measured.shares and (overtaken := measured.shares[arm].follows or 0) > MARGIN:
            return Status.INDETERMINATE, f"{reason}; but {arm} overtakes the answer in {overtaken:.2f} of the prompts"
    added = {key: measured.added[key] for key in added_by(name, measured.sinks) if key in measured.added}
    if all(map(is_near_zero, added.values())):
        return status, reason
    key, interval = max(added.items(), key=lambda pair: abs(pair[1].value))
    return Status.INDETERMINATE, f"{reason}; but {key}: {interval}"


def needed_together(shares: Mapping[str, Share]) -> dict[str, tuple[Status, str]]:
    """Return as PRESENT two addresses of which edits of both lead to the other item, and none of one does."""
    decided = {}
    for names, arms in NEEDED:
        both = {arm: shares[arm] for arm in arms if arm in shares}
        if len(both) == len(arms) and all(map(is_found, both.values())) and none_leads_alone(shares, names):
            reason = "; ".join(f"{arm}: {share.value}, control {share.control}" for arm, share in both.items())
            decided |= dict.fromkeys(names, (Status.PRESENT, f"{reason}; neither alone leads to another item"))
    return decided


def shares_of(shares: Mapping[str, Share], address: str) -> list[Share]:
    """Return the shares of the arms of an address that were measured."""
    return [shares[arm] for arm in ADDRESSES[address] if arm in shares]


def none_leads_alone(shares: Mapping[str, Share], names: Collection[str]) -> bool:
    """Return whether no edit of one of two addresses leads to the other item.

    With the position, edits of one must do nothing at all: both are measured on other prompts than the label alone.
    """
    alone = [share for name in names for share in shares_of(shares, name)]
    return all(map(is_small, alone)) if "position" in names else not any(map(is_found, alone))


def _is_above(share: Share) -> bool:
    return share.value.low > MARGIN and share.excess.low > MARGIN


def is_found(share: Share) -> bool:
    return _is_above(share) and leads_there(share)


def leads_there(share: Share) -> bool:
    """Return whether the target's value gains: an edit can also break what finds the answer, and lead nowhere."""
    return share.gained is None or share.gained.low > MARGIN


def said_of(arm: str, share: Share) -> str:
    """Return share and control of an arm as text, and what the other item's value gains where that is too little."""
    gained = "" if leads_there(share) else f"; the other item's value gains {share.gained}"
    return f"{arm}: {share.value}, control {share.control}{gained}"


def is_small(share: Share) -> bool:
    return is_near_zero(share.value) and is_near_zero(share.control)


def straddles(share: Share) -> bool:
    """Return whether one of the intervals that decide contains a bound of the margin."""
    intervals = (share.value, share.control, share.excess, *([share.gained] if share.gained else []))
    return any(i.low < bound < i.high for i in intervals for bound in (-MARGIN, MARGIN))


def is_near_zero(interval: Interval) -> bool:
    return interval.low > -MARGIN and interval.high < MARGIN
