"""Every view in a real browser with the network cut off: drawn, read out, moved by pointer and keyboard, quiet."""

import time

import numpy as np
import pytest
import torch

from interp.views.patterns import attention, tokens
from interp.views.patterns.circuitsvis_plot import JOINER
from interp.views.view import page
from tests.interp.views.patterns.samples import NASTY, nasty, noise, planted, prompts

KEY = "arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], bubbles: true, cancelable: true}))"


def view_of(n_heads: int, length: int, viewer: str = "auto"):
    batch = prompts(length)
    return attention({1: planted(n_heads, batch.n_pos)}, 1, batch=batch, viewer=viewer)


def light(pixel) -> float:
    return sum(pixel) / 3


@pytest.mark.parametrize("dark", [False, True])
def test_12_heads_of_242_tokens_are_drawn_in_time_and_right(open_page, dark):
    html = page([view_of(12, 60)], "242")
    seconds = []
    for _ in range(2):
        opened = open_page(html, dark=dark)
        seconds.append(opened.seconds)
    assert min(seconds) < 2
    large = opened.one("canvas.large")
    on, off, never = (opened.pixel(large, *cell) for cell in ((99, 100), (50, 100), (150, 100)))  # x is the source
    assert abs(light(on) - light(off)) > 150
    assert (light(on) > light(off)) == dark
    assert light(never) not in (light(on), light(off))
    assert opened.js("return document.querySelector('.mnemo-still').hidden")
    assert not opened.one(".still").is_displayed()
    assert "12 heads of 242 tokens" in opened.all(".note")[-1].text
    assert "largest of 2 \u00d7 2 cells" in opened.all(".note")[-1].text
    opened.assert_quiet()


@pytest.mark.parametrize("width", [1100, 390])
def test_no_pixel_hides_a_head(open_page, width):
    """As the browser shows it: the previous-token head is whole in the small map and in the large one."""
    opened = open_page(page([view_of(12, 60)], "242"), width, height=3000)  # all of it is in sight
    for selector in ("canvas.small", "canvas.large"):
        sizes = opened.js(
            "const c = document.querySelector(arguments[0]); "
            "return [c.width, c.getBoundingClientRect().width * devicePixelRatio]",
            selector,
        )
        assert sizes[1] >= sizes[0]
    opened.js("for (const m of document.querySelectorAll('.mark')) m.remove()")
    for selector in ("canvas.small", "canvas.large"):
        shown = np.asarray(opened.picture(opened.one(selector))).astype(int).sum(-1) < 300
        # Nothing else in this head is dark; rows and columns without ink would be tokens without a head.
        assert shown.any(1)[2:-2].mean() > 0.99
        assert shown.any(0)[2:-4].mean() > 0.99
    assert opened.js("return document.documentElement.scrollWidth") <= width
    inside = opened.js("""const [a, b] = ['.strip', '.token[aria-pressed=true]'].map((s) =>
        document.querySelector(s).getBoundingClientRect()); return a.top <= b.top && b.bottom <= a.bottom""")
    assert inside  # the chosen token, the last of 242, is in sight
    opened.assert_quiet()


def test_pointing_clicking_and_keys_change_the_read_out(open_page):
    opened = open_page(page([view_of(12, 20)], "82"))
    batch = prompts(20)
    symbols = batch.symbols()
    end = batch.n_pos - 2  # predicts the last answer
    assert opened.said.startswith(f"Layer 1, head 0: from {batch.name(end)} to {batch.name(end - 1)}: 1.000")
    opened.all("button.head")[1].click()
    assert opened.said.startswith(f"Layer 1, head 1: from {batch.name(end)} to {batch.name(end - 1)}: 0.000")
    field, large = opened.one(".field"), opened.one("canvas.large")
    assert abs(light(opened.pixel(large, 0, 50)) - light(opened.pixel(large, 49, 50))) > 150
    opened.all("button.token")[40].click()
    assert opened.said == f"Layer 1, head 1: from {batch.name(40)} to start: 1.000 ({symbols[40]} to {symbols[0]})"
    for key, dest, src in (
        ("ArrowUp", 39, 0),
        ("ArrowRight", 39, 1),
        ("End", 39, 39),
        ("ArrowRight", 39, 39),
        ("Home", 39, 0),
    ):
        opened.js(KEY, field, key)
        assert f"from {batch.name(dest)} to {batch.name(src)}:" in opened.said
    opened.js(KEY, field, "PageUp")
    assert opened.said.startswith("Layer 1, head 0")
    opened.js(KEY, opened.all("button.token")[39], "ArrowRight")
    assert f"from {batch.name(40)} to {batch.name(39)}: 1.000" in opened.said
    opened.js(
        """const box = arguments[0].getBoundingClientRect(), each = box.width / 82;
        for (const kind of ['pointermove', 'click']) arguments[0].dispatchEvent(new PointerEvent(kind,
          {clientX: box.left + 6.5 * each, clientY: box.top + 7.5 * each, bubbles: true}))""",
        field,
    )
    assert f"from {batch.name(7)} to {batch.name(6)}: 1.000" in opened.said
    # Linked: each head says its weight at the chosen cell, and no tab stop is a token but the chosen one.
    assert [v.text for v in opened.all(".value")][:2] == ["1.000", "0.000"]
    assert opened.js("return document.querySelectorAll('button.token[tabindex=\"0\"]').length") == 1
    opened.assert_quiet()


def test_the_read_out_is_the_weight(open_page):
    batch = prompts(20)
    values = noise(3, batch.n_pos)
    opened = open_page(page([attention({1: values}, 1, batch=batch)], "noise"))
    for head, dest in ((0, 81), (2, 40), (1, 3)):
        opened.all("button.head")[head].click()
        opened.all("button.token")[dest].click()
        src = int(values[0, head, dest].argmax())
        assert f"from {batch.name(dest)} to {batch.name(src)}: {float(values[0, head, dest, src]):.3f}" in opened.said


def test_two_conditions_show_first_second_and_a_signed_difference(open_page):
    batch = prompts(8)
    first, second = planted(2, batch.n_pos), planted(2, batch.n_pos)
    second[0, 0, 20] = 0
    second[0, 0, 20, 5] = 1  # at this destination head 0 looks elsewhere
    view = attention({1: first}, 1, batch=batch, against={1: second}, conditions=("clean", "corrupted"))
    opened = open_page(page([view], "two"))
    names = ("clean", "corrupted", "difference")
    assert [c.text for c in opened.all("figcaption")] == [f"Layer 1, head 0: {name}" for name in names]
    lost, found = f"to {batch.name(19)}: 1.000 in clean, 0.000", f"to {batch.name(5)}: 0.000 in clean, 1.000"
    assert f"from {batch.name(20)} {found} in corrupted, difference \u22121.000" in opened.said  # the largest, unasked
    opened.all("button.token")[3].click()
    assert f"from {batch.name(3)} to" in opened.said
    opened.all("button.token")[20].click()
    for _ in range(14):
        opened.js(KEY, opened.one(".field"), "ArrowRight")
    assert f"{lost} in corrupted, difference +1.000" in opened.said
    large = opened.all("canvas.large")
    up, down, same = (opened.pixel(large[2], *cell) for cell in ((19, 20), (5, 20), (3, 20)))
    assert up[2] - up[0] > 50
    assert down[0] - down[2] > 50
    assert max(same) - min(same) < 10
    assert abs(light(opened.pixel(large[1], 5, 20)) - light(opened.pixel(large[0], 5, 20))) > 150
    opened.assert_quiet()


def test_a_grid_of_layers_is_linked(open_page):
    batch = prompts(20)
    patterns = {layer: planted(12, batch.n_pos, layer) for layer in range(12)}
    opened = open_page(page([attention(patterns, range(12), batch=batch)], "grid"))
    assert opened.seconds < 5
    heads = opened.all("button.head")
    assert len(heads) == 144
    opened.js("arguments[0].click()", heads[12 * 7 + 1])
    assert opened.said.startswith("Layer 7, head 1:")
    opened.all("button.token")[30].click()
    values = opened.js("return [...document.querySelectorAll('.value')].map(v => v.textContent)")
    assert [value == "1.000" for value in values] == [i % 12 == 1 for i in range(144)]
    opened.assert_quiet()


def test_ten_views_on_one_page(open_page):
    opened = open_page(page([view_of(12, 20) for _ in range(10)], "ten"))
    assert opened.seconds < 5
    assert len(opened.all("canvas.large")) == 10
    opened.all("button.head")[14].click()
    said = [p.text for p in opened.all(".said")]
    assert said[1].startswith("Layer 1, head 2")
    assert all(text.startswith("Layer 1, head 0") for i, text in enumerate(said) if i != 1)
    opened.assert_quiet()


def chart(opened, cell: tuple[int, int], which: int = 0):
    """A pixel in the middle of a cell (destination, source) of circuitsvis's large plot."""
    big, left, upper = opened.js(
        """const plot = document.querySelectorAll('.mount')[arguments[2]];
        const big = [...plot.querySelectorAll('canvas')].at(-1), {x, y} = big.mnemoChart.scales;
        const at = (scale, pos) => scale.getPixelForValue(scale.getLabels().findIndex((l) => l.endsWith(` (${pos})`)));
        const dpr = big.mnemoChart.currentDevicePixelRatio;
        return [big, Math.round(at(x, arguments[1]) * dpr), Math.round(at(y, arguments[0]) * dpr)]""",
        cell[0],
        cell[1],
        which,
    )
    return opened.pixel(big, left, upper)


@pytest.mark.parametrize("width", [1100, 390])
def test_circuitsvis_is_drawn_with_every_label_twice_on_a_page(open_page, width):
    views = [view_of(4, 8), view_of(3, 8)]
    opened = open_page(page(views, "two plots"), width)
    assert opened.seconds < 20
    batch = prompts(8)
    n = batch.n_pos
    assert [len(m.find_elements("css selector", "canvas")) for m in opened.all(".mount")] == [5, 4]  # none was wiped
    for which in (0, 1):
        assert chart(opened, (20, 19), which) == [0, 0, 255]
        assert chart(opened, (20, 10), which) == [255, 255, 255]
        ticks = opened.js(
            """const plot = document.querySelectorAll('.mount')[arguments[0]];
            const big = [...plot.querySelectorAll('canvas')].at(-1);
            return ['x', 'y'].map((a) => big.mnemoChart.scales[a].ticks.map((t) => t.label))""",
            which,
        )
        labels = [f"{token} ({pos})" for pos, token in enumerate(batch.symbols())]
        assert ticks == [labels, labels[::-1]] or ticks == [labels, labels]
    opened.js("document.querySelectorAll('.mount [role=button]')[1].click()")
    time.sleep(0.2)  # React draws a little later
    assert opened.said.startswith(f"Layer 1, head 1: from {batch.name(n - 2)} to {batch.name(n - 3)}: 0.000")
    assert chart(opened, (20, 0)) == [0, 0, 255]
    opened.js(KEY, opened.all(".mount [role=button]")[0], "Enter")
    time.sleep(0.2)  # React draws a little later
    assert opened.said.startswith("Layer 1, head 0")
    opened.all("button.token")[20].click()
    assert f"from {batch.name(20)} to {batch.name(19)}: 1.000" in opened.said
    big = opened.js("return [...document.querySelector('.mount').querySelectorAll('canvas')].at(-1)")
    opened.js(KEY, big, "ArrowLeft")
    assert f"from {batch.name(20)} to {batch.name(18)}: 0.000" in opened.said
    opened.js(KEY, big, "ArrowUp")
    assert f"from {batch.name(19)} to {batch.name(18)}: 1.000" in opened.said
    assert opened.js("return document.documentElement.scrollWidth") <= width
    opened.assert_quiet()


def test_without_our_default_circuitsvis_drops_labels(open_page):
    html = page([view_of(2, 10)], "42 tokens")
    count = "return [...document.querySelectorAll('canvas')].at(-1).mnemoChart.scales.x.ticks.length"
    assert open_page(html, 390).js(count) == 42
    assert open_page(html.replace("autoSkip: false", "autoSkip: true"), 390).js(count) < 42


@pytest.mark.parametrize("viewer", ["circuitsvis", "strip"])
def test_a_row_shows_every_token_and_tells_it(open_page, viewer):
    batch = nasty()
    row = torch.zeros(batch.n_pos)
    row[3], row[5] = 2.0, -1.0
    opened = open_page(page([tokens(row, batch, 0, 13, viewer=viewer)], "row"))
    shown = opened.all(".colored-tokens > span > span" if viewer == "circuitsvis" else "button.token")
    assert [s.text.replace(JOINER, "") for s in shown][: len(NASTY)] == NASTY
    assert opened.said == f'from {batch.name(13)} to {batch.name(3)}: +2.000 ("quoted")'
    colours = opened.js(
        """return arguments[0].map((s) => getComputedStyle(s).backgroundColor.match(/[0-9]+/g)
        .map(Number))""",
        shown,
    )
    assert colours[3][2] - colours[3][0] > 50
    assert colours[5][0] - colours[5][2] > 50
    assert max(colours[4][:3]) - min(colours[4][:3]) < 10
    shown[5].click()
    assert opened.said == f"from {batch.name(13)} to {batch.name(5)}: \u22121.000 (&lt;)"
    opened.js(KEY, opened.all("[tabindex='0']")[0], "ArrowLeft")
    assert f"to {batch.name(4)}: 0.000 (<!--)" in opened.said
    opened.assert_quiet()


def test_views_of_all_kinds_as_a_notebook_shows_them(open_page):
    """Each brings its script along, in any order, and again."""
    row = planted(1, 34)[0, 0, 20]
    kinds = [
        view_of(3, 8),
        view_of(3, 8, viewer="canvas"),
        tokens(row, prompts(8), 0, 20),
        tokens(row, prompts(8), 0, 20, viewer="strip"),
        view_of(3, 20),
        view_of(2, 8),
    ]
    opened = open_page("<!DOCTYPE html><meta charset=utf-8><body>" + "".join(v._repr_html_() for v in kinds))
    assert len(opened.all(".said")) == len(kinds)
    assert not any(still.is_displayed() for still in opened.all(".still"))
    assert len(opened.all("style[data-mnemo-attention]")) == 1
    opened.assert_quiet()


@pytest.mark.parametrize("viewer", ["circuitsvis", "canvas"])
def test_where_the_live_view_cannot_be_drawn_the_still_picture_stays(open_page, viewer):
    gone = "<script>delete window.DecompressionStream</script>"
    view = view_of(3, 8, viewer=viewer)
    html = page([view], "old").replace("CircuitsVis.render(place.id", "CircuitsVis.nothing(place.id")
    opened = open_page(html.replace("<title>", f"{gone}<title>"), state="failed")
    assert opened.one(".still").is_displayed()
    assert "cannot draw" in opened.one(".mnemo-attention").text


def test_in_the_dark_text_is_light_on_dark_everywhere(open_page):
    row = tokens(torch.randn(34, generator=torch.Generator().manual_seed(0)), prompts(8), 0, 30)
    opened = open_page(page([view_of(4, 8), view_of(12, 20), row], "dark"), dark=True)
    for i, root in enumerate(opened.all(".mnemo-attention")):
        ground, ink = opened.js(
            """const s = getComputedStyle(arguments[0]);
            return [s.backgroundColor, s.color].map((c) => c.match(/[0-9]+/g).slice(0, 3).map(Number))""",
            root,
        )
        assert light(ground) < 40
        assert light(ink) > 200
        seen = np.asarray(opened.picture(root)).astype(int).sum(-1) / 3
        if i < 2:  # circuitsvis's white is turned; its coloured tokens keep their own ground and ink
            assert (seen < 110).mean() > 0.8
    opened.assert_quiet()


@pytest.mark.parametrize("viewer", ["circuitsvis", "canvas"])
def test_token_strings_without_roles_are_drawn(open_page, viewer):
    words = ["<s>", "When", " Mary", " and", " John"]
    view = attention(planted(2, 5)[0].numpy(), tokens=words, viewer=viewer)
    opened = open_page(page([view, tokens([0.0, 1.0, -1.0, 0.5, 0.0], words)], "text"))
    assert opened.all(".said")[0].text == "Head 0: from pos 4 to pos 3: 1.000 ( John to  and)".replace("  ", " ")
    assert opened.all(".said")[1].text.startswith("pos 1: +1.000")
    assert not opened.all(".legend li")
    opened.assert_quiet()
