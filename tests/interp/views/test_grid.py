"""Maps to point at: what is packed, what is drawn, what is said; in a browser where there is one."""

import base64
import io
import json
import re
import zlib

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from interp.tasks import sample
from interp.views.axes import Axis, axis_of_labels, positions
from interp.views.colours import DARK, STOPS
from interp.views.grid import MOST, bundle, draw_grid, in_script, packed
from interp.views.panel import Outline, Panel, pooled
from interp.views.view import page
from tests.interp.views.pages import Page, open_browser


def axis(n: int, title: str = "row") -> Axis:
    return Axis(title, tuple(f"{title} {k}" for k in range(n)))


def panel(values, name="a map", **options) -> Panel:
    rows, columns = np.shape(values)
    return Panel(name, values, axis(rows), axis(columns, "column"), **options)


def data_of(view) -> dict:
    found = re.search(r'<script type="application/json">(.*?)</script>', view.live, re.S)
    assert found
    return json.loads(found[1])


def planted(rows: int, columns: int) -> np.ndarray:
    """One cell of +1, one of -1, the rest 0."""
    values = np.zeros((rows, columns))
    values[rows // 2, columns // 3] = 1
    values[0, columns - 1] = -1
    return values


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_values_are_kept_to_three_digits_in_any_unit(unit):
    values = np.random.default_rng(0).normal(size=(7, 11)) * unit
    found = data_of(draw_grid(panel(values), "t"))["panels"][0]
    half = np.frombuffer(zlib.decompress(base64.b64decode(found["values"])), "<f2")
    assert np.allclose(half.astype(float).reshape(7, 11) * found["peak"], values, rtol=1e-3, atol=1e-4 * unit)


def test_tensors_of_any_kind_are_taken():
    for values in (
        torch.eye(3, dtype=torch.bfloat16),
        torch.eye(3, requires_grad=True),
        [[1, 0, 0]] * 3,
        np.eye(3, dtype=int),
    ):
        assert panel_of_3(values).top == 1.0


def panel_of_3(values) -> Panel:
    return Panel("a map", values, axis(3), axis(3, "column"))


@pytest.mark.parametrize(
    ("values", "options", "complaint"),
    [
        ([[np.inf, 0.0]], {}, "cannot show infinity"),
        ([[-1.0, 0.0]], {"scale": "sequential"}, "starts at zero"),
        ([[1.0, 0.0]], {"limit": 0.0}, "limit must be positive"),
        ([[1.0, 0.0]], {"scale": "rainbow"}, "scales are diverging, sequential"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        panel(values, **options)


def test_shapes_panels_and_outlines_are_checked():
    with pytest.raises(ValueError, match=re.escape("values must be [2 3]; got (3, 2)")):
        Panel("a map", np.zeros((3, 2)), axis(2), axis(3))
    with pytest.raises(ValueError, match="one name"):
        draw_grid([panel(np.eye(2)), panel(np.eye(2))], "t")
    with pytest.raises(ValueError, match="no cell 2, 0"):
        draw_grid(panel(np.eye(2)), "t", outlines=[Outline("here", ((2, 0),))])
    with pytest.raises(ValueError, match="no panel 1"):
        draw_grid(panel(np.eye(2)), "t", first=1)
    with pytest.raises(ValueError, match="3 tokens for 2 names"):
        Axis("position", ("a", "b"), tokens=("x", "y", "z"))


def test_pooling_keeps_every_strong_cell_and_says_so():
    values = np.zeros((2, 3 * MOST - 1))
    lone = [0, 1, 2, 1000, 4097, 3 * MOST - 2]
    values[0, lone] = [1, -2, 0.5, -3, 4, -5]
    found, note = pooled(panel(values), 1, 3)
    assert found.values.shape == (2, MOST)
    assert found.values[0, [0, 333, 1365, MOST - 1]].tolist() == [-2, -3, 4, -5]
    assert "largest absolute value of 1 x 3" in note
    assert note in data_of(draw_grid(panel(values), "t"))["caption"]
    assert found.columns.names[1] == "column 3 to column 5"
    same = panel(np.eye(5))
    assert pooled(same, 1, 1) == (same, "")


@pytest.mark.parametrize("shape", [(40, 162), (242, 242), (3, 1500), (600, 600), (2048, 2048), (1, 5000), (1200, 4)])
def test_stills_are_light_and_keep_every_strong_cell(shape):
    values = np.random.default_rng(0).uniform(-0.5, 0.5, size=shape)
    values[shape[0] // 2, shape[1] // 3] = 1.0
    still = draw_grid(panel(values), "noise").still.decode()
    assert len(still) < 150_000
    assert ("Pooled" in still) == (shape[0] > 820 or shape[1] > 700 or shape[0] * shape[1] > 60_000)
    data = re.search(r'<image x="[^"]*" y="[^"]*" width="(\d+)" height="(\d+)" [^>]*base64,([^"]+)"', still)
    assert data
    assert int(data[1]) <= 700
    assert int(data[2]) <= 820
    pixels = imread(io.BytesIO(base64.b64decode(data[3])))[..., :3]
    assert pixels.shape[:2] == (int(data[2]), int(data[1]))
    strongest = np.abs(pixels * 255 - [0x05, 0x30, 0x61]).max(axis=2) <= 1
    assert strongest.any()
    assert strongest.mean() < 0.2 or min(shape) == 1


def test_tokens_cannot_break_out_of_the_page():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\u2028"
    rows = Axis(evil, (evil, "b"), tokens=(evil, "t"), groups=(evil, "input"), steps=(-1, 1))
    view = draw_grid(Panel(evil, np.eye(2), rows, rows, evil), evil, evil, outlines=[Outline(evil, ((0, 0),))])
    assert "<img src=x" not in view.fragment().replace("&lt;", "")
    assert data_of(view)["axes"][0]["tokens"][0] == evil
    assert b"<script" not in view.still
    assert "<" not in in_script({"a": "<b>"})


def test_a_view_has_no_ids_and_asks_for_nothing():
    html = page([draw_grid(panel(np.eye(2)), "one"), draw_grid(panel(np.eye(2)), "two")], "both")
    assert html.count("window.mnemoGrid = ") == 1
    assert not re.search(r"<[^>]*\sid=", html)
    assert set(re.findall(r"https?://[^\"' )]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert len(bundle()) < 22_000


@pytest.mark.parametrize("task", ["parity-aligned", "parity-scratchpad", "parity-interleaved", "addition-aligned"])
def test_axes_of_batches_have_sections_and_round_steps(task):
    batch = sample(task, batch_size=1, length=(10, 10) if task.startswith("addition") else 40, seed=0)
    found = positions(batch, 0)
    assert len(found) == batch.n_pos
    ends = [end for _, end, _ in found.sections]
    assert [start for start, _, _ in found.sections] == [0, *ends[:-1]]
    assert ends[-1] == batch.n_pos
    assert all(int(words) == batch.step[k] for k, words in found.ticks)
    assert found.text(1) == f"{batch.name(1)} ({batch.symbols(0)[1]})"
    if task == "parity-aligned":
        assert [name for *_, name in found.sections] == ["start", "input", "separator", "output"]
        assert [words for _, words in found.ticks] == ["5", "10", "15", "20", "25", "30", "35", "40"] * 2


def test_axes_of_words_know_roles_and_leave_other_words_alone():
    found = axis_of_labels(["0: start", "1: input label 1", "2: input 1"])
    assert (found.names, found.groups, found.steps) == (
        ("start", "input label 1", "input 1"),
        ("start", "input label", "input"),
        (-1, 1, 1),
    )
    assert axis_of_labels(["all input labels", "0: start"]).groups == ()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def near(colour, stop: str) -> bool:
    return max(abs(a - int(stop[k : k + 2], 16)) for a, k in zip(colour, (1, 3, 5), strict=True)) <= 3


@pytest.mark.parametrize(("dark", "wide"), [(False, 1100), (True, 1100), (False, 390), (True, 390)])
@pytest.mark.parametrize("shape", [(3, 50), (242, 242), (2, 1500)])
def test_planted_cells_have_their_colour(browser, tmp_path, shape, dark, wide):
    rows, columns = shape
    view = draw_grid(panel(planted(rows, columns)), "planted")
    found = Page(browser, tmp_path / "v.html", page([view], "t"), wide, dark)
    stops = (DARK if dark else STOPS)["diverging"]
    assert near(found.pixel(rows // 2, columns // 3), stops[-1])
    assert near(found.pixel(0, columns - 1), stops[0])
    assert near(found.pixel(rows - 1, columns // 3 + 1), stops[len(stops) // 2])
    assert min(found.cell()) >= 1
    assert found.js("return document.documentElement.scrollWidth") <= wide  # the frame scrolls, not the page
    assert found.js("return getComputedStyle(document.querySelector('.mnemo-still')).display") == "none"
    assert found.quiet()


def test_every_cell_has_pixels_of_its_own(browser, tmp_path):
    sign = np.indices((40, 242)).sum(axis=0) % 2 * 2.0 - 1
    found = Page(browser, tmp_path / "v.html", page([draw_grid(panel(sign), "t")], "t"), 390)
    w, h = found.cell()
    line = np.array(found.pixels(0, 20 * h, 242 * w)).reshape(242, w, 3)
    blue = line[:, :, 2] > line[:, :, 0]
    assert (blue[:-1, w // 2] != blue[1:, w // 2]).all()


def test_values_are_read_by_pointer_and_keyboard(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys  # pyright: ignore[reportMissingImports]

    values = np.array([[0.0, 1.25, np.nan], [-2.0, 0.5, 0.0]])
    rows, columns = axis(2, "layer"), Axis("position", ("start", "input 1", "input 2"), ("<s>", "0", "$&"))
    view = draw_grid(Panel("a map", values, rows, columns, "logits"), "t", outlines=[Outline("bit i", ((1, 1),))])
    found = Page(browser, tmp_path / "v.html", page([view], "t"))
    assert found.point(0, 1) == "layer 0, input 1 (0): +1.25 (logits)"
    assert found.point(1, 0) == "layer 1, start (<s>): -2 (logits)"
    assert found.point(0, 2) == "layer 0, input 2 ($&): not measured (logits)"
    stage = found.one(".stage")
    stage.send_keys(Keys.ARROW_DOWN)
    assert found.text(".readout") == "layer 1, input 2 ($&): 0 (logits)"
    stage.send_keys(Keys.ARROW_LEFT)
    assert found.text(".readout") == "layer 1, input 1 (0): +0.5 (logits); outlined: bit i"
    stage.send_keys(Keys.HOME, Keys.ARROW_LEFT)
    assert found.text(".readout").startswith("layer 1, start")
    assert found.one(".readout").get_attribute("aria-live") == "polite"
    found.js("document.querySelector('details').open = true")
    found.one("ol button").click()
    assert found.text(".readout").startswith("layer 1, start (<s>): -2")
    assert "not measured" in found.text(".legend")
    assert found.quiet()


def test_panels_switch_and_cells_grow(browser, tmp_path):
    panels = [panel(np.eye(6), "first"), panel(-np.eye(4), "second")]
    found = Page(browser, tmp_path / "v.html", page([draw_grid(panels, "t"), draw_grid(panel(np.eye(3)), "u")], "t"))
    assert near(found.pixel(0, 0), STOPS["diverging"][-1])
    found.js("const s = document.querySelector('select'); s.value = 1; s.dispatchEvent(new Event('change'))")
    assert near(found.pixel(0, 0), STOPS["diverging"][0])
    assert found.js("return document.querySelector('canvas.map').dataset.columns") == "4"
    before = found.cell()
    found.one("button[aria-label='larger cells']").click()
    assert found.cell() > before
    assert found.js("return document.querySelectorAll('canvas.map').length") == 2
    assert found.quiet()


def test_a_notebook_shows_every_cell_once_its_script_runs(browser, tmp_path):
    views = [draw_grid(panel(np.eye(n)), f"cell {n}") for n in (2, 3)]
    body = "".join(f"<div class=output>{view._repr_html_()}</div>" for view in views)
    found = Page(browser, tmp_path / "n.html", f"<!DOCTYPE html><meta charset=utf-8><body>{body}")
    assert found.js("return [...document.querySelectorAll('canvas.map')].map(map => map.dataset.rows)") == ["2", "3"]
    assert found.js("return document.querySelectorAll('style[data-mnemo-grid]').length") == 1
    assert found.quiet()


def test_without_script_the_still_picture_is_there(browser, tmp_path):
    html = page([draw_grid(panel(planted(4, 9)), "t")], "t").replace("script-src 'unsafe-inline'", "script-src 'none'")
    (tmp_path / "v.html").write_text(html, encoding="utf-8")
    browser.get((tmp_path / "v.html").as_uri())
    assert (
        browser.execute_script("const i = document.querySelector('img.still'); return i.complete && i.naturalWidth")
        > 300
    )
    assert browser.execute_script("return document.querySelectorAll('canvas').length") == 0
    browser.get_log("browser")  # says that script was refused


def test_twelve_heads_of_242_tokens_are_light_and_fast(browser, tmp_path):
    weights = np.tril(np.random.default_rng(0).random((12, 242, 242)))
    weights /= weights.sum(axis=-1, keepdims=True)
    view = draw_grid([panel(w, f"head {k}", scale="sequential") for k, w in enumerate(weights)], "t")
    html = page([view], "t")
    assert len(html) < 1_500_000
    assert len(view.still) < 150_000
    found = Page(browser, tmp_path / "v.html", html)
    assert found.seconds < 5
    assert found.quiet()


def test_packed_shares_do_not_overflow():
    assert base64.b64decode(packed(np.array([[1e30, -1e30]]), 1e30))
