"""The table of arms: code, short name, meaning, measuring function, keys of its evidence and where it applies.

Adding an arm is one file with a measuring function and one row here (probes/README.md, How to extend).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from interp.tasks import Format
from probes import keys
from probes.arms import measuring
from probes.arms.inputs import ArmInputs
from probes.evidence import Evidence, EvidenceKey


@dataclass(frozen=True)
class Arm:
    """One arm of the battery.

    `keys` are those of the evidence that `measure` may give; neighbouring rows with the same `measure` are measured
    together. `retired`: keys of evidence that stored results have and that is not measured any more. `decides`: the
    verdict uses the evidence; otherwise the arm only describes. `on_trials`: effects are normalised by that of editing
    the bit that is read, and a length at which that is impossible is refused.
    `needs_address`: the arm swaps labels, so it is skipped where labels repeat within a prompt. `not_for` gives, by
    task, the reason why the arm does not apply to it.
    """

    code: str
    short: str
    meaning: str
    measure: Callable[[ArmInputs], Sequence[Evidence]]
    keys: tuple[EvidenceKey, ...]
    retired: tuple[EvidenceKey, ...] = ()
    decides: bool = False
    on_trials: bool = False
    needs_address: bool = False
    not_for: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Code and short name, such as "M5 history"; the short name alone where the code is a word of it."""
        return self.short if self.code in self.short else f"{self.code} {self.short}"


ROWS = (
    Arm(
        code="M1",
        short="input swap",
        meaning="Swaps the labels of two input bits: an address follows the label.",
        measure=measuring.swaps,
        keys=(keys.SWAP_INPUTS, keys.EITHER_SIDE, keys.SAME_UNDER_BOTH),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M2",
        short="output swap",
        meaning="Swaps the labels of two output steps: an address follows the label.",
        measure=measuring.swaps,
        keys=(keys.SWAP_OUTPUTS,),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M3",
        short="renaming",
        meaning="Renames all labels consistently: no role depends on which names they are.",
        measure=measuring.swaps,
        keys=(keys.RENAME, keys.RENAME_HELD_OUT),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M4",
        short="routes",
        meaning="Patches attention, K, V or Q from a run with swapped labels: shows how identity reaches the answer.",
        measure=measuring.routes,
        keys=(
            keys.ATTENTION,
            keys.V_AT_LABEL,
            keys.K_AT_LABEL,
            keys.V_AT_BIT,
            keys.K_AT_BIT,
            keys.Q_AT_OUTPUT_LABEL,
        ),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M5",
        short="history",
        meaning="Patches V or K at labels from a run with another earlier bit: a placeholder's answer follows it.",
        measure=measuring.history,
        keys=(
            keys.HISTORY_V,
            keys.HISTORY_V_INPUTS,
            keys.HISTORY_V_OUTPUTS,
            keys.HISTORY_V_LAYER,
            keys.HISTORY_K,
            keys.STEP_BIT_V,
            keys.STEP_BIT_K,
        ),
        decides=True,
        on_trials=True,
    ),
    Arm(
        code="identity",
        short="largest identity effect",
        meaning="Reassigns all labels, reads all steps: zero unless the identity of labels matters.",
        measure=measuring.largest_identity,
        keys=(
            keys.LARGEST_IDENTITY,
            keys.IDENTITY_STEP,
            keys.IDENTITY_NEIGHBOURS,
            *(key for address in keys.ADDRESSES.values() for key in address.all),
        ),
        retired=tuple(a.apart for a in keys.ADDRESSES.values() if a.apart is not None),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="content",
        short="largest content effect",
        meaning="Patches K and V of all labels from a run with other bits: zero unless their content matters.",
        measure=measuring.largest_content,
        keys=(keys.LARGEST_CONTENT, keys.CONTENT_REST),
        decides=True,
        on_trials=True,
    ),
    Arm(
        code="M6",
        short="removal",
        meaning="Removes labels from attention in three ways: a sink loses answers where labels carry nothing.",
        measure=measuring.removal,
        keys=(
            keys.RENORMALISE_ALL,
            keys.NULL_ALL,
            keys.MEAN_ALL,
            keys.REMOVAL_TERMS,
            keys.DENOMINATOR,
            keys.RENORMALISE_IDLE,
            keys.NULL_IDLE,
            keys.MEAN_IDLE,
            keys.MARGIN_HELD,
            keys.SINK,
        ),
        decides=True,
    ),
    Arm(
        code="presence",
        short="largest presence effect",
        meaning="Removes labels, by head and kind of query, where they carry nothing: zero unless presence matters.",
        measure=measuring.presence,
        keys=(
            keys.LARGEST_PRESENCE,
            keys.PRESENCE_MARGIN,
            keys.PRESENCE_MARGIN_REPAIRED,
            keys.PRESENCE_REPAIRED,
            keys.PRESENCE_NUMBER,
            keys.PRESENCE_TWICE,
            keys.UNINFORMED,
            keys.UNINFORMED_CONSTANT,
            keys.UNINFORMED_TWICE,
        ),
        retired=(keys.CARRIER_DENOMINATOR,),
        decides=True,
    ),
    Arm(
        code="shares",
        short="shares",
        meaning="Divides the margin between address, content and normalisation, with the remainder.",
        measure=measuring.shares,
        keys=(
            keys.SHARE_ADDRESS,
            keys.SHARE_CONTENT,
            keys.SHARE_NORMALISATION,
            keys.SHARE_INTERACTION,
            keys.SHARE_REMAINDER,
        ),
        decides=True,
    ),
    Arm(
        code="M7",
        short="attention",
        meaning="Describes the attention on labels, and the share of what heads write that comes from them.",
        measure=measuring.attention,
        keys=(keys.ATTENTION_MASS, keys.VALUE_SHARE),
    ),
    Arm(
        code="M8",
        short="decoding",
        meaning="Describes what linear probes read at labels, and what is lost when it is erased there.",
        measure=measuring.decoding,
        keys=(keys.DECODE_STATE, keys.ERASE_STATE),
        not_for={"addition": "its controls are prefix parities and bits, which addition does not have"},
    ),
    Arm(
        code="M9",
        short="subspaces",
        meaning="Describes which few directions carry the pointer or the state (DAS), and whether they are read.",
        measure=measuring.subspaces,
        keys=(keys.POINTER_SUBSPACE, keys.STATE_SUBSPACE),
        not_for={"addition": "its pointer and state are two-valued and combine by exclusive or, as in parity"},
    ),
    Arm(
        code="M10",
        short="mistakes",
        meaning="Describes which bit the model uses after it wrote a wrong label by itself.",
        measure=measuring.mistakes,
        keys=(keys.OWN_MISTAKES,),
        not_for={"addition": "the answer that a wrong label leads to is defined as an exclusive or of bits"},
    ),
    Arm(
        code="M11",
        short="offsets",
        meaning="Describes which input bit decides each step: an index reader errs by a constant offset.",
        measure=measuring.offsets,
        keys=(keys.OWN_BIT,),
        not_for={"addition": "a digit's edit changes the answers of higher places too, so no one input decides a step"},
    ),
    Arm(
        code="M12",
        short="backups",
        meaning="Describes what is lost when heads lose the input, with later attention frozen and with it free.",
        measure=measuring.backups,
        keys=(keys.KNOCKOUT_SINGLE, keys.KNOCKOUT_PAIR, keys.KNOCKOUT_ALL),
    ),
)

ARMS: Mapping[str, Arm] = {row.code: row for row in ROWS}
DECIDING = tuple(row.code for row in ROWS if row.decides)
DESCRIBING = tuple(row.code for row in ROWS if not row.decides)


def keys_of(arms: Mapping[str, Arm] = ARMS) -> tuple[EvidenceKey, ...]:
    """Return every key of evidence that some arms may give or once gave, in the arms' order."""
    return tuple(key for arm in arms.values() for key in (*arm.keys, *arm.retired))


def left_out_of(fmt: Format, codes: Collection[str], arms: Mapping[str, Arm] = ARMS) -> dict[str, str]:
    """Return which of the arms do not apply to a format's task, each with the reason."""
    rows = [arms[code] for code in arms if code in codes and fmt.task in arms[code].not_for]
    return {row.code: f"left out for {fmt.task}: {row.not_for[fmt.task]}" for row in rows}
