"""A pass with cut edges is the raw model at one end, the other prompts' run at the other, and one path in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.circuits.edge_forward import EdgeModel
from interp.circuits.graph import Edge
from interp.circuits.places import named_places
from interp.models import raw_of
from interp.patching.nodes import Receiver, Sender
from interp.patching.paths import path_patch
from interp.tasks import Role
from tests.interp.circuits.small import (
    CLEAN,
    CORRUPTED,
    HAND_CLEAN,
    HAND_CORRUPTED,
    HAND_EXACT,
    HAND_METRIC,
    by_hand,
    cut,
    edge_model_of,
    measured,
    model,
)
from tests.interp.patching.test_knockouts import KINDS, probe

METRIC = probe(CLEAN, range(CLEAN.n_pos))


def both(kind: str, places: Any = "anywhere") -> tuple[Any, EdgeModel, Tensor]:
    raw = model(kind)
    edge_model = edge_model_of(raw, METRIC, places)
    return raw, edge_model, edge_model.writer_outputs(CORRUPTED.tokens)


def near(a: Tensor, b: Tensor, share: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= share * b.abs().max())


def random_masks(edge_model: EdgeModel, n: int, seed: int = 0) -> list[Tensor]:
    gen = torch.Generator().manual_seed(seed)
    return [torch.rand(edge_model.graph.possible.shape, generator=gen) < 0.7 for _ in range(n)]


@pytest.mark.parametrize("places", ["anywhere", "role"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_edges_are_the_raw_model_and_none_the_corrupted_run(kind, places):
    raw, edge_model, replacement = both(kind, places)
    whole = torch.ones_like(edge_model.graph.possible)
    with torch.no_grad():
        clean, corrupted = (raw(batch.tokens, use_cache=False).logits for batch in (CLEAN, CORRUPTED))
        for kept, expected in ((whole, clean), (~whole, corrupted)):
            final, _ = edge_model.forward(CLEAN.tokens, replacement, kept)
            assert near(edge_model.anatomy.unembed(final), expected)
        assert not near(clean, corrupted, 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_writers_and_biases_add_up_to_the_residual(kind):
    raw, edge_model, _ = both(kind)
    whole = torch.ones_like(edge_model.graph.possible)
    final, given = edge_model.forward(CLEAN.tokens, None, whole)
    assert near(edge_model.resid_before(given, len(edge_model.anatomy.blocks)), final)
    assert torch.equal(given, edge_model.writer_outputs(CLEAN.tokens))
    with torch.no_grad():
        assert near(edge_model.resid_before(given, 1), raw(CLEAN.tokens, output_hidden_states=True).hidden_states[1])


@pytest.mark.parametrize("places", ["anywhere", "role"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_cut_edge_is_a_patched_path(kind, places):
    raw, edge_model, replacement = both(kind, places)
    graph = edge_model.graph
    gen = torch.Generator().manual_seed(0)
    drawn = graph.possible.nonzero()[torch.randperm(len(graph), generator=gen)[:16]].tolist()
    full = measured(edge_model, METRIC, CLEAN.tokens, None, torch.ones_like(graph.possible))
    changes = []
    for index in drawn:
        edge = graph.edge(*index)
        at = None if places == "anywhere" else next(role for role in Role if role.words == edge.place)
        receiver = Receiver(edge.reader.kind, edge.reader.layer, edge.reader.head, at=at)
        expected = path_patch(raw, CLEAN, CORRUPTED, edge.writer, receiver, METRIC).values[0]
        found = measured(edge_model, METRIC, CLEAN.tokens, replacement, cut(edge_model, tuple(index)))
        assert (found - expected).abs().max() <= 1e-5 * full.abs().max(), str(edge)
        changes.append(float((found - full).abs().max()))
    assert sum(c > 1e-4 for c in changes) >= 4  # otherwise nothing was compared


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_an_earlier_one(kind):
    _, edge_model, replacement = both(kind, "role")
    n_layers = len(edge_model.anatomy.blocks)
    for start, mask in zip((0, 1, n_layers), random_masks(edge_model, 3), strict=True):
        _, given = edge_model.forward(CLEAN.tokens, replacement, mask)
        later = mask.clone()
        first = edge_model.readers(start).start if start < n_layers else len(edge_model.graph.readers) - 1
        later[:, first:] = random_masks(edge_model, 1, seed=9)[0][:, first:]
        before = given.clone()
        again, told = edge_model.forward(CLEAN.tokens, replacement, later, start, given)
        scratch, anew = edge_model.forward(CLEAN.tokens, replacement, later)
        assert near(again, scratch)
        assert near(told, anew)
        assert torch.equal(given, before)  # the earlier run is as it was


@pytest.mark.parametrize("kind", ["absolute", "grouped"])
def test_places_that_are_told_apart_add_nothing(kind):
    """Cutting a reader's edges at every place is cutting them anywhere."""
    raw, edge_model, replacement = both(kind, "role")
    one = edge_model_of(raw, METRIC)
    mask = random_masks(one, 1)[0]
    assert near(
        edge_model.forward(CLEAN.tokens, replacement, mask.expand_as(edge_model.graph.possible))[0],
        one.forward(CLEAN.tokens, replacement, mask)[0],
    )


def test_a_place_of_one_position_changes_that_position():
    _, edge_model, replacement = both(
        "absolute", named_places(["here" if p == 5 else "rest" for p in range(CLEAN.n_pos)])
    )
    edge = Edge(Sender("embed"), Receiver("logits"), "here")
    whole = torch.ones_like(edge_model.graph.possible)
    base, _ = edge_model.forward(CLEAN.tokens, replacement, whole)
    final, _ = edge_model.forward(CLEAN.tokens, replacement, cut(edge_model, edge_model.graph.index(edge)))
    given = edge_model.writer_outputs(CLEAN.tokens)[0]
    assert near((final - base)[:, 5], (replacement[0] - given)[:, 5])
    rest = torch.arange(CLEAN.n_pos) != 5
    assert torch.equal(final[:, rest], base[:, rest])


def test_rows_hold_every_prompt_once():
    edge_model = edge_model_of(model("absolute"), METRIC)
    assert torch.equal(torch.cat(list(edge_model.chunks(10, copies=1e9))), torch.arange(10))
    assert len(list(edge_model.chunks(10, copies=1e9))) == 10
    assert len(list(edge_model.chunks(10))) == 1


def test_a_cut_edge_without_anything_to_carry_is_our_mistake():
    edge_model = edge_model_of(model("absolute"), METRIC)
    with pytest.raises(AssertionError, match="needs a replacement"):
        edge_model.forward(CLEAN.tokens, None, torch.zeros_like(edge_model.graph.possible))


def hand(kept: list[str]) -> float:
    edge_model = edge_model_of(by_hand(), HAND_METRIC, clean=HAND_CLEAN)
    mask = torch.zeros_like(edge_model.graph.possible)
    by_name = {str(edge): edge for edge in edge_model.graph.edges()}
    for name in kept:
        mask[edge_model.graph.index(by_name[name])] = True
    return float(measured(edge_model, HAND_METRIC, HAND_CLEAN, edge_model.writer_outputs(HAND_CORRUPTED), mask))


def test_by_hand_the_model_is_what_its_comment_says():
    with torch.no_grad():
        for tokens, expected in ((HAND_CLEAN, 1 + 4 / 3 + 14), (HAND_CORRUPTED, 2 / 3 + 30 * 17 / 24)):
            logits: Any = raw_of(by_hand())(tokens).logits
            assert float(logits[0, -1, 0]) == pytest.approx(expected, rel=1e-12)


def test_by_hand_every_edge_alone():
    edge_model = edge_model_of(by_hand(), HAND_METRIC, clean=HAND_CLEAN)
    every = [str(edge) for edge in edge_model.graph.edges()]
    full = hand(every)
    for name in every:
        loss = full - hand([other for other in every if other != name])
        assert loss == pytest.approx(HAND_EXACT.get(name, 0.0), abs=1e-12), name


@pytest.mark.parametrize(
    ("kept", "logit"),
    [
        ([], 2 / 3 + 30 * 17 / 24),
        (["embed -> logits"], 1 + 2 / 3 + 30 * 17 / 24),
        # Nothing that L0H0 reads is clean, so what it gives is the corrupted mean anyway.
        (["L0H0 -> logits", "L0H0 -> L1H0 v"], 2 / 3 + 30 * 17 / 24),
        (["L0H0 -> logits", "embed -> L0H0 v"], 4 / 3 + 30 * 17 / 24),
        # Clean weights on corrupted means: (1 + 2/2 + 2/3) / 5.
        (["L1H0 -> logits", "embed -> L1H0 k"], 2 / 3 + 30 * 8 / 15),
        # Corrupted weights on clean means: (0 + 1/2 + 2/3) / 4.
        (["L1H0 -> logits", "embed -> L0H0 v", "L0H0 -> L1H0 v"], 2 / 3 + 30 * 7 / 24),
        (["L1H0 -> logits", "embed -> L0H0 v", "L0H0 -> L1H0 v", "embed -> L1H0 k"], 2 / 3 + 14),
    ],
)
def test_by_hand_some_circuits(kept, logit):
    assert hand(kept) == pytest.approx(logit, rel=1e-12)
