"""Pictures of results: `from interp import views; views.effect(effect)`. Each function returns a `View`.

| function | shows | takes |
|---|---|---|
| `attention` | attention patterns | a `Capture`, arrays by layer, or one array `[head dest src]` with tokens |
| `tokens` | one row of values as coloured tokens | values `[pos]` with tokens |
| `effect` | patching effects | a `PatchEffect`, or an array `[layer pos]` or `[layer head]` |
| `heads`, `head_table` | scores of heads | arrays `[layer head]`; `head_table` also rows or a data frame |
| `lens` | a logit lens | an array `[layer pos]` with tokens and predictions |
| `attribution` | which tokens each answer depends on | an `Attribution` |
| `circuit` | a circuit | a `networkx.MultiDiGraph` |
| `faithfulness` | faithfulness by circuit size | curves |
| `as_view` | a matplotlib figure | a figure |
| `draw_grid` | any heat map | `Panel`s |
| `show` | a result, in a notebook | any of the results above |

Verdicts, probes and accuracies are drawn by `probes.views`. Names are imported when they are used. "circuit" is also a
subpackage; `views.circuit` is the class `CircuitView`, whichever was imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.views.attributions import attribution
    from interp.views.axes import Axis
    from interp.views.figures import as_view, faithfulness
    from interp.views.grid import draw_grid
    from interp.views.maps import effect, heads, lens
    from interp.views.panel import Outline, Panel
    from interp.views.results import show
    from interp.views.tables import head_table
    from interp.views.view import View, page, show_live

    attention: Any
    circuit: Any
    tokens: Any

# Public name: (module, name in it).
PUBLIC = {
    "Axis": ("axes", "Axis"),
    "Outline": ("panel", "Outline"),
    "Panel": ("panel", "Panel"),
    "View": ("view", "View"),
    "as_view": ("figures", "as_view"),
    "attention": ("patterns", "attention"),
    "attribution": ("attributions", "attribution"),
    "circuit": ("circuit", "CircuitView"),
    "draw_grid": ("grid", "draw_grid"),
    "effect": ("maps", "effect"),
    "faithfulness": ("figures", "faithfulness"),
    "head_table": ("tables", "head_table"),
    "heads": ("maps", "heads"),
    "lens": ("maps", "lens"),
    "page": ("view", "page"),
    "show": ("results", "show"),
    "show_live": ("view", "show_live"),
    "tokens": ("patterns", "tokens"),
}
__all__ = [
    "Axis",
    "Outline",
    "Panel",
    "View",
    "as_view",
    "attention",
    "attribution",
    "circuit",
    "draw_grid",
    "effect",
    "faithfulness",
    "head_table",
    "heads",
    "lens",
    "page",
    "show",
    "show_live",
    "tokens",
]


def _public(module: str, name: str) -> property:
    def get(self: ModuleType) -> Any:
        return getattr(import_module(f"{self.__name__}.{module}"), name)

    # The setter ignores the import system, which would replace a function by the submodule of the same name.
    return property(get, lambda self, value: None)


class _Views(ModuleType):
    """This module, with functions that are imported when they are used."""

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *PUBLIC})


for _name, _source in PUBLIC.items():
    setattr(_Views, _name, _public(*_source))
sys.modules[__name__].__class__ = _Views
