"""Scope of error rates in a report: full settings, and models that others built. Notes on what --quick reduces."""

import json
from pathlib import Path

import pytest

from experiments import load
from experiments.commands.report import ReportCommand
from experiments.reporting import error_text, stored, text
from experiments.reporting.outsider_text import others_built
from experiments.reporting.reduced import MEANS, PROMPTS, prompts_of, reduced_notes, reduced_verdict
from experiments.support.reading import read_calibration
from experiments.tables import outsiders
from interp.models.names import SHIPPED
from tests.experiments.reporting.untrained import untrained_run

RUN = "parity-aligned-alibi"
FEWER = {"prompts": (48, 128), "lengths": (1, 2)}


def verdict_of() -> dict:
    return json.loads((SHIPPED / RUN / "verdict.json").read_text(encoding="utf-8"))


def said_of(data: dict) -> list[str]:
    """What the first screen and the section on the verdict say of error rates."""
    counted = read_calibration()
    return [error_text.how_sure(data, counted), " ".join(error_text.how_often_wrong(data, counted))]


def test_rates_of_a_reduced_verdict_are_said_to_be_of_the_full_settings():
    prompts = read_calibration()["prompts"]
    for said in said_of(verdict_of() | {"fewer": FEWER}):
        assert f"These rates are of the full settings ({prompts} prompts)" in said
        assert "is of fewer: 48 of 128 prompts, 1 of 2 lengths. Its own error rate is not measured" in said
    for said in said_of(verdict_of()):
        assert "is of fewer" not in said
        assert "  " not in said
    assert reduced_verdict({}, {}) == ""


def test_a_verdict_that_quick_measures_keeps_what_was_reduced(tmp_path):
    run = untrained_run(tmp_path / "untrained")
    part = stored.verdict_part(run, ReportCommand((run.name,), quick=True), tmp_path, lambda _: None)
    assert part.data["fewer"] == {"prompts": (48, 128), "lengths": (1, 2)}
    assert "the 6 descriptive arms, and all but 48 of the 128 prompts" in part.notes[-1]


def test_a_verdict_on_a_large_model_leaves_out_no_prompt_by_quick(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "usual_prompts", lambda runs: 24)
    run = untrained_run(tmp_path / "untrained")
    part = stored.verdict_part(run, ReportCommand((run.name,), quick=True), tmp_path, lambda _: None)
    assert part.data["fewer"] == {"prompts": (24, 128), "lengths": (1, 2)}
    assert part.notes[-1] == "Left out by --quick: lengths other than 20, and the 6 descriptive arms."


@pytest.mark.parametrize("what", PROMPTS)
def test_each_shortened_section_states_its_prompts(what, monkeypatch):
    (usual, few, deep), run = PROMPTS[what], load(RUN)
    quick, full = ReportCommand((RUN,), quick=True), ReportCommand((RUN,))
    (note,) = reduced_notes(what, quick, run)
    assert note.startswith("Left out by --quick: ")
    assert f"{usual - few} of the {usual} prompts {MEANS[what][0]}. {few} are used" in note
    assert reduced_notes(what, full, run) == ()
    assert (prompts_of(what, quick, run), prompts_of(what, full, run)) == (few, usual)
    monkeypatch.setattr("probes.arms.group_search.MANY_UNITS", 23)
    for options in (quick, full):
        (note,) = reduced_notes(what, options, run)
        assert note.startswith(
            f"Left out to save hours, as the model has 24 heads: {usual - deep} of the {usual} prompts"
        )
        assert prompts_of(what, options, run) == deep


def test_errors_on_models_of_others_are_those_of_the_file():
    data = json.loads(outsiders.OUTSIDERS.read_text(encoding="utf-8"))
    found = [outsiders.outcome_of(row) for row in data["models"] if row["blind"]]
    counts = f"On {len(found)} models that others built by hand"
    count = found.count("wrong label")
    wrong = f"a wrong label to {count} ({count / len(found):.0%}) and no label to {found.count('none')}."
    for said in said_of(verdict_of()):
        assert counts in said
        assert wrong in said
    assert "wrong labels by round" not in said_of(verdict_of())[0]


def test_the_rounds_are_summed_and_listed(tmp_path, monkeypatch):
    def row(number: int, label: str, blind: bool = True) -> dict:
        more = {"roles": {}, "statuses": {}, "right": ["anchor"], "label": label}
        return {"round": number, "blind": blind, **more}

    models = [row(1, "anchor"), row(1, "sink"), row(2, "undecided"), row(2, "sink"), row(2, "sink"), row(3, "x", False)]
    path = Path(tmp_path / "outsiders.json")
    path.write_text(json.dumps({"schema": 1, "models": models}), encoding="utf-8")
    monkeypatch.setattr(outsiders, "OUTSIDERS", path)
    said = others_built(by_round=True)
    assert "On 5 models" in said
    assert "a wrong label to 3 (60%) and no label to 1. These were 2 rounds" in said
    assert "wrong labels by round: 1 of 2, 2 of 3)" in said


@pytest.mark.parametrize(
    ("model", "begun"),
    [
        ({"family": "alibi"}, "trained on"),
        ({"source": "base", "lora": 4}, "fine-tuned from `base` with adapters of rank 4 on"),
        ({"source": "base", "lora": 0}, "fine-tuned from `base` on"),
        ({"source": "base", "scratch": True}, "trained, from random weights in the architecture of `base`, on"),
    ],
)
def test_the_question_says_what_training_began_from(model, begun, monkeypatch):
    run = load(RUN)
    monkeypatch.setitem(run.record["recipe"], "model", model)
    assert f"{begun} parity of at most 20 bits with seed" in text.question(run)[0]


def test_a_position_encoding_is_named_only_where_it_is_known(monkeypatch):
    """The family of other models is their type, which says nothing of positions."""
    run = load(RUN)
    rest = "3 layers, 128 wide, 0.65 million parameters)"
    assert f"(architecture bloom, position encoding alibi, {rest}" in text.question(run)[0]
    monkeypatch.setitem(run.__dict__, "family", "llama")
    monkeypatch.setattr(run.raw.config, "model_type", "llama")
    assert f"(architecture llama, {rest}" in text.question(run)[0]
