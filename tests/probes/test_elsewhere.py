"""The battery, and the measurements on lists, on a second device that `tests.elsewhere` simulates, as on the CPU."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from experiments import load
from interp.models import Run
from interp.patching import attention_changes
from probes import battery
from probes.arms import inputs, m06_heads, presence_groups, presence_search
from probes.arms.registry import ARMS
from probes.binding import measure_binding
from tests.elsewhere import SHOWN, differences, second_device
from tests.interp.test_elsewhere import picks_before_moving
from tests.probes.binding.test_measuring import copier, words_in_turn
from tests.probes.oracle_models import MemoryRun, planted_run

# Planted models in which arms take other ways, in GPT-2 and with rotary positions.
PLANTED = (("sink", "gpt_neox"), ("A1 with sink", "gpt2"), ("placeholder", "llama"), ("A1 written", "gpt_neox"))
LONG = ("M6", "presence", "shares", "M8", "M9", "M12")
# M1 to M3 are measured together. M9 trains for minutes.
EACH = [arm for arm in ARMS if arm not in ("M2", "M3")]
MOST = [arm for arm in ARMS if arm != "M9"]


def compare(run: Run, moved: Run, arms: Collection[str], length: int | tuple[int, int] = 8) -> None:
    """Compare the battery on two runs of one model, of which the second is moved to the simulated device."""
    options: dict[str, Any] = {"lengths": (length,), "prompts": 24, "arms": arms, "forced": True}
    expected = battery(run, **options)
    assert expected.measured[0].refusal is None
    if arms != ("M10",):  # it needs a model that makes mistakes
        assert expected.measured[0].evidence
    raw: Any = moved.raw
    with second_device():
        raw.to(SHOWN)
        assert list(differences(expected, battery(moved, **options))) == []


def planted_twice(mechanism: str, architecture: str) -> tuple[Run, Run]:
    """Return two runs of a planted model in float64, where rounding hides no difference."""
    base = planted_run(mechanism, architecture)
    one, other = (MemoryRun(base.name, "", base.format, base.vocabulary, made=base.made) for _ in range(2))
    for run in (one, other):
        run.raw.double()
    return one, other


def loaded_twice(name: str) -> tuple[Run, Run]:
    one, other = (load(name, device="cpu", dtype="float64") for _ in range(2))
    return one, other


@pytest.mark.parametrize("arm", [pytest.param(a, marks=[pytest.mark.slow] if a in LONG else []) for a in EACH])
def test_each_arm(arm: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "MANY", 96)  # prompts that M9 learns from
    compare(*planted_twice("A1", "gpt2"), (arm,))


@pytest.mark.slow
def test_a_search_among_many_heads(monkeypatch: pytest.MonkeyPatch):
    for module in (m06_heads, presence_search, presence_groups):
        monkeypatch.setattr(module, "MANY_UNITS", 0)
    compare(*planted_twice("A1 with sink", "gpt2"), ("M6", "presence"))


@pytest.mark.slow
@pytest.mark.parametrize(("mechanism", "architecture"), PLANTED)
def test_other_mechanisms(mechanism: str, architecture: str):
    compare(*planted_twice(mechanism, architecture), MOST)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parity-aligned-alibi", "parity-constant-alibi"])
def test_trained_models_with_alibi(name: str):
    compare(*loaded_twice(name), MOST)


@pytest.mark.slow
def test_addition():
    compare(*loaded_twice("addition-aligned-alibi-seed2"), ("M1", "M5", "M6", "content", "M12"), (6, 6))


@pytest.mark.parametrize("before", ["", "A "])
def test_lists(before: str):
    trial = words_in_turn(before)
    model, moved = (copier(trial, trial.lookups.values[1]).double() for _ in range(2))
    expected = measure_binding(model, [trial] * 3)
    assert expected.competent
    with second_device():
        assert list(differences(expected, measure_binding(moved.to(SHOWN), [trial] * 3))) == []  # type: ignore[arg-type]


def test_an_index_on_the_device_of_values_in_memory_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention_changes, "_replaced", picks_before_moving)
    with pytest.raises(RuntimeError, match=r"found at least two devices.*index_select"):
        compare(*planted_twice("A1", "gpt2"), ("M12",))
