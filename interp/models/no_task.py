"""The error of a run without a task, where one is needed."""

from __future__ import annotations


class NoTask(ValueError):
    """A run without a task, where one is needed. Its argument is the reason; the message adds what to do in Python."""

    @property
    def why(self) -> str:
        """The reason alone."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.why}: name a format, such as load(..., fmt='parity-aligned')"
