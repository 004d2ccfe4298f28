"""What is wrong whatever the model is, is refused before any library is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import load
from experiments.commands.verdict import VerdictCommand
from experiments.support import run_checks
from experiments.support import verdict_checks as checks
from experiments.support.run_checks import task_of
from experiments.verbs import VERBS, command_class
from interp.models.names import SHIPPED
from probes import limits

RUN, WRONG, TEXT = "parity-aligned-alibi", "parity-alined-alibi", "--clean a --corrupted b --answer c --other d"
# The verbs that take a run.
RUNS = ("verdict", "report", "evaluate", "patch", "attention", "circuit")
# Command lines, and what their line says.
REFUSED = {
    **{f"{verb} {WRONG}": "nearest: parity-aligned-alibi" for verb in RUNS},
    **{f"{verb} plain": "name a format" for verb in RUNS},
    **{f"{verb} {RUN} --format x": "unknown format" for verb in RUNS},
    **{f"{verb} {RUN} --seed -1": "seed must be" for verb in RUNS},
    **{f"{verb} {WRONG} {TEXT}": "nearest: parity-aligned-alibi" for verb in ("patch", "circuit")},
    f"verdict {WRONG} --task recall": "nearest: parity-aligned-alibi",
    f"report {WRONG} --task recall": "nearest: parity-aligned-alibi",
    f"verdict {RUN} {WRONG}": "nearest: parity-aligned-alibi",
    f"train parity-aligned --from {WRONG}": "nearest: parity-aligned-alibi",
    "verdict --model nowhere": "no such folder",
    "verdict": "name a run",
    "evaluate": "name at least one run",
    f"verdict {RUN} --prompts 3": "at least 24 prompts",
    f"verdict {RUN} --arms M1 M77": "unknown arms M77",
    f"verdict {RUN} --lengths 4": "at least 5",
    f"verdict {RUN} --lengths 5 5": "different lengths",
    f"verdict {RUN} --task sorting": "cannot be judged",
    f"verdict {RUN} --task recall --items 3": "at least 6 items",
    f"verdict {RUN} --task recall --prompts 3": "at least 16 prompts",
    f"verdict {RUN} --format recall-ordered --prompts 3": "at least 16 prompts",
    f"verdict {RUN} --task parity": "--task parity needs --format",
    f"verdict {RUN} --items 7": "add --task",
    f"verdict {RUN} --fillers 5": "--fillers is for lists; add --task",
    f"verdict {RUN} --task recall --fillers -2": "--fillers must be 0 or more; got -2",
    f"verdict {RUN} --task recall --fillers 2": "--fillers does not apply to --task recall; use --items",
    f"verdict {RUN} --task list-letters --fillers -2": "--fillers must be 0 or more; got -2",
    f"report {RUN} --task sorting": "cannot be judged",
    f"report {RUN} --task recall --items 3": "at least 6 items",
    f"report {RUN} --length 0": "--length must be at least 1",
    f"evaluate {RUN} --prompts 1": "--prompts must be at least 2",
    f"evaluate {RUN} --lengths 5 0": "--lengths must be at least 1; got 5 0",
    f"evaluate {RUN} --offset-lengths 0": "--offset-lengths must be at least 1",
    f"evaluate {RUN} --lengths 2 2": "--lengths must be different from each other; got 2 2",
    f"evaluate {RUN} --offset-lengths 2 3 2": "--offset-lengths must be different from each other; got 2 3 2",
    f"patch {RUN} --site x": "unknown site 'x'",
    f"patch {RUN} --prompts 0": "--prompts must be at least 1",
    f"patch {RUN} --length 0": "--length must be at least 1",
    f"patch {RUN} --clean a": "--corrupted is missing",
    f"attention {RUN} --length 0": "--length must be at least 1",
    f"circuit {RUN} --prompts 1": "--prompts must be at least 2",
    f"circuit {RUN} --lengths 0": "--lengths must be at least 1",
    f"circuit {RUN} --clean a": "--corrupted is missing",
    f"circuit {RUN} --prune nan": "--prune must be 0 or more; got nan",
    f"circuit {RUN} --prune inf": "--prune must be 0 or more; got inf",
    f"circuit {RUN} --lengths 20 20": "--lengths must be different from each other; got 20 20",
    "train parity-x-alibi": "unknown format",
    "train parity-x --from smollm2-135m": "unknown format",
    f"train {RUN} --threads 0": "--threads must be at least 1",
    **{
        f"train parity-aligned --from smollm2-135m --{option} 7": f"--{option} is for models that start from random"
        for option in ("n-layers", "d-model", "n-heads", "n-ctx")
    },
    "train parity-aligned --from smollm2-135m --lora 0": "--lora must be at least 1; got 0; leave it out to train all",
    "sweep --prompts 3": "--prompts must be at least 24",
    "sweep --gpus -3": "--gpus must be 0 or more; got -3.0",
    "sweep --gpus 0.5": "--gpus is for --engine ray; leave it out",
    "sweep --groups x": "unknown groups x",
    "sweep --seeds 99": "has seed 99",
    "sweep --formats x": "has the format x",
    "sweep --stages x": "unknown stages x",
    "figures --zoo nowhere": "no such folder",
    "figures --length 0": "must be at least 1; got 0, 64",
    "gallery --out x.txt": "must name an HTML file",
    f"report {RUN} --out x.txt": "must name an HTML file",
    f"attention {RUN} --out x.txt": "must name an HTML file",
    "calibrate --prompts 3": "--prompts must be at least 24",
    "calibrate --repetitions 1": "--repetitions must be 0",
    "fetch x": "no model 'x' to fetch",
    "bench --rounds 0": "--rounds must be at least 1",
    "bench --edges --loops": "are different benchmarks",
    **{f"bench --{flag} --threads 2": f"--threads does not apply to --{flag}" for flag in ("peak", "drift", "scaling")},
    **{f"bench --{flag} --rounds 2": f"--rounds does not apply to --{flag}" for flag in ("peak", "drift")},
}
SCRIPT = """
import contextlib, io, json, sys
from experiments.cli import main
found = []
for line in json.loads(sys.stdin.read()):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(line.split())
    heavy = [name for name in ("torch", "transformers", "numpy", "pandas") if name in sys.modules]
    found.append((line, status, said.getvalue(), heavy))
print(json.dumps(found))
"""


def test_bad_options_are_refused_before_a_library_is_imported(tmp_path):
    path = str(Path(__file__).parents[2])
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").touch()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(REFUSED)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": path, "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    for line, status, said, heavy in json.loads(done.stdout):
        assert (line, status, heavy) == (line, 2, [])
        assert len(said.splitlines()) == 1, said
        assert REFUSED[line] in said, said
    assert list(tmp_path.rglob("*")) == [plain, plain / "config.json"]


def test_every_verb_that_takes_a_run_is_among_them():
    fields = {verb: set(command_class(verb).__dataclass_fields__) for verb in VERBS}
    takes = {verb for verb in VERBS if fields[verb] & {"names", "runs"} or {"name", "device", "format"} <= fields[verb]}
    assert takes == {verb for verb in VERBS if "format" in fields[verb]} == set(RUNS)


def test_the_names_are_those_of_what_is_judged():
    from interp.models.record import RECORD
    from interp.tasks.lists import LISTS
    from probes.arms.registry import ARMS

    assert tuple(ARMS) == limits.ARM_CODES
    assert ("recall", *LISTS) == limits.BINDING_TASKS
    assert run_checks.RECORD == RECORD


def message(check, *arguments) -> str:
    with pytest.raises(ValueError, match=r".") as raised:
        check(*arguments)
    return str(raised.value)


@pytest.mark.parametrize(
    ("lengths", "prompts", "arms"), [((20,), 3, ("M1",)), ((20,), 24, ("M1", "x")), ((4,), 24, ()), ((20, 20), 24, ())]
)
def test_the_messages_are_those_of_the_battery(lengths, prompts, arms):
    from probes.batteries import check_battery

    late = message(check_battery, load(RUN), lengths, prompts, arms)
    command = VerdictCommand((RUN,), lengths=lengths, prompts=prompts, arms=arms)
    assert message(checks.check_verdict, command, None) == late


def test_the_messages_are_those_of_the_trials():
    from probes.binding import trials_of

    for task, items, prompts in (("x", 6, 16), ("recall", 5, 16), ("recall", 6, 3)):
        late = message(trials_of, load(RUN), task, items, prompts, 0)
        assert message(checks.check_list, task, [RUN], items, prompts) == late


def test_a_run_of_recall_needs_as_many_prompts_as_a_list(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": "recall-ordered"}))
    command = VerdictCommand((str(tmp_path),), prompts=16, lengths=(3,), arms=("x",))
    checks.check_verdict(command, None)
    assert "16 prompts" in message(checks.check_verdict, replace(command, prompts=15), None)
    (tmp_path / "run.json").write_text("[")  # is said when it is read
    assert task_of(str(tmp_path), None) is None
    assert "unknown arms x" in message(checks.check_verdict, command, None)


def test_the_task_is_that_of_the_format_or_of_the_record():
    assert (SHIPPED / RUN / "run.json").is_file()
    assert task_of(RUN, None) == "parity"
    assert task_of(RUN, "ordered") == "recall"
    assert task_of(RUN, "addition-aligned") == "addition"
    assert task_of(RUN, "aligned") == "parity"
    assert task_of(RUN, "aligned", "addition") == "addition"
    assert task_of("owner/model", None) is None


def test_adapters_that_are_trained_are_reported_without_their_source(tmp_path, monkeypatch):
    from experiments.commands.train import TrainCommand

    monkeypatch.chdir(tmp_path)
    command = TrainCommand("parity-aligned", source=WRONG, out=tmp_path)
    assert "unknown run" in message(command._check)
    (tmp_path / f"parity-aligned-{WRONG}-seed1").mkdir()
    (tmp_path / f"parity-aligned-{WRONG}-seed1" / "run.json").touch()
    command._check()
