"""Effects and attributions as maps: what stands where, and what is said beside it."""

import re
from dataclasses import replace

import pytest
import torch

from interp.attribution import Attribution, Kind
from interp.patching import PatchEffect
from interp.tasks import Role, sample
from interp.views.attributions import attribution
from interp.views.maps import effect
from interp.views.tables import head_table
from interp.views.view import page
from tests.interp.views.pages import Page, open_browser
from tests.interp.views.test_grid import data_of


def effect_of(axes: tuple[str, ...], length: int = 4, prompts: int = 3) -> PatchEffect:
    """Zero but for layer 1, head 2, the label of output 3: +2, +4, +6."""
    batch = sample("parity-aligned", batch_size=prompts, length=length, seed=0)
    labels = {
        "layer": (0, 1),
        "head": (0, 1, 2, 3),
        "pos": tuple(f"{p}: {batch.name(p)}" for p in range(batch.n_pos)),
    }
    values = torch.full((*(len(labels[a]) for a in axes), prompts), -5.0)
    where = {"layer": 1, "head": 2, "pos": int(batch.at(Role.OUTPUT_LABEL, 3)[0])}
    values[tuple(where[a] for a in axes)] += 2.0 * torch.arange(1, prompts + 1)
    return PatchEffect(
        "z",
        "logit difference at step 3",
        "denoise",
        axes,
        {a: labels[a] for a in axes},
        values,
        torch.full((prompts,), -5.0),
        torch.full((prompts,), 5.0),
    )


def test_an_effect_by_position_has_the_mean_change_and_the_baselines():
    view = effect(effect_of(("layer", "pos")))
    assert view.alt.endswith("strongest are layer 1, output label 3: +4.")
    data = data_of(view)
    (panel,) = data["panels"]
    assert panel["limit"] == 4.0
    assert panel["unit"] == "change in logit difference at step 3"
    assert "Without a patch it is -5" in data["caption"]
    assert "+10 would be the whole way" in data["caption"]
    assert data["axes"][panel["columns"]]["groups"][:3] == ["start", "input label", "input"]


def test_an_effect_without_a_source_run_speaks_of_none():
    found = effect_of(("layer", "pos"))
    caption = data_of(effect(replace(found, source=found.base)))["caption"]
    assert caption.endswith("Without a patch it is -5.")


def test_heads_show_the_position_that_moves_it_most_and_then_each_head_on_one_scale():
    data = data_of(effect(effect_of(("layer", "head", "pos"))))
    assert [p["name"] for p in data["panels"]][1:] == [f"head {k}: layer by position" for k in range(4)]
    assert data["panels"][0]["strongest"] == [[1, 2]]
    assert {p["limit"] for p in data["panels"]} == {4.0}
    assert [len(p["strongest"]) for p in data["panels"][1:]] == [0, 0, 1, 0]


def test_effects_without_layers_have_their_own_axes():
    """Features by position, and named interventions in one column."""
    values = torch.zeros(2, 3, 1)
    values[1, 2] = 4.0
    labels: dict[str, tuple[str | int, ...]] = {"feature": (7, 9), "pos": ("0: start", "1: a", "2: b")}
    found = PatchEffect("an SAE", "m", "denoise", ("feature", "pos"), labels, values, torch.zeros(1), torch.ones(1))
    assert effect(found).alt.endswith("strongest are feature 9, b (2): +4.")
    names: dict[str, tuple[str | int, ...]] = {"component": ("L0H1", "L1 MLP")}
    found = PatchEffect("joint", "m", "zero", ("component",), names, values[1, 1:], torch.zeros(1), torch.ones(1))
    assert "L1 MLP, change: +4" in effect(found).alt
    data = data_of(effect(found))
    assert [len(data["axes"][data["panels"][0][side]]["names"]) for side in ("rows", "columns")] == [2, 1]


def test_neurons_are_drawn_as_heads_are_and_without_a_panel_each_where_they_are_many():
    def neurons(n: int) -> PatchEffect:
        labels = {"layer": (0,), "neuron": tuple(range(n)), "pos": ("0: a", "1: b")}
        values = torch.zeros(1, n, 2, 1)
        values[0, n - 1, 1] = 3.0
        return PatchEffect("mlp_post", "logit", "denoise", tuple(labels), labels, values, torch.zeros(1), torch.ones(1))

    few, many = (data_of(effect(neurons(n))) for n in (3, 65))
    assert [p["name"] for p in few["panels"]][1:] == [f"neuron {k}: layer by position" for k in range(3)]
    assert [p["name"] for p in many["panels"]] == ["layer by neuron: the position that moves it most"]
    assert many["panels"][0]["strongest"] == [[0, 64]]


def test_other_sweeps_are_refused_by_name():
    with pytest.raises(ValueError, match="layers, heads or neurons, and positions, or two axes; got head, layer, pos"):
        effect(effect_of(("head", "layer", "pos")))


def attributed(length: int = 5, kind: Kind = "signed", prompts: int = 2) -> Attribution:
    """+1 from the bit and -2 from the parity before it; the second prompt has the opposite signs of the parity."""
    batch = sample("parity-aligned", batch_size=prompts, length=length, seed=0)
    dest = batch.at(Role.OUTPUT)
    values = torch.zeros(prompts, length, batch.n_pos)
    for k in range(length):
        values[:, k, batch.at(Role.INPUT, k + 1)] = 1.0
        if k:
            values[:, k, batch.at(Role.OUTPUT, k)] = torch.tensor([-2.0, 2.0])[:prompts, None]
    if kind != "signed":
        values = values.abs()
    return Attribution(values, batch, dest, kind, "gradient x input", torch.ones(prompts, length))


def test_columns_are_outputs_and_the_two_diagonals_are_outlined():
    found = attributed()
    data = data_of(attribution(found))
    rows, columns = (data["axes"][data["panels"][0][side]] for side in ("rows", "columns"))
    assert columns["names"] == [f"output {k}" for k in range(1, 6)]
    assert rows["names"] == [found.prompts.name(p) for p in range(found.prompts.n_pos)]
    bit, before = data["outlines"]
    assert (bit["name"], before["name"]) == ("bit i", "parity at i-1")
    assert [(rows["names"][r], columns["names"][c]) for r, c in bit["cells"]] == [
        (f"input {k}", f"output {k}") for k in range(1, 6)
    ]
    assert [(rows["names"][r], columns["names"][c]) for r, c in before["cells"]] == [
        (f"output {k - 1}", f"output {k}") for k in range(2, 6)
    ]


def test_the_absolute_map_keeps_what_cancels_in_the_signed_one():
    view = attribution(attributed(), prompts=(1,))
    signed, absolute, single = data_of(view)["panels"]
    assert (signed["limit"], absolute["limit"], single["limit"]) == (1.0, 2.0, 2.0)
    assert (signed["scale"], absolute["scale"], single["scale"]) == ("diverging", "sequential", "diverging")
    assert single["name"] == "prompt 1, signed"
    assert data_of(view)["axes"][single["rows"]]["tokens"] == attributed().prompts.symbols(1)
    assert [p["scale"] for p in data_of(attribution(attributed(kind="l2"), prompts=0))["panels"]] == ["sequential"]
    with pytest.raises(ValueError, match="no prompt 7; there are 2"):
        attribution(attributed(), prompts=(7,))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize(("length", "wide"), [(5, 1100), (40, 1100), (40, 390)])
def test_the_diagonals_are_seen_and_read(browser, tmp_path, length, wide):
    view = attribution(attributed(length, prompts=1))
    assert len(view.still) < 150_000
    found = Page(browser, tmp_path / "a.html", page([view], "t"), wide)
    bit, before = data_of(view)["outlines"]
    for (row, column), blue in ((bit["cells"][3], True), (before["cells"][3], False)):
        red, _, other = found.pixel(row, column)
        assert (other > red + 20) == blue
        assert abs(other - red) > 20
    row, column = bit["cells"][3]
    assert re.match(r"output 4 from input 4: \+1 .*; outlined: bit i$", found.point(row, column))
    assert found.quiet()


STILLS = {
    "layer by position": lambda: effect(effect_of(("layer", "pos"), length=12)),
    "layer by head": lambda: effect(effect_of(("layer", "head", "pos"))),
    "10 bits": lambda: attribution(attributed(10)),
    "40 bits": lambda: attribution(attributed(40)),
    "table": lambda: head_table([{"head": "L0H1", "role": "output label", "share_of_values_on_labels": 0.25}]),
}


@pytest.mark.parametrize("name", STILLS)
def test_no_words_of_a_still_picture_are_cut(browser, tmp_path, name):
    path = STILLS[name]().save(tmp_path / "still.svg")
    browser.get(path.as_uri())
    cut = browser.execute_script(
        "const f = document.documentElement.getBoundingClientRect();"
        "return [...document.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();"
        "return r.left < f.left || r.right > f.right || r.top < f.top || r.bottom > f.bottom })"
        ".map(t => t.textContent)"
    )
    assert cut == []


def test_an_effect_is_drawn(browser, tmp_path):
    view = effect(effect_of(("layer", "head", "pos"), length=40))
    assert len(view.still) < 150_000
    found = Page(browser, tmp_path / "e.html", page([view], "t"))
    red, _, blue = found.pixel(1, 2)
    assert blue > red + 20
    found.js("const s = document.querySelector('select'); s.value = 3; s.dispatchEvent(new Event('change'))")
    column = data_of(view)["panels"][3]["strongest"][0][1]
    assert found.pixel(1, column) == (red, _, blue)
    assert found.quiet()
