"""The simulated device takes and refuses what CUDA does, and computes what the CPU does. With CUDA, it is compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.elsewhere import MEMORY, SHOWN, Elsewhere, differences, second_device

# The rules are those of CUDA, so a machine with CUDA checks them there, too.
PLACES: dict[str, Callable[[], AbstractContextManager]] = {"simulated": second_device}
if torch.cuda.is_available():
    PLACES["real"] = nullcontext

HERE = torch.arange(12.0).reshape(4, 3)
AT = torch.tensor([0, 2])
ONE = torch.tensor(5.0)


def put(x: Tensor, at: Any, values: Any) -> Tensor:
    x = x.clone()
    x[at] = values
    return x


# Each takes a tensor `[4 3]` on the device and the function that moves there.
REFUSED: dict[str, Callable[[Tensor, Callable[[Tensor], Tensor]], Any]] = {
    "sum": lambda x, to: x + HERE,
    "sum in place": lambda x, to: HERE.clone().add_(x),
    "number of the device": lambda x, to: HERE + x.sum(),
    "product of matrices": lambda x, to: x @ HERE.T,
    "einsum": lambda x, to: torch.einsum("ij,kj->ik", HERE, x),
    "concatenation": lambda x, to: torch.cat([x, HERE]),
    "stack of numbers": lambda x, to: torch.stack([x.sum(), ONE]),
    "selection by an index here": lambda x, to: x.index_select(0, AT),
    "selection by an index there": lambda x, to: HERE.index_select(0, to(AT)),
    "index there": lambda x, to: HERE[to(AT)],
    "mask there": lambda x, to: HERE[x > 3],
    "values here, at an index": lambda x, to: put(x, AT, HERE[AT]),
    "values there, at an index": lambda x, to: put(HERE, AT, x[AT]),
    "gather": lambda x, to: x.gather(0, AT.expand(3, 2).T),
    "scatter": lambda x, to: torch.zeros(4, 3).scatter_(0, to(AT.expand(3, 2).T), 1.0),
    "copy at an index": lambda x, to: x.clone().index_copy_(0, AT, x[:2]),
    "embedding": lambda x, to: nn.functional.embedding(AT, x),
    "choice by a mask here": lambda x, to: torch.where(HERE > 3, x, 0.0),
    "filling by a mask here": lambda x, to: x.masked_fill(HERE > 3, 0.0),
    "filling by a mask there": lambda x, to: HERE.masked_fill(x > 3, 0.0),
    "membership": lambda x, to: torch.isin(x, HERE[0]),
    "layer": lambda x, to: nn.Linear(3, 3)(x),
    "generator of the CPU": lambda x, to: torch.rand(3, device=x.device, generator=torch.Generator()),
    "permutation by a generator of the CPU": lambda x, to: torch.randperm(
        3, device=x.device, generator=torch.Generator()
    ),
    "array": lambda x, to: x.numpy(),
    "array by numpy": lambda x, to: np.asarray(x),
    "number of an array": lambda x, to: np.asarray(x.sum()),
}
TAKEN: dict[str, Callable[[Tensor, Callable[[Tensor], Tensor]], Any]] = {
    "number here": lambda x, to: x * ONE,
    "choice of a number here": lambda x, to: torch.where(x > 3, ONE, x),
    "index here": lambda x, to: x[AT],
    "mask here": lambda x, to: x[HERE > 3],
    "index of numpy": lambda x, to: x[np.array([0, 2])],
    "one index there": lambda x, to: HERE[to(AT)[1]],
    "number here, at an index": lambda x, to: put(x, AT, ONE),
    "number at an index": lambda x, to: put(x, AT, 5.0),
    "values here, at a slice": lambda x, to: put(x, slice(1, 3), HERE[:2]),
    "values there, at a slice": lambda x, to: put(HERE, slice(1, 3), x[:2]),
    "copy to here": lambda x, to: torch.zeros(4, 3).copy_(x),
    "host synchronisation": lambda x, to: [
        x.tolist(),
        x.sum().item(),
        float(x[1, 1]),
        int(x[0, 1]),
        bool((x > 3).any()),
    ],
    "format": lambda x, to: f"{x.sum():.1f}",
    "back and forth": lambda x, to: [x.cpu().numpy().tolist(), x.to("cpu", torch.float64), x.cpu().to(x)],
    "factories": lambda x, to: [
        torch.zeros(3, device=x.device) + torch.arange(3, device=x.device),
        torch.tensor([1.0, 2, 3], device=x.device) + x,
        x.new_tensor([1, 2, 3]) + x.new_zeros(3) + torch.ones_like(x),
        torch.as_tensor(np.ones(3, dtype=np.float32), device=x.device) + x,
        x.new_empty(2, device="cpu").fill_(1) + HERE[:, :2],
    ],
    "in place": lambda x, to: x.clone().add_(1).mul_(ONE).index_copy_(0, to(AT), x[:2]),
    "shared memory": lambda x, to: [y := x.clone(), y[0].zero_(), y],
    "tuple of results": lambda x, to: list(x.sort(descending=True)) + list(x.unique(dim=0, return_inverse=True)),
    "module": lambda x, to: [p.shape for p in nn.Linear(3, 3).to(x.device).double().parameters()],
}


def arguments() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return HERE.to("cuda"), lambda x: x.to("cuda")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("place", PLACES)
def test_refused(place: str, name: str):
    with PLACES[place](), pytest.raises((RuntimeError, TypeError)):
        REFUSED[name](*arguments())
    if "generator" not in name:  # on one device it is no fault
        REFUSED[name](HERE, lambda x: x)


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("place", PLACES)
def test_taken(place: str, name: str):
    expected = here(TAKEN[name](HERE, lambda x: x))
    with PLACES[place]():
        found = here(TAKEN[name](*arguments()))
    assert list(differences(expected, found)) == []


def here(found: Any) -> list[Any]:
    return [x.cpu() if isinstance(x, Tensor) else x for x in (found if isinstance(found, list) else [found])]


@pytest.mark.parametrize("place", PLACES)
def test_the_device_is_cuda(place: str):
    with PLACES[place]():
        x, _ = arguments()
        assert (str(x.device), x.device.type, x.get_device()) == ("cuda:0", "cuda", 0)
        assert (x.is_cuda, x.is_cpu, x.is_meta) == (True, False, False)


@pytest.mark.parametrize("place", PLACES)
def test_factories_by_name(place: str):
    with PLACES[place]():
        x = torch.zeros(3, device="cuda:0") + torch.arange(3, device="cuda") + torch.full((3,), 2, device=SHOWN)
        assert x.is_cuda
        assert x.tolist() == [2, 3, 4]
        assert torch.rand(3, device="cuda").is_cuda


def test_operations_stay_on_the_device():
    with second_device():
        x = HERE.to(SHOWN)
        for y in (x + 1, x[AT], x.view(-1), torch.zeros(3, device=SHOWN), torch.zeros_like(x), x.sum(), x.T):
            assert isinstance(y, Elsewhere)
            assert y.device == SHOWN
        assert not isinstance(x.cpu(), Elsewhere)
        assert not isinstance(torch.zeros(3), Elsewhere)
        assert torch.cuda.mem_get_info(x.device) == MEMORY


def test_gradients_are_those_of_the_cpu():
    def gradients(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).to(device)
        x = HERE.to(device).requires_grad_()
        loss = model(x[AT]).logsumexp(dim=-1).sum()
        (of_input,) = torch.autograd.grad(loss, x, retain_graph=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        loss.backward()
        optimizer.step()
        return [y.detach().cpu() for y in (of_input, *model.parameters())]

    with second_device():
        found = gradients("cuda:0")
    assert list(differences(gradients("cpu"), found)) == []


def test_nothing_is_left_behind():
    before = torch.cuda.mem_get_info
    with second_device():
        pass
    assert torch.cuda.mem_get_info is before
    assert type(torch.zeros(3, device="meta") + 1) is Tensor
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError)):
            torch.zeros(3, device="cuda:0")


def test_differences_are_named():
    result = {"values": torch.ones(2), "cost": 1.0, "name": "z", "pair": (1.0, None)}
    assert list(differences(result, result)) == []
    for key, other in (("values", torch.zeros(2)), ("values", torch.ones(3)), ("name", "k"), ("pair", (1.0, 2))):
        assert len(list(differences(result, result | {key: other}))) == 1, key
    assert list(differences(result, result | {"values": Elsewhere(torch.ones(2))})) == [
        "[values]: Elsewhere of shape [2], not Tensor of [2]"
    ]
