"""`mnemoscope calibrate`, in process: cases are kept, counted, and not judged twice."""

import json
from pathlib import Path

import pytest

from experiments import calibration_text
from experiments.cli import main
from experiments.commands.calibrate import CalibrateCommand
from interp.support import writing
from probes.error_rates import TUNED_ON, planted_roles, tally, tally_families
from probes.list_calibration import LISTS, SHARES, list_plans, tally_lists
from probes.planted import LIST_MECHANISMS, MECHANISMS
from tests.experiments.commands.test_sweep import another_at


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


ARGV = [
    "calibrate",
    "--variants",
    "1",
    "--mechanisms",
    "A1",
    "--repetitions",
    "2",
    "--workers",
    "1",
    "--seed",
    "4",
    "--out",
    "cal",
]


@pytest.mark.slow
def test_cases_are_judged_once_and_counted(capsys):
    assert main(ARGV) == 0
    assert "false present" in capsys.readouterr().out
    table = json.loads(Path("cal/calibration.json").read_text())
    assert table["confusion"] == {"A1": {"anchor": 1}}
    assert table["rates"]["false present"]["hits"] == 0
    assert table["judged"][0]["truth"]["label"] == "anchor"
    assert Path("cal/calibration.svg").exists()
    # A case that is there is read, not judged again: a forged one is what the next table counts.
    (case,) = Path("cal/cases").glob("case-*")
    forged = json.loads(case.read_text()) | {"label": "sink"}
    del forged["digest"]
    case.write_text(json.dumps(forged))
    assert main([*ARGV, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["rates"]["wrong confident label"]["hits"] == 1


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ((), ""),
        (("--variants", "3"), "it was made with variants 1, not 3"),
        (("--repetitions", "3"), "it was made with repetitions 2, not 3"),
        (("--repetitions", "0"), "it was made with repetitions 2, not 0"),
        (("--mechanisms", "A1", "A2"), 'it was made with no mechanisms "A2"'),
        (
            ("--mechanisms", "unused, decodable"),  # has no coverage, so that repetitions do not count
            'it was made with repetitions 2, not 0; mechanisms "A1", which are not asked for; '
            'no mechanisms "unused, decodable"',
        ),
        (("--prompts", "64"), "it was made with prompts 128, not 64"),
        (("--seed", "5"), "it was made with first_seed 4, not 5"),
    ],
    ids=str,
)
def test_a_table_of_other_cases_is_replaced_in_one_line(more, line, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise ValueError("the work would begin here")

    monkeypatch.setattr("experiments.commands.calibrate.judge_missing", refuse)
    Path("cal").mkdir()
    made = {"first_seed": 4, "variants": 1, "prompts": 128, "judged": [{"mechanism": "A1"}], "repeated": [{"times": 2}]}
    Path("cal/calibration.json").write_text(json.dumps(made))
    assert main([*ARGV, *more]) == 2
    *lines, _ = capsys.readouterr().err.splitlines()
    file = Path("cal", "calibration.json")
    assert lines == ([f"replacing {file}: {line}; another --out keeps both"] if line else [])


def test_a_mechanism_that_is_named_twice_counts_once(monkeypatch):
    asked = []
    monkeypatch.setattr(CalibrateCommand, "_table", lambda self, folder, names: asked.append(names) or {})
    monkeypatch.setattr(calibration_text, "report_rates", lambda table: None)
    assert main(["calibrate", "--mechanisms", "A2", "A1", "A2", "--out", "cal"]) == 0
    assert asked == [("A2", "A1")]


FAMILY = "anchor at odd steps, sink at even"


def test_a_table_of_other_families_is_replaced_in_one_line(monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise ValueError("the work would begin here")

    monkeypatch.setattr("experiments.commands.calibrate.judge_missing", refuse)
    Path("cal").mkdir()
    file = Path("cal", "families.json")
    for there, line in ((FAMILY, []), ("x, y", [f'families "x, y", which are not asked for; no families "{FAMILY}"'])):
        file.write_text(json.dumps({"prompts": 128, "judged": [{"mechanism": there}]}))
        assert main(["calibrate", "--families", "--mechanisms", FAMILY, "--out", "cal"]) == 2
        *lines, _ = capsys.readouterr().err.splitlines()
        assert [x.removeprefix(f"replacing {file}: it was made with ") for x in lines] == [
            f"{x}; another --out keeps both" for x in line
        ]


def test_unknown_names_and_choices_are_quoted(capsys):
    """Names contain commas."""
    assert main(["calibrate", "--mechanisms", "no, such", "A7"]) == 2
    err = capsys.readouterr().err
    assert 'unknown mechanisms "A7", "no, such"; mechanisms are "' in err
    assert all(f'"{name}"' in err for name in MECHANISMS)


@pytest.mark.slow
def test_families_are_judged_in_each_architecture_clean_and_dirty(capsys):
    argv = ["calibrate", "--families", "--mechanisms", FAMILY, "--prompts", "64", "--workers", "1", "--out", "cal"]
    assert main(argv) == 0
    assert "wrong status" in capsys.readouterr().out
    table = json.loads(Path("cal/families.json").read_text())
    assert [(c["architecture"], c["dirty"]) for c in table["cases"]] == [
        (architecture, dirty) for dirty in (False, True) for architecture in ("gpt2", "gpt_neox", "llama")
    ]
    assert {c["label"] for c in table["cases"] if not c["dirty"]} == {"mixed(anchor, sink)"}
    assert not Path("cal/calibration.json").exists()


@pytest.mark.slow
def test_lists_are_judged_in_each_architecture_clean_and_dirty(capsys):
    argv = ["calibrate", "--lists", "--mechanisms", "position", "--prompts", "32", "--workers", "1", "--out", "cal"]
    assert main(argv) == 0
    assert "planted models of lists" in capsys.readouterr().out
    table = json.loads(Path("cal/calibration-lists.json").read_text())
    assert [(c["architecture"], c["dirty"]) for c in table["cases"]] == [
        (architecture, dirty) for dirty in (False, True) for architecture in ("gpt2", "gpt_neox", "llama")
    ]
    assert {c["label"] for c in table["cases"] if not c["dirty"]} == {"position"}
    assert table["rates"]["wrong status"]["n"] == 6
    assert len(list(Path("cal/cases").glob("list-*"))) == 6


def test_plans_of_lists_are_each_mechanism_in_each_architecture_clean_and_dirty():
    plans = list_plans()
    assert len(plans) == len({(p.mechanism, p.architecture, p.dirt) for p in plans}) == 6 * len(LIST_MECHANISMS)
    assert {(p.task, p.items) for p in plans} == set(LISTS)
    assert all(p.task == "list-letters" for p in plans if LIST_MECHANISMS[p.mechanism].ordered)
    assert {p.share for p in plans if LIST_MECHANISMS[p.mechanism].routes == 2} == set(SHARES)
    assert list_plans(["position"]) == [p for p in plans if p.mechanism == "position"]


def of_list(label: str, truth: str, statuses: str, sinks: str = "ABSENT", sink: bool = False) -> dict:
    """Return a case whose truth is one address, or a word for none; statuses of own label, order and position."""
    names = ("own label", "order", "position")
    return {
        "mechanism": truth,
        "plan": {"architecture": "gpt2", "task": "list-letters", "items": 6, "share": 1.0, "dirt": {"noise": 0.0}},
        "truth": {
            "addresses": [truth] if truth in names else [],
            "sinks": ["first token"] * sink,
            "unjudged": ["other tokens"],
        },
        "label": label,
        "addresses": dict(zip(names, statuses.split(), strict=True)),
        "sinks": {"first token": sinks, "other tokens": "PRESENT"},
    }


def test_outcomes_of_lists():
    """Right, an address that is not used, one that is and is called ABSENT, nothing found, a sink found and missed."""
    cases = [
        of_list("position", "position", "ABSENT INDETERMINATE PRESENT"),
        of_list("position", "order", "ABSENT INDETERMINATE PRESENT"),
        of_list("undecided", "order", "INDETERMINATE ABSENT INDETERMINATE"),
        of_list("undecided", "label after", "INDETERMINATE INDETERMINATE ABSENT"),
        of_list("own label", "own label", "PRESENT ABSENT ABSENT", "PRESENT", sink=True),
        of_list("own label", "own label", "PRESENT ABSENT ABSENT", "INDETERMINATE", sink=True),
        of_list("own label", "own label", "PRESENT ABSENT ABSENT", "PRESENT"),
    ]
    table = tally_lists(cases)
    outcomes = [row["outcome"] for row in table["cases"]]
    assert outcomes == ["right", "wrong", "wrong", "incomplete", "right", "right", "wrong"]
    assert [row["wrong"] for row in table["cases"]][1:3] == [["position PRESENT"], ["order ABSENT"]]
    assert table["cases"][-1]["wrong"] == ["first token PRESENT"]
    rates = {name: (rate["hits"], rate["n"]) for name, rate in table["rates"].items()}
    assert rates == {"wrong status": (3, 7), "wrong label": (1, 5), "sinks found": (1, 2)}
    assert table["counts"]["all"] == {"right": 3, "wrong": 3, "incomplete": 1}
    # Older cases have a status for all candidates together, which is not judged; one that is named unjudged is not.
    for unjudged, wrong in (([], ["other tokens PRESENT"]), (["other tokens"], [])):
        some = of_list("order", "order", "ABSENT PRESENT ABSENT", "INDETERMINATE")
        some["truth"]["unjudged"], some["sinks"]["all together"] = unjudged, "PRESENT"
        some["sinks"]["other tokens"] = "PRESENT"
        assert tally_lists([some])["cases"][0]["wrong"] == wrong
    with pytest.raises(ValueError, match="no case"):
        tally_lists([])


def test_a_rate_of_one_case_is_printed_with_its_interval(capsys):
    calibration_text.report_rates(tally([case("A1", "anchor", "anchor", "anchor", "placeholder sink")]))
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "wrong confident label" in line]
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["0.000", "[0.000, 0.793]", "0/1", "at most 0.02", "yes"]
    assert "its interval may reach beyond" in said


def test_outcomes_of_families():
    """Right, a wrong label, a wrong status beside no label, none, and a family whose right verdict is no label."""
    families = [
        case("A1", "anchor", "anchor", "anchor", "placeholder sink", architecture="gpt2"),
        case("A2", "sink", "anchor", "sink", "anchor placeholder", architecture="gpt2"),
        case("sink", "undecided", "sink", "", "sink", architecture="llama", dirt=True),
        case("unused", "undecided", "unused", architecture="llama", dirt=True),
        case("counted labels", "unresolved", "unresolved", architecture="llama"),
    ]
    table = tally_families(families)
    assert [row["outcome"] for row in table["cases"]] == ["right", "wrong label", "wrong status", "none", "right"]
    assert table["counts"] == {
        "gpt2, clean": {"right": 1, "wrong label": 1},
        "llama, dirt": {"wrong status": 1, "none": 1},
        "llama, clean": {"right": 1},
        "all": {"right": 2, "wrong label": 1, "wrong status": 1, "none": 1},
    }


def test_a_second_one_is_refused_until_the_first_has_died(monkeypatch, capsys):
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(CalibrateCommand, "_table", lambda self, folder, names: {})
    monkeypatch.setattr(calibration_text, "report_rates", lambda table: None)
    with another_at(Path("cal/.calibrate")):
        assert main(ARGV) == 2
        assert capsys.readouterr().err.splitlines() == [
            "mnemoscope calibrate: another process is at work in cal/.calibrate; wait for it, or end it"
        ]
    assert main(ARGV) == 0
    assert not list(Path("cal").iterdir())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--mechanisms", "A7"], 'unknown mechanisms "A7"'),
        (["--families", "--mechanisms", "A1"], 'unknown families "A1"; families are "anchor by the label before'),
        (["--families", "--variants", "2"], "--variants is for mechanisms of parity; leave it out with --families"),
        (["--families", "--seed", "1"], "--seed is for mechanisms"),
        (["--repetitions", "0", "--families"], "--repetitions is for mechanisms"),
        (["--lists", "--mechanisms", "A1"], 'unknown mechanisms "A1"; mechanisms are "own label", '),
        (["--lists", "--variants", "2"], "--variants is for mechanisms of parity; leave it out with --lists"),
        (["--lists", "--families"], "--families and --lists are two calibrations; give one of them"),
        (["--variants", "0"], "--variants must be at least 1"),
        (["--seed", "-1"], "seed must be"),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main(["calibrate", *argv]) == 2
    assert words in capsys.readouterr().err


def case(
    mechanism: str,
    label: str,
    expected: str,
    present: str = "",
    absent: str = "",
    dirt: bool = False,
    architecture: str = "gpt2",
    **more,
):
    """A judged case in which the planted roles are those named in `expected`."""
    roles = {r: r in expected for r in ("anchor", "placeholder", "sink")}
    status = {r: "PRESENT" if r in present else "ABSENT" if r in absent else "INDETERMINATE" for r in roles}
    kinds = {"rotation": False, "noise": 0.02 if dirt else 0.0, "superposition": False, "layernorm": False}
    return {
        "mechanism": mechanism,
        "label": label,
        "truth": {"label": expected, "roles": roles, "shares": {"address": 0.5}},
        "roles": {r: {"status": status[r], "rho": 0.01} for r in roles},
        "shares": {"address": 0.5},
        "plan": {"dirt": kinds, "architecture": architecture},
        "controls": {"M1 either side": 0.02, "M6 sink": 5.0},
        **more,
    }


def test_every_rate_counts_what_it_says():
    right = case("A1", "anchor", "anchor", "anchor", "placeholder sink")
    false_present = case("unused, decodable", "placeholder", "unused", "placeholder", "anchor sink")
    false_absent = case("sink", "unused", "sink", "", "anchor placeholder sink", shares={"address": 0.7}, dirt=True)
    open_ = case("A2", "undecided", "anchor", "anchor", "placeholder")
    table = tally([right, false_present, false_absent, open_])
    hits = {name: (r["hits"], r["n"], r["met"]) for name, r in table["rates"].items()}
    assert hits == {
        "false present": (1, 4, False),
        "false absent": (1, 4, False),
        "wrong confident label": (2, 4, False),
        "decoys called present": (1, 1, False),
        "undecided, clean": (1, 3, False),
        "undecided, all": (1, 4, None),
    }
    assert table["confusion"]["sink"] == {"unused": 1}
    assert table["never_tuned"] == ["unused, decodable"]
    assert "A1" in TUNED_ON
    assert table["share error"]["linear"]["largest"] == 0
    assert table["share error"]["non-linear"]["largest"] == pytest.approx(0.2)
    assert not table["share error"]["non-linear"]["met"]
    # M6's control is a measurement of the digits, not a null.
    assert table["nulls"]["controls of M1, M2, M4 and M5"]["99th percentile"] == pytest.approx(0.02)


def test_coverage_counts_intervals():
    once = {"covered": {"anchor": 29, "sink": 30}, "times": 30}
    table = tally([case("A1", "anchor", "anchor")], [once, {"covered": {"anchor": 27}, "times": 30}])["coverage"]
    assert (table["anchor"]["covered"], table["anchor"]["intervals"]) == (56, 60)
    assert (table["all"]["covered"], table["all"]["intervals"]) == (86, 90)
    assert table["placeholder"]["rate"] is None
    assert table["all"]["met"]


def test_planted_distributions_by_role():
    found = planted_roles([case("A1", "anchor", "anchor"), case("A2", "anchor", "anchor")])
    assert found == {"anchor": [0.01, 0.01], "placeholder": [0.01, 0.01], "sink": [0.01, 0.01]}


def test_nothing_judged_is_an_error():
    with pytest.raises(ValueError, match="no case"):
        tally([])
