"""Schemas of the result files that a report reads, and a check that names the first field that does not match.

A schema is a type; a list of one schema; a dictionary of schemas by key, where the key `ANY` matches all keys and a key
that ends in `?` may be missing; or a tuple of alternatives. `float` is any number that a result may have: finite, and
at most `LARGEST` in size.
"""

from __future__ import annotations

from typing import Any

from interp.tasks.limits import is_whole, shown

ANY = "*"
# Numbers of results are far below; larger ones overflow in the axes of figures.
LARGEST = 1e12
NAMES = {float: f"a number up to {LARGEST:.0e}"}
BOUND = (float, None)  # an interval may be unbounded
INTERVAL = {"value": float, "low": BOUND, "high": BOUND}
LENGTH = (int, [int])
ROW = {"metric": str, "mode": str, "length": LENGTH, **INTERVAL, "chance": float}
# The sink on margins, and where that was not measured.
MARGINS = {"status": str, "reason": str, "share": float, "ci": [BOUND], "control": (INTERVAL, None)}
ON_MARGINS = (MARGINS, MARGINS | {"share": None, "ci": None})
# A role, and one that was not measured.
ROLE = {
    "status": str,
    "rho": float,
    "ci": [BOUND],
    "control": (INTERVAL, None),
    "reason": (str, None),
    "margins?": ON_MARGINS,
}
UNMEASURED = {"status": str, "rho": None, "ci": None, "reason": (str, None), "margins?": ON_MARGINS}
ROLES = {name: (ROLE, UNMEASURED) for name in ("anchor", "placeholder", "sink")}
FAITHFULNESS = {name: float for name in ("values", "low", "high", "accuracy", "accuracy_full", "margin_full")}
COMMON = {
    "run": str,
    "format": str,
    "seed": int,
    "provenance": {"command": str, "date": str, "commit": (str, None), "versions": {"mnemoscope": (str, None)}},
}
SCHEMAS = {
    "verdict": {
        **COMMON,
        "prompts": int,
        "verdict": str,
        "roles": ROLES,
        "remainder?": (float, None),
        "replication": str,
        "n_models": int,
        "models": [str],
        "may_claim": str,
        "may_not_claim": str,
        "margins": {"version": str, "rho": float},
        "evidence": [
            {
                "arm": str,
                "name": str,
                "length": LENGTH,
                "quantity": str,
                "value": INTERVAL,
                "control": (INTERVAL, None),
                "n": int,
            }
        ],
        "by_length": [{"length": LENGTH, "verdict": str, "roles": ROLES, "accuracy": [ROW]}],
    },
    "evaluate": {
        **COMMON,
        "prompts": int,
        "trained_to": (int, None),
        "accuracy": [ROW],
        "offset_prompts": int,
        "offsets": [{"length": int, "offset": (int, None), "share": float}],
    },
    "circuit": {
        **COMMON,
        "options": {"length": int, "prompts": int},
        "possible_edges": int,
        "heads": {ANY: str},
        "circuit": {"size": int, "details": {"metric": str}},
        "lengths": {ANY: FAITHFULNESS},
        "ablations": {"corrupted": FAITHFULNESS},
        "random": {"largest": float, "n": int},
        "curves": {ANY: {name: [float] for name in ("sizes", "values", "low", "high")}},
    },
}


def mismatch(data: Any, schema: Any, where: str = "it") -> str:
    """Return a description of the first field that does not match; "" where all match.

    >>> mismatch({"n": "3"}, {"n": int})
    "its n is '3', not int"
    """
    match schema:
        case tuple():
            problems = [mismatch(data, one, where) for one in schema]
            # The longest description is of a field inside, which says more than "not empty".
            return "" if "" in problems else max(problems, key=len)
        case None:
            return "" if data is None else f"{where} is {shown(data)}, not empty"
        case list():
            if not isinstance(data, list):
                return f"{where} is {shown(data)}, not a list"
            return next((bad for k, x in enumerate(data) if (bad := mismatch(x, schema[0], f"{where} {k}"))), "")
        case dict():
            if not isinstance(data, dict):
                return f"{where} is {shown(data)}, not an object"
            if ANY in schema:
                schema = dict.fromkeys(data, schema[ANY])
            else:
                schema = {key.removesuffix("?"): one for key, one in schema.items() if not _left_out(key, data)}
            if missing := [key for key in schema if key not in data]:
                return f"{where} has no {missing[0]}"
            inside = "its" if where == "it" else f"{where}'s"
            return next(
                (bad for key, one in schema.items() if (bad := mismatch(data[key], one, f"{inside} {key}"))), ""
            )
        case _ if schema is float:
            fits = (isinstance(data, float) or is_whole(data)) and abs(data) <= LARGEST
        case _ if schema is int:
            fits = is_whole(data) and abs(data) < 2**63
        case _:
            fits = isinstance(data, schema)
    return "" if fits else f"{where} is {shown(data)}, not {NAMES.get(schema, schema.__name__)}"


def _left_out(key: str, data: dict) -> bool:
    """Return whether a key of a schema may be missing, and is."""
    return key.endswith("?") and key.removesuffix("?") not in data
