"""The table of what each arm hides (probes/README.md, Battery), on planted models.

The planted models (GPT-2, clean, n = 12) are the table's, with these differences, so that a cell may be another:
layers count from 0 (the table's L2 is layer 1, its L1 layer 0), and A2's pointer is used in a layer of its own;
`K` and `V` rho count each answer map of a label once, so the content-addressed placeholder, whose label leads to a
stored state through one site and to the bit through another, has 1 where the table, which looks only where bits
differ, has .49; attention comes from heads that write something (a planted model has heads of weight zero too, which
look everywhere alike), so every mass is all or nothing; the mixture's two halves take labels from different heads.
A1's backup waits for a label that no key matches: constant labels match everywhere and do not call it, where the
table's backup is called (.99). The state probe (M8) is tested elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from interp.forward import readout
from interp.models.anatomy import anatomy_of
from interp.patching import Knockout, accuracy, knock_out
from interp.patching.editing import forward_with_edits
from interp.reducers import attention_masses, label_value_share, value_sizes
from interp.tasks import Batch, Role, parity, sample
from probes.arms.m01_identity import measure_swaps
from probes.arms.m04_routes import measure_routes
from probes.arms.m05_history import measure_history
from probes.trials.parity import choose
from tests.probes.oracle_models import planted

N = 12
LABELS = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
CHANCE = None  # an accuracy between .35 and .7


@dataclass(frozen=True)
class Row:
    """One row; accuracies are those among the two answers."""

    m1: float
    k_at_label: float
    v_at_label: float
    history: float
    reader_mask: float | None
    reader_null: float | None
    all_null: float | None
    mass: float
    share: float
    constant: float | None


#                                        M1   K    V    hist L1 mask  L1 null  all null mass share  #
ROWS = {
    "A1": Row(1.0, 0.0, 1.0, 0.0, 1.0, 1.0, CHANCE, 0.0, 0.0, CHANCE),
    "A2": Row(1.0, 1.0, 0.0, 0.0, CHANCE, CHANCE, CHANCE, 1.0, 1.0, CHANCE),
    "A1-backup": Row(1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, CHANCE),
    "placeholder": Row(0.0, 0.0, 0.0, 1.0, CHANCE, CHANCE, CHANCE, 1.0, 1.0, 1.0),
    "content-addressed placeholder": Row(1.0, 1.0, 1.0, 1.0, CHANCE, CHANCE, CHANCE, 1.0, 1.0, CHANCE),
    "sink": Row(0.0, 0.0, 0.0, 0.0, CHANCE, 1.0, 1.0, 1.0, 0.0, 1.0),
    "bias sink": Row(0.0, 0.0, 0.0, 0.0, CHANCE, CHANCE, CHANCE, 1.0, 1.0, 1.0),
    "unused": Row(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0),
    "unused, decodable": Row(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0),
    # The decoy that attends to labels: here it writes what it reads, where nothing reads it.
    "unused, identity-matching attention": Row(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "mixture": Row(0.5, 0.0, 0.5, 0.5, 1.0, 1.0, CHANCE, 1.0, 1.0, 1.0),
}
COLUMNS = tuple(asdict(ROWS["A1"]))


@cache
def found(mechanism: str) -> dict[str, float]:
    """Return the row, measured with the arms."""
    model = planted(mechanism, longest=N)
    batch = sample("parity-aligned", 48, N, 3, model.vocabulary)
    trials = choose(sample("parity-aligned", 240, N, 4, model.vocabulary), 4, 24)
    m1 = {e.name: e.value.value for e in measure_swaps(model.model, trials, 0)}
    routes = {e.name: e.value.value for e in measure_routes(model.model, trials)}
    history = {e.name: e.value.value for e in measure_history(model.model, trials)}
    cuts = {
        "reader_mask": Knockout(LABELS, None, layers=(1,)),
        "reader_null": Knockout(LABELS, None, layers=(1,), mode="null"),
        "all_null": Knockout(LABELS, None, mode="null"),
    }
    left = knock_out(model.model, batch, cuts, accuracy(batch, among_answers=True)).values.mean(dim=1).tolist()
    mass, share = attention(model.model, batch.rows(slice(0, 6)))
    posed = sample("parity-constant", 48, N, 3, model.vocabulary)
    answers = readout(model.model, posed, posed.at(Role.OUTPUT)).logits.argmax(dim=-1)
    return {
        "m1": m1["swap input labels"],
        "k_at_label": routes["K at label, L1"],
        "v_at_label": routes["V at label, L0"],
        "history": history["history in V at labels"],
        **dict(zip(cuts, left, strict=True)),
        "mass": mass,
        "share": share,
        "constant": float((answers == parity.read(posed).parities).double().mean()),
    }


def attention(model: Any, batch: Batch) -> tuple[float, float]:
    """Mass on labels, and share of what is written, of the head that looks at labels most of those that write.

    As M7, without a TransformerBridge: steep tables make planted models round unlike from one code to the other.
    """
    anatomy = anatomy_of(model)
    layers, readers = range(len(anatomy.blocks)), batch.at(Role.OUTPUT_LABEL)
    _, kept = forward_with_edits(
        anatomy, anatomy.embed(batch.tokens), keep=[(site, i) for i in layers for site in ("pattern", "v")]
    )
    heads = []
    for layer in layers:
        pattern = kept["pattern", layer]
        out = model.transformer.h[layer].attn.c_proj.weight.detach()
        sizes = value_sizes(kept["v", layer], out.view(pattern.shape[1], -1, out.shape[1]))
        found = attention_masses(pattern, batch)["labels"], label_value_share(pattern, sizes, batch)
        mass, share = (x[..., readers].mean(dim=(0, 2)).tolist() for x in found)
        heads += [(m, s) for m, s in zip(mass, share, strict=True) if not math.isnan(s)]
    return max(heads)


@pytest.mark.parametrize("mechanism", ROWS)
def test_a_row_is_what_was_built(mechanism):
    row = found(mechanism)
    for column, expected in asdict(ROWS[mechanism]).items():
        if expected is CHANCE:
            assert 0.35 < row[column] < 0.7, column
        else:
            assert row[column] == pytest.approx(expected, abs=0.01), column


def test_a_true_anchor_passes_the_mask_where_it_is_read():
    """Its key is on the bit. Removal hurts only where its label is copied, and not with a backup."""
    assert found("A1")["m1"] == pytest.approx(1, abs=0.01)
    for column in ("reader_mask", "reader_null"):
        assert found("A1")[column] == found("unused")[column] == 1
    assert found("A1")["all_null"] < 0.7
    assert found("A1-backup")["all_null"] == found("unused")["all_null"] == 1


def test_an_anchor_and_a_placeholder_lose_alike_when_labels_go():
    for column in ("reader_mask", "reader_null", "all_null"):
        assert found("A2")[column] == pytest.approx(found("placeholder")[column], abs=0.25)
    assert (found("A2")["mass"], found("A2")["share"]) == pytest.approx(
        (found("placeholder")["mass"], found("placeholder")["share"]), abs=0.01
    )


def test_removal_of_a_sink_matters_and_its_values_do_not():
    assert found("sink")["reader_mask"] < 0.7
    assert found("sink")["reader_null"] == 1
    assert found("sink")["share"] == pytest.approx(0, abs=0.01)


def test_a_decoy_has_an_anchors_attention_and_none_of_its_effect():
    decoy, anchor = found("unused, identity-matching attention"), found("A2")
    assert (decoy["mass"], decoy["share"]) == pytest.approx((anchor["mass"], anchor["share"]), abs=0.01)
    assert decoy["m1"] == pytest.approx(0, abs=0.01)


def test_no_single_column_classifies_all_rows():
    """Each column has the same value for two mechanisms of different roles; all columns together separate them."""
    roles = {name: tuple(planted(name, longest=N).truth.roles.items()) for name in ROWS}
    unlike = [pair for pair in combinations(ROWS, 2) if roles[pair[0]] != roles[pair[1]]]
    for column in COLUMNS:
        alike = [pair for pair in unlike if found(pair[0])[column] == pytest.approx(found(pair[1])[column], abs=0.02)]
        assert alike, column
    for one, other in unlike:
        assert any(abs(found(one)[c] - found(other)[c]) > 0.1 for c in COLUMNS), (one, other)
