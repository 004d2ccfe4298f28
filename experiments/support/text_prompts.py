"""Verbs that take prompts as text: --clean, --corrupted, --answer and --other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Pair

# Options that only text has.
OF_TEXT = ("clean", "corrupted", "answer", "other")
# What needs no task, for the error of a run without one.
GIVE_TEXT = "give text with --clean, --corrupted and --answer"


class TakesText:
    """A verb whose fields include the options of text."""

    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    answer: tuple[str, ...]
    other: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """Whether prompts are given as text."""
        return any((self.clean, self.corrupted, self.answer, self.other))

    def text_pair(self, run: Run) -> Pair:
        """Return the prompts of --clean and --corrupted, in the run's tokens."""
        from interp.tasks.texts import prompts

        return prompts(run, clean=list(self.clean), corrupted=list(self.corrupted))


def one_or_each(texts: tuple[str, ...]) -> str | list[str]:
    """Return the one answer of all prompts, or the list of one per prompt."""
    return texts[0] if len(texts) == 1 else list(texts)
