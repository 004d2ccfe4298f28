"""Transplants are what hooks and plain loops on the raw model give."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.forward import predict
from interp.models.anatomy import anatomy_of
from interp.patching import interchanges, rerunning
from interp.patching.editing import forward_with_edits, measure
from interp.patching.interchange_parts import whole_run
from interp.patching.interchanges import INTERCHANGE_SITES, Interchange, interchange, interchange_for
from interp.patching.knocking_out import knock_out
from interp.patching.knockouts import Knockout
from interp.patching.metrics import Metric, logit_diff
from interp.tasks import Batch, Role, counterfactual
from tests.interp.patching.models import ARCHITECTURES, VOCAB, prompts, tiny

BASE, SOURCE, THIRD = (prompts(4, 4, seed) for seed in (0, 1, 2))
LAYERS = 3


def probe(batch: Batch = BASE) -> Metric:
    """A random functional of all logits at the last positions, so that no change goes unseen."""
    at = torch.arange(batch.n_pos - 6, batch.n_pos)
    weights = torch.randn(6, VOCAB, generator=torch.Generator().manual_seed(1))

    def compute(logits: Tensor, rows: Tensor) -> Tensor:
        return (logits * weights.to(logits.dtype)).sum(dim=(-1, -2)) / 10

    return Metric("probe", at, compute)


def value(model: Any, batch: Batch) -> Tensor:
    metric = probe(batch)
    return metric.compute(predict(model, batch, metric.positions + 1), torch.arange(len(batch)))


def at_positions(*positions: int) -> Tensor:
    at = torch.zeros(1, BASE.n_pos, dtype=torch.bool)
    at[0, list(positions)] = True
    return at


@torch.no_grad()
def literal(
    raw: Any, base: Batch, taken: dict[tuple[str, int], tuple[Batch, Tensor]], cut: Tensor | None = None
) -> Tensor:
    """A GPT-2 by hand, in plain loops over heads and positions. `taken`: at (site, layer), the source's value at
    `[batch pos]`, itself got by this function. `cut`: edges `[head dest src]` that no layer may use."""
    seen: dict[int, dict[tuple[str, int], Tensor]] = {}

    def run(batch: Batch, use: bool) -> Tensor:
        kept = seen.setdefault(id(batch), {}) if not use else {}
        n, heads = batch.n_pos, raw.config.n_head

        def site(name: str, layer: int, x: Tensor) -> Tensor:
            kept[name, layer] = x
            if use and (name, layer) in taken:
                source, at = taken[name, layer]
                x = x.clone()
                for row in range(len(base)):
                    for pos in range(n):
                        if at[row if len(at) > 1 else 0, pos]:
                            where = (row, slice(None), pos) if name == "attn_scores" else (row, pos)
                            x[where] = seen[id(source)][name, layer][where]
            return x

        x = raw.transformer.wte(batch.tokens) + raw.transformer.wpe(torch.arange(n))
        for layer, block in enumerate(raw.transformer.h):
            x = site("resid_pre", layer, x)
            qkv = block.attn.c_attn(block.ln_1(x)).view(len(batch), n, 3, heads, -1)
            q, k, v = (site(name, layer, qkv[:, :, i]) for i, name in enumerate("qkv"))
            scores = torch.full((len(batch), heads, n, n), -torch.inf)
            for head in range(heads):
                for dest in range(n):
                    for src in range(dest + 1):
                        dot = (q[:, dest, head] * k[:, src, head]).sum(dim=-1)
                        scores[:, head, dest, src] = dot / math.sqrt(q.shape[-1])
            scores = site("attn_scores", layer, scores)
            if use and cut is not None:
                scores = scores.masked_fill(cut, -torch.inf)
            pattern = scores.softmax(dim=-1)
            z = torch.stack([(pattern[:, h] @ v[:, :, h]) for h in range(heads)], dim=2)
            z = site("z", layer, z)
            mid = x + site("attn_out", layer, block.attn.c_proj(z.flatten(2)))
            x = mid + site("mlp_out", layer, block.mlp(block.ln_2(mid)))
        return raw.lm_head(raw.transformer.ln_f(x))

    for source, _ in taken.values():
        run(source, use=False)
    metric = probe(base)
    return metric.compute(run(base, use=True)[:, metric.positions], torch.arange(len(base)))


RANDOM = torch.rand(4, BASE.n_pos, generator=torch.Generator().manual_seed(3)) < 0.5
EVERYWHERE = torch.ones(1, BASE.n_pos, dtype=torch.bool)


@pytest.mark.parametrize("site", INTERCHANGE_SITES)
@pytest.mark.parametrize("at", [None, RANDOM, at_positions(2, 5, 6)], ids=["all", "by prompt", "some"])
def test_one_site_is_the_literal_loop(site, at):
    model = tiny("absolute")
    entries = {"one layer": [Interchange(site, SOURCE, at, (1,))], "all": [Interchange(site, SOURCE, at)]}
    found = interchange(model, BASE, entries, probe())
    where = EVERYWHERE if at is None else at
    for name, layers in (("one layer", [1]), ("all", range(LAYERS))):
        expected = literal(model, BASE, {(site, layer): (SOURCE, where) for layer in layers})
        assert torch.allclose(found.values[list(entries).index(name)], expected, atol=1e-5)
    assert found.change.abs().max() > 1e-2  # the before half: the interchange does something
    assert torch.allclose(found.base, value(model, BASE), atol=1e-5)


def test_two_sources_in_one_run_are_the_literal_loop():
    model = tiny("absolute")
    parts = [
        Interchange("attn_scores", SOURCE),
        Interchange("v", THIRD, RANDOM, (0, 2)),
        Interchange("mlp_out", BASE, None, (1,)),
    ]
    taken = {("attn_scores", layer): (SOURCE, EVERYWHERE) for layer in range(LAYERS)}
    taken |= {("v", layer): (THIRD, RANDOM) for layer in (0, 2)}
    taken |= {("mlp_out", 1): (BASE, EVERYWHERE)}
    found = interchange(model, BASE, {"both": parts}, probe())
    assert torch.allclose(found.values[0], literal(model, BASE, taken), atol=1e-5)


def test_a_knockout_acts_on_interchanged_scores():
    model = tiny("absolute")
    knockout = Knockout(Role.INPUT_LABEL, (Role.OUTPUT, Role.OUTPUT_LABEL))
    cut = torch.zeros(4, BASE.n_pos, BASE.n_pos, dtype=torch.bool)
    for dest in (*BASE.at(Role.OUTPUT).tolist(), *BASE.at(Role.OUTPUT_LABEL).tolist()):
        for src in BASE.at(Role.INPUT_LABEL).tolist():
            cut[:, dest, src] = True
    entries = {
        "frozen": [Interchange("attn_scores", BASE), knockout],
        "interchanged": [Interchange("attn_scores", SOURCE), knockout],
        "whole": [Interchange("attn_scores", SOURCE)],
        "alone": [knockout],
    }
    found = dict(zip(entries, interchange(model, BASE, entries, probe()).values, strict=True))
    for name, source in (("frozen", BASE), ("interchanged", SOURCE)):
        taken = {("attn_scores", layer): (source, EVERYWHERE) for layer in range(LAYERS)}
        assert torch.allclose(found[name], literal(model, BASE, taken, cut), atol=1e-5)
    assert not torch.allclose(found["interchanged"], found["whole"], atol=1e-2)
    # Beside nothing else it is what knock_out does; beside frozen scores, what freeze_later does.
    assert torch.allclose(found["alone"], knock_out(model, BASE, knockout, probe()).values[0], atol=1e-5)
    frozen = knock_out(model, BASE, knockout, probe(), freeze_later=True).values[0]
    assert torch.allclose(found["frozen"], frozen, atol=1e-5)
    assert not torch.allclose(found["frozen"], found["alone"], atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_laws_on_every_architecture(architecture):
    """All of the first residual is the source run; the base's own parts change nothing, joint or apart; scores and
    values of the source with everything else its own is the source run of a layer."""
    model = tiny(architecture)
    entries = {
        "everything": [Interchange("resid_pre", SOURCE, None, (0,))],
        "the base": [Interchange(site, BASE) for site in INTERCHANGE_SITES],
        "values of the base": [Interchange("v", BASE, RANDOM), Interchange("attn_scores", BASE)],
        "all that is written": [
            Interchange("resid_pre", SOURCE, None, (0,)),
            *(Interchange(s, SOURCE) for s in ("attn_scores", "v")),
        ],
        "q and k": [Interchange("q", SOURCE), Interchange("k", SOURCE)],
        "attn_scores": [Interchange("attn_scores", SOURCE)],
        "scores and v": [Interchange("attn_scores", SOURCE), Interchange("v", SOURCE)],
        "z": [Interchange("z", SOURCE)],
        "attn_out": [Interchange("attn_out", SOURCE)],
    }
    effect = interchange(model, BASE, entries, probe())
    found = dict(zip(entries, effect.values, strict=True))
    base, source = value(model, BASE), value(model, SOURCE)
    assert torch.allclose(effect.base, base, atol=1e-4)
    for name in ("everything", "all that is written"):
        assert torch.allclose(found[name], source, atol=1e-4)
    for name in ("the base", "values of the base"):
        assert torch.allclose(found[name], base, atol=1e-4)
    assert torch.allclose(found["q and k"], found["attn_scores"], atol=1e-4)
    assert torch.allclose(found["scores and v"], found["z"], atol=1e-4)
    assert torch.allclose(found["z"], found["attn_out"], atol=1e-4)
    for name in ("attn_scores", "z"):
        assert not torch.allclose(found[name], base, atol=1e-2)
    assert not torch.allclose(source, base, atol=1e-2)


@pytest.mark.parametrize("architecture", ["rotary", "alibi"])
def test_double_precision(architecture):
    model = tiny(architecture, torch.float64)
    entries = {"everything": [Interchange("resid_pre", SOURCE, None, (0,))], "base": [Interchange("attn_scores", BASE)]}
    found = interchange(model, BASE, entries, probe()).values
    metric = probe()
    source, base = (
        metric.compute(model(b.tokens).logits[:, metric.positions].double().detach(), torch.arange(4))
        for b in (SOURCE, BASE)
    )
    assert torch.allclose(found, torch.stack([source, base]).to(found.dtype), atol=1e-9)


def test_causality_holds():
    """What is taken at the last position alone reaches no earlier one."""
    model, last = tiny("rotary"), BASE.n_pos - 1
    early = logit_diff(BASE, 2)
    entries = {site: [Interchange(site, SOURCE, at_positions(last))] for site in INTERCHANGE_SITES}
    assert interchange(model, BASE, entries, early).change.abs().max() < 1e-5
    # An edited bit is in the run at its own position and nowhere else.
    swapped = counterfactual.flip_input(BASE, 1)
    entry = {"bit": [Interchange("resid_pre", swapped, at_positions(int(BASE.at(Role.INPUT, 1)[0])), (0,))]}
    assert torch.allclose(interchange(model, BASE, entry, probe()).values[0], value(model, swapped), atol=1e-4)


def test_each_prompt_is_worked_out_by_itself(monkeypatch: pytest.MonkeyPatch):
    model = tiny("absolute")
    entries = {"x": [Interchange("attn_scores", SOURCE), Interchange("v", THIRD, RANDOM)]}
    together = interchange(model, BASE, entries, probe())
    monkeypatch.setattr(rerunning, "chunks", lambda *_, **__: iter([torch.tensor([i]) for i in range(4)]))
    apart = interchange(model, BASE, entries, probe())
    assert torch.allclose(together.values, apart.values, atol=1e-5)
    assert torch.allclose(together.base, apart.base, atol=1e-5)


def test_the_result_names_its_entries():
    entries = {"a": [Interchange("v", SOURCE)], "b": [Interchange("k", SOURCE, None, (2,))]}
    effect = interchange(tiny("alibi"), BASE, entries, logit_diff(BASE, 2))
    assert (effect.axes, effect.labels) == (("interchange",), {"interchange": ("a", "b")})
    assert effect.details["raw_difference"] < 1e-4
    with pytest.raises(ValueError, match="look at `change`"):
        _ = effect.recovered


SHORT, FEWER = prompts(4, 3), prompts(3, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Interchange("pattern", SOURCE),  # type: ignore[arg-type]
            "unknown site 'pattern': capture takes it, .* not; sites are resid_pre, q, k, v, attn_scores",
        ),
        (lambda: Interchange("v", SOURCE, torch.zeros(1, BASE.n_pos, dtype=torch.bool)), "has no position"),
        (lambda: Interchange("v", SOURCE, None, ()), "has no layer; None means all"),
        (
            lambda: {"x": [Interchange("v", SHORT)]},
            "x: base and source must have the same number of tokens; got 18 and 14",
        ),
        (lambda: {"x": [Interchange("v", FEWER)]}, "the same number of prompts"),
        (lambda: {"x": [Interchange("v", SOURCE, None, (3,))]}, "no layer 3; layers are 0 to 2"),
        (lambda: {"x": [Interchange("v", SOURCE, None, (-1,))]}, "no layer -1"),
        (
            lambda: {"x": [Interchange("v", SOURCE), Interchange("v", THIRD, None, (1,))]},
            "two interchanges of v in layer 1",
        ),
        (
            lambda: {"x": [Interchange("v", SOURCE), Knockout(Role.INPUT, None, mode="null")]},
            "must be 'renormalise'; got 'null'",
        ),
        (lambda: {"x": []}, "x has no parts"),
        (lambda: {}, "no entries"),
        (lambda: {"x": [Knockout(None, None)]}, "left without a key"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        interchange(tiny("absolute"), BASE, make(), probe())


def test_a_source_of_another_layout_is_refused_even_at_the_same_size():
    moved = dataclasses.replace(SOURCE, role=SOURCE.role.roll(1), names=())
    with pytest.raises(ValueError, match="same roles and steps"):
        interchange(tiny("absolute"), BASE, {"x": [Interchange("v", moved)]}, probe())


def test_only_the_heads_of_an_interchange_change():
    """All heads by name are the whole site; one head alone is not."""
    model = tiny("absolute")
    n_heads = model.config.num_attention_heads
    for site in ("q", "k", "v", "z", "attn_scores"):
        entries = {
            "whole": [Interchange(site, SOURCE)],
            "named": [Interchange(site, SOURCE, heads=tuple(range(n_heads)))],
        }
        entries |= {f"H{h}": [Interchange(site, SOURCE, heads=(h,))] for h in range(n_heads)}
        values = interchange(model, BASE, entries, probe()).values
        torch.testing.assert_close(values[0], values[1])
        assert (values[2:] - values[0]).abs().amax(dim=1).min() > 1e-4, site
    with pytest.raises(ValueError, match=f"v has no head {n_heads}"):
        interchange(model, BASE, {"x": [Interchange("v", SOURCE, heads=(n_heads,))]}, probe())
    with pytest.raises(ValueError, match="heads of q, k, v, attn_scores, z"):
        Interchange("resid_pre", SOURCE, heads=(0,))


def test_one_head_of_scores_is_a_hand_made_mix_of_two_patterns():
    """Scores of one head from the source, z of the others from an unedited run: the same as taking that head's rows."""
    model = tiny("absolute")
    alone = interchange(
        model, BASE, {"x": [Interchange("attn_scores", SOURCE, layers=(2,), heads=(1,))]}, probe()
    ).values[0]
    anatomy = anatomy_of(model)

    def edit(scores: Tensor, _: object) -> Tensor:
        mixed = scores.clone()
        mixed[:, 1] = forward_with_edits(anatomy, anatomy.embed(SOURCE.tokens), keep=[("attn_scores", 2)])[1][
            "attn_scores", 2
        ][:, 1]
        return mixed

    final, _ = forward_with_edits(anatomy, anatomy.embed(BASE.tokens), edits={("attn_scores", 2): edit})
    expected = measure(anatomy, final, probe(), torch.arange(len(BASE)))
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_positions_of_another_shape_are_refused():
    for shape in ((1, 1), (len(BASE) + 1, BASE.n_pos)):
        entries = {"x": [Interchange("v", BASE, at=torch.ones(shape, dtype=torch.bool))]}
        with pytest.raises(ValueError, match="`at` must be"):
            interchange(tiny("absolute"), BASE, entries, probe())


@pytest.mark.parametrize("deep", [False, True])
def test_the_whole_run_of_a_source_is_its_own_run(deep: bool, monkeypatch: pytest.MonkeyPatch):
    """A source whose attention another entry takes runs to its end once, and serves both."""
    model, patched, measured = tiny("rotary"), [], interchanges.measure_patched
    monkeypatch.setattr(interchanges, "measure_patched", lambda *args: patched.append(args[2]) or measured(*args))
    entries = {"source": [whole_run(SOURCE)], "third": [whole_run(THIRD)], "base": [whole_run(BASE)]}
    more = {"attention": [Interchange("attn_scores", SOURCE)]} if deep else {}
    effect = interchange(model, BASE, {**entries, **more}, probe())
    for found, batch in zip(effect.values, (SOURCE, THIRD, BASE), strict=False):
        assert torch.allclose(found, value(model, batch), atol=1e-4)
    assert len(patched) == 3
    if deep:
        alone = interchange(model, BASE, more, probe())
        assert torch.allclose(effect.values[-1], alone.values[0], atol=1e-5)


def test_several_metrics_of_the_same_runs_are_those_of_each_alone():
    """Also of a whole run on another source, which is not run again."""
    model, metrics = tiny("rotary"), [probe(), logit_diff(BASE), logit_diff(BASE, step=2)]
    entries = {"whole": [whole_run(SOURCE)], "values": [Interchange("v", THIRD, at=at_positions(3, 4))]}
    together = interchange_for(model, BASE, entries, metrics)
    for metric, found in zip(metrics, together, strict=True):
        alone = interchange(model, BASE, entries, metric)
        assert (found.metric, found.labels) == (alone.metric, alone.labels)
        for name in ("base", "values", "source"):
            assert torch.allclose(getattr(found, name), getattr(alone, name), atol=1e-5)
    assert not torch.allclose(together[0].values, together[1].values, atol=1e-2)
    with pytest.raises(ValueError, match="give at least one metric"):
        interchange_for(model, BASE, entries, [])


def test_one_layer_may_be_a_number():
    assert Interchange("v", SOURCE, layers=0).layers == (0,)  # pyright: ignore[reportArgumentType]
    assert Interchange("z", SOURCE, heads=0).heads == (0,)  # pyright: ignore[reportArgumentType]
    assert Knockout(3, 8, layers=0).layers == (0,)  # pyright: ignore[reportArgumentType]
    assert str(Knockout(3, 8, layers=0)) == str(Knockout(3, 8, layers=(0,)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (None, "entries must be a dict of lists of interchanges by name; got NoneType"),
        ([Interchange("z", BASE)], "entries must be a dict of lists of interchanges by name; got list"),
        ({"a": Interchange("z", BASE)}, "a must be a list of Interchange and Knockout; got Interchange"),
        ({"a": "L0H1"}, "a must be a list of Interchange and Knockout; got str"),
        ({"a": [Interchange("z", BASE), "L0H1"]}, "a must be a list of Interchange and Knockout; got str"),
    ],
)
def test_entries_are_lists_by_name(entries: Any, message: str):
    with pytest.raises(TypeError, match=message):
        interchange(tiny("alibi"), BASE, entries, logit_diff(BASE, 1))
