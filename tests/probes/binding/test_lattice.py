"""What an address adds to others: every pair of sets that differ by it, and only what was measured."""

from __future__ import annotations

from probes.binding.edits import ARMS, LATTICES
from probes.binding.lattice import RENAMED, added_by, beyond, steps
from probes.binding.sinks import ALL_TOKENS, SINKS, TOGETHER, removal_of, sets_of
from probes.binding.trials import DEEP_CHECKS


def test_an_address_is_compared_in_every_set_of_the_others():
    assert set(LATTICES[0].values()) <= set(ARMS)
    assert set(LATTICES[1].values()) - set(ARMS) == set(DEEP_CHECKS)
    for lattice in LATTICES:
        assert len(lattice) == len(set(lattice.values())) == 7
    assert added_by("position") == [
        "position, next item",
        "label and position beyond label at query",
        "order and position beyond order",
        "joint beyond label and order",
        "label and position, all before beyond label, all before",
        "order and position, all before beyond order, all before",
        "joint, all before beyond label and order, all before",
    ]
    of_addresses = [step for step in steps((*ARMS, *DEEP_CHECKS)) if step != RENAMED]
    assert len(of_addresses) == 18
    names = {arm: players for lattice in LATTICES for players, arm in lattice.items()}
    assert all(
        len(names[larger] - names[smaller]) == 1 and names[smaller] < names[larger] for larger, smaller in of_addresses
    )


def test_what_was_not_measured_is_not_compared():
    some = [arm for arm in ARMS if "order" not in arm]
    assert ("label and position", "position") in steps(some)
    assert not any("order" in name for step in steps(some) for name in step)
    assert steps(["label at list"]) == []
    assert steps(RENAMED) == [RENAMED]


def test_a_sink_is_compared_in_every_set_of_the_others():
    removals = [removal_of(some, SINKS) for some in sets_of(SINKS)]
    assert removals[-1] == TOGETHER
    assert len(removals) == 7
    assert added_by("line breaks", SINKS) == [
        f"line breaks{ALL_TOKENS}",
        beyond("first token + line breaks", "first token"),
        beyond("line breaks + other tokens", "other tokens"),
        beyond(TOGETHER, "first token + other tokens"),
    ]
    assert added_by("first token", SINKS[:2]) == [f"first token{ALL_TOKENS}", beyond(TOGETHER, "line breaks")]
    assert added_by("first token", SINKS[:1]) == [f"first token{ALL_TOKENS}"]
