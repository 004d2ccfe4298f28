"""Verbs that take prompts as text: --clean, --corrupted, --answer and --other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Pair

# Options that only text has.
OF_TEXT = ("clean", "corrupted", "answer", "other")


class TakesText:
    """A verb whose fields include the options of text."""

    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    answer: str | None
    other: str | None

    @property
    def is_text(self) -> bool:
        """Whether prompts are given as text."""
        return any((self.clean, self.corrupted, self.answer is not None, self.other is not None))

    def text_pair(self, run: Run) -> Pair:
        """Return the prompts of --clean and --corrupted, in the run's tokens."""
        from interp.tasks.texts import prompts

        return prompts(run, clean=list(self.clean), corrupted=list(self.corrupted))
