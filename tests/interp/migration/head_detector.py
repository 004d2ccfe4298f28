"""Previous-token, duplicate-token and induction heads on English text."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interp import detect_heads
from interp.models import Run

TEXTS = [
    "When Mary and John went to the store, John gave a drink to",
    "The capital of France is Paris and the capital of Italy is Rome",
]
KINDS = ("previous_token", "duplicate_token", "induction")


def here(run: Run) -> dict[str, Tensor]:
    return detect_heads(run, TEXTS, KINDS).by_kind


def there(run: Run) -> dict[str, Tensor]:
    from transformer_lens.head_detector import detect_head

    model: Any = run.model
    return {kind: detect_head(model, TEXTS, f"{kind}_head") for kind in KINDS}  # type: ignore[arg-type]
