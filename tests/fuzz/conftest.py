"""The count of all inputs stands at the end of a run, and in a file where one is asked for."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.support.provenance import provenance_record
from interp.support.writing import write_whole
from tests.fuzz.counting import FACTOR, tried


def pytest_addoption(parser):
    parser.addoption("--counts", type=Path, help="write how many inputs of each kind were tried, as JSON")


def pytest_sessionfinish(session, exitstatus):
    # Nothing is counted as survived where something failed.
    if (path := session.config.getoption("--counts", None)) and tried and exitstatus == 0:
        factor = [f"MNEMOSCOPE_FUZZ={FACTOR:g}"] if FACTOR != 1 else []
        command = [*factor, "pytest", *map(str, session.config.invocation_params.args)]
        made = provenance_record(command=" ".join(command))
        write_whole(path, json.dumps({"provenance": made, "inputs": dict(sorted(tried.items()))}, indent=1) + "\n")


def pytest_terminal_summary(terminalreporter):
    if tried:
        each = ", ".join(f"{n} {kind}" for kind, n in sorted(tried.items()))
        terminalreporter.write_line(f"fuzzed with {sum(tried.values())} inputs: {each}")
