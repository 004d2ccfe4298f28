"""What do result files say? Formats of other versions are refused; files that other libraries made are said to be."""

from __future__ import annotations

from pathlib import Path

from experiments.support.provenance import say_versions
from experiments.support.results import RESULT_VERSION
from interp.models import read_json
from interp.tasks.limits import is_whole, shown

CALIBRATION = Path(__file__).parent.parent / "results" / "calibration.json"
CALIBRATION_SCHEMA = 1
UNREAD = "it is no result file that this version reads"


def read_result(path: Path) -> dict:
    """Read what `write_result` wrote. Raises `ValueError` for anything else and for another format version."""
    data = read_json(path)
    if reason := why_unread(data):
        raise ValueError(f"{path} cannot be used: {reason}")
    say_versions(f"{path.parent.name}/{path.name}", data.get("provenance"))
    return data


def why_unread(data: object) -> str:
    """Why something is no result of this version's format; "" where it is one."""
    if not isinstance(data, dict):
        return UNREAD
    if (version := data.get("version")) == RESULT_VERSION and is_whole(version):
        return ""
    made = data.get("provenance")
    maker = made.get("versions") if isinstance(made, dict) else None
    by = f", made by mnemoscope {shown(maker.get('mnemoscope'))}" if isinstance(maker, dict) else ""
    return f"it is of version {shown(version)}{by}; this mnemoscope reads version {RESULT_VERSION}"


def read_calibration() -> dict:
    """The shipped counts of right and wrong verdicts. Raises `ValueError` for another schema."""
    counted = read_json(CALIBRATION)
    schema = counted.get("schema") if isinstance(counted, dict) else None
    if schema != CALIBRATION_SCHEMA:
        raise ValueError(f"{CALIBRATION} has schema {shown(schema)}; this mnemoscope reads schema {CALIBRATION_SCHEMA}")
    say_versions(CALIBRATION.name, counted.get("provenance"))
    return counted


def read_rows(path: Path) -> dict[str, dict]:
    """The rows of a benchmark, by case. Raises `ValueError` for another file.

    Rows are measured at different times: those that say by which versions count, else the whole file does.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), dict):
        raise ValueError(f"{path} is no result of this verb; move it, or choose another --out")
    for name, row in found["rows"].items():
        if not isinstance(row, dict):
            words = f"its row {shown(name)} is {shown(row)}"
            raise ValueError(f"{path} is damaged: {words}; move it, or choose another --out")
        say_versions(path.name, row.get("provenance") or found.get("provenance"))
    return found["rows"]
