"""The verdict on lists and recall, by command: a known answer, its file and its first screen, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import load
from experiments.cli import main
from experiments.support import kept_groups
from experiments.support.jobs import Job, Processes
from experiments.support.kept_groups import KeptGroups
from experiments.support.results import weights_of
from probes.batteries import battery
from probes.binding.found import Group
from probes.binding.pieces import Piece

RUN = "parity-aligned-alibi"
# What a result records of the process that wrote it.
OF_THE_PROCESS = ("cost", "provenance")
RECALL = ("verdict", RUN, "--task", "recall")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """What `--json` wrote for 128 prompts of recall, and the folder with the result."""
    out = tmp_path_factory.mktemp("judged")
    argv = [*RECALL, "--prompts", "128", "--seed", "5", "--out", str(out / "kept"), "--json", str(out / "copy.json")]
    assert main(argv) == 0
    return json.loads((out / "copy.json").read_text()), out / "kept"


def test_a_model_that_looks_labels_up_has_its_own_label_as_address(judged: tuple[dict, Path]) -> None:
    found, margin = judged[0], judged[0]["margin"]
    assert found["verdict"] == "own label"
    statuses = {name: address["status"] for name, address in found["addresses"].items()}
    assert statuses == {"own label": "PRESENT", "order": "ABSENT", "position": "ABSENT"}
    small = [found["shares"][arm]["value"] for arm in ("order", "order, value", "order, label", "position")]
    for interval in (*small, found["remainder"]):
        assert -margin < interval["low"] <= interval["value"] <= interval["high"] < margin
    assert found["shares"]["label at list"]["control"]["high"] < margin
    assert found["accuracy"]["low"] >= found["gate"]


def test_the_result_is_written_once_with_its_provenance(judged: tuple[dict, Path]) -> None:
    found, kept = judged
    (path,) = kept.rglob("verdict-recall-6.json")
    assert json.loads(path.read_text()) == found
    assert (found["run"], found["format"], found["task"]) == (RUN, "recall-ordered", "recall")
    assert (found["items"], found["prompts"], found["seed"]) == (6, 128, 5)
    assert found["weights"] == weights_of(load(RUN))
    assert {"versions", "command", "device", "dtype"} <= set(found["provenance"])


def test_the_separator_is_a_sink_of_recall_and_the_first_token_is_not(judged: tuple[dict, Path]) -> None:
    sinks = judged[0]["sinks"]
    assert set(sinks) == {"first token", "line breaks", "other tokens"}
    assert sinks["line breaks"] == {"status": "NOT APPLICABLE", "reason": "the prompts have none"}
    assert sinks["first token"]["status"] == "ABSENT"
    assert sinks["other tokens"]["status"] == "PRESENT"
    assert {"value", "control", "excess"} <= set(sinks["first token"])


def test_the_cost_is_recorded(judged: tuple[dict, Path]) -> None:
    cost = judged[0]["cost"]
    assert 0 < cost["seconds"] < 600
    assert cost["peak_mib"] > 100


def test_the_first_screen_has_every_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RECALL, "--prompts", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "mnemoscope-out" / RUN / "verdict-recall-6.json").read_text())
    assert lines[0] == f"{RUN}, recall with 6 items: {found['verdict'].upper()}"
    for name, row in {**found["addresses"], **found["sinks"]}.items():
        (line,) = [line.strip() for line in lines if line.startswith(f"  {name}")]
        assert line.removeprefix(name).strip().startswith(row["status"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--items", "5"), "at least 6 items"),
        (("--prompts", "8"), "at least 16 prompts"),
        (("--lengths", "8"), "--lengths does not apply"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(
    more: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RECALL, *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_the_battery_refuses_recall_before_any_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(RUN, "recall-ordered")
    monkeypatch.setattr(type(run.raw), "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match="for recall call binding_verdict") as raised:
        battery(run, (20,))
    assert "\n" not in str(raised.value)


def test_an_interrupted_verdict_goes_on_after_the_groups_that_are_done(
    judged: tuple[dict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, asked = Piece.measure, []

    def interrupted_at_the_third(piece: Piece, *given: Any) -> Group:
        if piece.kind == "arms":
            asked.append(piece.number)
            if len(asked) == 3:
                raise KeyboardInterrupt
        return measure(piece, *given)

    monkeypatch.setattr(Piece, "measure", interrupted_at_the_third)
    argv = [*RECALL, "--prompts", "128", "--seed", "5", "--out", str(tmp_path), "--fresh"]
    assert main(argv) == 130
    monkeypatch.setattr("probes.binding.pieces._accuracy", lambda *_: pytest.fail("the accuracy was measured again"))
    assert main(argv) == 0
    assert asked == [0, 1, 2, 2, 3, 4]  # five trials, of which the third began twice
    (path,) = tmp_path.rglob("verdict-recall-6.json")
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no unfinished work is left
    found = json.loads(path.read_text())
    assert {k: v for k, v in found.items() if k not in OF_THE_PROCESS} == {
        k: v for k, v in judged[0].items() if k not in OF_THE_PROCESS
    }
    assert found["cost"]["seconds"] > 0


def test_two_processes_measure_the_same_as_one(
    judged: tuple[dict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which measured what is left to chance, so that a process that measures nothing here must be seen to."""
    elsewhere, submit = [], Processes.submit

    def submitted(processes: Processes, job: Job) -> Any:
        elsewhere.extend(given.name for given in job.args if isinstance(given, Piece))
        return submit(processes, job)

    monkeypatch.setattr(Processes, "submit", submitted)
    monkeypatch.setattr(Piece, "measure", slowly(Piece.measure))
    argv = [*RECALL, "--prompts", "128", "--seed", "5", "--out", str(tmp_path), "--fresh", "--workers", "2"]
    assert main(argv) == 0
    (path,) = tmp_path.rglob("verdict-recall-6.json")
    found = json.loads(path.read_text())
    assert elsewhere
    assert {k: v for k, v in found.items() if k not in OF_THE_PROCESS} == {
        k: v for k, v in judged[0].items() if k not in OF_THE_PROCESS
    }


def slowly(measure: Callable[..., Group]) -> Callable[..., Group]:
    """Return the function with a pause before it, in which the other process has its turn."""

    def measured(*given: Any) -> Group:
        time.sleep(3)
        return measure(*given)

    return measured


def test_the_cost_of_a_resumed_verdict_is_that_of_all_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = iter([(1.5, 2.0, 300.0), (4.0, 8.0, 200.0)])
    names = ("seconds", "cpu_seconds", "peak_mib")
    monkeypatch.setattr(kept_groups, "cost_since", lambda *_: dict(zip(names, next(costs), strict=True)))
    group = Group({"right": torch.ones(3, dtype=torch.float64)}, {"order": "the list has none"})
    first = KeptGroups(tmp_path)
    made = [first(name, lambda: group) for name in ("accuracy-0", "arms-0")]
    again = KeptGroups(tmp_path)
    kept = [again(name, lambda: pytest.fail("measured again")) for name in ("accuracy-0", "arms-0")]
    assert again.cost == {"seconds": 5.5, "cpu_seconds": 10.0, "peak_mib": 300.0}
    # Of its own pieces the seconds that passed count: other processes may have measured at the same time.
    assert first.cost == again.cost | {"seconds": pytest.approx(0, abs=1)}
    for one, other in zip(made, kept, strict=True):
        assert one.left_out == other.left_out
        assert torch.equal(one.values["right"], other.values["right"])
