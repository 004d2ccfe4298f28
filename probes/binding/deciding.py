"""Decide what finds the item: PRESENT, ABSENT or INDETERMINATE per address and per sink, and a label over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from probes.binding.checking import (
    ADDRESSES,
    MARGIN,
    checked_absent,
    checked_label,
    checked_order,
    checked_position,
    is_found,
    is_near_zero,
    is_small,
    needed_together,
    said_of,
    straddles,
)
from probes.binding.edits import ARMS
from probes.binding.found import COMPETENCE, Binding, Share
from probes.binding.sinks import SINKS
from probes.binding.text import summary
from probes.statuses import Status


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
        shares = self.measured.shares
        open_ = [ADDRESSES[name] for name, (status, _) in self.addresses.items() if status == Status.INDETERMINATE]
        return self.label == "undecided" and all(
            any(straddles(shares[arm]) for arm in arms if arm in shares) for arms in open_
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
            **({"targets": list(found.targets)} if found.targets else {}),
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
            **({"added": {name: x.to_json() for name, x in found.added.items()}} if found.added else {}),
            "left_out": found.left_out,
            "refusal": found.refusal,
        }


def binding_verdict(name: str, measured: Binding) -> BindingVerdict:
    """Decide from what was measured on the model `name`.

    An arm leads to the other item where its share, its excess over the matched control and what the target's value
    gains are above the margin. PRESENT: such arms on both sides. For the own label these are the trade in the list,
    also beyond what a renaming in list and query moves, and the query's label; for the order an arm in the query and
    one in the list; for the position all trades that were measured. Or two addresses at once, where none of one alone
    leads there. ABSENT: all arms of the address, and their controls, are within the margin, and it adds nothing to
    other addresses that are edited too. NOT APPLICABLE: the model cannot do the task, or the template has no such
    address. The label names every address that is PRESENT.

    Sinks have the same rule without a gain, and are PRESENT only if their mean value loses nothing: their effect is
    what the answer's lead over the best other value loses without attention to them, beyond that. They are ABSENT only
    if they also add nothing to the removal of other candidates, and the lead over all other tokens loses nothing. They
    are not part of the label.
    """
    if measured.refusal is not None:
        refused = (Status.NOT_APPLICABLE, measured.refusal)
        return BindingVerdict(
            name, measured, "not applicable", dict.fromkeys(ADDRESSES, refused), dict.fromkeys(SINKS, refused)
        )
    shares, left_out = measured.shares, measured.left_out
    addresses = {address: _decided(shares, arms, left_out) for address, arms in ADDRESSES.items()}
    addresses["own label"] = checked_label(measured, *addresses["own label"])
    addresses["order"] = checked_order(shares, *addresses["order"])
    addresses["position"] = checked_position(shares, *addresses["position"])
    addresses = {address: checked_absent(measured, address, *found) for address, found in addresses.items()}
    addresses |= needed_together(shares)
    sinks = {sink: checked_absent(measured, sink, *_decided_sink(measured, sink)) for sink in SINKS}
    present = [address for address, (status, _) in addresses.items() if status == Status.PRESENT]
    label = " + ".join(present) or "undecided"
    if not present and all(status in (Status.ABSENT, Status.NOT_APPLICABLE) for status, _ in addresses.values()):
        none = all(status is Status.NOT_APPLICABLE for status, _ in addresses.values())
        label = "not applicable" if none else "unresolved"  # the model does the task, by none of these
    return BindingVerdict(name, measured, label, addresses, sinks)


def _listed(decided: Mapping[str, tuple[Status, str]]) -> dict[str, dict[str, str]]:
    return {name: {"status": status.value, "reason": reason} for name, (status, reason) in decided.items()}


def _decided(measured: Mapping[str, Share], arms: tuple[str, ...], left_out: Mapping[str, str]) -> tuple[Status, str]:
    shares = {arm: measured[arm] for arm in arms if arm in measured}
    if not shares:
        reasons = [left_out[arm] for arm in arms if arm in left_out]
        return Status.NOT_APPLICABLE, reasons[0] if reasons else "not measured"
    for arm, share in shares.items():
        if is_found(share):
            return Status.PRESENT, f"{arm}: {share.value}, control {share.control}"
    if all(is_small(share) for share in shares.values()):
        return Status.ABSENT, "; ".join(f"{arm}: {share.value}" for arm, share in shares.items())
    if any(map(_may_be_found, shares.values())):
        shares = {arm: share for arm, share in shares.items() if _may_be_found(share)}
        return Status.INDETERMINATE, said_of(*max(shares.items(), key=lambda pair: pair[1].value.value))
    return Status.INDETERMINATE, said_of(*max(shares.items(), key=lambda pair: _largest(pair[1])))


def _may_be_found(share: Share) -> bool:
    """Return whether an arm itself moves the answer; else its control may be what leaves an address open."""
    return share.value.high > MARGIN


def _largest(share: Share) -> float:
    return max(abs(share.value.value), abs(share.control.value))


def _decided_sink(measured: Binding, sink: str) -> tuple[Status, str]:
    status, reason = _decided(measured.sinks, (sink,), measured.left_out)
    carried = measured.carried.get(sink)
    if status == Status.PRESENT and carried is not None and not is_near_zero(carried):
        return Status.INDETERMINATE, f"{reason}; it may carry something: its mean value loses {carried}"
    return status, reason
