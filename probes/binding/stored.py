"""Rebuild a `BindingVerdict` from its JSON, so that a stored verdict is printed as one that was just measured."""

from __future__ import annotations

import json

from probes.binding.deciding import BindingVerdict, binding_verdict
from probes.binding.found import Binding, Share
from probes.evidence import Interval
from probes.stored import interval_from_json


def binding_verdict_from_json(name: str, seed: int, data: dict) -> BindingVerdict:
    """Return the verdict on the model `name` that `BindingVerdict.to_json` wrote; it is decided again.

    Raises `ValueError` for damage, and where `to_json` of the rebuilt verdict differs from `data`.
    """
    try:
        found = binding_verdict(name, _binding(seed, data))
        again = json.loads(json.dumps(found.to_json()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the verdict is damaged: {error!r}") from error
    if wrong := [field for field, value in again.items() if field not in data or data[field] != value]:
        raise ValueError(f"the verdict is damaged: {wrong[0]} does not follow from its other fields")
    return found


def _binding(seed: int, data: dict) -> Binding:
    sinks = {name: sink for name, sink in data["sinks"].items() if "value" in sink}
    return Binding(
        seed=seed,
        accuracy=interval_from_json(data["accuracy"]),
        shares={name: _share(share) for name, share in data["shares"].items()},
        sinks={name: _share(sink) for name, sink in sinks.items()},
        carried={name: interval_from_json(sink["carried"]) for name, sink in sinks.items() if "carried" in sink},
        remainder=_optional(data["remainder"]),
        added={name: interval_from_json(added) for name, added in data.get("added", {}).items()},
        deep_prompts=data.get("deep_prompts", 0),
        queries=tuple(data.get("queries", ())),
        targets=tuple(data.get("targets", ())),
        rules=data.get("rules", ""),
        **{name: data[name] for name in ("task", "items", "posed", "prompts", "level", "left_out", "refusal")},
    )


def _share(data: dict) -> Share:
    intervals = (interval_from_json(data[name]) for name in ("value", "control", "excess"))
    return Share(*intervals, follows=data.get("follows"), gained=_optional(data.get("gained")))


def _optional(data: dict | None) -> Interval | None:
    return None if data is None else interval_from_json(data)
