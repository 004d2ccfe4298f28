"""What might stand where a number, a name or an object should?"""

from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import strategies as st

ABSURD = (
    0,
    -1,
    -(2**31),
    2**27,
    2**31,
    2**53 + 1,
    2**63,
    10**30,
    True,
    False,
    None,
    "",
    "3",
    "x" * 500,
    0.0,
    1.5,
    -2.5,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    (),
    [],
    {},
    (1,),
    [[]],
    {"a": 1},
    "\x00",
    "../..",
    "\x1b[31m",
    "\udcff",
)
absurd = st.sampled_from(ABSURD)
json_junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
leaves = json_junk | absurd.filter(lambda x: not isinstance(x, tuple))


def small(low: int, high: int) -> st.SearchStrategy[Any]:
    """Mostly a number that is right, sometimes one that cannot be."""
    return st.integers(low, high) | st.integers(low, high) | absurd


@st.composite
def mutated(draw: st.DrawFn, whole: Any, most: int = 3) -> Any:
    """A copy of plain JSON with some values replaced, removed or added, anywhere inside."""
    found = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, most))):
        node = found
        while isinstance(node, (dict, list)) and node:
            keys = sorted(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(keys))
            inner = node[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.integers(0, 3)):
                node = inner
                continue
            match draw(st.sampled_from(("replace", "replace", "remove", "add"))):
                case "remove":
                    del node[key]
                case "add" if isinstance(node, dict):
                    node[draw(st.text(max_size=8))] = copy.deepcopy(draw(leaves))
                case "add" if isinstance(node, list):
                    node.insert(key, copy.deepcopy(draw(leaves)))
                case _:
                    node[key] = copy.deepcopy(draw(leaves))
            break
    return found
