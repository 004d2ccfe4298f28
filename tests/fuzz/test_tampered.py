"""Every field of a stored result is tampered with: the report refuses the file, or shows the field as text."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments import load
from experiments.commands.report import ReportCommand
from experiments.reporting import stored
from experiments.reporting.order import whole_page
from experiments.reporting.reuse import stored_result
from experiments.reporting.section import SectionData
from experiments.support.provenance import reporting_versions
from interp.models.names import SHIPPED
from tests.fuzz.counting import tried
from tests.fuzz.test_fuzz_results import NAMES, RUN, show, whole

MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;\x1b[31m=1+1"
NUMBERS = (1e308, -7, 0, 2**62)
PARTS = {"verdict": stored.verdict_part, "evaluate": stored.accuracy_part, "circuit": stored.circuit_part}
SECTIONS = {"verdict": "verdict", "evaluate": "accuracy", "circuit": "circuit"}
# Fields of each verb that are tried where not all of them are.
FEW = 6


class Active(HTMLParser):
    """Collects what a browser would run: scripts that name our mark, and attributes that are handlers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "script"
        self.found += [f"{tag} {name}" for name, value in attrs if name.startswith("on") and "alert" in (value or "")]

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside and "<script>alert(1)" in data:
            self.found.append(data[:100])


def fields(data: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every field; of a list, those of its first entry."""
    match data:
        case dict():
            for key, value in data.items():
                yield (*path, key)
                yield from fields(value, (*path, key))
        case list() if data:
            yield from fields(data[0], (*path, 0))


def tampered(whole: dict, path: tuple) -> Iterator[tuple[dict, bool]]:
    """Yield copies with a field replaced by markup, by numbers, by markup in place of its name, and without it.

    The second value is whether the copy deserves a whole page, which takes long.
    """
    for value in (MARKUP, [MARKUP], *NUMBERS, None):
        found, node = _at(whole, path)
        node[path[-1]] = value
        yield found, value in (MARKUP, [MARKUP], NUMBERS[0])
    for renamed in (MARKUP, None):
        found, node = _at(whole, path)
        if isinstance(node, dict):
            value = node.pop(path[-1])
            if renamed is not None:
                node[renamed] = value
            yield found, renamed is not None


def _at(whole: dict, path: tuple) -> tuple[dict, Any]:
    found = copy.deepcopy(whole)
    node: Any = found
    for key in path[:-1]:
        node = node[key]
    return found, node


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tampered") / RUN
    shutil.copytree(SHIPPED / RUN, folder)
    return load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("most", [pytest.param(FEW, id="few"), pytest.param(None, id="all")])
@pytest.mark.parametrize("verb", sorted(NAMES))
def test_a_tampered_field_is_text_or_the_file_is_refused(verb, most, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ReportCommand((RUN,), quick=True)

    def part(verb: str) -> SectionData:
        return PARTS[verb](run, options, tmp_path, lambda what: None)

    parts = {name: SectionData(notes=("Left out.",)) for name in ("map", "patch", "probes", "attention")}
    for name in NAMES:
        (Path(run.source) / NAMES[name]).write_text(json.dumps(whole(run, name)), encoding="utf-8")
        parts[SECTIONS[name]] = part(name)
    right = whole(run, verb)
    path, shown = Path(run.source) / NAMES[verb], 0
    every_field = list(fields(right))
    for where in every_field[:: -(-len(every_field) // most) if most else 1]:
        for data, deserves_page in tampered(right, where):
            tried["tampered"] += 1
            path.write_text(json.dumps(data | {"weights": right["weights"]}), encoding="utf-8")
            with reporting_versions():
                found, _, why = stored_result(run, verb, NAMES[verb], 0)
                if found is None:
                    assert why.startswith(f"{RUN}/{NAMES[verb]} was not used: "), where
                    assert len(why) < 1000, where
                    assert "\n" not in why
                    continue
                shown += 1
                if not deserves_page:
                    show(run, verb, found)
                    continue
                page = whole_page([(run, {**parts, SECTIONS[verb]: part(verb)})], "title", "command")
            assert not Active(page).found, where
    assert shown


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", None, [1], "absent"])
@pytest.mark.parametrize("verb", sorted(NAMES))
def test_results_of_other_versions_are_refused_in_one_line(verb, version, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = whole(run, verb) | {"version": version}
    if version == "absent":
        del data["version"]
    (Path(run.source) / NAMES[verb]).write_text(json.dumps(data), encoding="utf-8")
    found, _, why = stored_result(run, verb, NAMES[verb], 0)
    assert found is None
    assert "it is of version" in why
    assert "this mnemoscope reads version 1" in why
