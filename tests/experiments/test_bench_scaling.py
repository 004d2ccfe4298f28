"""The benchmark of scaling: estimates on hand-made numbers, and a measurement whose parts add up."""

import json

import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.estimates import (
    LINKS,
    Waves,
    all_reduce_seconds,
    data_parallel,
    grid_waves,
    link_of,
    worthwhile_compute,
)
from experiments.benchmarks.scaling import (
    StageCase,
    StepCase,
    moments_of,
    recipe_of,
    run_case,
    seconds_of_run,
    together,
)
from experiments.benchmarks.tables import (
    estimated_grid,
    estimated_links,
    estimated_parallel,
    measured_steps,
    stage_words,
)
from experiments.cli import main
from experiments.grid import runs_of
from experiments.support.provenance import provenance_record
from experiments.tables.benchmarks import scaling_table
from experiments.training.recipe import parts

TINY = StepCase("cpu", 1, 16, 2, runs=2, moments=2)
STEP = {
    "case": {"device": "cuda", "n_layers": 3, "d_model": 128, "precision": "bf16", "runs": 1},
    "device": "some GPU",
    "ms_a_step": 10.0,
    "ms_a_check": 50.0,
    "steps_a_check": 100,
    "steps": 3000,
    "tokens_a_second": 4e5,
    "flops_a_second": 1e12,
    "gradient_bytes": 4_500_000,
    "busy": 0.0,
}
FOUR = {**STEP, "case": {**STEP["case"], "runs": 4}, "ms_a_step": 15.0}
STAGES = {"case": {"device": "cuda", "prompts": 128}, "seconds": {"evaluate": 5.0, "battery": 10.5}, "device": "a CPU"}


def test_a_grid_takes_as_many_waves_as_places_demand():
    assert grid_waves(77, {1: 60.0}, 1) == Waves(77 * 60.0, 77, 1, 0)
    assert grid_waves(77, {1: 60.0}, 8) == Waves(600.0, 10, 1, 3)
    assert grid_waves(77, {1: 60.0}, 64) == Waves(120.0, 2, 1, 51)
    assert grid_waves(64, {1: 60.0}, 64) == Waves(60.0, 1, 1, 0)


def test_devices_are_shared_only_where_that_is_faster():
    shared = {1: 60.0, 4: 100.0, 8: 300.0}
    assert grid_waves(77, shared, 1) == Waves(2000.0, 20, 4, 3)  # 77 waves of 60, 20 of 100, 10 of 300
    assert grid_waves(77, shared, 64) == Waves(100.0, 1, 4, 179)
    assert grid_waves(8, shared, 8) == Waves(60.0, 1, 1, 0)  # nothing to share: each has its own


@pytest.mark.parametrize("bad", [(0, {1: 1.0}, 1), (1, {}, 1), (1, {1: 1.0}, 0)])
def test_a_grid_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="at least one run"):
        grid_waves(*bad)


def test_a_ring_sends_nearly_twice_the_gradients():
    assert all_reduce_seconds(1e9, 1, 1e9) == 0
    assert all_reduce_seconds(1e9, 2, 1e9) == 1
    assert all_reduce_seconds(1e9, 8, 1e9) == 1.75
    assert all_reduce_seconds(1e9, 64, 2e9) == pytest.approx(2 * 63 / 64 / 2)


def test_efficiency_is_the_share_of_a_step_that_computes():
    alone = data_parallel(3.0, 1e9, 1, 1e9)
    assert (alone.seconds, alone.efficiency, alone.speedup) == (3.0, 1.0, 1.0)
    each = data_parallel(3.5, 1e9, 8, 1e9)  # 1.75 to sum the gradients
    assert (each.seconds, each.efficiency) == (5.25, pytest.approx(2 / 3))
    assert each.speedup == pytest.approx(8 * 2 / 3)
    shared = data_parallel(14.0, 1e9, 8, 1e9, fixed="global")  # an eighth of the prompts on each
    assert (shared.seconds, shared.speedup) == (3.5, 4.0)
    assert shared.efficiency == 0.5


def test_what_is_worthwhile_is_as_efficient_as_asked():
    compute = worthwhile_compute(1e9, 8, 1e9)
    assert compute == pytest.approx(9 * 1.75)
    assert data_parallel(compute, 1e9, 8, 1e9).efficiency == pytest.approx(0.9)


def test_links_are_those_between_the_devices():
    assert (link_of("cuda", 8), link_of("cuda", 64), link_of("cpu", 8)) == tuple(LINKS)


def test_a_run_is_its_steps_its_checks_and_its_stages():
    assert seconds_of_run(STEP, STAGES, 3000) == pytest.approx(31.5 + 15.5)
    assert seconds_of_run(STEP, STAGES, 6000) == pytest.approx(63 + 15.5)


def test_tables_take_the_fastest_and_name_the_device():
    rows = {"a": STEP, "b": FOUR, "c": STAGES, "d": {**STEP, "case": {**STEP["case"], "n_layers": 12, "d_model": 768}}}
    del rows["d"]["ms_a_check"]  # no run of the grid
    measured = [cells[:4] for cells in measured_steps(rows)[1]]
    assert {cells[0] for cells in measured} == {"some GPU"}
    assert [cells[1:] for cells in measured] == [
        ["3 x 128", "bf16", "1"],
        ["3 x 128", "bf16", "4"],
        ["12 x 768", "bf16", "1"],
    ]
    one, eight, many = estimated_grid(rows)[1]
    steps = sum(6000 if t.name.startswith("addition") else 3000 for t in runs_of()) / len(runs_of())
    assert 3000 < steps < 6000
    seconds = steps * 0.0155 + 15.5  # of each of four runs that share
    assert one == ["some GPU", "bf16", "1", "4", "20", f"{20 * seconds / 3600:.2g}", "3 of 4"]
    assert eight[2:5] == ["8", "4", "3"]
    assert many[2:] == ["64", "4", "1", f"{seconds / 3600:.2g}", "179 of 256"]  # faster than two waves of single runs
    parallel = estimated_parallel(rows)[1]
    assert [cells[3:5] for cells in parallel[:2]] == [["8", "NVLink 4"], ["64", "InfiniBand NDR"]]
    assert parallel[0][5] == f"{0.010 / (0.010 + 1.75 * 4.5e6 / 450e9):.1%}"
    *words, ms, worthwhile = estimated_links(rows)[1][0]
    assert words == ["3 x 128", "4.5", "8", "NVLink 4"]
    assert (float(ms), float(worthwhile)) == pytest.approx((0.0175, 9 * 0.0175), rel=0.01)
    assert len(estimated_links(rows)[1]) == 4  # two shapes
    assert stage_words(rows) == "Seconds a run after training, one run alone, on a CPU: evaluate 5, battery 10."


def test_a_grid_is_estimated_only_where_all_of_a_run_was_measured():
    elsewhere = {**STAGES, "case": {"device": "cpu", "prompts": 128}}
    assert estimated_grid({"a": STEP})[1] == []
    assert estimated_grid({"a": STEP, "b": elsewhere})[1] == []
    assert len(estimated_grid({"a": STEP, "b": elsewhere, "c": STAGES})[1]) == 3


def test_the_readme_gets_what_was_measured(tmp_path):
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps({"provenance": provenance_record(), "rows": {"a": STEP, "b": STAGES}}))
    found = scaling_table(path)
    assert found.count("some GPU") == 1 + 3 + 2
    assert found.count("Estimated, ") == 3
    assert "NVLink 4" in found


def test_steps_are_spread_over_the_whole_recipe():
    assert moments_of(3000, 12)[0] == 125
    assert moments_of(3000, 12)[-1] == 2875
    assert moments_of(1, 3) == [0]


@pytest.mark.slow
def test_two_runs_on_one_device_are_timed_together():
    row = run_case(TINY, rounds=1)
    assert row["ms_a_step"] > 0
    recipe, moments = recipe_of(TINY), moments_of(recipe_of(TINY).steps, TINY.moments)
    theirs = [part.batch.tokens.numel() for process in (0, 1) for at in moments for part in parts(recipe, at, process)]
    assert row["tokens"] == sum(theirs) / 4  # two steps of each of two processes, which have prompts of their own
    assert row["tokens_a_second"] == pytest.approx(1000 * 2 * row["tokens"] / row["ms_a_step"])
    assert row["flops_a_second"] == pytest.approx(1000 * 2 * row["flops"] / row["ms_a_step"])
    weights = row["gradient_bytes"] / 4
    assert weights > 416 * 16 + 12 * 16 * 16
    assert row["flops"] > 6 * 12 * 16 * 16 * row["tokens"]  # forward and backward, two a weight and token
    assert "ms_a_check" not in row  # no run of the grid
    assert row["device"].startswith("CPU, ")


def test_a_process_that_never_begins_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(ValueError, match="only 1 of 2 processes began"):
        together(tmp_path, 0, 2)
    together(tmp_path, 1, 2)


def test_the_verb_keeps_the_rows_of_other_devices(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "run_case", lambda case, rounds: STAGES if isinstance(case, StageCase) else STEP)
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps({"rows": {"cuda-step": FOUR, "cuda-stages-128": STAGES}}))
    assert main(["bench", "--scaling", "--device", "cpu", "--out", str(tmp_path)]) == 0
    found = set(json.loads(path.read_text(encoding="utf-8"))["rows"])
    ends = ("float32-runs1", "bf16-runs1", "float32-runs2", "bf16-runs2")
    steps = {f"cpu-step-3x128-{end}" for end in ends} | {"cpu-step-12x768-float32-runs1"}
    assert found == {"cuda-step", "cuda-stages-128", "cpu-stages-128", *steps}
    shown = capsys.readouterr().out
    assert "ESTIMATED" in shown
    assert "some GPU" in shown


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["--device", "cpu"], "--device is for --scaling"), (["--scaling", "--peak"], "different benchmarks")],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main(["bench", *argv]) == 2
    assert words in capsys.readouterr().err


def test_a_device_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "--scaling", "--device", "cuda"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "mnemoscope bench: --device cuda: this machine has no such device; leave it out, or say cpu"
    ]
