"""The table of arms: code, short name, meaning, measuring function, keys of its evidence and where it applies.

Adding an arm is one file with a measuring function and one row here (probes/README.md, How to extend).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from interp.erasure import residuals
from interp.tasks import Format, Role
from probes import keys
from probes.arms.addresses import measure_addresses
from probes.arms.inputs import ENOUGH, FEW, PRESENCE, ArmInputs
from probes.arms.largest_content import measure_content
from probes.arms.largest_identity import is_unexplained, measure_identity
from probes.arms.m01_identity import measure_swaps
from probes.arms.m04_routes import measure_routes
from probes.arms.m05_history import measure_history
from probes.arms.m06_removal import measure_removal
from probes.arms.m07_attention import measure_attention
from probes.arms.m08_decoding import measure_decoding
from probes.arms.m08_erasing import measure_erasure
from probes.arms.m09_subspaces import measure_subspaces
from probes.arms.m10_mistakes import measure_mistakes
from probes.arms.m11_offsets import measure_offsets
from probes.arms.m12_backups import measure_backups
from probes.arms.presence import measure_presence
from probes.arms.presence_answers import measure_by_answer
from probes.arms.presence_search import find_cells
from probes.arms.shares import measure_shares
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


def _swaps(inputs: ArmInputs) -> list[Evidence]:
    return measure_swaps(inputs.model, inputs.trials, inputs.seed, inputs.full)


def _shares(inputs: ArmInputs) -> list[Evidence]:
    return measure_shares(inputs.model, inputs.swap_trials, inputs.heads.idle, address=inputs.no_address is None)


def _largest_identity(inputs: ArmInputs) -> list[Evidence]:
    measured = measure_identity(inputs.model, inputs.readings, inputs.seed)
    # M1 tests the step's own label. Trials of addition give the labels next to it no counterfactual answer.
    fmt = inputs.run.format
    if fmt.task == "parity" and (is_unexplained(measured) or fmt.address not in (0, None)):
        measured += measure_addresses(inputs.model, inputs.many_trials, inputs.prompts, inputs.seed)
    return measured


def _largest_content(inputs: ArmInputs) -> list[Evidence]:
    return measure_content(inputs.model, inputs.readings, inputs.seed)


def _presence(inputs: ArmInputs) -> list[Evidence]:
    inputs.report("which heads carry nothing from labels, by kind of query")
    cells = find_cells(inputs.model, inputs.draw(FEW, PRESENCE), inputs.seed)
    by_cell = measure_presence(inputs.model, inputs.plain, cells, inputs.seed)
    inputs.report("which answers labels do not inform")
    some = inputs.plain.rows(slice(max(ENOUGH, len(inputs.plain) // 2)))
    return by_cell + measure_by_answer(inputs.model, some, cells, inputs.seed)


def _probes(inputs: ArmInputs) -> list[Evidence]:
    model, prompts = inputs.model, inputs.probe_prompts
    intact = residuals(model, prompts, Role.INPUT_LABEL)  # both halves of M8 read it
    decoding = measure_decoding(model, prompts, inputs.seed, intact)
    return [*decoding, *measure_erasure(model, prompts, inputs.few, inputs.seed, intact)]


def _subspaces(inputs: ArmInputs) -> list[Evidence]:
    pointer = inputs.no_address is None
    return measure_subspaces(inputs.model, *inputs.das_prompts, inputs.seed, pointer, inputs.searches)


ROWS = (
    Arm(
        code="M1",
        short="input swap",
        meaning="Swaps the labels of two input bits: an address follows the label.",
        measure=_swaps,
        keys=(keys.SWAP_INPUTS, keys.EITHER_SIDE, keys.SAME_UNDER_BOTH),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M2",
        short="output swap",
        meaning="Swaps the labels of two output steps: an address follows the label.",
        measure=_swaps,
        keys=(keys.SWAP_OUTPUTS,),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M3",
        short="renaming",
        meaning="Renames all labels consistently: no role depends on which names they are.",
        measure=_swaps,
        keys=(keys.RENAME, keys.RENAME_HELD_OUT),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="M4",
        short="routes",
        meaning="Patches attention, K, V or Q from a run with swapped labels: shows how identity reaches the answer.",
        measure=lambda inputs: measure_routes(inputs.model, inputs.trials, inputs.full),
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
        measure=lambda inputs: measure_history(inputs.model, inputs.trials, inputs.full),
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
        measure=_largest_identity,
        keys=(
            keys.LARGEST_IDENTITY,
            keys.IDENTITY_STEP,
            keys.IDENTITY_NEIGHBOURS,
            *(key for address in keys.ADDRESSES.values() for key in address.all),
        ),
        decides=True,
        on_trials=True,
        needs_address=True,
    ),
    Arm(
        code="content",
        short="largest content effect",
        meaning="Patches K and V of all labels from a run with other bits: zero unless their content matters.",
        measure=_largest_content,
        keys=(keys.LARGEST_CONTENT, keys.CONTENT_REST),
        decides=True,
        on_trials=True,
    ),
    Arm(
        code="M6",
        short="removal",
        meaning="Removes labels from attention in three ways: a sink loses answers where labels carry nothing.",
        measure=lambda inputs: measure_removal(inputs.model, inputs.plain, inputs.heads),
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
        measure=_presence,
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
        measure=_shares,
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
        measure=lambda inputs: measure_attention(inputs.model, inputs.few),
        keys=(keys.ATTENTION_MASS, keys.VALUE_SHARE),
    ),
    Arm(
        code="M8",
        short="decoding",
        meaning="Describes what linear probes read at labels, and what is lost when it is erased there.",
        measure=_probes,
        keys=(keys.DECODE_STATE, keys.ERASE_STATE),
        not_for={"addition": "its controls are prefix parities and bits, which addition does not have"},
    ),
    Arm(
        code="M9",
        short="subspaces",
        meaning="Describes which few directions carry the pointer or the state (DAS), and whether they are read.",
        measure=_subspaces,
        keys=(keys.POINTER_SUBSPACE, keys.STATE_SUBSPACE),
        not_for={"addition": "its pointer and state are two-valued and combine by exclusive or, as in parity"},
    ),
    Arm(
        code="M10",
        short="mistakes",
        meaning="Describes which bit the model uses after it wrote a wrong label by itself.",
        measure=lambda inputs: measure_mistakes(inputs.model, inputs.plain),
        keys=(keys.OWN_MISTAKES,),
        not_for={"addition": "the answer that a wrong label leads to is defined as an exclusive or of bits"},
    ),
    Arm(
        code="M11",
        short="offsets",
        meaning="Describes which input bit decides each step: an index reader errs by a constant offset.",
        measure=lambda inputs: measure_offsets(inputs.model, inputs.few),
        keys=(keys.OWN_BIT,),
        not_for={"addition": "a digit's edit changes the answers of higher places too, so no one input decides a step"},
    ),
    Arm(
        code="M12",
        short="backups",
        meaning="Describes what is lost when heads lose the input, with later attention frozen and with it free.",
        measure=lambda inputs: measure_backups(inputs.model, inputs.few),
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
