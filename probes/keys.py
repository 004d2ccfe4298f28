"""The keys of all evidence that the battery gives. Every look-up of evidence goes through one of them.

Result files store `arm` and `name` as strings. A stored name that is not in this table is refused when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.evidence import EvidenceKey

SWAP_INPUTS = EvidenceKey("M1", "swap input labels")
SWAP_OUTPUTS = EvidenceKey("M2", "swap output labels")
EITHER_SIDE = EvidenceKey("M1", "either side")
SAME_UNDER_BOTH = EvidenceKey("M1", "whatever is found")
RENAME = EvidenceKey("M3", "rename labels")
RENAME_HELD_OUT = EvidenceKey("M3", "rename to held-out labels")

ATTENTION = EvidenceKey("M4", "attention")
V_AT_LABEL = EvidenceKey("M4", "V at label, {place}")
K_AT_LABEL = EvidenceKey("M4", "K at label, {place}")
V_AT_BIT = EvidenceKey("M4", "V at bit, {place}")
K_AT_BIT = EvidenceKey("M4", "K at bit, {place}")
Q_AT_OUTPUT_LABEL = EvidenceKey("M4", "Q at output label, {place}")

HISTORY_V = EvidenceKey("M5", "history in V at labels")
HISTORY_V_INPUTS = EvidenceKey("M5", "history in V at input labels")
HISTORY_V_OUTPUTS = EvidenceKey("M5", "history in V at output labels")
HISTORY_V_LAYER = EvidenceKey("M5", "history in V at labels, {place}")
HISTORY_K = EvidenceKey("M5", "history in K at labels")
STEP_BIT_V = EvidenceKey("M5", "the step's own bit in V at labels")
STEP_BIT_K = EvidenceKey("M5", "the step's own bit in K at labels")

RENORMALISE_ALL = EvidenceKey("M6", "remove labels, all heads: renormalise")
NULL_ALL = EvidenceKey("M6", "remove labels, all heads: null")
MEAN_ALL = EvidenceKey("M6", "remove labels, all heads: mean")
RENORMALISE_IDLE = EvidenceKey("M6", "remove labels, idle heads: renormalise")
NULL_IDLE = EvidenceKey("M6", "remove labels, idle heads: null")
MEAN_IDLE = EvidenceKey("M6", "remove labels, idle heads: mean")
REMOVAL_TERMS = EvidenceKey("M6", "denominator, bias, value")
DENOMINATOR = EvidenceKey("M6", "denominator, all heads")
MARGIN_HELD = EvidenceKey("M6", "margin held")
SINK = EvidenceKey("M6", "sink")

SHARE_ADDRESS = EvidenceKey("shares", "address")
SHARE_CONTENT = EvidenceKey("shares", "content")
SHARE_NORMALISATION = EvidenceKey("shares", "normalisation")
SHARE_INTERACTION = EvidenceKey("shares", "interaction")
SHARE_REMAINDER = EvidenceKey("shares", "remainder")

LARGEST_IDENTITY = EvidenceKey("identity", "largest effect")
IDENTITY_REST = EvidenceKey("identity", "largest effect where the label leads to the same answer")
IDENTITY_STEP = EvidenceKey("identity", "largest effect at one step")
IDENTITY_NEIGHBOURS = EvidenceKey("identity", "effect of neighbours of a label that moves")
LARGEST_CONTENT = EvidenceKey("content", "largest effect")
CONTENT_REST = EvidenceKey("content", "largest effect where the state is the same")
LARGEST_PRESENCE = EvidenceKey("presence", "largest effect")
PRESENCE_MARGIN = EvidenceKey("presence", "largest effect on margins")
PRESENCE_MARGIN_REPAIRED = EvidenceKey("presence", "margins repaired by a key of equal score")
PRESENCE_REPAIRED = EvidenceKey("presence", "repaired by a key of equal score")
PRESENCE_NUMBER = EvidenceKey("presence", "number of labels")
PRESENCE_TWICE = EvidenceKey("presence", "labels count twice")
# In stored results of margins 2026-11i.
CARRIER_DENOMINATOR = EvidenceKey("presence", "largest denominator where labels carry something")
UNINFORMED = EvidenceKey("presence", "largest denominator at answers that labels do not inform")
UNINFORMED_CONSTANT = EvidenceKey("presence", "restored at answers that labels do not inform")
UNINFORMED_TWICE = EvidenceKey("presence", "labels count twice at answers that they do not inform")

ATTENTION_MASS = EvidenceKey("M7", "attention mass on labels in {place}")
VALUE_SHARE = EvidenceKey("M7", "share of what is written from labels in {place}")
DECODE_STATE = EvidenceKey("M8", "state at input labels")
ERASE_STATE = EvidenceKey("M8", "erase state at input labels")
POINTER_SUBSPACE = EvidenceKey("M9", "pointer subspace")
STATE_SUBSPACE = EvidenceKey("M9", "state subspace")
OWN_MISTAKES = EvidenceKey("M10", "own mistakes")
OWN_BIT = EvidenceKey("M11", "own bit")
KNOCKOUT_SINGLE = EvidenceKey("M12", "single, {place}")
KNOCKOUT_PAIR = EvidenceKey("M12", "pair, {place}")
KNOCKOUT_ALL = EvidenceKey("M12", "all heads")


@dataclass(frozen=True)
class Address:
    """Labels that may address a step, and their evidence: trades on both sides, attention, and what they leave.

    `offsets`: of the labels from the step's own. `name`: in a sentence, as "the label before". `rest`: the effect where
    the labels lead to one place with the same answer. `others`, of two labels: the effect of all other labels. `apart`:
    what older results of two labels have instead of both, the effect where each leads to the same answer, also at two
    places, so that no bit has both.
    """

    offsets: tuple[int, ...]
    name: str
    inputs: EvidenceKey
    outputs: EvidenceKey
    attention: EvidenceKey
    rest: EvidenceKey
    others: EvidenceKey | None = None
    apart: EvidenceKey | None = None

    @property
    def all(self) -> tuple[EvidenceKey, ...]:
        """Every key of evidence that is measured."""
        found = (self.inputs, self.outputs, self.attention, self.rest)
        return found if self.others is None else (*found, self.others)


def _address(offsets: tuple[int, ...], name: str, which: str, rest: EvidenceKey | None = None) -> Address:
    """Return the keys of an address. `which`: its labels in the names of evidence."""
    inputs, outputs = (EvidenceKey("identity", f"swap the {side} labels {which}") for side in ("input", "output"))
    trades = (inputs, outputs, EvidenceKey("identity", f"attention of the labels {which}"))
    if len(offsets) == 1:
        left = rest or EvidenceKey("identity", f"largest effect where {name} leads to the same answer")
        return Address(offsets, name, *trades, left)
    left = EvidenceKey("identity", f"largest effect where {name} lead to one place with the same answer")
    others = EvidenceKey("identity", f"largest effect of all labels but {name}")
    apart = EvidenceKey("identity", f"largest effect where {name} lead to the same answer")
    return Address(offsets, name, *trades, left, others, apart)


# By the offsets from the step's own label, the smallest sets first.
ADDRESSES = {
    address.offsets: address
    for address in (
        _address((0,), "the step's own label", "of the step", rest=IDENTITY_REST),
        _address((-1,), "the label before", "before"),
        _address((1,), "the label after", "after"),
        _address((-1, 0), "the step's own label and the label before", "of the step and before"),
        _address((0, 1), "the step's own label and the label after", "of the step and after"),
    )
}
OWN = ADDRESSES[0,]
