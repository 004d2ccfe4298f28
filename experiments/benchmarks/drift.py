"""Benchmark: differences between 1 and 2 threads, and between float32 and float64, on one seed in one process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interp.attribution import gradient_x_input
from interp.circuits import edge_scores
from interp.forward import readout
from interp.models.run import run_in_memory
from interp.patching import logit_diff, patch
from interp.tasks import Role, counterfactual
from probes import battery

if TYPE_CHECKING:
    from interp.models import Run

# Passes per quantity, each with an error of at most `rounding_of_one_pass`. A margin is the difference of two logits,
# patched or not; gradient x input is a margin forward and backward; an edge's score is that times the difference of two
# runs; rho is the ratio of two changes of the margin.
PASSES = {"margins": 2, "patched margins": 2, "gradient x input": 4, "EAP-IG": 6, "rho": 8}
THREADS, WIDE = "2 threads against 1", "float32 against float64"
# Arms of the battery whose value is rho, and the smallest number of prompts that the battery accepts.
ARMS, PROMPTS = ("M1", "M2", "M4", "M5"), 24
# Points of integrated gradients, and prompts whose answers are compared per patched prompt.
POINTS, READ = 8, 8


@dataclass(frozen=True)
class DriftCase:
    """One row: a run at one length. `rho_at` is the length of the battery, the slowest part; None leaves it out."""

    run: str
    length: int
    rho_at: int | None = None
    prompts: int = 8

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return f"drift-{self.run}-{self.length}"


# A trained length and one past training.
DEFAULT = tuple(
    DriftCase(run, length, rho_at)
    for run in ("parity-aligned-alibi", "parity-scratchpad-alibi", "parity-aligned-alibi-seed3")
    for length, rho_at in ((20, 8), (40, None))
)


@dataclass(frozen=True, eq=False)
class Numbers:
    """Measurements of a run: values by quantity, and the most likely token at each answer `[batch step]`."""

    values: dict[str, Tensor]
    answers: Int[Tensor, "batch step"]


def run_case(case: DriftCase) -> dict:
    """Return each quantity's largest difference between threads and between precisions, the allowed one, and the number
    of answers that differ."""
    from experiments import load

    run = load(case.run)
    allowed = tolerances(run.raw)
    with threads(1):
        base = measure(run, case.length, case.prompts, case.rho_at)
        wide = measure_wide(run, case.length, case.prompts, case.rho_at)
    with threads(2):
        other = measure(run, case.length, case.prompts, case.rho_at)
    compared = {THREADS: compare(other, base, allowed), WIDE: compare(base, wide, allowed)}
    return {"case": asdict(case), "compared": compared}


def rounding_of_one_pass(raw: Any) -> float:
    """Return the allowed float32 rounding error of a logit, relative to the largest: eps sqrt(n) (2 n_layers + 2).

    A sum of n rounded products has an error of about eps sqrt(n) of its size, since the errors are nearly independent
    (Higham and Mary 2019). The longest sums have n = 4 d_model. Errors of the embedding, of every attention and MLP and
    of the unembedding add up; amplification is not counted. With 3 layers of width 128: 2e-5.
    """
    config = raw.config
    return torch.finfo(torch.float32).eps * (4 * config.hidden_size) ** 0.5 * (2 * config.num_hidden_layers + 2)


def tolerances(raw: Any) -> dict[str, float]:
    """Return the largest allowed difference of each quantity, relative to its largest value."""
    return {name: passes * rounding_of_one_pass(raw) for name, passes in PASSES.items()}


def measure(run: Run, length: int, prompts: int, rho_at: int | None = None, seed: int = 0) -> Numbers:
    """Measure margins of all steps, a patching sweep, gradient x input, edge scores and the battery's rho on one seed.

    rho is left out for a format without labels, and for a model whose margin is too small to divide by.
    """
    many = run.sample(READ * prompts, length, seed)
    clean, step = many.rows(slice(prompts)), max(1, length // 2)
    seen = readout(run.raw, many, many.at(Role.OUTPUT))
    assert seen.logits.shape[-1] == 2, "parity has two answers"
    flipped, redrawn = counterfactual.flip_input(clean, step), counterfactual.redraw(clean, seed + 1)
    swept = patch(run.raw, clean, flipped, "resid_pre", logit_diff(clean, step))
    values = {
        "margins": seen.logits[..., 0] - seen.logits[..., 1],
        "patched margins": swept.values,
        "gradient x input": gradient_x_input(run.raw, clean).values,
        "EAP-IG": edge_scores(run.raw, clean, redrawn, logit_diff(clean), "eap-ig-inputs", POINTS).values,
    }
    if rho_at is not None:
        (found,) = battery(run, (rho_at,), seed, PROMPTS, forced=True, arms=ARMS, competence=None).measured
        if rho := [e.value.value for e in found.evidence if e.quantity == "rho"]:
            values["rho"] = torch.tensor(rho, dtype=torch.float64)
    return Numbers(values, seen.likeliest)


def measure_wide(run: Run, length: int, prompts: int, rho_at: int | None = None, seed: int = 0) -> Numbers:
    """Measure as `measure` does, in float64 throughout."""
    double: Any = copy.deepcopy(run.raw).double()
    with _WideSoftmax():
        return measure(run_in_memory(run.name, double, run.format, run.vocabulary), length, prompts, rho_at, seed)


def compare(found: Numbers, reference: Numbers, allowed: dict[str, float]) -> dict[str, dict]:
    """Return the largest differences, absolute and relative to the quantity's largest value, with the allowed ones."""
    if found.values.keys() != reference.values.keys():
        raise ValueError(f"quantities differ: {', '.join(found.values)} and {', '.join(reference.values)}")
    rows: dict[str, dict] = {}
    for name, value in found.values.items():
        expected = reference.values[name].double()
        off, largest = float((value.double() - expected).abs().max()), float(expected.abs().max())
        relative = off / largest if largest else off
        rows[name] = {"absolute": off, "relative": relative, "allowed": allowed[name], "met": relative <= allowed[name]}
    differ = int((found.answers != reference.answers).sum())
    rows["answers"] = {"differ": differ, "of": found.answers.numel(), "allowed": 0, "met": differ == 0}
    return rows


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of torch threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _WideSoftmax(TorchFunctionMode):
    """Keep float64 softmax in float64. BLOOM and GPT-NeoX compute patterns in float32 whatever their weights are."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        wide = func in (torch.softmax, functional.softmax, Tensor.softmax) and args[0].dtype == torch.float64
        if wide and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)
