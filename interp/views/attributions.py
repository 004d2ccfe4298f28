"""Heat maps of attributions: which context tokens each output token depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from interp.tasks import Role
from interp.views.axes import positions
from interp.views.grid import draw_grid
from interp.views.panel import Outline, Panel, array_of

if TYPE_CHECKING:
    from interp.tasks import Prompts
    from interp.views.colours import Scale
    from interp.views.view import View

UNITS = {"signed": "logits of the answer's margin", "absolute": "sum of |input x gradient|"}


class Attributed(Protocol):
    """Attributions of each answer's margin, such as `interp.attribution.Attribution`."""

    @property
    def values(self) -> Any: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def dest(self) -> Any: ...
    @property
    def kind(self) -> str: ...
    @property
    def method(self) -> str: ...


def attribution(result: Attributed, prompts: int | Sequence[int] = 2, title: str = "") -> View:
    """Return the paper's map (Figure 5): a column per output token, a row per context token.

    Panels are the signed mean over prompts, the mean of absolute values (which do not cancel), and single prompts with
    their tokens: the first `prompts` of them, or the chosen ones. Of the kinds "absolute" and "l2" there is no signed
    mean. In parity, the cells where the answer at step i should come from are outlined: bit i, and the parity before
    it. A map describes; it decides no question. Raises `ValueError` for a prompt that does not exist.

    >>> view = attribution(gradient_x_input(run.raw, run.sample(64, 20, seed=0)))
    """
    values, batch = array_of(result.values).swapaxes(1, 2), result.prompts
    chosen = range(min(prompts, len(values))) if isinstance(prompts, int) else prompts
    if bad := [row for row in chosen if not 0 <= row < len(values)]:
        raise ValueError(f"no prompt {bad[0]}; there are {len(values)}")
    dest = [int(p) for p in result.dest]
    rows, columns = positions(batch, title="context token"), positions(batch, title="output token").chosen(dest)
    unit = UNITS.get(result.kind, "norm of input x gradient")
    scale: Scale = "diverging" if result.kind == "signed" else "sequential"
    mean, of = values.mean(axis=0), f"mean over {len(values)} prompts" if len(values) > 1 else "the prompt"
    panels = [Panel(f"{of}, {result.kind}", mean, rows, columns, unit, scale)]
    if result.kind == "signed":
        size = np.abs(values).mean(axis=0)
        panels.append(Panel(f"{of}, absolute", size, rows, columns, f"size, {unit}", "sequential"))
    for row in chosen:
        context = positions(batch, row, "context token")
        answers = positions(batch, row, "output token").chosen(dest)
        panels.append(Panel(f"prompt {row}, {result.kind}", values[row], context, answers, unit, scale))
    caption = (
        f"{result.method[:1].upper()}{result.method[1:]}, {result.kind}, at the token embeddings. "
        + ("Blue supports the right answer, red opposes it. " if result.kind == "signed" else "")
        + "Saturated attention has no gradient, so that the token that selects a bit may show nothing."
    )
    title = title or f"Which tokens each answer depends on ({result.method})"
    return draw_grid(panels, title, caption, "{column} from {row}", ideal_cells(batch, dest))


def ideal_cells(batch: Prompts, dest: Sequence[int]) -> list[Outline]:
    """Return where parity at step i comes from: input i, and the output before it. [] for prompts of other tasks."""
    if getattr(getattr(batch, "format", None), "task", "") != "parity" or batch.role is None or batch.step is None:
        return []
    cells: dict[str, list[tuple[int, int]]] = {"bit i": [], "parity at i-1": []}
    for column, pos in enumerate(dest):
        step = int(batch.step[pos])
        for name, role, at in (("bit i", Role.INPUT, step), ("parity at i-1", Role.OUTPUT, step - 1)):
            sources = ((batch.role == role) & (batch.step == at)).nonzero().flatten().tolist() if at > 0 else []
            cells[name] += [(row, column) for row in sources if row < pos]
    return [Outline(name, tuple(pairs)) for name, pairs in cells.items() if pairs]
