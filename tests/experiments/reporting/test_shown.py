"""What a report says about its pictures, on numbers with a known answer."""

import json
import re

import pytest
import torch

from experiments.reporting import error_text, rows, shown, text
from experiments.reporting.computed import without_repeated
from experiments.support.reading import read_calibration
from experiments.tables.runs import FOUND
from interp import load
from interp.attribution import Attribution
from interp.models.names import SHIPPED
from interp.tasks import Role
from probes.arms.naming import with_arm_names
from probes.binding.found import ALIKE_BUT_ABSENT, RULES

RUN = "parity-aligned-alibi"


def verdict_of(name: str = RUN) -> dict:
    return json.loads((SHIPPED / name / "verdict.json").read_text(encoding="utf-8"))


def row(metric: str, mode: str, length: int, value: float) -> dict:
    return {"metric": metric, "mode": mode, "length": length, "value": value}


def test_accuracy_names_the_last_length_before_the_first_failure():
    data = [row("step", "forced", n, value) for n, value in ((10, 1.0), (20, 0.96), (30, 0.7), (40, 0.97))]
    sentence = shown.accuracy_shows({"accuracy": [*data, row("exact", "forced", 40, 0.25)]})
    assert "at least 95% of the steps are right up to length 20 with labels given" in sentence
    assert "Of whole solutions, at least 95% are right at none of the measured lengths (0.25 at length 40)" in sentence
    assert "written" not in sentence
    written = shown.accuracy_shows({"accuracy": [row("step", "written", 10, 0.5)]})
    assert "at none of the measured lengths with labels written" in written


@pytest.mark.parametrize(("fmt", "name"), [("parity-aligned", "final bit"), ("addition-aligned", "final sum")])
def test_the_table_names_the_last_answer_by_the_task(fmt, name):
    data = {"format": fmt, "accuracy": [row(metric, "forced", 10, 1.0) for metric in ("step", "exact", "final")]}
    assert [cells[2] for cells in rows.accuracy_rows("r", data, (10,))] == ["step accuracy", "exact match", name]


def test_the_map_names_the_token_that_most_answers_depend_on():
    batch = load(RUN).sample(2, 5, seed=0)
    assert batch.role is not None
    assert batch.step is not None
    dest = (batch.role == Role.OUTPUT).nonzero().flatten()
    values = torch.zeros(2, len(dest), batch.n_pos)
    for k, pos in enumerate(dest.tolist()):
        own = (batch.role == Role.INPUT) & (batch.step == batch.step[pos])
        values[:, k, own] = -1.0
    values[:, -1] = 0
    before = int(dest[-2])
    values[:, -1, before] = 1.0
    made = Attribution(values, batch, dest, "signed", "gradient x input", torch.ones(2, len(dest)))
    assert shown.largest_sources(made) == [["the step's own input", 4], ["the answer before", 1]]
    assert "own input has the largest gradient x input for 4 of 5 answers, the answer before for 1" in shown.map_shows(
        {"largest": shown.largest_sources(made)}
    )


@pytest.mark.parametrize(("low", "above"), [(0.61, True), (0.59, False)])
def test_a_probe_counts_only_above_its_control(low, above):
    probe = {
        "concept": "state",
        "layer": 2,
        "score": {"value": 0.7, "low": low, "high": 0.8},
        "control": {"value": 0.5, "low": 0.4, "high": 0.6},
    }
    sentence = shown.probes_show({"probes": [probe]})
    assert ("exceeds them most: the parity of the bits so far (0.70 at layer 2" in sentence) is above
    assert ("not shown to be learned" in sentence) is not above
    # A model of random weights from which it is as decodable.
    untrained = {"value": 0.69, "low": 0.6, "high": 0.75}
    sentence = shown.probes_show({"probes": [probe | {"untrained": untrained, "measure": "R2"}]})
    assert "control or random weights): the parity of the bits so far (R2 0.70 at layer 2" in sentence
    assert "random weights 0.69)" in sentence


def test_a_probe_that_is_hardly_above_random_weights_is_not_called_learned():
    def score(value: float) -> dict:
        return {"value": value, "low": value - 0.0001, "high": value + 0.0001}

    slot = {"concept": "slot", "layer": 2, "measure": "R2", "score": score(0.999), "control": score(0.6)}
    assert "not shown to be learned" in shown.probes_show({"probes": [slot | {"untrained": score(0.998)}]})
    learned = slot | {"layer": 3, "score": score(0.8), "untrained": score(0.5)}
    sentence = shown.probes_show({"probes": [slot | {"untrained": score(0.998)}, learned]})
    assert "exceeds them most: the number of the step (R2 0.80 at layer 3" in sentence


def test_the_map_says_where_the_model_fails_at_its_length():
    accuracy = {"accuracy": [row("step", "forced", 20, 0.99), row("step", "forced", 40, 0.79)]}
    assert "only 79% of the steps are right" in shown.map_beyond({"length": 40}, accuracy)
    assert shown.map_beyond({"length": 20}, accuracy) == shown.map_beyond({"length": 12}, accuracy) == ""


def test_patching_states_each_effect_as_a_share_of_the_difference():
    top = [{"cell": "L2H4 at output label 9", "change": 2.5}]
    data = {"difference": 10.0, "whole": 10.0, "step": 5, "length": 20, "resid_pre": top, "z": top}
    data |= {"valid": True, "reason": None}
    assert "L2H4 at output label 9 (+2.5, 25%)" in shown.patch_shows(data)
    near = shown.patch_shows(data | {"difference": -0.01, "whole": None})
    assert "(+2.5)" in near
    assert "%" not in near
    assert "too near 0 for shares" in near
    assert "differ by +0.0 logits" in near
    invalid = shown.patch_shows(data | {"valid": False, "reason": "it guesses"})
    assert invalid.startswith("**INVALID: it guesses.")


@pytest.mark.parametrize(("kept", "little"), [(0.89, True), (FOUND, False)])
def test_a_circuit_below_the_share_at_which_it_counts_as_found_is_called_incomplete(kept, little):
    worth = {"values": kept, "low": 0.3, "high": 0.95, "accuracy": 0.9, "accuracy_full": 1.0}
    data = {
        "circuit": {"size": 3},
        "possible_edges": 90,
        "ablations": {"corrupted": worth},
        "random": {"n": 8, "largest": 0.1},
    }
    assert (f"it keeps {kept:.0%} of the margin, less than {FOUND:.0%}" in shown.circuit_shows(data)) is little


def test_the_first_screen_says_how_sure_the_verdict_is():
    data, counted = verdict_of(), read_calibration()
    then = counted["margins"]["version"]
    same = error_text.how_sure(data | {"margins": {"version": then}}, counted, "llama")
    assert "None of them is a llama model." in same
    assert "this procedure gave a wrong confident verdict" in same
    other = error_text.how_sure(data | {"margins": {"version": "other"}, "verdict": "unresolved"}, counted)
    assert f"an earlier version of this procedure ({then})" in other
    assert "the present version (other) is not measured" in other
    assert "**unresolved** names no role" in other
    assert error_text.how_sure(data | {"verdict": "not-applicable"}, counted) == ""


def test_the_first_screen_of_a_list_says_how_sure_it_is():
    rate = {"hits": 2, "n": 120, "interval": {"low": 0.004, "high": 0.0587}}
    counted = {"rates": {"wrong status": rate}, "counts": {"all": {"right": 100, "incomplete": 18}}, "mechanisms": 20}
    addresses = {"own label": {"status": "PRESENT"}, "order": {"status": "INDETERMINATE"}}
    judged = {"refusal": None, "addresses": addresses}
    new = error_text.how_sure_of_list({**judged, "rules": RULES}, counted)
    assert new.startswith("**How sure?** 120 models of lists were built by hand")
    assert "in 20 ways. On 2 of them" in new
    assert "0.4 % to 5.9 %" in new
    assert (
        "On 49 models of lists that outsiders built to fool it and that were judged blind, a status was wrong on 26"
        in new
    )
    assert "wrong statuses were ABSENT" in new
    assert "named what 100 use in full, and left something open for 18" in new
    assert error_text.how_sure_of_list({**judged, "rules": ALIKE_BUT_ABSENT[0]}, counted) == new
    absent = {**judged, "addresses": {**addresses, "position": {"status": "ABSENT"}}}
    assert error_text.how_sure_of_list({**absent, "rules": RULES}, counted) == new
    assert error_text.how_sure_of_list({**absent, "rules": ALIKE_BUT_ABSENT[0]}, counted) != new
    old = error_text.how_sure_of_list(judged, counted)
    assert old.startswith(new)
    assert "measured by earlier arms" in old.removeprefix(new)
    assert error_text.how_sure_of_list({"refusal": "it cannot do it"}, counted) == ""


def test_planted_models_of_another_type_are_named():
    data, counted = verdict_of(), read_calibration()
    assert "None of them is a bloom model" in " ".join(error_text.how_often_wrong(data, counted, "bloom"))
    assert "None of them" not in " ".join(error_text.how_often_wrong(data, counted, "gpt2"))


def test_a_column_that_equals_another_in_each_row_is_left_out():
    table = [{"head": 0, "after": 0.25, "inputs": 0.25}, {"head": 1, "after": 0.5, "inputs": 0.5}]
    assert without_repeated(table, "after", "inputs") == [{"head": 0, "inputs": 0.25}, {"head": 1, "inputs": 0.5}]
    other = [*table, {"head": 2, "after": 0.1, "inputs": 0.2}]
    assert without_repeated(other, "after", "inputs") == other
    assert without_repeated(table, "absent", "inputs") == table


def test_answers_that_depend_on_yet_other_tokens_are_counted():
    kinds = [["the step's own input", 15], ["the answer before", 10], ["another input", 5], ["a", 6], ["b", 4]]
    assert shown.map_shows({"largest": kinds}).endswith(
        "for 15 of 40 answers, the answer before for 10, another input for 5, and other tokens for 10."
    )
    assert "other tokens" not in shown.map_shows({"largest": kinds[:3]})


def test_the_first_screen_names_the_roles_that_are_decided_where_the_label_names_none():
    accuracy = json.loads((SHIPPED / RUN / "evaluation.json").read_text(encoding="utf-8"))
    data = verdict_of()
    roles = ", ".join(f"{name} {role['status']}" for name, role in data["roles"].items())
    said = text.in_short("m", data | {"verdict": "undecided"}, accuracy)
    assert f"the verdict on the labels is **undecided** (the evidence does not decide; {roles})" in said
    assert "anchor PRESENT" not in text.in_short("m", data, accuracy)


def test_lengths_that_were_not_judged_are_no_part_of_the_verdict():
    data = verdict_of("parity-constant-alibi")
    judged = [at["length"] for at in data["by_length"] if at["verdict"] != "not-applicable"]
    assert 0 < len(judged) < len(data["by_length"])
    left = next(at["length"] for at in data["by_length"] if at["length"] not in judged)
    first, second = text.answer(data).split(". ", 1)
    assert str(judged[0]) in first
    assert str(left) not in first
    assert f"At length {left} the model is not good enough" in second


@pytest.mark.parametrize("name", [RUN, "parity-constant-alibi"])
def test_no_arm_is_a_bare_code_and_each_is_explained(name):
    lines = text.role_lines(verdict_of(name)) + text.claims(verdict_of(name))
    assert lines == [with_arm_names(line) for line in lines]
    codes = set(re.findall(r"\bM\d+\b", " ".join(lines)))
    assert codes or name != RUN
    assert {title.split()[0] for title, _ in rows.arms_of(lines)} == codes


def test_heads_of_the_run_are_told_by_what_they_attend_to():
    from interp.circuits import describe_heads

    run = load(RUN)
    found = shown.targets(describe_heads(run, run.sample(8, 8, seed=0)), [(1, 4), (0, 0)])
    assert re.fullmatch(r"bit after the same label at output label \(0?1?\.\d\d of its .*output label\)", found["L1H4"])
    assert "previous token" in found["L0H0"]
