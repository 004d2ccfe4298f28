"""Write the table of supported architectures: `python -m tests.interp.models.support [FILE]`.

One row per case of `architecture_cases`, measured on its small random model:
    type: the model type, and the option that makes another case of it.
    capture: "bridge", or why TransformerLens has none.
    patching: "exact"; "generic" (resid_pre, resid_post, and the outputs of attention and MLP where these are modules);
        or why `patch` refuses the model.
    float32, float64: the largest difference of a patched metric from the literal loop, relative to the largest metric,
        over `SITES`; for "generic", of patched logits from hooks on the raw model. None where `patch` refuses the
        model, or where the raw model does not run.
    circuits: "edges", or why edges are not scored.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from interp.circuits import edge_scores
from interp.models import boot_bridge
from interp.models.anatomy import anatomy_of, anatomy_or_generic
from interp.patching import plan
from interp.support.writing import write_whole
from tests.interp.models.architecture_cases import CASES, LAYERS, NO_FLOAT64, build, tiny
from tests.interp.models.test_anatomy_generic import difference_from_hooks
from tests.interp.models.test_architectures import CLEAN, CORRUPTED, METRIC, SITES, difference_from_the_loop

FILE = Path("experiments/results/support.json")
POSITIONS = (3, 7, 10, 12)


def support_rows() -> list[dict[str, Any]]:
    """Return the rows of the table. Takes about ten minutes on one core."""
    return [_row(case) for case in sorted(CASES)]


def _row(case: str) -> dict[str, Any]:
    patching = _patching(case)
    is_patched = patching in ("exact", "generic")
    differences = [_difference(case, dtype) if is_patched else None for dtype in (torch.float32, torch.float64)]
    return {
        "type": case,
        "capture": _outcome("bridge", lambda: boot_bridge(build(case))),
        "patching": patching,
        "float32": differences[0],
        "float64": differences[1],
        "circuits": _outcome("edges", lambda: edge_scores(build(case), CLEAN, CORRUPTED, METRIC, "eap")),
    }


def _patching(case: str) -> str:
    """Return the kind of patching, or why `patch` refuses the model."""
    try:
        plan(tiny(case), CLEAN, CORRUPTED, "resid_pre", METRIC)
        return "generic" if anatomy_or_generic(tiny(case)).generic else "exact"
    except ValueError as error:
        return str(error)


def _outcome(name: str, attempt: Any) -> str:
    try:
        attempt()
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split("; the types that are")[0].split())
    return name


def _difference(case: str, dtype: torch.dtype) -> float | None:
    if dtype == torch.float64 and case in NO_FLOAT64:
        return None
    if anatomy_or_generic(tiny(case, dtype)).generic:
        worst = difference_from_hooks(case, dtype)
    else:
        parallel = anatomy_of(tiny(case, dtype)).blocks[0].parallel
        sites = [site for site in SITES if not (parallel and site == "resid_mid")]
        worst = max(difference_from_the_loop(case, site, dtype, range(LAYERS), POSITIONS) for site in sites)
    return float(f"{worst:.1e}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    write_whole(file, json.dumps(support_rows(), indent=1) + "\n")
