"""Find a finished result of the same weights and options, which a verb prints instead of measuring it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from experiments.support.console import warn
from experiments.support.provenance import warn_versions
from experiments.support.reading import UNREAD, why_unread
from experiments.support.results import device_and_dtype, weights_of
from interp.models import read_json
from interp.support.writing import write_together
from interp.tasks.limits import is_whole, shown
from probes.findings import MARGINS

if TYPE_CHECKING:
    from interp.models import Run

V = TypeVar("V")

# Largest size of a result file, in bytes. The largest circuit's has a million.
LARGEST = 2**26
ALL_ARMS = "all arms"


@dataclass(frozen=True)
class Finished(Generic[V]):
    """A finished result: its file, what the file holds, and what was rebuilt from it."""

    path: Path
    data: dict
    found: V


def find_finished(
    paths: Sequence[Path], why_not: Callable[[dict], str], rebuild: Callable[[dict], V]
) -> tuple[Finished[V] | None, dict[Path, str]]:
    """Return the first result that can be printed, or None; and why each file that was looked at before cannot.

    `why_not` gets what a file holds and returns why it is another result, "" for the same one. A file for which
    `why_not` or `rebuild` raises an error is one that this version does not read.
    """
    reasons = {}
    for path in dict.fromkeys(paths):
        if not path.is_file():
            continue
        try:
            data = read_json(path, LARGEST)
            if not (reason := why_not(data)):
                found = Finished(path, data, rebuild(data))
                warn_versions(f"{path.parent.name}/{path.name}", data["provenance"])
                return found, reasons
            reasons[path] = reason
        except (ValueError, LookupError, TypeError, AttributeError):  # not JSON, or damaged
            reasons[path] = UNREAD
    return None, reasons


def take_finished(
    stored: Finished[Any],
    target: Path | None,
    reasons: Mapping[Path, str],
    others: Callable[[Path], Sequence[tuple[Path, str]]] = lambda _: (),
) -> Path:
    """Return the file of a finished result, which is copied to `target`, the file of --out; None copies nothing.

    A copy gets the files beside it that measuring leaves: `others` returns them for its folder. One line on standard
    error names the file that the result is from, and says why a result that was at the target is replaced.
    """
    if target is None or target == stored.path:
        warn(f"printed from {stored.path}; --fresh measures again")
        return stored.path
    replaced = f"; {target} is replaced: {reasons.get(target, UNREAD)}" if target.is_file() else ""
    write_together([*others(target.parent), (target, json.dumps(stored.data, indent=1) + "\n")])
    warn(f"copied from {stored.path}; --fresh measures again{replaced}")
    return target


def warn_measured(target: Path, reasons: Mapping[Path, str], fresh: bool) -> None:
    """Print one line on standard error where a verb measures although a finished result is there.

    It says why, which file is replaced or kept, and where the new result goes. `target` is the file of the new result;
    `reasons` are those of `find_finished`.
    """
    if target.is_file() and fresh:
        warn(f"measuring, because --fresh is given; the new result replaces {target}, another --out keeps both")
    elif target.is_file():
        why = f"{target} is another result: {reasons.get(target, UNREAD)}"
        warn(f"measuring, because {why}; the new result replaces it, another --out keeps both")
    elif reasons and not fresh:
        path, why = next(iter(reasons.items()))
        warn(f"measuring, because {path} is another result: {why}; it is kept, the new result goes to {target}")


def warn_replaced(path: Path, why_not: Callable[[dict], str], advice: str = "another --out keeps both") -> None:
    """Print one line on standard error where a new result will replace another one at `path`, with the reason.

    For verbs that always measure. `why_not`, as for `find_finished`, returns "" for a result of the same options, which
    is replaced by an equal one. `advice` says how to keep the other.
    """
    if not path.is_file():
        return
    try:
        why = why_not(read_json(path, LARGEST))
    except (ValueError, LookupError, TypeError, AttributeError):  # not JSON, or damaged
        why = UNREAD
    if why:
        warn(f"replacing {path}: {why}; {advice}")


def why_other_result(
    run: Run, seed: int, asked: Mapping[str, object], data: dict, made: Mapping[str, object] | None = None
) -> str:
    """Return why what a file holds is not of this run, format, seed, options or weights; "" where it is.

    `made`: the options that it was made with. Default: its entry "options". The name of the run, which is compared by
    itself, and memory, which changes no number, may be among the options that are asked for.
    """
    if reason := why_other_run(run, data, seed):
        return reason
    compared = {name: value for name, value in asked.items() if name not in ("name", "format", "memory")}
    options = json.loads(json.dumps(compared))  # a file has lists for tuples
    reason = why_other_options(run, options, made or data["options"], data["provenance"])
    return reason or why_other_weights(run, data.get("weights"))


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
        theirs = data.get("format")
        return f"it is of {data['run']}" + (f" in the format {theirs}" if theirs else "")
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
    texts = [
        "another list of this name"
        if name == "list"
        else f"{_said(name, stored.get(name))}, not {_text(name, wanted[name])}"
        for name in differ
    ]
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


def one_length(length: int | Sequence[int]) -> int:
    """Return a length as a number: for addition, that of the longer operand."""
    return length if isinstance(length, int) else max(length, default=0)


def _said(name: str, value: object) -> str:
    """Return an option's name and value as a sentence has them: "prompts 24", "arms M5 M7", "all arms"."""
    text = _text(name, value)
    return text if text == ALL_ARMS else f"{name} {text}"


def _text(name: str, value: object) -> str:
    if name == "arms" and isinstance(value, list):
        from probes.arms.registry import ARMS

        if set(value) == set(ARMS):
            return ALL_ARMS
        value = sorted(value, key=lambda code: list(ARMS).index(code) if code in ARMS else len(ARMS))
    if isinstance(value, list):
        return " ".join(map(str, value))[:80]
    return value[:80] if isinstance(value, str) else shown(value)
