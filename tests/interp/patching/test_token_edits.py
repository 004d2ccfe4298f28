"""Readouts of edited tokens from shared runs are those of whole passes of the raw model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from interp.forward import readout
from interp.models.anatomy import anatomy_of
from interp.patching import (
    Interchange,
    Knockout,
    interchange,
    interchange_for,
    knock_out,
    logit_diff,
    measure_edited,
    rerunning,
    token_edits,
)
from interp.patching.editing import Place
from interp.patching.metrics import margin
from interp.patching.rerunning import numbers_kept
from interp.patching.token_edits import COPIES, DEPTH, SHARE, followers, readouts
from interp.support.exactness import Inexact
from interp.tasks import Role, counterfactual
from tests.interp.patching.models import prompts, tiny

KINDS = ("alibi", "rotary", "absolute", "parallel", "grouped", "alibi_sink")
BASE = prompts(8, 5, 0)
AT = BASE.at(Role.OUTPUT)
STEP = torch.tensor([5, 1, 3, 2, 4, 4, 1, 5])
PARTNER = torch.tensor([1, 3, 5, 4, 2, 1, 2, 3])
EDITS = {
    "bit": counterfactual.flip_input(BASE, STEP),
    "later bit": counterfactual.flip_input(BASE, 5),
    "labels": counterfactual.swap_labels(BASE, STEP, PARTNER, role=Role.OUTPUT_LABEL),
    "other prompts": prompts(8, 5, 1),
    "nothing": BASE.rows(slice(None)),
}

# The two output symbols of every prompt, and the positions from which "later bit" differs.
SYMBOLS = BASE.vocabulary.tokens(BASE.format.outputs)[:2].tolist()
AFTER = torch.arange(BASE.n_pos) > 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [False, True], ids=["all steps", "own step"])
def test_readouts_are_those_of_whole_passes(kind: str, own: bool):
    model, rows, column = tiny(kind), torch.arange(len(BASE)), STEP - 1
    base, edited = readouts(model, BASE, EDITS, AT, own=AT[column] if own else None)
    assert list(edited) == list(EDITS)
    for batch, found in ((BASE, base), *((EDITS[name], edited[name]) for name in EDITS)):
        whole = readout(model, batch, AT, by_steps=False)
        logits, likeliest = whole.logits, whole.likeliest
        if own:
            logits, likeliest = logits[rows, column].unsqueeze(1), likeliest[rows, column].unsqueeze(1)
        torch.testing.assert_close(found.logits, logits, rtol=1e-5, atol=2e-5)
        assert torch.equal(found.likeliest, likeliest)
    assert not torch.allclose(edited["bit"].logits, base.logits, atol=1e-3)
    assert torch.equal(edited["nothing"].logits, base.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_in_half_precision_too_runs_are_shared(kind: str, monkeypatch: pytest.MonkeyPatch):
    """They round in other places than whole passes of the raw model, and what changes nothing changes no digit."""
    half = copy.deepcopy(tiny(kind)).bfloat16()
    whole = {name: readout(half, batch, AT).logits for name, batch in EDITS.items()}
    monkeypatch.setattr(token_edits, "readout", None)  # not reached
    base, edited = readouts(half, BASE, EDITS, AT)
    for name, found in edited.items():
        assert found.logits.dtype == torch.float32
        assert (found.logits - whole[name]).abs().max() < 0.1 * whole[name].std()
    assert torch.equal(edited["nothing"].logits, base.logits)
    assert (edited["bit"].logits - base.logits).abs().max() > 0.1 * base.logits.std()


def test_where_steps_turn_out_to_differ_the_model_runs_whole(monkeypatch: pytest.MonkeyPatch):
    """Runs compare other prompts than the first ones, which may just have passed."""

    def differs(*_: Any, **__: Any) -> float:
        raise Inexact("by too much")

    monkeypatch.setattr(rerunning, "compare_with_raw", differs)
    for own in (None, AT[STEP - 1]):
        base, edited = readouts(tiny("alibi"), BASE, EDITS, AT, own=own)
        for batch, found in ((BASE, base), *((EDITS[name], edited[name]) for name in EDITS)):
            logits = readout(tiny("alibi"), batch, AT).logits
            own_logits = logits if own is None else logits[torch.arange(len(BASE)), STEP - 1].unsqueeze(1)
            assert torch.equal(found.logits, own_logits)


def test_models_with_hooks_run_whole():
    model = tiny("alibi")
    handle = model.lm_head.register_forward_hook(lambda module, args, out: -out)
    try:
        base, edited = readouts(model, BASE, EDITS, AT, own=AT[STEP - 1])
    finally:
        handle.remove()
    plain, theirs = readouts(model, BASE, EDITS, AT, own=AT[STEP - 1])
    torch.testing.assert_close(base.logits, -plain.logits, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(edited["bit"].logits, -theirs["bit"].logits, rtol=1e-5, atol=2e-5)


def test_copies_have_the_shape_of_the_base():
    with pytest.raises(ValueError, match=r"short: prompts are \[8, 18\], those of the base \[8, 22\]"):
        readouts(tiny("alibi"), BASE, {"short": prompts(8, 4, 0)}, AT)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_edits_are_those_of_interchanges_of_the_tokens(kind: str):
    """Edits of both ends, which begin as others do, against one run for each."""
    both = EDITS["labels"].with_tokens(torch.where(AFTER, EDITS["later bit"].tokens, EDITS["labels"].tokens))
    other = EDITS["other prompts"]
    ends = other.with_tokens(torch.where(torch.arange(BASE.n_pos) > 15, BASE.tokens, other.tokens))
    edited = {**EDITS, "ends as the base": ends, "both": both, "again": both}
    tree = followers({"": BASE.tokens, **{name: copy.tokens for name, copy in edited.items()}})
    assert {"ends as the base"} <= {name for name, _ in tree["other prompts"]}  # takes its keys and values
    metrics = [logit_diff(*SYMBOLS), margin(SYMBOLS[0])]
    found = measure_edited(tiny(kind), BASE, edited, metrics)
    entries = {name: [Interchange("resid_pre", copy, layers=(0,))] for name, copy in edited.items()}
    for ours, theirs in zip(found, interchange_for(tiny(kind), BASE, entries, metrics), strict=True):
        assert ours.labels == {"edit": tuple(edited)}
        torch.testing.assert_close(ours.base, theirs.base, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-5, atol=1e-5)
        changed = dict(zip(edited, ours.change.abs().amax(dim=1).tolist(), strict=True))
        assert changed.pop("nothing") == 0
        assert min(changed.values()) > 1e-3
        assert torch.equal(ours.values[-1], ours.values[-2])


def test_tokens_that_runs_begin_with_are_computed_once():
    base = torch.arange(10).expand(2, 10)
    late, early, both, again = (base.clone() for _ in range(4))
    late[:, 8] = early[0, 3] = both[0, 3] = both[:, 8] = again[0, 3] = again[:, 8] = 20
    again[1, 9] = 21
    tokens = {"": base, "early": early, "late": late, "both": both, "again": again, "same": base}
    tree = {"": [("early", 3), ("late", 8), ("same", 10)], "early": [("both", 8)], "both": [("again", 9)]}
    assert followers(tokens) == tree
    assert followers(tokens, causal=False) == {"": [(name, 0) for name in tokens if name]}
    # No run follows one at the greatest depth, whose keys and values are not kept.
    place = torch.arange(10)
    chain = {str(k): torch.where((place >= 3) & (place < 3 + k), 20, base) for k in range(7)}
    depths = {"0": 0}
    for name, after in followers(chain).items():
        depths |= {later: depths[name] + 1 for later, _ in after}
    assert max(depths.values()) == DEPTH
    assert set(depths) == set(chain)


def test_chunks_have_room_for_the_runs_that_are_followed(monkeypatch: pytest.MonkeyPatch):
    """As many prompts as fit with what every run keeps that others follow, and the values of all prompts at once."""
    anatomy, rooms = anatomy_of(tiny("alibi")), list[tuple[int, int, float, float]]()
    both = EDITS["labels"].with_tokens(torch.where(AFTER, EDITS["later bit"].tokens, EDITS["labels"].tokens))
    edited, metric = {**EDITS, "both": both}, [logit_diff(*SYMBOLS)]
    (whole,) = measure_edited(tiny("alibi"), BASE, edited, metric)

    def of_three(*args: Any) -> Iterator[torch.Tensor]:
        rooms.append(args[3:])
        yield from torch.arange(len(BASE)).split(3)

    monkeypatch.setattr(rerunning, "chunks", of_three)
    (found,) = measure_edited(tiny("alibi"), BASE, edited, metric)
    torch.testing.assert_close(found.values, whole.values, rtol=1e-5, atol=1e-5)
    measure_edited(tiny("alibi"), BASE, {"later bit": EDITS["later bit"]}, metric)
    readouts(tiny("alibi"), BASE, {}, AT)
    places: list[Place] = [(site, layer) for layer in range(len(anatomy.blocks)) for site in ("k", "v")]
    kept = numbers_kept(anatomy, places, BASE.n_pos)
    later = 1 - followers({"": BASE.tokens, "later bit": EDITS["later bit"].tokens})[""][0][1] / BASE.n_pos
    sizes = [2 * kept, kept, kept]  # "labels" is followed
    assert [room[:3] for room in rooms] == [(COPIES, size, SHARE) for size in sizes]
    assert [room[3] for room in rooms[1:]] == pytest.approx([(1 + later**2) / (1 + later), 1])


def test_edits_without_names_metrics_or_the_same_layout_are_refused():
    metric = logit_diff(*SYMBOLS)
    for edited, metrics, message in (
        ({}, [metric], "no edits were given"),
        ({"bit": EDITS["bit"]}, [], "give at least one metric"),
        ({"": EDITS["bit"]}, [metric], "an edit must have a name"),
        ({"short": prompts(8, 4, 0)}, [metric], "short"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_edited(tiny("alibi"), BASE, edited, metrics)
    for given, one, message in (
        ([EDITS["bit"]], [metric], "edited must be a dict of prompts by name; got list"),
        ({"bit": EDITS["bit"]}, metric, "metrics must be a list of metrics; got"),
    ):
        with pytest.raises(TypeError, match=message):
            measure_edited(tiny("alibi"), BASE, given, one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an edit must have a name"):
        readouts(tiny("alibi"), BASE, {"": EDITS["bit"]}, AT)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_that_end_where_each_is_read(kind: str, monkeypatch: pytest.MonkeyPatch):
    """In any order of steps, in chunks of any size: the values of whole prompts, in the order of the prompts."""
    symbols = BASE.vocabulary.tokens(BASE.format.outputs)
    answer = BASE.tokens[torch.arange(8), AT[STEP - 1]]
    metric = margin(BASE, STEP, answer, symbols.sum() - answer)
    whole = rerunning.Metric(metric.name, metric.positions, metric.compute)
    labels = torch.isin(BASE.role, torch.tensor([Role.INPUT_LABEL, Role.OUTPUT_LABEL])).unsqueeze(0)
    late = labels & (BASE.step >= 4) & (BASE.role == Role.OUTPUT_LABEL)  # after the end of some prompts of a chunk
    source, other = EDITS["bit"], EDITS["other prompts"]
    entries = {
        "scores": [Interchange("attn_scores", source)],
        "frozen": [Interchange("attn_scores", BASE), Interchange("v", other, labels)],
        "late": [Interchange("attn_scores", BASE), Interchange("v", other, late)],
        "frozen and removed": [Interchange("attn_scores", source), Knockout(Role.INPUT, Role.OUTPUT_LABEL)],
        **{f"{site} {i}": [Interchange(site, other, labels, (i,))] for site in ("q", "k", "v") for i in (0, 2)},
        "mlp": [Interchange("mlp_out", other, labels, (1, 2))],
    }
    removed = {m: Knockout(Role.INPUT_LABEL, Role.OUTPUT_LABEL, mode=m) for m in ("renormalise", "null", "mean")}
    expected = interchange(tiny(kind), BASE, entries, whole), knock_out(tiny(kind), BASE, removed, whole)
    monkeypatch.setattr(rerunning, "chunks", lambda *_, **__: torch.arange(8).split(3))
    found = interchange(tiny(kind), BASE, entries, metric), knock_out(tiny(kind), BASE, removed, metric)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.base, theirs.base, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-5, atol=1e-5)
        assert theirs.change.abs().amax(dim=1).min() > 1e-3
