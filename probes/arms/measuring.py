"""What each arm measures, as a function of the inputs of a battery. The arms' own functions say what they raise."""

from __future__ import annotations

from collections.abc import Sequence

from interp.erasure import residuals
from interp.tasks import Role
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
from probes.evidence import Evidence


def swaps(inputs: ArmInputs) -> list[Evidence]:
    """Measure M1, M2 and M3 on the trials."""
    return measure_swaps(inputs.model, inputs.trials, inputs.seed, inputs.full)


def routes(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M4 on the trials."""
    return measure_routes(inputs.model, inputs.trials, inputs.full)


def history(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M5 on the trials."""
    return measure_history(inputs.model, inputs.trials, inputs.full)


def largest_identity(inputs: ArmInputs) -> list[Evidence]:
    """Measure the largest identity effect and, where it is not explained, other addresses."""
    measured = measure_identity(inputs.model, inputs.readings, inputs.seed)
    # M1 tests the step's own label. Trials of addition give the labels next to it no counterfactual answer.
    fmt = inputs.run.format
    if fmt.task == "parity" and (is_unexplained(measured) or fmt.address not in (0, None)):
        measured += measure_addresses(inputs.model, inputs.many_trials, inputs.prompts, inputs.seed)
    return measured


def largest_content(inputs: ArmInputs) -> list[Evidence]:
    """Measure the largest content effect."""
    return measure_content(inputs.model, inputs.readings, inputs.seed)


def removal(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M6, with the heads that its search found idle."""
    return measure_removal(inputs.model, inputs.plain, inputs.heads)


def presence(inputs: ArmInputs) -> list[Evidence]:
    """Measure presence by cell and by answer."""
    inputs.report("which heads carry nothing from labels, by kind of query")
    cells = find_cells(inputs.model, inputs.draw(FEW, PRESENCE), inputs.seed)
    by_cell = measure_presence(inputs.model, inputs.plain, cells, inputs.seed)
    inputs.report("which answers labels do not inform")
    some = inputs.plain.rows(slice(max(ENOUGH, len(inputs.plain) // 2)))
    return by_cell + measure_by_answer(inputs.model, some, cells, inputs.seed)


def shares(inputs: ArmInputs) -> list[Evidence]:
    """Measure the shares, with the heads that M6 found idle."""
    return measure_shares(inputs.model, inputs.swap_trials, inputs.heads.idle, address=inputs.no_address is None)


def attention(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M7."""
    return measure_attention(inputs.model, inputs.few)


def decoding(inputs: ArmInputs) -> list[Evidence]:
    """Measure both halves of M8: decoding and erasing."""
    model, prompts = inputs.model, inputs.probe_prompts
    intact = residuals(model, prompts, Role.INPUT_LABEL)  # both halves of M8 read it
    decoding = measure_decoding(model, prompts, inputs.seed, intact)
    return [*decoding, *measure_erasure(model, prompts, inputs.few, inputs.seed, intact)]


def subspaces(inputs: ArmInputs) -> list[Evidence]:
    """Measure M9, with its searches shared by all lengths."""
    pointer = inputs.no_address is None
    return measure_subspaces(inputs.model, *inputs.das_prompts, inputs.seed, pointer, inputs.searches)


def mistakes(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M10."""
    return measure_mistakes(inputs.model, inputs.plain)


def offsets(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M11."""
    return measure_offsets(inputs.model, inputs.few)


def backups(inputs: ArmInputs) -> Sequence[Evidence]:
    """Measure M12."""
    return measure_backups(inputs.model, inputs.few)
