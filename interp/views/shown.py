"""How results show themselves in a notebook."""

from __future__ import annotations


class Shown:
    """A result whose view a notebook shows when it is the last expression of a cell."""

    def _ipython_display_(self) -> None:
        """Show the view in a notebook."""
        from interp.views import show

        show(self)
