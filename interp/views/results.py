"""Views of results in notebooks: `view_of` finds the view of a result, `show` displays it."""

from __future__ import annotations

from typing import Any

from interp.views.attributions import attribution
from interp.views.circuit import CircuitView
from interp.views.maps import effect, heads, lens
from interp.views.patterns import attention
from interp.views.tables import head_table
from interp.views.view import View

# Columns of head descriptions that a table of heads needs.
_STATISTIC = ["layer", "head", "role", "statistic", "value"]


def view_of(result: Any) -> View | CircuitView | None:
    """Return the view of a `Capture` with patterns, a `PatchEffect`, an `Attribution`, a lens, head or node scores, a
    circuit, or head descriptions; else None.

    >>> view_of("a text") is None
    True
    """
    match result:
        case object(pattern=pattern, prompts=_):
            return attention(result) if pattern else None
        case object(change=_, labels=_):
            return effect(result)
        case object(method=_, dest=_, kind=_):
            return attribution(result)  # type: ignore[arg-type]
        case object(components=_, parts=_):
            return heads(result)
        case object(by_kind=_, measure=_):
            return heads(result)
        case object(rank=_, log_prob=_):
            return lens(result)
        case object(nodes=_, by_site=by_site, metric=metric):
            return heads(by_site, "Scores of heads by site", f"change of {metric}")
        case object(to_networkx=graph):
            return CircuitView(graph())
        case object(ov_copying=_, composition=_, to_dataframe=table):
            return head_table(table().rename(columns={"mean": "value"})[_STATISTIC])
    return None


def show(result: Any) -> None:
    """Display a result in a notebook: its view, or its text if there is no view of it or it cannot be drawn."""
    from IPython.display import display  # pyright: ignore[reportMissingImports]

    try:
        view = view_of(result)
    except ValueError:  # such as patterns with NaN
        view = None
    if view is None:
        display({"text/plain": repr(result)}, raw=True)
    else:
        view._ipython_display_()
