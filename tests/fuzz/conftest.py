"""The count of all inputs stands at the end of a run."""

from __future__ import annotations

from tests.fuzz.counting import tried


def pytest_terminal_summary(terminalreporter):
    if tried:
        each = ", ".join(f"{n} {kind}" for kind, n in sorted(tried.items()))
        terminalreporter.write_line(f"fuzzed with {sum(tried.values())} inputs: {each}")
