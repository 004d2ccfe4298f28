"""`mnemoscope sweep` does missing stages, keeps finished ones, and names runs that fail."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from experiments import stages
from experiments.cli import main
from experiments.commands import sweep
from experiments.commands.sweep import SweepCommand
from experiments.commands.train import TrainCommand
from experiments.grid import GROUPS
from experiments.stages import StageOptions, do_stage, name_of, progress_of, remove_locks, with_steps
from experiments.support import progress
from experiments.support.jobs import Job
from experiments.support.provenance import provenance_record
from experiments.training.loop import METRICS, work_of
from interp.models.record import write_record
from interp.support import writing
from interp.support.writing import alone_in
from probes.serialization import battery_to_json
from tests.probes.test_decision import ANCHOR, evidence, one

SMALL = ["sweep", "--groups", "few", "--stages", "train", "--steps", "1", "--out", "zoo"]
FEW = [(f"parity-{form}-alibi", 2) for form in ("scratchpad", "direct", "interleaved", "constant")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(GROUPS, "few", tuple(FEW))


@pytest.mark.slow
def test_what_is_there_is_not_done_again(capsys):
    names = [f"{name}-seed{seed}" for name, seed in FEW]
    assert main([*SMALL, "--dry-run"]) == 0
    assert "4 runs, 0 of 4 stages done, 4 to do" in capsys.readouterr().out
    assert not Path("zoo").exists()
    done = Path("zoo") / names[1]
    done.mkdir(parents=True)
    (done / "run.json").write_text("{}")
    assert main(SMALL) == 2  # before hours of work that could not be gathered
    assert "run.json is not a run record" in capsys.readouterr().err
    assert [p.name for p in Path("zoo").iterdir()] == [names[1]]
    (done / "run.json").unlink()
    done.rmdir()
    half = Path("zoo") / f"{names[2]}.training"  # of another recipe
    half.mkdir()
    (half / "recipe.json").write_text(json.dumps({"seed": 99}))
    assert main(SMALL) == 1
    shown = capsys.readouterr()
    assert f"{names[2]} train" in shown.err
    assert "is of another recipe" in shown.err
    assert all((Path("zoo") / names[k] / "model.safetensors").exists() for k in (0, 1, 3))

    (half / "recipe.json").unlink()
    before = (Path("zoo") / names[0] / "run.json").stat().st_mtime_ns
    assert main(SMALL) == 0
    assert "4 runs, 3 of 4 stages done, 1 to do" in capsys.readouterr().out
    assert (Path("zoo") / names[0] / "run.json").stat().st_mtime_ns == before
    assert main([*SMALL, "--dry-run"]) == 0
    assert "0 to do" in capsys.readouterr().out
    record = json.loads((Path("zoo") / names[2] / "run.json").read_text())
    assert record["recipe"]["steps"] == 1
    assert record["outcome"]["competent"] is False  # counted, not hidden
    assert Path("zoo/results.parquet").exists()


@pytest.mark.slow
def test_what_was_made_with_other_options_is_not_taken_for_done(capsys, monkeypatch):
    """A trial must not pass for the whole thing."""
    monkeypatch.setitem(GROUPS, "few", tuple(FEW[:1]))
    argv = ["sweep", "--groups", "few", "--out", "zoo"]
    assert main([*SMALL, "--precision", "no"]) == 0
    run = Path("zoo/parity-scratchpad-alibi-seed2")
    for more, words in (
        ([], f"{run.name} exists, trained with other options than now (steps 1 and 3000"),
        (["--steps", "2", "--dry-run"], "steps 1 and 2"),
        (["--steps", "1", "--precision", "bf16"], "(precision no and bf16); choose another --out, or remove"),
    ):
        capsys.readouterr()
        assert main([*argv, *more]) == 2
        assert words in capsys.readouterr().err
    assert main([*argv, "--steps", "1", "--dry-run"]) == 0  # whatever precision they were trained with
    result = {"version": 1, "battery": {"prompts": 128}}
    (run / "battery.json").write_text(json.dumps(result))
    assert main([*argv, "--steps", "1", "--dry-run"]) == 0
    assert main([*argv, "--steps", "1", "--prompts", "64"]) == 2
    assert "battery.json was made with --prompts 128, and --prompts is 64 now" in capsys.readouterr().err


def test_results_of_another_precision_are_refused_before_any_work(capsys):
    folder = Path("zoo/parity-scratchpad-alibi-seed2")
    folder.mkdir(parents=True)
    argv = ["sweep", "--groups", "few", "--out", "zoo", "--dry-run"]
    for made, more, now in (
        ("float32", [], ""),
        ("float32", ["--dtype", "bfloat16"], "bfloat16"),
        ("bfloat16", ["--dtype", "bfloat16"], ""),
        ("bfloat16", [], "float32"),
    ):
        result = {"version": 1, "provenance": provenance_record(dtype=made), "accuracy": []}
        (folder / "evaluation.json").write_text(json.dumps(result))
        assert main([*argv, *more]) == (2 if now else 0)
        said = capsys.readouterr().err
        assert (f"evaluation.json was made with --dtype {made}, and --dtype is {now} now; choose" in said) == bool(now)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--groups", "gap"], "unknown groups gap"),
        (
            ["--stages", "trian"],
            "unknown stages trian; stages are train, evaluate, longer, operands, ",
        ),
        (["--seeds", "1"], "no run of these groups has seed 1"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--prompts", "5"], "--prompts must be at least 24"),
        (
            ["--groups", "gaps", "--stages", "operands"],
            "no run of these groups, seeds and formats has the stages operands",
        ),
        (["--cuda-graphs", "--device", "cpu"], "CUDA graphs need a CUDA device; leave --cuda-graphs out"),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main(["sweep", *argv]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
    assert not Path("mnemoscope-out").exists()


TRAIN = TrainCommand(*FEW[0])
OPTIONS = StageOptions(prompts=24)
LOCK = f".{name_of(TRAIN)}.locked"


def trained(zoo: Path, train: TrainCommand = TRAIN) -> Path:
    """Write the record of a run that has been trained for one step; return its folder."""
    recipe = with_steps(train, 1).recipe()
    outcome = {"competent": True, "step_accuracy": 1.0, "steps": 1}
    folder = zoo / name_of(train)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"format": recipe.format, "vocabulary": {}, "recipe": recipe.to_json(), "outcome": outcome}
    write_record(folder, record | {"provenance": provenance_record()})
    return folder


@contextmanager
def another_at(folder: Path) -> Iterator[int]:
    """Another process at work in a folder, until the block ends or it is killed."""
    receive, send = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            with alone_in(folder):
                os.write(send, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.read(receive, 1)
    for handle in (receive, send):
        os.close(handle)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def measured(monkeypatch) -> list[Path]:
    """Stands for the battery: the folders that it was asked of."""
    asked: list[Path] = []

    def battery(folder: Path, options: StageOptions) -> None:
        asked.append(folder)
        battery = replace(one(evidence(**ANCHOR)), name=folder.name, prompts=options.prompts)
        result = {"version": 1, "battery": battery_to_json(battery), "provenance": provenance_record()}
        (folder / "battery.json").write_text(json.dumps(result))

    monkeypatch.setattr(stages, "_battery", battery)
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    return asked


def test_what_another_process_is_at_is_left_to_it(measured):
    zoo = Path("zoo")
    trained(zoo)
    with another_at(zoo / LOCK):
        trouble = do_stage(zoo, TRAIN, OPTIONS, ["battery"])
        assert trouble is not None
        assert trouble.another
        assert "another process is at work in" in trouble.reason
        remove_locks(zoo)
        assert (zoo / LOCK / "lock").exists()  # held
    assert not measured
    assert (zoo / LOCK / "lock").exists()  # a killed process leaves the file, and nobody's lock on it
    assert do_stage(zoo, TRAIN, OPTIONS, ["battery"]) is None
    assert len(measured) == 1
    assert do_stage(zoo, TRAIN, OPTIONS, ["battery"]) is None  # done since the list of what is missing was made
    assert len(measured) == 1
    assert sorted(p.name for p in zoo.iterdir()) == [name_of(TRAIN)]


def test_locks_that_killed_commands_left_are_forgotten():
    with another_at(Path("zoo") / LOCK):
        pass
    remove_locks(Path("zoo"))
    assert not list(Path("zoo").iterdir())


class Here:
    """An engine without processes."""

    workers = 1

    def submit(self, job: Job) -> Callable[[], Any]:
        return partial(job.work, *job.args)

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        return handles

    def result(self, handle: Callable[[], Any]) -> Any:
        return handle()

    def stop(self, at_once: bool) -> None:
        pass


def test_the_verb_does_the_rest_and_names_what_is_left(measured, monkeypatch, capsys):
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: Here())
    zoo, argv = Path("zoo"), ["battery" if a == "train" else a for a in SMALL]
    for run in FEW:
        trained(zoo, TrainCommand(*run))
    with another_at(zoo / LOCK):
        assert main(argv) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(measured) == 3
    assert said[-1].startswith(f"LEFT to another process: {name_of(TRAIN)}: another process is at work in")
    assert main(argv) == 0
    assert len(measured) == 4
    assert not list(zoo.glob(".*"))


class Slow(Here):
    """An engine whose jobs take longer than a wait."""

    def __init__(self) -> None:
        self.waits = 0

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        self.waits += 1
        return handles if self.waits % 2 == 0 else []


def test_a_stage_that_takes_long_is_named_while_it_runs(measured, monkeypatch, capsys):
    class Often(progress.Lines):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args[:-1], seconds=0)

    monkeypatch.setattr(progress, "Lines", Often)
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: Slow())
    for run in FEW:
        trained(Path("zoo"), TrainCommand(*run))
    assert main(["battery" if a == "train" else a for a in SMALL]) == 0
    assert f"{name_of(TRAIN)} battery: 0 of 4 stages, 00:00 elapsed\n" in capsys.readouterr().err


def test_the_last_step_of_a_training_is_said():
    out, name = Path("zoo"), name_of(TRAIN)
    job = Job(f"{name} train", do_stage, (out, TRAIN, OPTIONS, ["train"]))
    assert progress_of(job) == f"{name} train"
    metrics = work_of(out, name) / METRICS
    metrics.parent.mkdir(parents=True)
    for written, said in [("", ""), ('{"step": 1', ""), ('{"step": 100}\n{"ste', ", step 100"), ("?\n", "")]:
        metrics.write_text(written)
        assert progress_of(job) == f"{name} train{said}"
    assert progress_of(replace(job, name=f"{name} battery")) == f"{name} battery"


def test_what_another_has_finished_by_the_end_is_not_missing(measured, monkeypatch, capsys):
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: Here())
    real, other = stages._battery, Path("zoo").resolve() / name_of(TRAIN)

    def battery(folder: Path, options: StageOptions) -> None:
        real(folder, options)
        real(other, options)  # meanwhile

    monkeypatch.setattr(stages, "_battery", battery)
    for run in FEW:
        trained(Path("zoo"), TrainCommand(*run))
    argv = ["battery" if a == "train" else a for a in SMALL]
    with another_at(Path("zoo") / LOCK):
        assert main(argv) == 0
    assert "LEFT" not in capsys.readouterr().err


LATER = ("evaluate", "longer", "transfer", "battery")


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("some", [*((stage,) for stage in LATER), LATER])
def test_stages_of_runs_that_are_not_trained_are_refused_in_one_line(some, more, monkeypatch, capsys):
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: pytest.fail("nothing can be done"))
    assert main(["sweep", "--groups", "few", "--stages", *some, "--out", "zoo", *more]) == 2
    shown = capsys.readouterr()
    names = ", ".join(f"{name}-seed{seed}" for name, seed in FEW)
    assert shown.err == (
        f"mnemoscope sweep: 4 runs are not trained in zoo, so no other stage can be done ({names}); "
        "do the stage train first, or leave --stages out\n"
    )
    assert not Path("zoo").exists()


def test_a_table_is_not_replaced_by_an_empty_one(monkeypatch, capsys):
    """Here the trainings fail, so that no run is trained at the end."""
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: Here())
    monkeypatch.setattr(stages, "_train", lambda *_: (_ for _ in ()).throw(ValueError("no")))
    zoo = Path("zoo")
    zoo.mkdir()
    assert main(SMALL) == 1
    assert not list(zoo.iterdir())
    for name in ("results.parquet", "verdicts.json"):
        (zoo / name).write_text("full")
    capsys.readouterr()
    for argv, status in ((SMALL, 1), (["battery" if a == "train" else a for a in SMALL], 2)):
        assert main(argv) == status
        assert all((zoo / name).read_text() == "full" for name in ("results.parquet", "verdicts.json"))
    assert "zoo has no trained run, so results.parquet and verdicts.json are not written" in capsys.readouterr().err


def test_results_without_a_trained_run_are_not_gathered(measured, monkeypatch, capsys):
    for run in FEW:
        folder = trained(Path("zoo"), TrainCommand(*run))
        stages._battery(folder, StageOptions(prompts=128))
        (folder / "run.json").unlink()
    assert main(["battery" if a == "train" else a for a in SMALL]) == 1
    assert "zoo has no trained run, so" in capsys.readouterr().err
    assert not list(Path("zoo").glob("*.*"))


def test_runs_that_are_not_trained_are_named_in_one_line_beside_those_that_are(measured, monkeypatch, capsys):
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: Here())
    monkeypatch.setattr(sweep, "MOST_NAMED", 2)
    trained(Path("zoo"))
    assert main(["battery" if a == "train" else a for a in SMALL]) == 1
    shown = capsys.readouterr()
    assert shown.err == (
        "NOT finished: 3 runs are not trained in zoo, so no other stage can be done (parity-direct-alibi-seed2, "
        "parity-interleaved-alibi-seed2 and 1 more); do the stage train first, or leave --stages out\n"
    )
    assert len(measured) == 1
    assert sorted(p.name for p in Path("zoo").iterdir()) == [name_of(TRAIN), "results.parquet", "verdicts.json"]


def test_runs_that_are_trained_and_not_evaluated_are_counted(monkeypatch, capsys):
    monkeypatch.setattr(SweepCommand, "_engine", lambda self: Here())
    for run in FEW:
        trained(Path("zoo"), TrainCommand(*run))
    assert main(SMALL) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == ["zoo/results.parquet: 0 rows of 4 runs", "4 of 4 runs learned their trained lengths"]
