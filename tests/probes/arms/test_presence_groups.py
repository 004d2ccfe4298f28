"""Presence by answer, groups: which cells are tested together, and two heads that stand in for each other."""

from itertools import combinations

import pytest

from interp.models.anatomy import anatomy_of
from interp.tasks import Role, sample
from probes import keys
from probes.arms import presence_groups
from probes.arms.idle_heads import LABELS, all_heads
from probes.arms.presence_answers import measure_by_answer
from probes.arms.presence_attention import attention_on_labels
from probes.arms.presence_cells import Cells
from probes.arms.presence_groups import Group, attention_of, groups_of, pairs_of
from probes.arms.presence_search import all_cells, find_cells
from probes.planted.parts import ONE, Form, Head, Match, Mechanism, Move, Neuron, Term, any_key
from probes.planted.pieces import Setting, after, by_index, prefix_parity, shared, target
from tests.probes.oracle_models import planted
from tests.probes.planted.by_hand import planted_by_hand


def test_groups_are_single_cells_pairs_all_but_one_all_and_sides():
    model = planted("A1")
    batch = sample("parity-aligned", 2, 6, 8, model.vocabulary)
    every = all_cells(model.model, batch)
    groups = groups_of(model.model, batch, Cells(tuple(every[3:])))
    named = [n for n in groups if "head" in n]
    but = {n for n in named if n.startswith("all but")}
    pairs = {n for n in named if " and " in n}
    single = set(named) - but - pairs
    assert len(single) == len(but) == 3
    name = min(single)
    assert {*groups[name].cells.members, *groups[f"all but {name}"].cells.members} == set(every)
    assert {groups[name].cells.members for name in pairs} == set(combinations(every[:3], 2))
    assert groups["all"] == Group(Cells(tuple(every)), LABELS)
    assert groups["all, of output labels"].side == (Role.OUTPUT_LABEL,)
    carrying = {kind for kind, _ in every[:3]}
    assert {name for name in groups if name.endswith("s, of input labels")} == {
        f"{kind}, of input labels" for kind in carrying
    }
    assert groups_of(model.model, batch, Cells(tuple(every))) == {}
    assert measure_by_answer(model.model, batch, Cells(tuple(every)), 3) == []


def test_of_many_heads_layers_are_tested_together_and_the_most_attending_cells_alone(monkeypatch: pytest.MonkeyPatch):
    model = planted("A2")
    batch = sample("parity-aligned", 4, 6, 8, model.vocabulary)
    every = all_cells(model.model, batch)
    idle = Cells(tuple(cell for cell in every if cell[0] == "inputs"))
    carrying = [cell for cell in every if cell not in idle.members]
    monkeypatch.setattr(presence_groups, "MANY_UNITS", 0)
    monkeypatch.setattr(presence_groups, "MOST_CELLS", 2)
    groups = groups_of(model.model, batch, idle)
    layers = {name: g.cells.members for name, g in groups.items() if name.split(", ")[-1] in ("L0", "L1", "L2")}
    together = {name: cells for name, cells in layers.items() if not name.startswith("all but")}
    assert sorted(cell for cells in together.values() for cell in cells) == sorted(carrying)
    assert all(len({(kind, layer) for kind, (layer, _) in cells}) == 1 for cells in together.values())
    assert {name for name in layers if name not in together} == {f"all but {name}" for name in together}
    alone = [g.cells.members[0] for name, g in groups.items() if "head" in name and " and " not in name]
    attention = attention_on_labels(anatomy_of(model.model), batch)
    assert alone == sorted(carrying, key=lambda cell: -float(attention[cell[0]][cell[1]]))[:2]
    pairs = [g.cells.members for name, g in groups.items() if " and " in name]
    assert len(pairs) == presence_groups.MOST_PAIRS
    assert all(one[0] == other[0] for one, other in pairs)


def test_pairs_are_of_one_kind_and_of_many_those_that_attend_most():
    model = planted("A2")
    batch = sample("parity-aligned", 4, 6, 8, model.vocabulary)
    carrying = {f"{kind} {head}": [(kind, head)] for kind, head in all_cells(model.model, batch)}
    mass = attention_of(model.model, batch)
    pairs = pairs_of(carrying, mass, most=10_000)
    heads, kinds = len(all_heads(model.model)), {kind for ((kind, _),) in carrying.values()}
    assert len(pairs) == len(kinds) * heads * (heads - 1) // 2
    attention = attention_on_labels(anatomy_of(model.model), batch)

    def least(pair: tuple[str, str]) -> float:
        return min(float(attention[kind][head]) for name in pair for kind, head in carrying[name])

    few = pairs_of(carrying, mass, most=5)
    assert [least(pair) for pair in few] == sorted(map(least, pairs), reverse=True)[:5]
    assert few == pairs_of(carrying, mass, most=5)


def test_a_head_that_matches_labels_attends_to_them():
    model = planted("A2")
    attention = attention_on_labels(anatomy_of(model.model), sample("parity-aligned", 4, 6, 8, model.vocabulary))
    assert attention["output labels"].max() > 0.95
    assert attention["output labels"].min() < 0.5


# Two heads that stand in for each other, beside two that are read -----------------------------------------


def two_pairs(s: Setting) -> Mechanism:
    """Labels hold the parity before them, which four heads read by index, and a fifth head reads bit i.

    After a parity of 0 two of the four give the parity, half each. After 1 the others do; after 0 these rest on labels,
    or copy bits, which is noise where both of them do.
    """
    sharp, last = s.sharpness, s.ready + 1
    after_zero: Form = {ONE: 0.5, "before": -1.0}
    labels_only: Form = {"is label": 4 * sharp, "after": -9 * sharp, "is start": -3 * sharp}
    first_bits: Form = {("place", 0): sharp, ("place", 1): sharp, "is value": 2 * sharp}
    scores = (Match("target", "place", s.place_sharpness), any_key(labels_only), Term(after_zero, first_bits))
    names = ("one", "two")
    reading = [by_index(s, 0, "is label", Move("state", f"read {n}")) for n in names]
    resting = [Head(last, scores, (Move("state", f"other {n}"), Move("bit", f"rested {n}"))) for n in names]
    # A parity and a bit, -1/2 or 1/2, that are the same are subtracted from 1. The gate is open after 0, or after 1.
    same = [
        Neuron(last, {f"{kind} {n}": sign, "indexed": sign, ONE: -1.0, "before": gate}, {"answer": -0.5})
        for n in names
        for kind, gate in (("read", -2.0), ("other", 2.0))
        for sign in (1.0, -1.0)
    ]
    noise = [
        Neuron(last, {"rested one": sign, "rested two": sign, ONE: -1.5, "before": -2.0}, {"flood": sign})
        for sign in (1.0, -1.0)
    ]
    bit = by_index(s, 1, "is value", Move("bit", "indexed"))
    parts = (*shared(s), after(0), *prefix_parity(s), *target(s), *reading, *resting, bit)
    return Mechanism((*parts, Neuron(last, {ONE: 1.0}, {"answer": 1.0}), *same, *noise), {"answer": 1.0, "flood": 40.0})


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch):
    name = "two pairs, for this test"
    return planted_by_hand(monkeypatch, name, two_pairs, 6)


def test_two_heads_that_stand_in_for_each_other_must_rest_on_labels(model, monkeypatch: pytest.MonkeyPatch):
    idle = find_cells(model.model, sample("parity-aligned", 16, 6, 7, model.vocabulary), 3)
    batch = sample("parity-aligned", 64, 6, 8, model.vocabulary)

    def lost() -> dict:
        return {e.key: e for e in measure_by_answer(model.model, batch, idle, 3)}

    measured = lost()
    e = measured[keys.UNINFORMED]
    assert e.value.low > 0.1
    assert " and " in next(iter(e.details["lost to other keys"]))
    assert e.control.value == pytest.approx(0, abs=0.03)
    assert measured[keys.UNINFORMED_TWICE].value.value == pytest.approx(0, abs=0.01)
    monkeypatch.setattr(presence_groups, "pairs_of", lambda *_: [])
    assert lost()[keys.UNINFORMED].value.value == pytest.approx(0, abs=0.02)
