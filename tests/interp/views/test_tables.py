"""Head tables: shape, order, safety; sorted and filtered in a browser."""

import re

import pandas
import pytest

from interp.views.tables import head_table
from interp.views.view import page
from tests.interp.views.pages import Page, open_browser

LONG = pandas.DataFrame(
    [
        (layer, head, role, statistic, None if role == "start" else (layer + head + k) / 10, 5)
        for layer in range(2)
        for head in range(3)
        for role in ("start", "output label")
        for k, statistic in enumerate(("matching_label", "sink_rate"))
    ],
    columns=["layer", "head", "role", "statistic", "value", "n"],
)


def cells(view) -> list[list[str]]:
    body = view.live[view.live.index("<tbody>") :]
    return [re.findall(r"<t[dh][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]


def test_a_long_table_becomes_a_row_for_each_head_and_role_the_largest_first():
    rows = cells(head_table(LONG))
    assert rows[0] == ["L1H2", "output label", "0.300", "0.400"]
    assert len(rows) == 12
    assert rows[-1][2:] == ["-", "-"]  # what was not measured is last


def test_the_column_to_sort_by_is_chosen_by_name():
    rows = [{"head": "L0H0", "a": 1.0, "b": 2.0}, {"head": "L0H1", "a": 2.0, "b": 1.0}]
    assert cells(head_table(rows, sort="b"))[0][0] == "L0H0"
    with pytest.raises(ValueError, match="columns of numbers are a, b"):
        head_table(rows, sort="c")
    for bad in ([], [{"head": "L0H0"}], [{"head": "x", "a": 1}, {"head": "y"}]):
        with pytest.raises(ValueError, match=r"no rows|no column of numbers|rows differ"):
            head_table(bad)


def test_the_still_picture_has_the_strongest_rows_and_says_of_how_many():
    many = [{"head": f"L{k}H0", "mass": k / 100} for k in range(40)]
    text = head_table(many).still.decode()
    assert ">L39H0<" in text
    assert ">L23H0<" not in text
    assert "The 16 rows of 40" in text
    assert len(text) < 150_000


def test_words_are_escaped():
    view = head_table([{"head": "<script>", "<b>": 1.0}, {"head": "&", "<b>": 0.5}], title="<i>")
    assert "<b>" not in view.live + view.still.decode()
    assert view.live.count("<script>") == 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("wide", [1100, 390])
def test_sorting_and_filtering(browser, tmp_path, wide):
    found = Page(browser, tmp_path / "t.html", page([head_table(LONG), head_table(LONG)], "t"), wide)
    first = "return [...document.querySelectorAll('tbody tr:not([hidden])')][0].cells[0].textContent"
    assert found.js(first) == "L1H2"
    found.one("thead th.number button").click()
    assert found.js(first) == "L0H0"
    assert found.one("thead th.number").get_attribute("aria-sort") == "ascending"
    assert (
        found.js(
            "return [...document.querySelectorAll('.mnemo-table')][0].querySelector('tbody tr:last-child')"
            ".cells[2].textContent"
        )
        == "-"
    )
    found.js("const s = document.querySelectorAll('select')[1]; s.value = 'start'; s.dispatchEvent(new Event('input'))")
    assert found.text("[role=status]") == "showing 6 of 12 rows"
    found.one("input").send_keys("l1h")
    assert found.text("[role=status]") == "showing 3 of 12 rows"
    assert found.js("return document.querySelectorAll('[role=status]')[1].textContent") == "showing 12 of 12 rows"
    assert found.js("return document.documentElement.scrollWidth") <= wide
    assert found.quiet()
