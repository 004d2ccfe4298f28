"""Every function of `interp` on a second device, which `tests.elsewhere` simulates, gives the results of the CPU.

It fails where tensors of both devices meet in one operation, for prompts in memory and for token ids on the device.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from interp.patching import attention_changes
from tests.elsewhere import SHOWN, differences, second_device
from tests.interp.every_function import CLEAN, CORRUPTED, WORK, Work, knocked_out
from tests.interp.patching.test_knockouts import tiny

FAMILIES = ("alibi", "rotary", "grouped", "absolute", "alibi_sink", "parallel")
LONG = {
    *("path_patch", "knock_out, later layers frozen", "acdc, find_circuit"),
    *("patch a bridge", "grids", "little memory"),
}
# Refused on every device: key sinks have no TransformerBridge, and parallel blocks no resid_mid.
REFUSED = {
    "alibi_sink": {"patch a bridge", "capture", "grids", "little memory"},
    "parallel": {"patch resid_mid"},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:a callable metric needs the logits"),
    pytest.mark.filterwarnings("ignore:the circuit will be invalid"),
]


def model_of(family: str) -> Any:
    return tiny(family).double()


def compare(family: str, work: Work, ids: bool) -> None:
    inputs = (CLEAN.tokens, CORRUPTED.tokens) if ids else (CLEAN, CORRUPTED)
    expected, moved = work(model_of(family), *inputs), model_of(family)
    with second_device():
        found = work(moved.to(SHOWN), *((x.to(SHOWN) for x in inputs) if ids else inputs))  # type: ignore[union-attr]
        assert list(differences(expected, found)) == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in WORK])
def test_prompts_in_memory(name: str):
    compare("alibi", WORK[name], ids=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in FAMILIES for name in WORK if name not in REFUSED.get(family, ())]
)
def test_token_ids_on_the_device(family: str, name: str):
    compare(family, WORK[name], ids=True)


def picks_before_moving(own: Tensor, src: Tensor, new: Tensor | None, heads: Tensor) -> Tensor:
    """`_replaced` as it was when a verdict on an H100 failed: heads of other values are picked on the CPU."""
    some = attention_changes._some
    if new is None:
        return some(own, 2, heads)
    own = own.clone() if len(heads) == own.shape[2] else own.index_select(2, heads)
    src = src[src < own.shape[1]].to(own.device)
    new = some(new, 2, heads)[:, : len(src)].to(own)
    return own.index_copy_(1, src, new.expand(len(own), -1, -1, -1))


def test_an_index_on_the_device_of_values_in_memory_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention_changes, "_replaced", picks_before_moving)
    with pytest.raises(RuntimeError, match=r"found at least two devices.*index_select"):
        compare("alibi", knocked_out, ids=False)
    assert knocked_out(model_of("alibi"), CLEAN, CORRUPTED)  # on one device it is no fault
