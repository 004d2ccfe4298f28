"""The scaling benchmark: tables from hand-made rows, and a measurement whose parts add up."""

import json

import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.scaling import StageCase, StepCase, moments_of, recipe_of, run_case, together
from experiments.benchmarks.tables import stage_text, step_table
from experiments.cli import main
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


def test_tables_have_a_row_per_measurement_and_name_the_device():
    rows = {"a": STEP, "b": FOUR, "c": STAGES, "d": {**STEP, "case": {**STEP["case"], "n_layers": 12, "d_model": 768}}}
    measured = [cells[:4] for cells in step_table(rows)[1]]
    assert {cells[0] for cells in measured} == {"some GPU"}
    assert [cells[1:] for cells in measured] == [
        ["3 x 128", "bf16", "1"],
        ["3 x 128", "bf16", "4"],
        ["12 x 768", "bf16", "1"],
    ]
    assert stage_text(rows) == "Seconds per run after training, one run alone, on a CPU: evaluate 5, battery 10."
    assert step_table({"c": STAGES})[1] == []
    assert stage_text({"a": STEP}) == ""


def test_the_table_has_cpu_and_gpu_rows_from_their_files(tmp_path):
    path, gpu = tmp_path / "scaling.json", tmp_path / "gpu.json"
    path.write_text(json.dumps({"provenance": provenance_record(), "rows": {"a": STEP, "b": STAGES}}))
    row = {"device": "H", "n_layers": 3, "d_model": 128, "precision": "bf16", "tokens": 4000, "ms_per_step": 20.0}
    gpu.write_text(json.dumps({"rows": {"x": row}}))
    table = scaling_table(path, gpu)
    assert table.count("some GPU") == 1
    assert "| H | 3 x 128 | bf16 | 4,000 | 20 | 200,000 |" in table


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
