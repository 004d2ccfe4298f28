"""Pictures of verdicts, probes, accuracies and calibration: `from probes import views; views.verdict(result)`.

`verdict`, `probes`, `by_length`, `roles` and `confusion` return a `View` (see `interp.views`), or a matplotlib figure
from the `draw_...` function of the same module. Names are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.views.accuracy import accuracy_by_length, by_length
    from probes.views.calibration import confusion, draw_confusion, draw_roles, roles
    from probes.views.probing import draw_probes, probes
    from probes.views.verdicts import draw_verdict, verdict

# Public name: its module.
PUBLIC = {
    "accuracy_by_length": "accuracy",
    "by_length": "accuracy",
    "confusion": "calibration",
    "draw_confusion": "calibration",
    "draw_probes": "probing",
    "draw_roles": "calibration",
    "draw_verdict": "verdicts",
    "probes": "probing",
    "roles": "calibration",
    "verdict": "verdicts",
}
__all__ = [
    "accuracy_by_length",
    "by_length",
    "confusion",
    "draw_confusion",
    "draw_probes",
    "draw_roles",
    "draw_verdict",
    "probes",
    "roles",
    "verdict",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
