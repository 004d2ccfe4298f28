"""Decide what finds the item: PRESENT, ABSENT or INDETERMINATE per address and per sink, and a label over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from probes.binding.edits import ARMS, BOTH, BOTH_LISTED
from probes.binding.found import COMPETENCE, Binding, Share
from probes.binding.sinks import SINKS, TOGETHER
from probes.binding.text import summary
from probes.binding.trials import ALL_BEFORE, ALL_MOVED, BEFORE_LISTED
from probes.evidence import Interval
from probes.statuses import Status

# Within this share of the full effect, an address counts as absent.
MARGIN = 0.10
LISTED = "order at list"
# The address that each arm is evidence of. The others are checks: "label at both" must be 0, "joint" about 1. The own
# label is PRESENT by the list alone: where the query's label is a learned index, it moves the answer too.
ADDRESSES = {
    "own label": ("label at list", "label at query"),
    "order": ("order", "order, value", "order, label", ALL_BEFORE, LISTED, BEFORE_LISTED),
    "position": ("position", ALL_MOVED),
}


@dataclass(frozen=True)
class BindingVerdict:
    """The addresses by which a model finds an item, and the candidates for sinks, with status and reason."""

    name: str
    measured: Binding
    label: str
    addresses: dict[str, tuple[Status, str]]
    sinks: dict[str, tuple[Status, str]]

    def __str__(self) -> str:
        """Return the answer in lines, as the command line prints it."""
        return "\n".join(summary(self))

    @property
    def is_open_by_width(self) -> bool:
        """Whether the verdict is undecided because an interval of each INDETERMINATE address contains the margin."""
        open_ = [
            _deciding(name, self.measured.shares)
            for name, (status, _) in self.addresses.items()
            if status == Status.INDETERMINATE
        ]
        shares = self.measured.shares
        return self.label == "undecided" and all(
            any(_straddles(shares[arm]) for arm in arms if arm in shares) for arms in open_
        )

    def to_json(self) -> dict:
        """Return a nested plain dictionary: everything measured, and what was decided from it."""
        found = self.measured
        return {
            "verdict": self.label,
            "task": found.task,
            "items": found.items,
            "prompts": found.prompts,
            **({"deep_prompts": found.deep_prompts} if found.deep_prompts else {}),
            "posed": found.posed,
            "accuracy": found.accuracy.to_json(),
            "gate": COMPETENCE,
            "margin": MARGIN,
            "level": found.level,
            **({"queries": list(found.queries)} if found.queries else {}),
            **({"rules": found.rules} if found.rules else {}),
            "addresses": _listed(self.addresses),
            "shares": {name: {"question": ARMS[name], **share.to_json()} for name, share in found.shares.items()},
            "sinks": {
                name: {
                    **decided,
                    **(found.sinks[name].to_json() if name in found.sinks else {}),
                    **({"carried": found.carried[name].to_json()} if name in found.carried else {}),
                }
                for name, decided in _listed(self.sinks).items()
            },
            "remainder": None if found.remainder is None else found.remainder.to_json(),
            "left_out": found.left_out,
            "refusal": found.refusal,
        }


def binding_verdict(name: str, measured: Binding) -> BindingVerdict:
    """Decide from what was measured on the model `name`.

    PRESENT: an arm, its excess over the matched control and what the target's value gains are above the margin. For the
    own label this must be the trade in the list, and a renaming in list and query must not be; for the order it must be
    an arm in the query and one in the list; for the position it is the trade of all items before, where measured. Own
    label and order are both PRESENT also where only edits of both lead to the other item, in the query and in the list.
    ABSENT: all arms of the address, and their controls, are within the margin. NOT APPLICABLE: the model cannot do the
    task, or the template has no such address. The label names every address that is PRESENT.

    Sinks have the same rule without a gain, and are PRESENT only if their mean value loses nothing: their effect is
    what the answer's lead over the best other value of the list loses without attention to them, beyond that. Where
    all together lose something and none alone is PRESENT, none is ABSENT. They are not part of the label.
    """
    if measured.refusal is not None:
        refused = (Status.NOT_APPLICABLE, measured.refusal)
        return BindingVerdict(
            name, measured, "not applicable", dict.fromkeys(ADDRESSES, refused), dict.fromkeys(SINKS, refused)
        )
    addresses = {
        address: _decided(measured.shares, _deciding(address, measured.shares), measured.left_out)
        for address in ADDRESSES
    }
    addresses["own label"] = _checked(measured.shares, *addresses["own label"])
    addresses["order"] = _checked_order(measured.shares, *addresses["order"])
    addresses |= _needed_together(measured.shares)
    candidates = (*SINKS, *({TOGETHER} & set(measured.sinks)))
    sinks = _checked_sinks(measured, {sink: _decided_sink(measured, sink) for sink in candidates})
    present = [address for address, (status, _) in addresses.items() if status == Status.PRESENT]
    label = " + ".join(present) or "undecided"
    if not present and all(status in (Status.ABSENT, Status.NOT_APPLICABLE) for status, _ in addresses.values()):
        none = all(status is Status.NOT_APPLICABLE for status, _ in addresses.values())
        label = "not applicable" if none else "unresolved"  # the model does the task, by none of these
    return BindingVerdict(name, measured, label, addresses, sinks)


def _deciding(address: str, shares: Mapping[str, Share]) -> tuple[str, ...]:
    """Return the arms that decide on an address; one arm alone decides on the position."""
    return (ALL_MOVED,) if address == "position" and ALL_MOVED in shares else ADDRESSES[address]


def _listed(decided: Mapping[str, tuple[Status, str]]) -> dict[str, dict[str, str]]:
    return {name: {"status": status.value, "reason": reason} for name, (status, reason) in decided.items()}


def _decided(measured: Mapping[str, Share], arms: tuple[str, ...], left_out: Mapping[str, str]) -> tuple[Status, str]:
    shares = {arm: measured[arm] for arm in arms if arm in measured}
    if not shares:
        reasons = [left_out[arm] for arm in arms if arm in left_out]
        return Status.NOT_APPLICABLE, reasons[0] if reasons else "not measured"
    for arm, share in shares.items():
        if _is_found(share):
            return Status.PRESENT, f"{arm}: {share.value}, control {share.control}"
    if all(_is_small(share) for share in shares.values()):
        return Status.ABSENT, "; ".join(f"{arm}: {share.value}" for arm, share in shares.items())
    arm, share = max(shares.items(), key=lambda pair: pair[1].value.value)
    gained = "" if _leads_there(share) else f"; the other item's value gains {share.gained}"
    return Status.INDETERMINATE, f"{arm}: {share.value}, control {share.control}{gained}"


def _checked(shares: Mapping[str, Share], status: Status, reason: str) -> tuple[Status, str]:
    """Return status and reason of the own label: INDETERMINATE where the list or the renaming contradicts PRESENT."""
    if status != Status.PRESENT:
        return status, reason
    listed, renamed = (shares.get(arm) for arm in ("label at list", "label at both"))
    if listed is None:
        return Status.INDETERMINATE, f"{reason}; labels of the list were not traded, and the query's may be an index"
    if not _is_found(listed):
        says = f"trading labels in the list moves {listed.value}, control {listed.control}"
        return Status.INDETERMINATE, f"{reason}; but {says}: the query's label may be a learned index"
    if renamed is not None and _is_above(renamed):
        says = f"a renaming in list and query, which leads nowhere else, moves {renamed.value}"
        return Status.INDETERMINATE, f"{reason}; but {says}, control {renamed.control}"
    return status, reason


def _checked_order(shares: Mapping[str, Share], status: Status, reason: str) -> tuple[Status, str]:
    """Return status and reason of the order: PRESENT needs what the query shows and what the list has before the item.

    What the query shows can lead to an item by its index or its label, and what the list has before an item can be
    found by the query's own label; either alone leaves the order INDETERMINATE.
    """
    if status != Status.PRESENT or LISTED not in shares:  # labels of other lengths cannot be traded
        return status, reason
    shown = ("order", "order, value", "order, label")
    for arms, listed in ((shown, LISTED), ((ALL_BEFORE,), BEFORE_LISTED)):
        found = [arm for arm in arms if arm in shares and _is_found(shares[arm])]
        if found and listed in shares and _is_found(shares[listed]):
            share, also = shares[found[0]], f"{listed}: {shares[listed].value}"
            return Status.PRESENT, f"{found[0]}: {share.value}, control {share.control}; {also}"
    others = [f"{name}: {shares[name].value}" for name in (LISTED, BEFORE_LISTED) if name in shares]
    says = "not both what the query shows and what the list has before the item lead there"
    return Status.INDETERMINATE, f"{reason}; but {says} ({', '.join(others)})"


def _needed_together(shares: Mapping[str, Share]) -> dict[str, tuple[Status, str]]:
    """Return own label and order as PRESENT where edits of both lead to the other item, and none of one does."""
    both = {arm: shares[arm] for arm in (BOTH, BOTH_LISTED) if arm in shares}
    names = ("own label", "order")
    alone = [shares[arm] for name in names for arm in ADDRESSES[name] if arm in shares]
    if len(both) < 2 or not all(map(_is_found, both.values())) or any(map(_is_found, alone)):
        return {}
    reason = "; ".join(f"{arm}: {share.value}, control {share.control}" for arm, share in both.items())
    return dict.fromkeys(names, (Status.PRESENT, f"{reason}; neither alone leads to another item"))


def _decided_sink(measured: Binding, sink: str) -> tuple[Status, str]:
    status, reason = _decided(measured.sinks, (sink,), measured.left_out)
    carried = measured.carried.get(sink)
    if status == Status.PRESENT and carried is not None and not _is_near_zero(carried):
        return Status.INDETERMINATE, f"{reason}; it may carry something: its mean value loses {carried}"
    return status, reason


def _checked_sinks(measured: Binding, sinks: dict[str, tuple[Status, str]]) -> dict[str, tuple[Status, str]]:
    """Return the sinks; where all together lose something and none is PRESENT alone, none of them is ABSENT."""
    together = measured.sinks.get(TOGETHER)
    alone = [status for name, (status, _) in sinks.items() if name != TOGETHER]
    if together is None or _is_near_zero(together.value) or Status.PRESENT in alone:
        return sinks
    says = f"{TOGETHER}: {together.value}, so one may replace another"
    return {
        name: (Status.INDETERMINATE, f"{why}; {says}") if status == Status.ABSENT else (status, why)
        for name, (status, why) in sinks.items()
    }


def _is_above(share: Share) -> bool:
    return share.value.low > MARGIN and share.excess.low > MARGIN


def _is_found(share: Share) -> bool:
    return _is_above(share) and _leads_there(share)


def _leads_there(share: Share) -> bool:
    """Return whether the target's value gains: an edit can also break what finds the answer, and lead nowhere."""
    return share.gained is None or share.gained.low > MARGIN


def _is_small(share: Share) -> bool:
    return _is_near_zero(share.value) and _is_near_zero(share.control)


def _straddles(share: Share) -> bool:
    """Return whether one of the intervals that decide contains a bound of the margin."""
    intervals = (share.value, share.control, share.excess, *([share.gained] if share.gained else []))
    return any(i.low < bound < i.high for i in intervals for bound in (-MARGIN, MARGIN))


def _is_near_zero(interval: Interval) -> bool:
    return interval.low > -MARGIN and interval.high < MARGIN
