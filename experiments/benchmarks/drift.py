"""How far do numbers move with the number of threads, and with float32 in place of float64? One seed, one process."""

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

# How many passes, each off by `of_one_pass` at most, go into a quantity: a margin is the difference of two logits, with
# a patch or without; gradient x input a margin forward and backward; an edge's score that, times the difference of two
# runs; rho the ratio of two changes of the margin.
PASSES = {"margins": 2, "patched margins": 2, "gradient x input": 4, "EAP-IG": 6, "rho": 8}
THREADS, WIDE = "2 threads against 1", "float32 against float64"
# Arms of the battery whose numbers are rho, and the fewest prompts that it takes.
ARMS, PROMPTS = ("M1", "M2", "M4", "M5"), 24
# Points of integrated gradients, and prompts whose answers are read for each one that is patched.
POINTS, READ = 8, 8


@dataclass(frozen=True)
class DriftCase:
    """One row: a run posed prompts of a length, and those of `rho_at` by the battery (None: not), which costs most."""

    run: str
    length: int
    rho_at: int | None = None
    prompts: int = 8

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"drift-{self.run}-{self.length}"


# A trained length, and past it.
DEFAULT = tuple(
    DriftCase(run, length, rho_at)
    for run in ("parity-aligned-alibi", "parity-scratchpad-alibi", "parity-aligned-alibi-seed3")
    for length, rho_at in ((20, 8), (40, None))
)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What is measured of a run: quantities of one or more values, and the likeliest token at each answer."""

    values: dict[str, Tensor]
    answers: Int[Tensor, "batch step"]


def run_case(case: DriftCase) -> dict:
    """Each quantity's largest difference between 1 thread and 2, and between float32 and float64, beside what is
    allowed; and how many answers differ."""
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


def of_one_pass(raw: Any) -> float:
    """What rounding to float32 may move a logit, relative to the largest: eps sqrt(n) for each of 2 n_layers + 2 parts.

    A sum of n rounded products is off by about eps sqrt(n) of its size, because its errors are as good as independent
    (Higham and Mary 2019); the longest sums here have n = 4 d_model. The embedding, every layer's attention and MLP and
    the unembedding hand theirs on, and are taken to add up without being amplified. With 3 layers of 128: 2e-5.
    """
    config = raw.config
    return torch.finfo(torch.float32).eps * (4 * config.hidden_size) ** 0.5 * (2 * config.num_hidden_layers + 2)


def tolerances(raw: Any) -> dict[str, float]:
    """The largest difference that is allowed of each quantity, relative to its largest value."""
    return {name: passes * of_one_pass(raw) for name, passes in PASSES.items()}


def measure(run: Run, length: int, prompts: int, rho_at: int | None = None, seed: int = 0) -> Numbers:
    """The margins of every step, a sweep of patches, scores of edges, a map, and the battery's rho, of one seed.

    There is no rho of a format without labels, nor of a model whose margin is too small to be its unit.
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
    """As `measure`, in float64 from end to end."""
    double: Any = copy.deepcopy(run.raw).double()
    with _WideSoftmax():
        return measure(run_in_memory(run.name, double, run.format, run.vocabulary), length, prompts, rho_at, seed)


def compare(found: Numbers, reference: Numbers, allowed: dict[str, float]) -> dict[str, dict]:
    """Largest differences, absolute and relative to the quantity's largest value, beside what is allowed."""
    if found.values.keys() != reference.values.keys():
        raise ValueError(f"one has {', '.join(found.values)}, the other {', '.join(reference.values)}")
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
    """Inside the block torch computes with that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _WideSoftmax(TorchFunctionMode):
    """BLOOM and GPT-NeoX compute patterns in float32 whatever their weights are; here float64 stays float64."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        wide = func in (torch.softmax, functional.softmax, Tensor.softmax) and args[0].dtype == torch.float64
        if wide and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)
