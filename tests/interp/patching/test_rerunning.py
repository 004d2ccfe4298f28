"""Patched runs that skip what does not change give what a full pass with the same edits gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.models.anatomy import Block, anatomy_of
from interp.patching import Interchange, Knockout, interchange, knock_out, knocking_out
from interp.patching.editing import Edit, Place, chunks, forward_with_edits, measure
from interp.patching.metrics import Metric
from interp.patching.rerunning import numbers_kept
from interp.patching.unpatched import run_unpatched
from interp.support.budget import within
from interp.tasks import Batch, Role
from tests.interp.patching.models import VOCAB, prompts, tiny

KINDS = ("alibi", "rotary", "parallel", "grouped", "alibi_sink")
BASE, SOURCE = prompts(4, 4, 0), prompts(4, 4, 1)
LABELS = (Role.INPUT_LABEL, Role.OUTPUT_LABEL)
LAYERS, HEADS = 3, 4
SEPARATOR = int(BASE.at(Role.SEPARATOR)[0])
SIDES = {"input": tuple(range(SEPARATOR)), "output": tuple(range(SEPARATOR, BASE.n_pos))}


def probe() -> Metric:
    """A random functional of all logits at three positions, early and late."""
    weights = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    at = torch.tensor([3, BASE.n_pos - 4, BASE.n_pos - 1])
    return Metric("probe", at, lambda logits, rows: (logits * weights.to(logits.dtype)).sum(dim=(-1, -2)) / 10)


@torch.no_grad()
def full_pass(raw: Any, edits: dict[Place, Edit], batch: Batch = BASE) -> Tensor:
    """The slow reference: every layer at every position."""
    anatomy = anatomy_of(raw)
    final, _ = forward_with_edits(anatomy, anatomy.embed(batch.tokens), edits=edits)
    return measure(anatomy, final, probe(), torch.arange(len(batch)))


@torch.no_grad()
def sites(raw: Any, batch: Batch) -> dict[Place, Tensor]:
    anatomy = anatomy_of(raw)
    keep: list[Place] = [(site, layer) for site in ("v", "k", "attn_scores", "pattern") for layer in range(LAYERS)]
    return forward_with_edits(anatomy, anatomy.embed(batch.tokens), keep=keep)[1]


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", KINDS)
def test_values_under_frozen_attention(architecture: str):
    """As M5 asks, in each layer: the other run's V at labels, every score as in the base's run."""
    raw = tiny(architecture)
    at = torch.isin(BASE.role, torch.tensor(LABELS)).unsqueeze(0)
    mine, theirs = sites(raw, BASE), sites(raw, SOURCE)

    def reference(layers: tuple[int, ...], source: dict[Place, Tensor]) -> Tensor:
        edits: dict[Place, Edit] = {
            ("attn_scores", layer): lambda x, _, layer=layer: mine["attn_scores", layer].clone()
            for layer in range(LAYERS)
        }
        for layer in layers:
            new = source["v", layer]
            edits["v", layer] = lambda x, _, new=new: torch.where(at[..., None, None], new, x)
        return full_pass(raw, edits)

    where = {str(layers): layers for layers in ((0,), (1,), (2,), (0, 2), (0, 1, 2))}
    entries = {
        f"{name} {layers}": [Interchange("attn_scores", BASE), Interchange("v", batch, at, where[layers])]
        for layers in where
        for name, batch in (("source", SOURCE), ("copy", BASE.rows(slice(None))))
    }
    effect = interchange(raw, BASE, entries, probe())
    for name, value, change in zip(entries, effect.values, effect.change, strict=True):
        kind, layers = name.split(" ", 1)
        assert close(value, reference(where[layers], theirs if kind == "source" else mine)), name
        # A copy of the base has other prompts' identity and the same values: nothing changes.
        assert change.abs().max() < 1e-5 if kind == "copy" else change.abs().max() > 1e-2, name


@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize("mode", ["renormalise", "null", "mean"])
@pytest.mark.parametrize("frozen", [False, True], ids=["free", "frozen"])
def test_removals_in_single_heads(architecture: str, mode: Any, frozen: bool):
    """As M6 and M12 ask: labels are removed from one head, for queries of one side."""
    raw = tiny(architecture)
    anatomy, mine = anatomy_of(raw), sites(raw, BASE)
    labels = torch.isin(BASE.role, torch.tensor(LABELS))
    causal = torch.ones(BASE.n_pos, BASE.n_pos, dtype=torch.bool).tril()

    def reference(layer: int, head: int, dest: tuple[int, ...]) -> Tensor:
        edges = torch.zeros(HEADS, BASE.n_pos, BASE.n_pos, dtype=torch.bool)
        edges[head, list(dest)] = labels & causal[list(dest)]
        edits: dict[Place, Edit] = {}
        if frozen:
            edits |= {("attn_scores", i): lambda x, _, i=i: mine["attn_scores", i].clone() for i in range(LAYERS)}
        scores = edits.get(("attn_scores", layer), lambda x, _: x)
        match mode:
            case "renormalise":
                edits["attn_scores", layer] = lambda x, c: scores(x, c).masked_fill(edges, -torch.inf)
            case "null":
                edits["pattern", layer] = lambda x, _: x.masked_fill(edges, 0.0)
            case "mean":
                v = anatomy.expand_heads(mine["v", layer])
                mean = v.clone()
                for role in LABELS:
                    mean[:, BASE.role == role] = v[:, BASE.role == role].mean(dim=(0, 1))
                edits["z", layer] = lambda z, c: (
                    z + torch.einsum("rhds,rshe->rdhe", c["pattern"] * edges, mean - anatomy.expand_heads(c["v"]))
                )
        return full_pass(raw, edits)

    # At the first position no label can be read, and `===` is needed as a key: no row is left empty.
    dests = {side: tuple(p for p in SIDES[side] if p > 1) for side in SIDES}
    dests["some"] = (3, 5, BASE.n_pos - 4, BASE.n_pos - 1)  # queries apart, of which the last layer reads three
    units = [(layer, head, side) for layer in range(LAYERS) for head in (0, 3) for side in dests]
    entries = {f"{u}": Knockout(LABELS, dests[u[2]], heads=[(u[0], u[1])], mode=mode) for u in units}
    effect = knock_out(raw, BASE, entries, probe(), freeze_later=frozen)
    for unit, value in zip(units, effect.values, strict=True):
        assert close(value, reference(unit[0], unit[1], dests[unit[2]])), unit
    assert (effect.change.abs().amax(dim=-1) > 1e-4).all()


@pytest.mark.parametrize("architecture", KINDS)
def test_a_value_that_is_its_own_mean_changes_nothing(architecture: str):
    raw, last = tiny(architecture), BASE.n_pos - 1
    effect = knock_out(raw, BASE, {"last": Knockout(0, last, mode="mean", mean_by="pos")}, probe())
    # Every prompt starts with the same token, so that the mean of its value is its value.
    assert effect.change.abs().max() < 1e-5


def test_only_what_changes_is_computed(monkeypatch: pytest.MonkeyPatch):
    raw, sizes = tiny("alibi"), []
    mlp_out = Block.mlp_out
    monkeypatch.setattr(Block, "mlp_out", lambda self, resid: sizes.append(resid.shape[1]) or mlp_out(self, resid))
    cut = Knockout(LABELS, SIDES["output"], heads=[(1, 0)], mode="mean")
    knock_out(raw, BASE, {"two": cut}, probe())
    # Layer 1 from `===` on, and layer 2 at the two positions from there on that are read.
    assert sizes[-2:] == [BASE.n_pos - SEPARATOR, 2]
    assert set(sizes[:-2]) != set(sizes[-2:])
    queries = BASE.at(Role.OUTPUT_LABEL)
    for layer, expected in ((0, [len(queries), BASE.n_pos - int(queries[0]), 2]), (1, [len(queries), 2])):
        sizes.clear()
        knock_out(raw, BASE, {"labels": Knockout(LABELS, Role.OUTPUT_LABEL, layers=(layer,))}, probe())
        assert sizes[-len(expected) :] == expected
    sizes.clear()
    knock_out(raw, BASE, {"unread": Knockout(LABELS, 4, layers=(2,))}, probe())
    assert sizes[-3:] == [BASE.n_pos, BASE.n_pos, 3]  # the unpatched run's: nothing of the patched one is read


@pytest.mark.parametrize("architecture", KINDS)
def test_means_of_kept_runs_are_those_of_a_pass_of_their_own(architecture: str, monkeypatch: pytest.MonkeyPatch):
    raw, cut = tiny(architecture), {"mean": Knockout(LABELS, SIDES["output"], mode="mean")}
    kept = knock_out(raw, BASE, cut, probe())
    monkeypatch.setattr(knocking_out, "_all_fit", lambda *_: False)
    assert close(kept.values, knock_out(raw, BASE, cut, probe()).values)
    assert kept.change.abs().max() > 1e-2


@pytest.mark.parametrize("architecture", KINDS)
def test_the_numbers_that_are_kept_are_those_of_the_values(architecture: str):
    anatomy = anatomy_of(tiny(architecture))
    places: list[Place] = [(site, layer) for site in ("resid_pre", "q", "k", "v", "pattern", "z") for layer in (0, 1)]
    run = run_unpatched(anatomy, torch.arange(4), BASE.tokens, probe().positions, places)
    keys = sum(run.keys(anatomy, layer, BASE.n_pos).numel() for layer in (0, 1))
    assert 4 * numbers_kept(anatomy, places, BASE.n_pos) == keys + sum(x.numel() for x in run.kept.values())


def test_what_is_kept_leaves_room_for_fewer_prompts():
    anatomy = anatomy_of(tiny("alibi"))
    sizes = []
    for kept in (0, 2**16, 2**24):
        with within(2**24):
            sizes.append(max(len(rows) for rows in chunks(anatomy, prompts(32, 4, 0), probe(), 4, kept)))
    assert sizes[0] > sizes[1] > sizes[2] == 1
