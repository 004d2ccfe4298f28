"""Training steps in the script for a GPU machine: ways of computing them, in milliseconds per token."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from experiments.benchmarks.gpu_goals import Part
from experiments.benchmarks.scaling import StepCase, run_case, timed_steps
from interp.models import read_json

BEFORE = Path(__file__).parent / "results" / "gpu-steps.json"
SIZES = ((3, 128, 8), (12, 768, 12), (24, 1024, 16))
# Tokens per step at which an H100 was measured before, and the goal: so many times fewer milliseconds per token.
TOKENS = 16_384
TIMES_FEWER = 3
# Steps of a recipe that are timed, and small runs that share a device.
MOMENTS, SHARING = 4, 8
# Ways of computing a step: family, attention, and whose kernels. Compilation takes minutes, so it comes last.
WAYS = (
    ("alibi", "eager", ""),
    ("alibi", "eager", "graphs"),
    ("rotary", "sdpa", ""),
    ("rotary", "sdpa", "graphs"),
    ("alibi", "eager", "compile"),
    ("rotary", "sdpa", "compile"),
)


def training_parts(device: str, tiny: bool, rounds: int) -> dict[str, Part]:
    """Return the parts by name: each size, in the ways of computing that its families have."""
    precision = "no" if device == "cpu" else "bf16"
    sizes, tokens, moments = (((1, 16, 2),), 64, 1) if tiny else (SIZES, TOKENS, MOMENTS)
    found: dict[str, Part] = {}
    for family, attention, kernels in WAYS:
        if "graphs" in kernels and device == "cpu":
            continue
        for size in sizes:
            case = StepCase(
                device,
                *size,
                precision=precision,
                moments=moments,
                family=family,
                tokens=tokens,
                attention=attention,
                compile=kernels == "compile",
                cuda_graphs=kernels == "graphs",
            )
            way = f"{family} {attention} {kernels}".strip()
            found["training {}x{}x{} ".format(*size) + way] = partial(steps, case, rounds)
    small = StepCase(device, *sizes[0], precision=precision, moments=moments, runs=2 if tiny else SHARING)
    found[f"training {small.runs} runs at once"] = partial(run_case, small, rounds)
    if device != "cpu":
        found[f"training {small.runs} runs at once graphs"] = partial(
            run_case, replace(small, cuda_graphs=True), rounds
        )
    return found


def steps(case: StepCase, rounds: int) -> dict:
    """Return milliseconds per optimiser step and per token of the zoo's recipe, beside those measured before."""
    with tempfile.TemporaryDirectory() as folder:
        row = timed_steps(case, rounds, 0, folder)
    row["ms_a_token"] = row["ms_a_step"] / row["tokens"]
    before = read_json(BEFORE)["rows"].get(f"h100-step-{case.n_layers}x{case.d_model}-{TOKENS}")
    if before is not None:
        row["ms_a_token_before"] = before["ms_per_step"] / before["tokens"]
        row["times_fewer"] = row["ms_a_token_before"] / row["ms_a_token"]
        row["goal"] = {"times_fewer": TIMES_FEWER} if case.n_layers >= 12 else {}
    return row
