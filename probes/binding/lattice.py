"""What an address adds to others that are edited too, and a candidate for a sink to others that are removed too.

An address that no single edit moves may still be used: where any two of three suffice, or where two are needed. It is
ABSENT only where it adds nothing to any set of the others (a null player of the game whose players are the addresses).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain, combinations

from probes.binding.edits import LATTICES, NEXT
from probes.binding.sinks import ALL_TOKENS, SINKS, removal_of

Step = tuple[str, str]
# The trade in the list leads to another item, and a renaming in list and query does not.
RENAMED = ("label at list", "label at both")


def steps(measured: Collection[str]) -> list[Step]:
    """Return every pair of a larger and a smaller set of which both were measured, by the names of their arms."""
    sinks = tuple(sink for sink in SINKS if sink in measured)
    players = chain(*map(_steps_of, ("own label", "order", "position")))
    renamed = [RENAMED] if set(RENAMED) <= set(measured) else []
    removed = chain(*(_sink_steps(sink, sinks) for sink in sinks))
    return [*renamed, *(step for step in chain(players, removed) if set(step) <= set(measured))]


def beyond(larger: str, smaller: str) -> str:
    """Return the name of what the larger set adds to the smaller one."""
    return f"{larger} beyond {smaller}"


def added_by(player: str, sinks: Collection[str] = ()) -> list[str]:
    """Return the names of what an address or a candidate for a sink adds to the sets of others.

    For an address also that of the edit that leads to the next item. `sinks`: the candidates that were found.
    """
    if player in SINKS:
        found = tuple(sink for sink in SINKS if sink in sinks)
        return [f"{player}{ALL_TOKENS}", *(beyond(*pair) for pair in _sink_steps(player, found))]
    return [*([NEXT[player]] if player in NEXT else []), *(beyond(*pair) for pair in _steps_of(player))]


def _steps_of(address: str) -> Iterator[Step]:
    for lattice in LATTICES:
        for others, arm in lattice.items():
            if address not in others and (larger := lattice.get(others | {address})) is not None:
                yield larger, arm


def _sink_steps(sink: str, found: tuple[str, ...]) -> Iterator[Step]:
    others = [name for name in found if name != sink]
    for count in range(1, len(others) + 1):
        for some in combinations(others, count):
            larger = tuple(name for name in found if name == sink or name in some)
            yield removal_of(larger, found), removal_of(some, found)
