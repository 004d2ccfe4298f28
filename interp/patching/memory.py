"""How many prompts and patches a sweep stacks in its memory budget."""

from __future__ import annotations

from dataclasses import dataclass

from interp.models.anatomy import Anatomy, GenericAnatomy
from interp.patching.chunks import Chunks
from interp.patching.cost import row_bytes, trace_bytes

# Most prompts that are run together.
PROMPTS = 32
# Share of the memory for the traces of the prompts that are run together; rows of patches get the rest.
TRACE_SHARE = 1 / 3


@dataclass(frozen=True)
class MemoryPlan:
    """The division of a budget; all sizes in bytes, beyond the model.

    minimum: the least budget that the sweep runs in: one prompt's traces and one patch of it.
    trace, row: per prompt, of its traces; per prompt and patch, of a stacked row.
    caches: whether activations in the form that attention uses are kept for all layers.
    prompts: prompts that are run together. Their traces get a share of the budget, and each gets at least one row.
    cells: patches that can be stacked in the memory that the traces leave.
    """

    minimum: int
    trace: int
    row: int
    caches: bool
    prompts: int
    cells: int

    @property
    def peak(self) -> int:
        """The memory that the sweep keeps to: the traces, and the largest chunk of rows."""
        return self.prompts * (self.trace + min(self.cells, Chunks.MOST) * self.row)


def plan_memory(
    anatomy: Anatomy | GenericAnatomy, site: str, n_prompts: int, n_pos: int, n_reads: int, budget: int
) -> MemoryPlan:
    """Divide a budget of bytes between prompts and patches. A budget below `minimum` gets one of each."""
    row = row_bytes(anatomy, n_pos, n_pos, n_reads)
    least = trace_bytes(anatomy, n_pos, site, cache=False)
    most = trace_bytes(anatomy, n_pos, site, cache=True)
    caches = most + row <= budget
    trace = most if caches else least
    by_traces, by_rows = int(TRACE_SHARE * budget / trace), int(budget / (trace + row))
    prompts = max(1, min(PROMPTS, n_prompts, by_traces, by_rows))
    cells = max(1, int((budget - prompts * trace) / (prompts * row)))
    return MemoryPlan(minimum=least + row, trace=trace, row=row, caches=caches, prompts=prompts, cells=cells)
