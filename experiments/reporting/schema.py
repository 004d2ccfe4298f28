"""Has a result file the form that this version writes, so that a page can be made of it?

A form is a type; a list of one form; a dictionary of forms by key, where the key `ANY` stands for any number of keys;
or a tuple of forms, one of which must fit. `float` is any finite number.
"""

from __future__ import annotations

import math
from typing import Any

from interp.tasks.limits import is_whole, shown

ANY = "*"
BOUND = (float, None)  # an interval may be unbounded
INTERVAL = {"value": float, "low": BOUND, "high": BOUND}
LENGTH = (int, [int])
ROW = {"metric": str, "mode": str, "length": LENGTH, **INTERVAL, "chance": float}
ROLE = {"status": str, "rho": float, "ci": [BOUND], "control": (INTERVAL, None), "reason": (str, None)}
SILENT = {"status": str, "rho": None, "ci": None, "reason": (str, None)}  # a role that was not measured
ROLES = {name: (ROLE, SILENT) for name in ("anchor", "placeholder", "sink")}
WORTH = {name: float for name in ("values", "low", "high", "accuracy", "accuracy_full", "margin_full")}
COMMON = {
    "run": str,
    "format": str,
    "seed": int,
    "provenance": {"command": str, "date": str, "commit": (str, None), "versions": {"mnemoscope": (str, None)}},
}
FORMS = {
    "verdict": {
        **COMMON,
        "prompts": int,
        "verdict": str,
        "roles": ROLES,
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
        "lengths": {ANY: WORTH},
        "ablations": {"corrupted": WORTH},
        "random": {"largest": float, "n": int},
        "curves": {ANY: {name: [float] for name in ("sizes", "values", "low", "high")}},
    },
}


def misfit(data: Any, form: Any, where: str = "it") -> str:
    """What is not as it should be, in words; "" where everything is.

    >>> misfit({"n": "3"}, {"n": int})
    "its n is '3', not int"
    """
    match form:
        case tuple():
            found = [misfit(data, one, where) for one in form]
            # What is wrong inside says more than that it is not None.
            return "" if "" in found else max(found, key=len)
        case None:
            return "" if data is None else f"{where} is {shown(data)}, not empty"
        case list():
            if not isinstance(data, list):
                return f"{where} is {shown(data)}, not a list"
            return next((bad for k, x in enumerate(data) if (bad := misfit(x, form[0], f"{where} {k}"))), "")
        case dict():
            if not isinstance(data, dict):
                return f"{where} is {shown(data)}, not an object"
            if ANY in form:
                form = dict.fromkeys(data, form[ANY])
            if missing := [key for key in form if key not in data]:
                return f"{where} has no {missing[0]}"
            inside = "its" if where == "it" else f"{where}'s"
            return next((bad for key, one in form.items() if (bad := misfit(data[key], one, f"{inside} {key}"))), "")
        case _ if form is float:
            fits = (isinstance(data, float) and math.isfinite(data)) or (is_whole(data) and abs(data) < 2**63)
        case _ if form is int:
            fits = is_whole(data) and abs(data) < 2**63
        case _:
            fits = isinstance(data, form)
    return "" if fits else f"{where} is {shown(data)}, not {form.__name__}"
