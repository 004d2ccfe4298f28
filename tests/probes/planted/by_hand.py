"""Models of a mechanism that one test needs, in GPT-2."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probes.planted import Plan, Planted, plan, plant
from probes.planted.mechanisms import OUTSIDE_BUILDERS
from probes.planted.parts import Mechanism
from probes.planted.pieces import Setting


def planted_by_hand(
    monkeypatch: pytest.MonkeyPatch, name: str, builder: Callable[[Setting], Mechanism], longest: int
) -> Planted:
    """Return the model of a mechanism that is known to the planter for this test only."""
    monkeypatch.setitem(OUTSIDE_BUILDERS, name, builder)
    monkeypatch.setitem(plan.ARCHITECTURES_OF, name, ("gpt2",))
    return plant(Plan(name, "gpt2", longest))
