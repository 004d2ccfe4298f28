"""How many prompts and patches a sweep stacks in its memory budget."""

from __future__ import annotations

from dataclasses import dataclass

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.chunks import Chunks
from interp.patching.cost import row_bytes, trace_bytes

# Most prompts that are run together.
PROMPTS = 32
# Rows of a stack from which on both unpatched runs share a pass, as the checks of a sweep do: the raw model's own pass
# takes more memory than the engine's.
TOGETHER = 16
# Share of the memory for the traces of the prompts that are run together; rows of patches get the rest.
TRACE_SHARE = 1 / 3


@dataclass(frozen=True)
class MemoryPlan:
    """The division of a budget; all sizes in bytes, beyond the model.

    minimum: the least budget that the sweep runs in: one prompt's traces and one patch of it.
    trace, row: per prompt, of its traces; per prompt and patch, of a stacked row.
    caches: whether activations in the form that attention uses are kept for all layers.
    prompts: prompts that are run together. Their traces get a share of the budget, and each gets at least one row.
    cells: patches that can be stacked in the memory that the traces leave, on a CPU at most `Chunks.MOST`.
    """

    minimum: int
    trace: int
    row: int
    caches: bool
    prompts: int
    cells: int

    @property
    def together(self) -> bool:
        """Whether there is room to stack both unpatched runs, and the checks."""
        return self.cells >= TOGETHER

    @property
    def peak(self) -> int:
        """The memory that the sweep keeps to: the traces, and the largest chunk of rows."""
        return self.prompts * (self.trace + self.cells * self.row)


def plan_memory(
    anatomy: Anatomy | GenericAnatomy,
    site: str,
    n_prompts: int,
    n_pos: int,
    n_reads: int,
    budget: int,
    n_tokens: int | None = None,
) -> MemoryPlan:
    """Divide a budget of bytes between prompts and patches. A budget below `minimum` gets one of each."""
    row = row_bytes(anatomy, n_pos, n_pos, n_reads, n_tokens)
    least = trace_bytes(anatomy, n_pos, site, cache=False)
    most = trace_bytes(anatomy, n_pos, site, cache=True)
    caches = most + row <= budget
    trace = most if caches else least
    by_traces, by_rows = int(TRACE_SHARE * budget / trace), int(budget / (trace + row))
    prompts = max(1, min(PROMPTS, n_prompts, by_traces, by_rows))
    cells = max(1, int((budget - prompts * trace) / (prompts * row)))
    if anatomy.device.type == "cpu":
        cells = min(cells, Chunks.MOST)
    checked = row_bytes(anatomy, n_pos, n_pos, n_reads)  # the raw model's logits are compared at all tokens
    return MemoryPlan(minimum=least + checked, trace=trace, row=row, caches=caches, prompts=prompts, cells=cells)
