"""Result files: what lies beside a run is shown whole, or left alone with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

import probes.views
from experiments import load
from experiments.commands.circuit import CircuitCommand, lines_of
from experiments.reporting import error_text, plain, rows, shown, text
from experiments.reporting.order import circuit_tables
from experiments.reporting.reuse import stored_result
from experiments.reporting.schema import ANY, SCHEMAS, mismatch
from experiments.reporting.stored import points_of
from experiments.support.provenance import reporting_versions
from experiments.support.reading import read_calibration
from experiments.support.results import weights_of
from interp import views
from interp.circuits import circuit_from_json
from interp.models.names import SHIPPED
from interp.models.record import RECORD, read_record
from probes.findings import MARGINS
from tests.fuzz.counting import counts, hammer, refusal
from tests.fuzz.junk import json_junk, leaves, mutated

RUN = "parity-aligned-alibi"
NAMES = {"verdict": "verdict.json", "evaluate": "evaluation.json", "circuit": "circuit.json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The default run, in a folder whose result files may be overwritten."""
    folder = tmp_path_factory.mktemp("results") / RUN
    shutil.copytree(SHIPPED / RUN, folder)
    found = load(folder)
    found.raw  # noqa: B018
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shipped(verb: str) -> dict:
    """A shipped result of the present margins, for which a shipped verdict may wait to be made again."""
    data = json.loads((SHIPPED / RUN / NAMES[verb]).read_text(encoding="utf-8"))
    if "margins" in data:
        data["margins"]["version"] = MARGINS.version
    return data


def whole(run, verb: str) -> dict:
    """A shipped result that names its weights, so that nothing is measured again."""
    return shipped(verb) | {"weights": weights_of(run)}


def show(run, verb: str, data: dict, pictures: bool = False) -> None:
    """All that a page says of a result; it must not fail for one that was accepted."""
    match verb:
        case "verdict":
            for say in (text.answer, text.role_lines, text.claims, rows.evidence_rows, text.erased, plain.plainly):
                assert say(data) is not None
            rows.arms_of(text.role_lines(data))
            if data["verdict"] != "not-applicable":
                shown.verdict_shows(data)
            rows.verdict_row(run.name, data)
            error_text.how_often_wrong(data, read_calibration())
            if pictures:
                probes.views.verdict(data, read_calibration())
        case "evaluate":
            verdict = whole(run, "verdict")
            text.in_short(run.name, verdict, data)
            rows.accuracy_rows(run.name, data, (10, 20))
            shown.accuracy_shows(data)
            text.offsets(data)
            points = points_of(data)
            if pictures:
                probes.views.by_length({run.name: points}, 20, "accuracy")
        case _:
            circuit_tables(data)
            shown.circuit_shows(data)
            graph = CircuitCommand(run.name).graph(run, circuit_from_json(data["circuit"]), data)
            lines = lines_of(data)
            if pictures:
                views.circuit(graph).view()
                views.faithfulness(lines, data["possible_edges"], "circuits")


@pytest.mark.parametrize("verb", sorted(NAMES))
def test_what_is_shipped_fits_and_is_shown(verb, run):
    for path in SHIPPED.glob(f"*/{NAMES[verb]}"):
        assert mismatch(json.loads(path.read_text(encoding="utf-8")), SCHEMAS[verb]) == "", path
    (Path(run.source) / NAMES[verb]).write_text(json.dumps(whole(run, verb)), encoding="utf-8")
    data, _, why = stored_result(run, verb, NAMES[verb], 0)
    assert data, why
    show(run, verb, data, pictures=True)


@pytest.mark.parametrize("verb", sorted(NAMES))
@counts(40, 2_500)
def test_changed_results_are_shown_or_left_with_a_reason(verb, count, run):
    path = Path(run.source) / NAMES[verb]
    right = whole(run, verb)

    def check(data: dict) -> None:
        path.write_text(json.dumps(data | {"weights": right["weights"]}), encoding="utf-8")
        with reporting_versions():  # as a command does
            found, _, why = stored_result(run, verb, NAMES[verb], 0)
        if found is None:
            assert why.startswith(f"{RUN}/{NAMES[verb]} was not used: ")
            assert "\n" not in why
        else:
            show(run, verb, found)

    hammer("results", count, mutated(right), check)


@pytest.mark.parametrize("verb", sorted(NAMES))
def test_results_of_another_version_say_so(verb, run):
    path = Path(run.source) / NAMES[verb]
    made = {"versions": {"mnemoscope": "9.0"}, "command": "", "date": "", "commit": None}
    path.write_text(json.dumps(whole(run, verb) | {"version": 2, "provenance": made}), encoding="utf-8")
    found, _, why = stored_result(run, verb, NAMES[verb], 0)
    assert found is None
    assert "it is of version 2, made by mnemoscope '9.0'; this mnemoscope reads version 1" in why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("text", "its roles's sink's margins is 'text', not an object"),
        (None, "its roles's sink's margins is None, not an object"),
        ({"share": "0.1"}, "its roles's sink's margins's share is '0.1', not a number"),
        ({"ci": None}, "its roles's sink's margins's"),
        ({"ci": [0.1]}, "an interval does not have two bounds"),
        ({"reason": 1}, "its roles's sink's margins's reason is 1, not str"),
    ],
)
def test_the_sink_on_margins_is_checked_where_it_was_measured(change, why, run):
    """A field that a verdict may lack is checked where it has it."""
    data = whole(run, "verdict")
    sink = data["roles"]["sink"]
    sink["margins"] = sink["margins"] | change if isinstance(change, dict) else change
    (Path(run.source) / NAMES["verdict"]).write_text(json.dumps(data), encoding="utf-8")
    found, _, said = stored_result(run, "verdict", NAMES["verdict"], 0)
    assert found is None
    assert why in said
    del sink["margins"]
    (Path(run.source) / NAMES["verdict"]).write_text(json.dumps(data), encoding="utf-8")
    found, _, said = stored_result(run, "verdict", NAMES["verdict"], 0)
    assert found, said
    show(run, "verdict", found)


def test_names_in_a_file_cannot_end_as_those_that_may_be_missing():
    assert mismatch({"heads?": 1}, {ANY: str}) == "its heads? is 1, not str"


def texts() -> st.SearchStrategy[bytes]:
    """What is no result: noise, a part of one, brackets without end, another kind of JSON."""
    part = st.sampled_from(sorted(NAMES.values())).map(lambda name: (SHIPPED / RUN / name).read_bytes())
    cut = st.builds(lambda data, share: data[: int(len(data) * share)], part, st.floats(0, 0.99))
    deep = st.builds(lambda n, s: s * n, st.integers(1, 200_000), st.sampled_from((b"[", b'{"a":', b"9", b"\xff")))
    return st.one_of(st.binary(max_size=60), cut, deep, json_junk.map(lambda x: json.dumps(x).encode()))


@counts(40, 3_000)
def test_files_that_are_no_results(count, run):
    def check(data: bytes) -> None:
        for verb, name in NAMES.items():
            (Path(run.source) / name).write_bytes(data)
            assert stored_result(run, verb, name, 0)[0] is None

    hammer("results", count, texts(), check)


@counts(40, 4_000)
def test_circuits_are_circuits_or_refused(count):
    right = json.loads((SHIPPED / RUN / "circuit.json").read_text(encoding="utf-8"))["circuit"]

    def check(data: object) -> None:
        circuit = refusal(lambda: circuit_from_json(data))  # type: ignore[arg-type]
        if circuit is not None:
            circuit.connected()
            circuit.to_networkx()
            assert circuit_from_json(circuit.to_json()).heads() == circuit.heads()

    hammer("results", count, mutated(right, most=2) | leaves, check)


@counts(40, 6_000)
def test_records_of_runs(count, tmp_path):
    right = json.loads((SHIPPED / RUN / RECORD).read_text(encoding="utf-8"))

    def check(data: object) -> None:
        (tmp_path / RECORD).write_text(json.dumps(data), encoding="utf-8")
        record = refusal(lambda: read_record(tmp_path))
        if record is not None:
            assert record["version"] == 1

    hammer("results", count, mutated(right) | json_junk, check)


def test_a_role_that_is_unknown_is_named(run):
    data = whole(run, "verdict")
    data["by_length"][0]["roles"]["drain"] = {"rho": 1, "ci": 0}
    (Path(run.source) / NAMES["verdict"]).write_text(json.dumps(data), encoding="utf-8")
    found, _, why = stored_result(run, "verdict", NAMES["verdict"], 0)
    assert found is None
    assert "an unknown role, 'drain'" in why
