"""The five tasks by name, and the model that they run on."""

from __future__ import annotations

from pathlib import Path

from interp import load
from interp.models import Run
from tests.interp.migration import (
    attribution_patching,
    head_detector,
    induction_heads,
    ioi_patching,
    lens_and_attribution,
)
from tests.small_language_model import save_small_gpt2

TASKS = {
    "IOI patching": ioi_patching,
    "attribution patching": attribution_patching,
    "induction heads": induction_heads,
    "head detector": head_detector,
    "logit lens and DLA": lens_and_attribution,
}


def small_run(folder: Path) -> Run:
    """A random GPT-2 with a tokenizer of words; `bos=False`, as TransformerLens encodes with this tokenizer."""
    return load(save_small_gpt2(folder), bos=False)
