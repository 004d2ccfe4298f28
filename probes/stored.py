"""Rebuild a `Verdict` from its JSON, so that a stored verdict is printed as one that was just measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from probes.arms.registry import ARMS, Arm, keys_of
from probes.evidence import Accuracy, Evidence, Interval, parse_key
from probes.findings import SCHEMA, LengthFinding, Margins, Verdict
from probes.statuses import OnMargins, RoleFinding, Status


def verdict_from_json(data: dict, registry: Mapping[str, Arm] = ARMS) -> Verdict:
    """Return the verdict that `Verdict.to_json` wrote; more fields of `data` are ignored.

    Its intervals have no standard error, so they exist at 95 % only; statuses are read, not decided again. Raises
    `ValueError` for another schema, for evidence that no arm of `registry` gives, for damage, and where `to_json` of
    the rebuilt verdict differs from `data`.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"this is not a verdict of schema {SCHEMA}")
    try:
        found = Verdict(
            label=data["verdict"],
            roles=_roles(data["roles"]),
            lengths=tuple(_finding(at, data["evidence"], registry) for at in data["by_length"]),
            names=tuple(data["models"]),
            format=data["format"],
            replication=data["replication"],
            margins=Margins(**data["margins"]),
        )
        again = json.loads(json.dumps(found.to_json()))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the verdict is damaged: {error!r}") from error
    if wrong := [name for name, value in again.items() if name not in data or data[name] != value]:
        raise ValueError(f"the verdict is damaged: {wrong[0]} does not follow from its other fields")
    return found


def interval_from_json(data: dict) -> Interval:
    """Return the interval that `Interval.to_json` wrote: a missing bound is infinite, a missing value no number."""
    value, low, high = (data[name] for name in ("value", "low", "high"))
    return Interval(
        math.nan if value is None else value, -math.inf if low is None else low, math.inf if high is None else high
    )


def _finding(data: dict, evidence: list[dict], registry: Mapping[str, Arm]) -> LengthFinding:
    return LengthFinding(
        length=_length(data["length"]),
        label=data["verdict"],
        mode=data["mode"],
        roles=_roles(data["roles"]),
        accuracy=tuple(_accuracy(row) for row in data["accuracy"]),
        evidence=tuple(_evidence(row, registry) for row in evidence if row["length"] == data["length"]),
        left_out=data["left_out"],
        unexplained=data.get("unexplained", {}),
    )


def _roles(data: dict[str, dict]) -> dict[str, RoleFinding]:
    return {
        name: RoleFinding(
            status=Status(role["status"]),
            reason=role["reason"],
            rho=_estimate(role, "rho"),
            control=_optional(role["control"]),
            tests=role.get("tests"),
            by=role.get("by", ""),
            margins=_on_margins(role["margins"]) if "margins" in role else None,
        )
        for name, role in data.items()
    }


def _on_margins(data: dict) -> OnMargins:
    return OnMargins(
        status=Status(data["status"]),
        reason=data["reason"],
        share=_estimate(data, "share"),
        control=_optional(data["control"]),
        tests=data.get("tests"),
    )


def _accuracy(data: dict) -> Accuracy:
    rest = {name: data[name] for name in ("metric", "mode", "chance", "n")}
    return Accuracy(**rest, length=_length(data["length"]), estimate=interval_from_json(data))


def _evidence(data: dict, registry: Mapping[str, Arm]) -> Evidence:
    return Evidence(
        key=parse_key(data["arm"], data["name"], keys_of(registry)),
        length=_length(data["length"]),
        value=interval_from_json(data["value"]),
        control=_optional(data["control"]),
        **{name: data[name] for name in ("question", "quantity", "n", "unit", "details")},
    )


def _estimate(data: dict, name: str) -> Interval | None:
    """Return the interval of a role, which JSON stores as a value and `ci`; None where it was not measured."""
    if data["ci"] is None:
        return None
    low, high = data["ci"]
    return interval_from_json({"value": data[name], "low": low, "high": high})


def _optional(data: dict | None) -> Interval | None:
    return None if data is None else interval_from_json(data)


def _length(length: Any) -> Any:
    """Return a pair for the digits of two operands, which JSON stores as a list."""
    return tuple(length) if isinstance(length, list) else length
