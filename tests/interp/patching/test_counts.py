"""Operators that a sweep dispatches, and what waits for the device: on a GPU these are the time of a small sweep."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from interp.models import ModelConfig, build_model
from interp.models.anatomy import Anatomy
from interp.models.architectures import parts
from interp.models.architectures.block import Block
from interp.patching import chunks, logit_diff, memory, plan
from interp.patching import sweep as sweep_module
from interp.patching.cells import first
from interp.patching.chunks import Chunks
from interp.tasks import counterfactual, sample
from tests.interp.patching.models import VOCAB

# A GPU's host waits for the value of each of these.
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"}
# Operators of a whole sweep at one prompt, controls and spot cells included, at commit 360c99a. They do not depend on
# the width. Each case has how many times fewer they are at least; the goal is five times.
BEFORE = {
    (4, 20, "resid_pre", "redraw"): (19936, 16.8),
    (4, 20, "resid_pre", "flip"): (12867, 10.8),
    (4, 20, "z", "redraw"): (41540, 23.2),
    (12, 6, "resid_pre", "redraw"): (29276, 9.6),
    (2, 3, "resid_pre", "redraw"): (3898, 9.9),
    (2, 3, "z", "redraw"): (4425, 5.8),
}


class Counting(TorchDispatchMode):
    """Counts the operators that are dispatched within the block, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def kernels_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is written for CPUs."""
    monkeypatch.setattr(Anatomy, "is_fused", lambda *_: False)
    monkeypatch.setattr(parts, "_tanh_gelu", partial(F.gelu, approximate="tanh"), raising=False)


@pytest.fixture
def stacks_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stack what fits the memory, as on a device whose work is queued."""

    class Large(Chunks):
        MOST = 10**6

        def __init__(self, most: int, device_type: str, positions: int) -> None:
            super().__init__(most, "cuda", positions)

    for module in (sweep_module, memory):
        monkeypatch.setattr(module, "Chunks", Large)
    monkeypatch.setattr(sweep_module, "starting_flops", lambda _: chunks.starting_flops("cuda"))


def arguments(n_layers: int, bits: int, site: str, corrupt: str) -> tuple:
    family = "absolute" if n_layers == 12 else "alibi"
    model = build_model(ModelConfig(family, n_layers, 48, 12 if n_layers == 12 else 4), VOCAB, seed=0).eval()
    clean = sample("parity-aligned", 1, bits, seed=0)
    flipped = corrupt == "flip"
    corrupted = counterfactual.flip_input(clean, bits // 2) if flipped else counterfactual.redraw(clean, seed=1)
    return model, clean, corrupted, site, logit_diff(clean, step=bits)


@pytest.mark.parametrize("case", BEFORE, ids=lambda case: "-".join(map(str, case)))
def test_a_sweep_dispatches_a_fraction_of_the_operators_of_360c99a(case: tuple, stacks_of_a_gpu: None):
    given = arguments(*case)
    plan(*given)  # the first call imports
    with Counting() as counting:
        plan(*given).run()
    before, fraction = BEFORE[case]
    assert counting.operators.total() <= before / fraction


def test_a_sweep_of_token_ids_starts_few_operators_beside_its_two_passes():
    """Of 2 layers; the raw model's pass alone starts half of them."""
    model = arguments(2, 3, "resid_pre", "redraw")[0]
    clean = torch.arange(1, 15).unsqueeze(0)
    given = model, clean, clean + 20, "resid_pre", logit_diff(3, 4)
    plan(*given).run()
    with Counting() as counting:
        plan(*given).run()
    assert counting.operators.total() <= 377  # 460 at commit 6935c3e


@pytest.mark.parametrize("case", [case for case in BEFORE if case[2] == "resid_pre"], ids=str)
def test_a_small_sweep_has_one_shape_per_layer(case: tuple, stacks_of_a_gpu: None, monkeypatch: pytest.MonkeyPatch):
    """A captured graph, or a compiled pass, can then serve all sweeps of that many patches per layer."""
    shapes, mlp_out = list[tuple[int, ...]](), Block.mlp_out
    sweep = plan(*arguments(*case))  # tests itself on random prompts where there are many patches
    monkeypatch.setattr(Block, "mlp_out", lambda self, x: shapes.append(tuple(x.shape)) or mlp_out(self, x))
    sweep.run()
    by_layer = [sum(c.layer <= i and a for c, a in zip(sweep.cells, sweep.alive, strict=True)) for i in range(case[0])]
    positions = [sweep.base.n_pos] * (case[0] - 1) + [1]  # the last layer computes what the metric reads
    assert shapes == [(4 + n, pos, 48) for n, pos in zip(by_layer, positions, strict=True)]


@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "pattern", "mlp_post"])
def test_nothing_waits_for_the_device_until_a_unit_is_done(site: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_module.Sweep, "_at_once", None)
    sweep = plan(*arguments(2, 3, site, "redraw"))
    unit = sweep.units[0]
    cells = [sweep.cells[i] for i in unit.cells]
    engine: Any = sweep.engine(unit.prompts)
    fetched: list[Tensor] = []
    fetch = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda x: fetched.append(x) or fetch(x))
    with Counting() as counting:
        engine.queue(cells, first(cells[0]))
    assert not WAITS & set(counting.operators)
    assert not fetched
    with Counting() as counting:
        sweep.compute(unit)
    assert len(fetched) == 1  # the values


def test_nothing_waits_for_the_device_until_a_pass_at_once_is_done(monkeypatch: pytest.MonkeyPatch):
    sweep, fetched, fetch = plan(*arguments(2, 3, "resid_pre", "redraw")), list[Tensor](), Tensor.cpu
    with monkeypatch.context() as within, Counting() as counting:
        within.setattr(Tensor, "cpu", lambda x: fetched.append(x) or fetch(x))
        assert sweep._at_once is not None
    rows = sum(sweep.alive) + 4
    assert [x.shape for x in fetched] == [(rows, 1), (2, 1, sweep.base.n_pos)]  # the metric, and what differs
    assert [w for w in WAITS if counting.operators[w]] == ["_local_scalar_dense"]
    assert counting.operators["_local_scalar_dense"] == 1  # whether the values, on the CPU, are finite
