"""`mnemoscope report --task`: a model that does the task, one that does not, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import load
from experiments.cli import main
from experiments.commands.report import ReportCommand
from experiments.reporting.list_sections import clearest_arm, stored_verdict, verdict_section
from experiments.reporting.list_text import in_short, negative_heads, renaming_check
from experiments.reporting.section import SectionData
from experiments.support.list_results import LISTS
from interp.models.names import SHIPPED
from tests.probes.binding.list_models import list_tokenizer
from tests.small_language_model import small_gpt2

RUN = "parity-aligned-alibi"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_recall_has_its_address_its_heads_and_its_sources(tmp_path: Path) -> None:
    assert main(["report", RUN, "--task", "recall", "--quick", "--fresh"]) == 0
    page = (tmp_path / "mnemoscope-out" / RUN / "report-recall-6.html").read_text()
    ids = re.findall(r'<section id="([a-z]+)"', page)
    assert ids == ["question", "verdict", "patch", "heads", "limits"]
    text = re.sub(r"<[^>]+>", "", page[page.index("<header>") : page.index("<footer>")])
    assert "it finds the item by own label" in text
    heads = re.findall(r"L(\d)H(\d) \(([-+]\d+\.\d+)\)", text)
    assert len(heads) == 4
    assert abs(float(heads[0][2])) > 1
    assert "query label 2, last token" in page
    assert text.count("Left out by --quick: 96 of the 128 prompts of this section.") == 1  # the verdict
    assert text.count("Left out by --quick: 4 of the 8 prompts of this section.") == 2  # patching and heads
    assert "share beyond the control" in text
    leads = r"the other item(&#x27;|')s value is then above the right one in \d+% of prompts"
    assert re.search(rf"own label [A-Z]+ \(\d\.\d\d, control \d\.\d\d; {leads}\), order", text)
    assert "drawn with seed 0" in text
    assert f"mnemoscope verdict {RUN} --task recall --items 6 --prompts 32 --seed 0" in text
    assert "M17" in text or re.search(r"M\d+", text)  # symbols of the task, not token ids


def test_the_first_screen_has_each_status_and_the_control_of_all_edits_together() -> None:
    path = LISTS / "smollm2-135m" / "verdict-list-letters-6.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    joint = found["shares"]["joint"]
    said = in_short("m", found)
    assert f"order {found['addresses']['order']['status']} (" in said
    assert f"together: {joint['value']['value']:.2f}, control {joint['control']['value']:.2f}." in said
    moved = found["shares"]["label at both"]["value"]["value"]
    assert f"A renaming of a label in both places should move nothing; it moves {moved:.2f}, control " in said
    still = found["shares"]["label at both"] | {"value": {"value": 0.01, "low": -0.1, "high": 0.1}}
    assert "A renaming" not in in_short("m", found | {"shares": found["shares"] | {"label at both": still}})
    assert f"The check `label at both` should move nothing, and moves {moved:.3f}" in renaming_check(found["shares"])


def test_the_patched_arm_is_the_one_that_exceeds_its_control_most() -> None:
    def share(value: float, control: float) -> dict:
        return {"value": {"value": value}, "control": {"value": control}, "excess": {"value": value - control}}

    shares = {"label at list": share(0.5, 0.1), "label at query": share(0.6, 0.5), "joint": share(0.9, 0.0)}
    assert clearest_arm(shares) == "label at list"
    with pytest.raises(ValueError, match="no address of this template was measured"):
        clearest_arm({"joint": share(0.9, 0.0)})


def test_a_head_that_attends_to_the_value_asked_for_and_works_against_it_is_named() -> None:
    def row(head: int, change: float, weight: float) -> dict:
        return {"layer": 3, "head": head, "change": change, "value asked for": weight}

    said = negative_heads([row(4, -3.3, 0.88), row(5, 2.0, 0.9), row(6, -1.0, 0.1)])
    assert said.startswith("**L3H4** attends mostly")
    assert negative_heads([row(5, 2.0, 0.9), row(6, -1.0, 0.1)]) == ""


def test_a_model_that_cannot_do_the_list_is_not_judged_and_its_accuracy_is_stated(tmp_path: Path) -> None:
    tokenizer = list_tokenizer()
    small_gpt2(tokenizer).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    assert main(["report", "small", "--task", "list-letters", "--quick", "--out", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'<section id="([a-z]+)"', page) == ["question", "verdict", "limits"]
    assert "not judged" in page
    assert "Left out by --quick" not in page, "no arm was measured"
    assert re.search(r"the model gives the right value in 0\.\d+", page)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--task", "sorting"), "cannot be judged"),
        (("--task", "recall", "--items", "5"), "at least 6 items"),
        (("--task", "list-letters", "--format", "parity-aligned"), "has no formats"),
        (("--task", "recall", "--compare"), "is on one run"),
        (("--task", "recall", "--out", "page.txt"), "must name an HTML file"),
        (("--task", "recall", "--length", "50"), "--length does not apply to --task recall; use --items"),
        (("--task", "list-letters", "--map-length", "7"), "--map-length does not apply to --task list-letters"),
        (("--task", "recall", "--fillers", "3"), "--fillers does not apply to --task recall; use --items"),
        (("--items", "7"), "add --task"),
        (("--format", "recall-ordered"), "made with --task recall"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_one_line(
    more: tuple[str, ...], message: str, tmp_path: Path, capsys
) -> None:
    assert main(["report", RUN, *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.glob("**/*.html"))


@pytest.mark.parametrize(
    ("made", "given", "why"),
    [
        ({}, {}, ""),
        ({}, {"quick": True}, ""),
        ({"options": {"fillers": 2}}, {}, "it was made with fillers 2, not 0"),
        ({"options": {"fillers": 2}}, {"fillers": 2}, ""),
        ({"options": {"prompts": 16}}, {}, "it was made with prompts 16, not 128"),
        ({"dtype": "bfloat16"}, {}, "it was made with dtype bfloat16, not float32"),
        ({"seed": 3}, {}, "its seed is 3, not 0"),
    ],
)
def test_a_stored_verdict_of_other_options_is_not_used_and_the_reason_is_noted(
    made: dict, given: dict, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "verdict-recall-6.json"
    stored = json.loads((LISTS / RUN / name).read_text(encoding="utf-8"))
    stored["options"] = {"task": "recall", "items": 6, "prompts": 128, "fillers": 0} | made.get("options", {})
    stored["provenance"] |= {"dtype": made.get("dtype", "float32")}
    stored["seed"] = made.get("seed", 0)
    monkeypatch.setattr("experiments.support.finished_verdicts.LISTS", tmp_path / "none")
    folder = tmp_path / "mnemoscope-out" / RUN
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(stored), encoding="utf-8")
    run, options = load(RUN, "recall-ordered", device="cpu"), ReportCommand((RUN,), task="recall", **given)
    found, origin, notes = stored_verdict(run, options, str(options.task))
    assert (found is None) == bool(why)
    assert notes == ((f"{RUN}/{name} was not used: {why}.",) if why else ())
    assert origin.startswith(f"read from {RUN}/{name}, made ") or why


def test_its_command_names_the_run_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my models" / "m"
    shutil.copytree(SHIPPED / RUN, folder)
    monkeypatch.setattr("probes.binding.measure_binding", lambda *_: None)
    stored = json.loads((LISTS / RUN / "verdict-recall-6.json").read_text(encoding="utf-8"))
    judged = SimpleNamespace(measured=SimpleNamespace(refusal=None), to_json=lambda: stored)
    monkeypatch.setattr("probes.binding.binding_verdict", lambda *_: judged)
    options = ReportCommand(("my models/m",), task="recall", dtype="float64", device="cpu", seed=5)
    run = load("my models/m", "recall-ordered", device="cpu", dtype="float64")
    (source,) = verdict_section(run, options, str(options.task), [], lambda _: None, tmp_path).sources
    command = "verdict 'my models/m' --device cpu --dtype float64 --task recall --items 6 --prompts 128 --seed 5"
    assert source.command == f"mnemoscope {command}"
    argv = shlex.split(source.command)[1:]
    monkeypatch.setattr("experiments.support.binding_results._judged", lambda *_: pytest.fail("reached"))
    with pytest.raises(pytest.fail.Exception, match="reached"):  # it loads the run and its prompts
        main(argv)


def test_it_resumes_from_the_sections_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads((LISTS / RUN / "verdict-recall-6.json").read_text(encoding="utf-8"))
    calls: list[str] = []

    def section(name: str, data: dict, interrupted: bool = False):  # type: ignore[no-untyped-def]
        def made(*_: object) -> SectionData:
            calls.append(name)
            if interrupted and calls.count(name) == 1:
                raise KeyboardInterrupt
            return SectionData(data)

        monkeypatch.setattr(f"experiments.reporting.list_page.{name}_section", made)

    heads = [{"layer": 0, "head": 0, "change": 1.0, "value asked for": 0.5}]
    section("verdict", stored)
    section("patch", {"arm": "order", "query": 1, "target": 2, "whole": 1.0, "heads": heads}, interrupted=True)
    section("heads", {"heads": heads})
    argv = ["report", RUN, "--task", "recall", "--device", "cpu"]
    assert main(argv) == 130
    assert main(argv) == 0
    assert calls == ["verdict", "patch", "patch", "heads"]
    assert [p.name for p in (tmp_path / "mnemoscope-out" / RUN).iterdir()] == ["report-recall-6.html"]
