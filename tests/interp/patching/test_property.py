"""The engine against the literal loop, on whatever sweep hypothesis can think of."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from interp.forward import predict
from interp.models.anatomy import anatomy_of
from interp.patching import PATCH_SITES as SITES
from interp.patching import Joint, Metric, accuracy, kl, logit_diff, memory, patch, plan, probability, units
from interp.patching.cells import Cell
from interp.patching.reference import literal, record
from interp.sites import HEAD_SITES
from interp.tasks import Role, counterfactual
from tests.interp.patching.models import ARCHITECTURES, prompts, tiny

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
N_LAYERS, N_HEADS, N_KV_HEADS = 3, 4, 2
METRICS = ("logit_diff", "probability", "accuracy", "kl", "custom")
CORRUPTIONS = ("flip and keep", "flip and recompute", "swap_labels", "rename_labels", "redraw")
ROLES = (Role.START, Role.SEPARATOR, Role.INPUT, Role.INPUT_LABEL, Role.OUTPUT, Role.OUTPUT_LABEL)


def corrupt(clean, how, step, seed):
    match how:
        case "flip and keep":
            return counterfactual.flip_input(clean, step)
        case "flip and recompute":
            return counterfactual.flip_input(clean, step, scratchpad="recompute")
        case "swap_labels":
            role = Role.OUTPUT_LABEL if seed % 2 else Role.INPUT_LABEL
            return counterfactual.swap_labels(clean, step, step % clean.length + 1, role)
        case "rename_labels":
            return counterfactual.rename_labels(clean, seed)
        case "redraw":
            try:
                return counterfactual.redraw(clean, seed)
            except ValueError:  # the very same prompts
                reject()
    raise AssertionError(how)


def make_metric(name, model, clean, step, seed):
    match name:
        case "logit_diff":
            return logit_diff(clean, step)
        case "probability":
            return probability(clean, step)
        case "kl":
            return kl(clean, predict(model, clean, clean.at(Role.OUTPUT, step)), step)
        case "accuracy":
            # The answers are what the model says of the clean prompts: of its accuracy on parity there is nothing
            # to lose.
            at = clean.at(Role.OUTPUT)
            tokens = clean.tokens.clone()
            tokens[:, at] = predict(model, clean, at).argmax(dim=-1)
            return accuracy(clean.with_tokens(tokens), step)
        case "custom":
            gen = torch.Generator().manual_seed(seed)
            count = int(torch.randint(2, 5, (), generator=gen))
            at = torch.randperm(clean.n_pos, generator=gen)[:count].sort().values
            weights = torch.randn(len(clean), count, model.config.vocab_size, generator=gen, dtype=torch.float64)

            def compute(logits, rows):
                return (logits * weights[rows].to(logits) / 10).sum(dim=(-1, -2)).tanh() + logits[..., 0].amax(dim=-1)

            return Metric("custom", at, compute)
    raise AssertionError(name)


def margins(metric, answers, gap):
    """Accuracy if every answer that leads by no more than `gap` counts as wrong (for a negative gap, as right)."""

    def compute(logits, rows):
        wanted = answers[rows].unsqueeze(-1).expand(*logits.shape[:-1], 1)
        lead = logits.gather(-1, wanted)[..., 0] - logits.scatter(-1, wanted, -torch.inf).amax(dim=-1)
        return (lead > gap).float().mean(dim=-1)

    return Metric(metric.name, metric.positions, compute)


def resolved(batch, place) -> list[tuple[int, ...]]:
    """The patches that a place stands for, found from roles and steps alone."""

    def positions(part) -> list[int]:
        match part:
            case Role():
                return [p for p in range(batch.n_pos) if batch.role[p] == part]
            case (role, step):
                return [p for p in positions(role) if batch.step[p] == step]
        return [part]

    if isinstance(place, Joint):
        return [tuple(sorted({p for part in place.parts for p in positions(part)}))]
    return [(p,) for p in positions(place)]


@st.composite
def sweeps(draw) -> dict[str, Any]:
    """Everything that a sweep takes, and what its cells are by a count of our own."""
    architecture = draw(st.sampled_from(ARCHITECTURES))
    site = draw(st.sampled_from([s for s in SITES if (architecture, s) != ("parallel", "resid_mid")]))
    length = draw(st.integers(2, 4))
    clean = prompts(draw(st.integers(1, 4)), length, seed=draw(st.integers(0, 99)))

    stepped = st.tuples(st.sampled_from(ROLES[2:]), st.integers(1, length))
    single = st.one_of(st.integers(0, clean.n_pos - 1), st.sampled_from(ROLES), stepped)
    joint = st.lists(single, min_size=1, max_size=3).map(lambda parts: Joint(*parts))
    found: list[tuple[int, ...]] = []
    places = []
    for place in draw(st.lists(st.one_of(single, joint), min_size=1, max_size=3)):
        if not set(found).intersection(resolved(clean, place)):  # asking twice is an error
            places.append(place)
            found += resolved(clean, place)
    positions: Any = places[0] if len(places) == 1 else places
    if len(places) > 1 and not (type(places[0]) is Role and type(places[1]) is int):  # (role, step) is one place
        positions = draw(st.sampled_from([places, tuple(places)]))
    if draw(st.integers(0, 9)) == 0:
        positions, found = None, [(int(p),) for p in range(clean.n_pos)]

    layers = draw(st.one_of(st.none(), st.integers(0, N_LAYERS - 1), numbers(N_LAYERS, 3)))
    heads = None
    if site in HEAD_SITES:
        count = N_KV_HEADS if architecture == "grouped" and site in ("k", "v") else N_HEADS
        heads = draw(st.one_of(st.integers(0, count - 1), numbers(count, 2), st.none()))
        head_cells = listed(heads, count)
    else:
        head_cells = [None]
    cells = [Cell(la, at, h) for la in listed(layers, N_LAYERS) for h in head_cells for at in found]
    return {
        "architecture": architecture,
        "site": site,
        "clean": clean,
        "positions": positions,
        "layers": layers,
        "heads": heads,
        "cells": cells,
        "shape": (len(listed(layers, N_LAYERS)), len(head_cells), len(found)),
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "metric": draw(st.sampled_from(METRICS)),
        "corruption": draw(st.sampled_from(CORRUPTIONS)),
        "at": draw(st.integers(1, length)),
        "step": draw(st.one_of(st.none(), st.integers(1, length))),
        "seed": draw(st.integers(0, 99)),
        "direction": draw(st.sampled_from(["denoise", "noise"])),
        "prompts_at_once": draw(st.sampled_from([1, 2, 32])),
        "bucket": draw(st.sampled_from([1, 3, 8])),
    }


def numbers(count, most):
    return st.lists(st.integers(0, count - 1), min_size=1, max_size=most, unique=True)


def listed(asked, count):
    return list(range(count)) if asked is None else [asked] if isinstance(asked, int) else asked


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(case=sweeps())
def test_any_sweep_equals_the_literal_loop(case):
    site, clean, dtype = case["site"], case["clean"], case["dtype"]
    model = tiny(case["architecture"], dtype)
    corrupted = corrupt(clean, case["corruption"], case["at"], case["seed"])
    metric = make_metric(case["metric"], model, clean, case["step"], case["seed"])
    base, source = (corrupted, clean) if case["direction"] == "denoise" else (clean, corrupted)
    anatomy, rows = anatomy_of(model), torch.arange(len(clean))

    judges = [metric]
    if case["metric"] == "accuracy":
        # A step function: rounding may decide between two logits that are almost equal, and nothing else.
        with torch.no_grad():
            reads = [model(b.tokens).logits[:, metric.positions] for b in (base, source)]
        gap = 2 * TOLERANCE[dtype] * max(1.0, *(float(r.abs().max()) for r in reads))
        answers = model(clean.tokens).logits[:, metric.positions].argmax(dim=-1)
        strict, generous = (margins(metric, answers, g) for g in (gap, -gap))
        if any(not torch.equal(strict.compute(r, rows), generous.compute(r, rows)) for r in reads):
            reject()  # the sweep's own controls may rightly fail
        judges = [strict, generous]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory, "PROMPTS", case["prompts_at_once"])
        patched.setattr(units, "BUCKET", case["bucket"])
        effect = patch(
            model,
            clean,
            corrupted,
            site,
            metric,
            case["layers"],
            case["positions"],
            case["heads"],
            case["direction"],
            spot_cells=0,
        )
    given_at = {c.layer: record(anatomy, source.tokens, site, c.layer) for c in case["cells"]}
    expected = [
        torch.stack([literal(anatomy, base.tokens, site, c, given_at[c.layer], j, rows) for c in case["cells"]])
        for j in judges
    ]
    layers, heads, places = case["shape"]
    shape = (layers, heads, places, len(clean)) if site in HEAD_SITES else (layers, places, len(clean))
    assert effect.values.shape == shape
    found = effect.values.reshape(len(case["cells"]), len(clean))
    scale = max(1.0, *(float(e.abs().max()) for e in (*expected, effect.base, effect.source)))
    slack = TOLERANCE[dtype] * scale
    low, high = expected[0], expected[-1]
    assert (found >= low - slack).all(), float((low - found).max())
    assert (found <= high + slack).all(), float((found - high).max())
    for batch, values in ((base, effect.base), (source, effect.source)):
        with torch.no_grad():
            whole = metric.compute(model(batch.tokens).logits[:, metric.positions], rows).double()
        assert float((values - whole).abs().max()) <= slack

    result = effect.to_patching_result()
    assert torch.equal(torch.as_tensor(result.values), effect.values)
    assert result.axis_names == list(effect.axes)
    assert len(result.index_df) == len(case["cells"])


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_patch_that_matters_to_some_prompts_alone_is_computed(at_once, monkeypatch):
    """The first prompt differs nowhere."""
    monkeypatch.setattr(memory, "PROMPTS", at_once)
    clean = prompts(3)
    tokens = counterfactual.flip_input(clean, 2).tokens
    tokens[0] = clean.tokens[0]
    corrupted, metric = clean.with_tokens(tokens), logit_diff(clean, 2)
    effect = patch(tiny("alibi"), clean, corrupted, "resid_pre", metric)
    assert float(effect.change[..., 0].abs().max()) < 1e-5
    assert (effect.change[..., 1:].abs().amax(dim=(0, 1)) > 1e-3).all()
    at = int(clean.at(Role.INPUT, 2)[0])
    assert torch.allclose(effect.values[0, at], effect.source, atol=1e-5)  # the one token that differs


@pytest.mark.parametrize(
    ("places", "cells"),
    [
        ((Role.SEPARATOR, Joint(0)), [(7,), (0,)]),
        ((Role.SEPARATOR, (Role.INPUT, 1)), [(7,), (2,)]),
        ((Role.INPUT, 1), [(2,)]),  # one place: a role and its step
        ([Role.SEPARATOR, 0], [(7,), (0,)]),
    ],
)
def test_places_in_a_tuple_keep_their_order(places, cells):
    clean = prompts(1)
    sweep = plan(tiny("alibi"), clean, counterfactual.flip_input(clean, 2), "resid_pre", logit_diff(clean), 0, places)
    assert [c.positions for c in sweep.cells] == cells


def test_probability_in_double_is_computed_in_double():
    """1e-9 is asked of float64 sweeps, which float32 probabilities cannot give."""
    clean = prompts(2)
    metric = probability(clean, 2)
    logits = torch.linspace(-1, 1, 2 * tiny("alibi").config.vocab_size, dtype=torch.float64).reshape(2, 1, -1)
    wanted = clean.tokens[:, metric.positions + 1].unsqueeze(-1)
    expected = logits.softmax(dim=-1).gather(-1, wanted)[:, 0, 0]
    assert float((metric.compute(logits, torch.arange(2)) - expected).abs().max()) < 1e-12
