"""JSON of batteries and of evidence, so that a verdict can be computed again without the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from probes.arms.registry import ARMS, Arm, keys_of
from probes.batteries import Battery, Measured
from probes.evidence import Accuracy, Evidence, Interval, parse_key

VERSION = 1


def battery_to_json(battery: Battery) -> dict:
    """Return a nested plain dictionary with every number that `probes.verdict` reads.

    JSON has neither NaN nor infinity: such numbers become the strings "nan", "inf" and "-inf".
    """
    head = {"version": VERSION, "name": battery.name, "format": battery.format, "prompts": battery.prompts}
    return {**head, "seed": battery.seed, "measured": [_plain(m) for m in battery.measured]}


def battery_from_json(data: dict, registry: Mapping[str, Arm] = ARMS) -> Battery:
    """Return the battery that `battery_to_json` wrote.

    Raises `ValueError` for another version, for evidence that no arm of `registry` gives, and for other data.
    """
    if not isinstance(data, dict) or "version" not in data:
        raise ValueError("this is not a battery: it has no version")
    if data["version"] != VERSION:
        raise ValueError(f"the battery has version {data['version']!r}; this mnemoscope reads version {VERSION}")
    try:
        measured = tuple(_measured(m, registry) for m in data["measured"])
        return Battery(
            name=data["name"],
            format=data["format"],
            prompts=data["prompts"],
            seed=data["seed"],
            measured=measured,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the battery is damaged: {error!r}") from error


def evidence_to_json(evidence: Sequence[Evidence]) -> dict:
    """Return the evidence of an arm as a plain dictionary, in the form that `battery_to_json` uses."""
    return {"version": VERSION, "evidence": _plain(list(evidence))}


def evidence_from_json(data: dict, registry: Mapping[str, Arm] = ARMS) -> tuple[Evidence, ...]:
    """Return the evidence that `evidence_to_json` wrote. Raises `ValueError` as `battery_from_json`."""
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"this is not evidence of version {VERSION}")
    try:
        return tuple(_evidence(e, registry) for e in data["evidence"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the evidence is damaged: {error!r}") from error


def _plain(value: Any) -> Any:
    """Convert dataclasses to dictionaries, tuples to lists, and numbers that JSON lacks to strings."""
    match value:
        case Evidence():
            # The key is stored as arm and name, in front.
            rest = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name != "key"}
            return {"arm": value.arm, "name": value.name, **rest}
        case Interval() | Accuracy() | Measured():
            return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        case dict():
            return {k: _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _measured(data: dict, registry: Mapping[str, Arm]) -> Measured:
    accuracy = tuple(
        Accuracy(**{**row, "length": _length(row["length"]), "estimate": _interval(row["estimate"])})
        for row in data["accuracy"]
    )
    evidence = tuple(_evidence(e, registry) for e in data["evidence"])
    return Measured(**{**data, "length": _length(data["length"]), "accuracy": accuracy, "evidence": evidence})


def _evidence(data: dict, registry: Mapping[str, Arm]) -> Evidence:
    rest = {name: value for name, value in data.items() if name not in ("arm", "name")}
    return Evidence(
        **{
            **rest,
            "key": parse_key(data["arm"], data["name"], keys_of(registry)),
            "length": _length(data["length"]),
            "value": _interval(data["value"]),
            "control": None if data["control"] is None else _interval(data["control"]),
        }
    )


def _length(length: Any) -> Any:
    """Return a pair for the digits of two operands, which JSON stores as a list."""
    return tuple(length) if isinstance(length, list) else length


def _interval(data: dict) -> Interval:
    value, low, high = (float(data[name]) for name in ("value", "low", "high"))
    error, df = (None if data[name] is None else float(data[name]) for name in ("error", "df"))
    return Interval(value, low, high, error, df)
