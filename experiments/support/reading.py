"""Read result files. Other format versions are refused; files made with other libraries are reported."""

from __future__ import annotations

from pathlib import Path

from experiments.support.provenance import warn_versions
from experiments.support.results import RESULT_VERSION
from interp.models import read_json
from interp.tasks.limits import is_whole, shown

CALIBRATION = Path(__file__).parent.parent / "results" / "calibration.json"
LIST_CALIBRATION = CALIBRATION.with_name("calibration-lists.json")
CALIBRATION_SCHEMA = 1
UNREAD = "it is not a result file that this version reads"


def read_result(path: Path) -> dict:
    """Return the contents of a file that `write_result` wrote. Raises `ValueError` for anything else."""
    data = read_json(path)
    if reason := why_unread(data):
        raise ValueError(f"{path} cannot be used: {reason}")
    warn_versions(f"{path.parent.name}/{path.name}", data.get("provenance"))
    return data


def dtype_of(data: dict) -> str | None:
    """Return the precision in which a result was measured; None where its version did not record it."""
    made = data.get("provenance")
    dtype = made.get("dtype") if isinstance(made, dict) else None
    return dtype if isinstance(dtype, str) else None


def why_unread(data: object) -> str:
    """Return why `data` is not a result of this format version; "" where it is one."""
    if not isinstance(data, dict):
        return UNREAD
    if (version := data.get("version")) == RESULT_VERSION and is_whole(version):
        return _unknown_evidence(data.get("evidence"))
    made = data.get("provenance")
    maker = made.get("versions") if isinstance(made, dict) else None
    by = f", made by mnemoscope {shown(maker.get('mnemoscope'))}" if isinstance(maker, dict) else ""
    return f"it is of version {shown(version)}{by}; this mnemoscope reads version {RESULT_VERSION}"


def _unknown_evidence(rows: object) -> str:
    """Return the name of the first stored evidence that no arm gives; "" where all are known."""
    if not isinstance(rows, list):
        return ""
    from probes.arms.registry import keys_of
    from probes.evidence import parse_key

    names = [(row.get("arm"), row.get("name")) for row in rows if isinstance(row, dict)]
    known = keys_of()
    for arm, name in sorted({(a, n) for a, n in names if isinstance(a, str) and isinstance(n, str)}):
        try:
            parse_key(arm, name, known)
        except ValueError:
            return f"its evidence {shown(name)} of the arm {shown(arm)} is unknown to this version"
    return ""


def read_calibration(path: Path = CALIBRATION) -> dict:
    """Return the shipped counts of right and wrong verdicts. Raises `ValueError` for another schema.

    `path`: those of parity and addition, or `LIST_CALIBRATION`.
    """
    counted = read_json(path)
    schema = counted.get("schema") if isinstance(counted, dict) else None
    if schema != CALIBRATION_SCHEMA:
        raise ValueError(f"{path} has schema {shown(schema)}; this mnemoscope reads schema {CALIBRATION_SCHEMA}")
    warn_versions(path.name, counted.get("provenance"))
    return counted


def read_rows(path: Path) -> dict[str, dict]:
    """Return the rows of a benchmark file by case. Raises `ValueError` for another file.

    Rows are measured at different times; a row's own provenance is used where it has one, else the file's.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("rows"), dict):
        raise ValueError(f"{path} is not a result of this verb; move it, or choose another --out")
    for name, row in data["rows"].items():
        if not isinstance(row, dict):
            reason = f"its row {shown(name)} is {shown(row)}"
            raise ValueError(f"{path} is damaged: {reason}; move it, or choose another --out")
        warn_versions(path.name, row.get("provenance") or data.get("provenance"))
    return data["rows"]
