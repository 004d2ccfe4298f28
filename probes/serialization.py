"""How is a battery kept on disk, whole or an arm at a time, so that no model needs to run again?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from probes.batteries import Battery, Measured
from probes.evidence import Accuracy, Evidence, Interval

VERSION = 1


def battery_to_json(battery: Battery) -> dict:
    """A nested plain dictionary with every number that `probes.verdict` reads; `battery_from_json` undoes it.

    JSON has neither NaN nor infinity, so such numbers are kept as the strings "nan", "inf" and "-inf".
    """
    whole = {"version": VERSION, "name": battery.name, "format": battery.format, "prompts": battery.prompts}
    return {**whole, "seed": battery.seed, "measured": [_plain(m) for m in battery.measured]}


def battery_from_json(data: dict) -> Battery:
    """The battery that `battery_to_json` wrote. Raises `ValueError` for another version and for anything else."""
    if not isinstance(data, dict) or "version" not in data:
        raise ValueError("this is no battery: it has no version")
    if data["version"] != VERSION:
        raise ValueError(f"the battery has version {data['version']!r}; this mnemoscope reads version {VERSION}")
    try:
        measured = tuple(_measured(m) for m in data["measured"])
        return Battery(data["name"], data["format"], data["prompts"], data["seed"], measured)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the battery is damaged: {error!r}") from error


def evidence_to_json(found: Sequence[Evidence]) -> dict:
    """The evidence of an arm, as `battery_to_json` does it."""
    return {"version": VERSION, "evidence": _plain(list(found))}


def evidence_from_json(data: dict) -> tuple[Evidence, ...]:
    """The evidence that `evidence_to_json` wrote. Raises `ValueError` for another version and for anything else."""
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"this is no evidence of version {VERSION}")
    try:
        return tuple(_evidence(e) for e in data["evidence"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the evidence is damaged: {error!r}") from error


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, tuples as lists, and numbers that JSON lacks as strings."""
    match value:
        case Interval() | Accuracy() | Evidence() | Measured():
            return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        case dict():
            return {k: _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _measured(data: dict) -> Measured:
    accuracy = tuple(
        Accuracy(**{**row, "length": _length(row["length"]), "estimate": _interval(row["estimate"])})
        for row in data["accuracy"]
    )
    evidence = tuple(_evidence(e) for e in data["evidence"])
    return Measured(**{**data, "length": _length(data["length"]), "accuracy": accuracy, "evidence": evidence})


def _evidence(data: dict) -> Evidence:
    control = None if data["control"] is None else _interval(data["control"])
    return Evidence(
        **{**data, "length": _length(data["length"]), "value": _interval(data["value"]), "control": control}
    )


def _length(length: Any) -> Any:
    """Digits of two operands are a pair."""
    return tuple(length) if isinstance(length, list) else length


def _interval(data: dict) -> Interval:
    value, low, high = (float(data[name]) for name in ("value", "low", "high"))
    error, df = (None if data[name] is None else float(data[name]) for name in ("error", "df"))
    return Interval(value, low, high, error, df)
