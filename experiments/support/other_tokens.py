"""Tokens that stand for symbols of a task, for a model whose tokenizer does not have these symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.models import Run

# Stand-ins that a sentence names.
SHOWN = 8


def stand_ins(run: Run) -> dict[str, str]:
    """Return the tokens that stand for symbols of a run's task, where its tokenizer has no such tokens of its own."""
    if run.vocabulary is None or not run.has_tokenizer:
        return {}
    return run.vocabulary.stand_ins(run.tokenizer)


def stand_ins_text(run: Run) -> str:
    """Return which tokens stand for symbols of a run's task, in a sentence that names a few; "" for none."""
    found = stand_ins(run)
    named = ", ".join(f"{text!r} for {symbol}" for symbol, text in list(found.items())[:SHOWN])
    rest = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"in place of symbols of {run.format}, {run.name} reads tokens that it has: {named}{rest}" if found else ""
