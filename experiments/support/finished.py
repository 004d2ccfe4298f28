"""Find a finished result of the same weights and options, which a verb prints instead of measuring it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from experiments.support.console import warn
from experiments.support.provenance import warn_versions
from experiments.support.reading import UNREAD, why_unread
from experiments.support.results import device_and_dtype, weights_of
from interp.models import read_json
from interp.tasks.limits import is_whole, shown
from probes.findings import MARGINS

if TYPE_CHECKING:
    from interp.models import Run

V = TypeVar("V")

# Largest size of a result file, in bytes. The largest circuit's has a million.
LARGEST = 2**26


@dataclass(frozen=True)
class Finished(Generic[V]):
    """A finished result: its file, what the file holds, and what was rebuilt from it."""

    path: Path
    data: dict
    found: V


def find_finished(
    paths: Sequence[Path], why_not: Callable[[dict], str], rebuild: Callable[[dict], V]
) -> tuple[Finished[V] | None, str]:
    """Return the first result that can be printed, and "".

    Otherwise return None, and why the file at the first path cannot; "" where there is none. `why_not` gets what a file
    holds and returns why it is another result, "" for the same one. A file for which `why_not` or `rebuild` raises an
    error is one that this version does not read. One line on standard error names the file that is printed.
    """
    reasons = {}
    for path in paths:
        if not path.is_file():
            continue
        try:
            data = read_json(path, LARGEST)
            reasons[path] = why_not(data)
            if not reasons[path]:
                found = Finished(path, data, rebuild(data))
                warn_versions(f"{path.parent.name}/{path.name}", data["provenance"])
                warn(f"printed from {path}; --fresh measures again")
                return found, ""
        except (ValueError, LookupError, TypeError, AttributeError):  # not JSON, or damaged
            reasons[path] = UNREAD
    return None, reasons.get(paths[0], "")


def warn_judged_again(path: Path, why: str) -> None:
    """Print one line on standard error where a finished result will be replaced, with the reason."""
    if path.is_file():
        warn(f"judging again: {path} is finished, and will be replaced: {why or 'it is not read'}")


def why_other_run(run: Run, data: Any, seed: int) -> str:
    """Return why what a file holds is no result on this run, format and seed; "" where it is one."""
    if not isinstance(data, dict) or not isinstance(data.get("provenance"), dict):
        return UNREAD
    if reason := why_unread(data):
        return reason
    posed = None if run.format is None else str(run.format)
    for name, right in (("run", isinstance(data.get("run"), str)), ("seed", is_whole(data.get("seed")))):
        if not right:
            return f"{UNREAD}: its {name} is {shown(data.get(name))}"
    if not isinstance(data.get("format"), str | None):
        return f"{UNREAD}: its format is {shown(data['format'])}"
    if data["run"] != run.name or data.get("format") != posed:
        return f"it is of {data['run']} in the format {data.get('format')}"
    return "" if data["seed"] == seed else f"its seed is {shown(data['seed'])}, not {seed}"


def why_other_rules(data: dict) -> str:
    """Return how the thresholds of a verdict differ from those of this version; "" where they do not."""
    margins = data.get("margins")
    version = margins.get("version") if isinstance(margins, dict) else None
    if version == MARGINS.version:
        return ""
    older = version[:40] if isinstance(version, str) else shown(version)
    return f"it was made with margins {older}, not {MARGINS.version}"


def why_other_weights(run: Run, weights: object) -> str:
    """Return "the weights have changed since" where a digest is not that of a run's weights, else ""."""
    return "" if weights == weights_of(run) else "the weights have changed since"


def why_other_options(
    run: Run, asked: Mapping[str, object], made: Mapping[str, object] | None, provenance: dict
) -> str:
    """Return what differs between the options that a result was `made` with and those `asked` for, "" for nothing.

    `made` is None where these are not known. Device and dtype are compared with those of the result's provenance.
    """
    if made is None:
        return "its options are not recorded"
    here = device_and_dtype(run)
    stored, wanted = {**made, **{name: provenance.get(name) for name in here}}, {**asked, **here}
    differ = [name for name, value in wanted.items() if stored.get(name) != value]
    texts = [f"{name} {_text(stored.get(name))}, not {_text(wanted[name])}" for name in differ]
    return f"it was made with {'; '.join(texts)}" if texts else ""


def options_said(provenance: dict) -> dict[str, list[str]] | None:
    """Return the options of the `mnemoscope verdict` command that made a result, each with its words; else None.

    For results of versions that did not store their options.
    """
    words = str(provenance.get("command")).split()
    if words[:2] != ["mnemoscope", "verdict"]:
        return None
    said: dict[str, list[str]] = {}
    name = ""
    for word in words[2:]:
        if word.startswith("--"):
            name, _, value = word.removeprefix("--").partition("=")
            said[name] = [value] if value else []
        else:
            said.setdefault(name, []).append(word)
    return said


def one_length(length: int | list[int]) -> int:
    """Return a length as a number: for addition, that of the longer operand."""
    return length if isinstance(length, int) else max(length, default=0)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))[:80]
    return value[:80] if isinstance(value, str) else shown(value)
