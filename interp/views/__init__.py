"""Pictures of data that was computed elsewhere: `from interp import views; views.effect(found)`.

Nothing is imported before it is asked for. "circuit" is a package, too; here, the name means what draws one, whichever
was imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.views.figures import as_view, by_length, faithfulness
    from interp.views.grid import Outline, Panel, draw_grid
    from interp.views.maps import attribution, effect
    from interp.views.tables import head_table
    from interp.views.view import View, page, show_live
    from probes.views.probing import probes
    from probes.views.verdicts import verdict

    attention: Any
    circuit: Any
    tokens: Any

# Name here: module and name there.
PUBLIC = {
    "Outline": ("grid", "Outline"),
    "Panel": ("grid", "Panel"),
    "View": ("view", "View"),
    "as_view": ("figures", "as_view"),
    "attention": ("patterns", "attention"),
    "attribution": ("maps", "attribution"),
    "by_length": ("figures", "by_length"),
    "circuit": ("circuit", "CircuitView"),
    "draw_grid": ("grid", "draw_grid"),
    "effect": ("maps", "effect"),
    "faithfulness": ("figures", "faithfulness"),
    "head_table": ("tables", "head_table"),
    "page": ("view", "page"),
    "probes": ("probing", "probes"),
    "show_live": ("view", "show_live"),
    "tokens": ("patterns", "tokens"),
    "verdict": ("verdicts", "verdict"),
}
__all__ = [
    "Outline",
    "Panel",
    "View",
    "as_view",
    "attention",
    "attribution",
    "by_length",
    "circuit",
    "draw_grid",
    "effect",
    "faithfulness",
    "head_table",
    "page",
    "probes",
    "show_live",
    "tokens",
    "verdict",
]


def _public(module: str, name: str) -> property:
    def get(self: ModuleType) -> Any:
        found = import_module(f"{self.__name__}.{module}")
        return getattr(found, name)

    # The import system would put the submodule of that name in its place.
    return property(get, lambda self, value: None)


class _Views(ModuleType):
    """This module, with its functions fetched when they are asked for."""

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *PUBLIC})


for _name, _where in PUBLIC.items():
    setattr(_Views, _name, _public(*_where))
sys.modules[__name__].__class__ = _Views
