"""The anchor by the labels that address a step: its own, one next to it, or two jointly (`keys.ADDRESSES`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from probes import keys
from probes.evidence import Evidence
from probes.judging import LengthEvidence
from probes.statuses import RoleFinding, Status

# Which labels address a step, as offsets from its own: (-1,) for that of the step before.
Offsets = tuple[int, ...]


class Trades(NamedTuple):
    """What trades of the labels of an address move: in the input, in the output, and by the attention of the former."""

    inputs: Evidence
    outputs: Evidence
    attention: Evidence

    @property
    def moved(self) -> float:
        """The share of the margin that the trade in the input moves."""
        return self.inputs.value.value


class Addressed(NamedTuple):
    """The anchor by an address that is shown, and the evidence on what the address leaves, as far as it was measured.

    That is the effect where the labels lead to one place with the same answer, and of two labels that of all others.
    """

    finding: RoleFinding
    rests: tuple[Evidence, ...]


def judge_address(at: LengthEvidence, own: RoleFinding) -> Addressed | None:
    """Return the anchor with the labels that address a step; `own`: the finding on the step's own label.

    An address is shown where trades of its labels in the input and in the output, and the attention of the former, each
    exceed the margin and their control, and a renaming does nothing. None where no address is shown, or only what M1,
    M2 and M4 show of the step's own label, and over models, whose tests are of that label.
    """
    rename = at.find(keys.RENAME)
    if at.tests or (rename is not None and not at.is_absent(rename)):
        return None
    shown = _join_pairs(at, _shown(at))
    if not shown:
        return None
    offsets = _choose(at, shown)
    address, trades = keys.ADDRESSES[offsets], shown[offsets]
    if address is keys.OWN and (own.status is Status.PRESENT or at.checked() is not None):
        return None
    reason = f"the answer follows {address.name}: input labels {trades.inputs.value}, output labels "
    reason += f"{trades.outputs.value}, through attention ({trades.attention.value}), beyond their controls"
    by = "" if address is keys.OWN else address.name
    finding = RoleFinding(Status.PRESENT, reason, trades.inputs.value, trades.inputs.control, by=by)
    return Addressed(finding, _rests_of(at, address))


def followed_addresses(at: LengthEvidence) -> list[str]:
    """Return which labels the answer follows where they are traded in the input, in words."""
    sides = {address.name: at.find(address.inputs) for address in keys.ADDRESSES.values()}
    return [
        f"the answer follows {name}: rho {e.value}" for name, e in sides.items() if e is not None and at.is_present(e)
    ]


def _shown(at: LengthEvidence) -> dict[Offsets, Trades]:
    """Return the addresses of which each trade exceeds the margin and its control."""
    shown = {}
    for address in keys.ADDRESSES.values():
        arms = [at.find(key) for key in (address.inputs, address.outputs, address.attention)]
        found = [e for e in arms if e is not None and e.control is not None and at.is_present(e)]
        if len(found) == len(arms):
            shown[address.offsets] = Trades(*found)
    return shown


def _join_pairs(at: LengthEvidence, shown: Mapping[Offsets, Trades]) -> dict[Offsets, Trades]:
    """Return the addresses that are shown, with pairs of labels that each are one, without pairs that add nothing.

    Two labels that are each an address are one together, also where trades of both cancel. A label that does nothing
    adds nothing to another.
    """
    kept = dict(shown)
    for pair in (offsets for offsets in keys.ADDRESSES if len(offsets) > 1):
        alone = [shown[offset,] for offset in pair if (offset,) in shown]
        if len(alone) == len(pair):
            kept.setdefault(pair, max(alone, key=lambda trades: trades.moved))
        elif pair in shown and alone:
            idle = [at.find(keys.ADDRESSES[offset,].inputs) for offset in pair if (offset,) not in shown]
            adds = shown[pair].moved > alone[0].moved + at.margins.rho
            if not adds and all(e and at.is_absent(e) for e in idle):
                del kept[pair]
    return kept


def _rests_of(at: LengthEvidence, address: keys.Address) -> tuple[Evidence, ...]:
    """Return the evidence on what an address leaves; of older results, the piece that they have instead."""
    wanted = [key for key in (address.rest, address.others) if key is not None]
    if not any(at.find(key) for key in wanted) and address.apart is not None:
        wanted = [address.apart]
    return tuple(e for key in wanted if (e := at.find(key)) is not None)


def _choose(at: LengthEvidence, shown: Mapping[Offsets, Trades]) -> Offsets:
    """Return the smallest address that no larger one exceeds by more than the margin; first those that leave nothing.

    Of several of one size, the one whose trade moves most.
    """

    def is_exceeded(offsets: Offsets) -> bool:
        least = shown[offsets].moved + at.margins.rho
        return any(set(offsets) < set(other) and trades.moved > least for other, trades in shown.items())

    def leaves_something(offsets: Offsets) -> bool:
        return any(at.is_present(rest) for rest in _rests_of(at, keys.ADDRESSES[offsets]))

    return min(shown, key=lambda o: (is_exceeded(o), leaves_something(o), len(o), -shown[o].moved))
