"""Verbs that take prompts as text: --clean, --corrupted, --answer and --other."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from experiments.support.console import warn

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Pair

# Options that only text has.
OF_TEXT = ("clean", "corrupted", "answer", "other")
# Advice for a run without a task.
GIVE_TEXT = "give text with --clean, --corrupted and --answer"

SAME_TEXTS = "--clean and --corrupted are the same, so nothing can have an effect; change what the answer depends on"
# Answers that a warning names.
MOST_SHOWN = 2


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

    def check_pairs(self) -> None:
        """Raise `ValueError` where every clean text is also its corrupted text."""
        if self.clean == self.corrupted:
            raise ValueError(SAME_TEXTS)

    def text_pair(self, run: Run) -> Pair:
        """Return the prompts of --clean and --corrupted, in the run's tokens.

        Raises `ValueError` for pairs of different numbers of tokens, and where clean and corrupted tokens are the same.
        """
        from interp.tasks.texts import prompts

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "clean and corrupted have the same tokens")  # an error here
            pair = prompts(run, clean=list(self.clean), corrupted=list(self.corrupted))
        if pair.clean.tokens.equal(pair.corrupted.tokens):
            raise ValueError(SAME_TEXTS)
        return pair

    def warn_of_spaces(self, run: Run) -> None:
        """Warn in one line of answers without the space with which the word after their prompts begins."""
        from interp.tasks.encoding import spaced_answer

        instead = {
            f"--{name} {answer!r}": spaced
            for name in ("answer", "other")
            for text, answer in zip(self.clean, _each(getattr(self, name), len(self.clean)), strict=False)
            if (spaced := spaced_answer(run, text, answer)) is not None
        }
        if instead:
            shown = list(instead.items())[:MOST_SHOWN]
            given, better = " and ".join(name for name, _ in shown), " and ".join(repr(text) for _, text in shown)
            have = "has" if len(shown) == 1 else "have"
            warn(
                f"warning: {given} {have} no leading space, with which the prompt's next word begins; did you mean "
                f"{better}?"
            )


def _each(answers: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return one answer per prompt, where one is for all."""
    return answers * count if len(answers) == 1 else answers


def one_or_each(texts: tuple[str, ...]) -> str | list[str]:
    """Return the one answer of all prompts, or the list of one per prompt."""
    return texts[0] if len(texts) == 1 else list(texts)
