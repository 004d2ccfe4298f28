"""The same seed gives the same numbers on 1 thread and 2, and in float32 and float64, and a fault would be seen."""

import json
from contextlib import nullcontext

import pytest
import torch

from experiments.benchmarks import drift
from experiments.benchmarks.drift import DriftCase, compare, measure, measure_wide, threads, tolerances
from experiments.cli import main
from experiments.tables.benchmarks import drift_table
from interp.models import ModelConfig, build_model
from interp.models.run import run_in_memory
from interp.tasks import default_vocabulary
from probes.calibration import as_run
from probes.planted import draw_plan, plant

LENGTH, PROMPTS = 6, 4


def tiny(family: str, size: float = 0.3):
    vocabulary = default_vocabulary()
    config = ModelConfig(family, n_layers=2, d_model=32, n_heads=2, initializer_range=size)
    return run_in_memory("tiny", build_model(config, len(vocabulary.ids), seed=0), "parity-aligned", vocabulary)


@pytest.fixture(scope="module")
def planted():
    """Labels are an anchor here, so that the battery has every rho."""
    return as_run(plant(draw_plan("A1", 0)))


SLOW = pytest.mark.slow


@pytest.mark.parametrize("family", ["alibi", pytest.param("rotary", marks=SLOW), pytest.param("absolute", marks=SLOW)])
def test_the_same_seed_gives_the_same_numbers(family):
    run, before = tiny(family), torch.get_num_threads()
    allowed = tolerances(run.raw)
    with threads(1):
        one, wide = measure(run, LENGTH, PROMPTS), measure_wide(run, LENGTH, PROMPTS)
    with threads(2):
        assert torch.get_num_threads() == 2
        two = measure(run, LENGTH, PROMPTS)
    assert torch.get_num_threads() == before
    assert set(one.values) == {"margins", "patched margins", "gradient x input", "EAP-IG"}
    for found, reference in ((two, one), (one, wide)):
        assert all(row["met"] for row in compare(found, reference, allowed).values())


@pytest.mark.slow
def test_the_battery_gives_the_same_rho(planted):
    with threads(1):
        one, wide = measure(planted, LENGTH, PROMPTS, LENGTH), measure_wide(planted, LENGTH, PROMPTS, LENGTH)
    with threads(2):
        two = measure(planted, LENGTH, PROMPTS, LENGTH)
    assert len(one.values["rho"]) > 10
    assert float(one.values["rho"].max()) > 0.9
    for found, reference in ((two, one), (one, wide)):
        assert compare(found, reference, tolerances(planted.raw))["rho"]["met"]


@pytest.mark.slow
def test_float64_is_float64_from_end_to_end():
    """Weights in float64 with a softmax in float32 would be off by more than this."""
    run = tiny("alibi")
    wide = measure_wide(run, LENGTH, PROMPTS)
    assert {v.dtype for v in wide.values.values()} == {torch.float64}
    with threads(2):
        again = measure_wide(run, LENGTH, PROMPTS)
    assert all(row["met"] for row in compare(again, wide, dict.fromkeys(wide.values, 1e-12)).values())


@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_a_weight_that_is_off_is_seen(size):
    run = tiny("alibi")
    sound = measure(run, LENGTH, PROMPTS)
    with torch.no_grad():
        weight = run.raw.get_parameter("transformer.h.0.mlp.dense_4h_to_h.weight")
        weight[0, 0] += size * weight.abs().max()
    rows = compare(measure(run, LENGTH, PROMPTS), sound, tolerances(run.raw))
    for name in ("margins", "patched margins", "gradient x input", "EAP-IG"):
        assert not rows[name]["met"]


def test_numbers_of_two_kinds_are_not_compared(planted):
    found, other = measure(planted, LENGTH, PROMPTS, LENGTH), measure(tiny("alibi"), LENGTH, PROMPTS)
    with pytest.raises(ValueError, match="quantities differ"):
        compare(found, other, tolerances(planted.raw))


def test_answers_that_differ_are_counted():
    one = measure(tiny("alibi"), LENGTH, PROMPTS)
    other = drift.Numbers(one.values, one.answers + torch.eye(*one.answers.shape, dtype=torch.long))
    row = compare(other, one, dict.fromkeys(one.values, 1.0))["answers"]
    assert row == {"differ": LENGTH, "of": one.answers.numel(), "allowed": 0, "met": False}


def test_the_verb_writes_a_row_and_the_table_shows_it(tmp_path, monkeypatch, capsys):
    case = DriftCase("tiny", LENGTH, None, PROMPTS)
    monkeypatch.setattr(drift, "DEFAULT", (case,))
    monkeypatch.setattr("experiments.load", lambda name: tiny("alibi"))
    monkeypatch.setattr(drift, "threads", lambda n: nullcontext())  # two threads on a busy core take long
    threads_before = torch.get_num_threads()
    assert main(["bench", "--drift", "--out", str(tmp_path)]) == 0
    assert "patched margins" in capsys.readouterr().out
    written = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))
    assert set(written["rows"]) == {case.name}
    assert written["rows"][case.name]["provenance"]["versions"]["torch"] == torch.__version__
    monkeypatch.setattr("experiments.tables.benchmarks.DRIFT", tmp_path / "drift.json")
    _, _, allowed, *rows = drift_table().splitlines()
    assert allowed.startswith("| allowed |")
    assert [row.split(" | ")[0:2] for row in rows] == [["| tiny", "6"]] * 2
    assert torch.get_num_threads() == threads_before
