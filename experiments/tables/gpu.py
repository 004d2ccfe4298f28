"""Markdown tables of what was measured on a GPU, from `benchmarks/results/gpu.json`."""

from __future__ import annotations

from experiments.benchmarks.tables import number_text
from experiments.tables.benchmarks import RESULTS
from experiments.tables.cells import markdown
from interp.models import read_json

GPU = RESULTS / "gpu.json"


def gpu_tables() -> str:
    """Return sweeps beside their goals, then training steps by the way in which they are computed."""
    rows = read_json(GPU)["rows"]
    rates = rows["rate"]["flops_a_second"]
    smoke = max(rows["smoke"]["difference"].values())
    text = (
        f"{rows['rate']['device']}: {rates['float32'] / 1e12:.0f} TFLOP/s in float32 and "
        f"{rates['bfloat16'] / 1e12:.0f} in bfloat16 by a product of matrices of side {rows['rate']['side']:,}. "
        f"Patches of every site of the shipped run differ from the CPU's by at most {smoke:.0e} of the largest value."
    )
    sweeps = markdown(SWEEP_HEAD, [_sweep(row) for row in gpu_sweeps()])
    steps = markdown(STEP_HEAD, [_step(name, row) for name, row in rows.items() if name.startswith("training ")])
    return f"{text}\n\n{sweeps}\n{steps}"


def gpu_sweeps() -> list[dict]:
    """Return the rows of the sweeps that were timed against TransformerLens."""
    return [row for name, row in read_json(GPU)["rows"].items() if name.startswith("sweep ")]


SWEEP_HEAD = (
    "family",
    "layers x d",
    "prompts",
    "patches",
    "sweep, s",
    "ms per patch",
    "x TransformerLens",
    "goal",
    "x hook loop",
    "of its FLOPs' time",
    "goal",
    "difference",
)


def _sweep(row: dict) -> tuple:
    case, goal = row["case"], row["goal"]
    return (
        case["family"],
        f"{case['n_layers']} x {case['d_model']}",
        case["prompts"],
        f"{row['patches']:,}",
        f"{row['sweep_seconds']:.3g}",
        f"{row['ms_a_patch']['ours']:.3g}",
        f"{row['ratio']['transformer_lens']:.1f}",
        f"{goal['transformer_lens']}",
        f"{row['ratio']['hook loop']:.1f}",
        f"{row['of_counted_flops']:.1f}",
        f"{goal['of_counted_flops']:.0f}" if "of_counted_flops" in goal else "",
        f"{max(row['difference'].values()):.0e}",
    )


STEP_HEAD = ("layers x d x heads", "family", "attention", "kernels", "tokens per step", "ms per step", "TFLOP/s")


def _step(name: str, row: dict) -> tuple:
    _, shape, family, attention, *kernels = name.split()
    rate = row["flops"] / row["ms_a_step"] / 1e9
    values = (f"{row['tokens']:,}", number_text(row["ms_a_step"]), f"{rate:.0f}")
    return (shape.replace("x", " x "), family, attention, *(kernels or ["one by one"]), *values)
