"""Pages: names stay text, charts have their tables, nothing is loaded from anywhere."""

from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss_cli.report.charts import Line, bars, chart, matrix, steps, thinned
from wsss_cli.report.html import Html, node, page, picture, table


class Reader(HTMLParser):
    """Elements, texts and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.attributes = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1))
def test_any_name_stays_text(name):
    read = Reader(node("p", name, title=name))
    assert read.elements == ["p"]
    assert "".join(read.texts) == name
    assert dict(read.attributes)["title"] == name


@given(st.text())
def test_whatever_a_name_holds_no_element_comes_of_it(name):
    read = Reader(page(name, [node("p", name), table((name,), [(name,)]), bars([name], {name: [1.0]}, name)]))
    assert not {"script", "iframe", "object", "link"} & set(read.elements)
    assert read.elements.count("html") == read.elements.count("body") == 1
    assert not any(key.startswith("on") for key, _ in read.attributes)


def test_bidi_and_control_characters_are_shown():
    assert "\u202e" not in node("p", "a\u202eb") and "\x1b" not in node("p", "a\x1b[31m")


def test_a_page_loads_nothing():
    text = page("t", [picture(np.zeros((4, 6, 3), np.uint8), "black")])
    read = Reader(text)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in read.attributes
    sources = [value for key, value in read.attributes if key in ("src", "href")]
    assert sources and all(value.startswith("data:") for value in sources)


def test_markup_is_taken_as_it_is_and_only_that():
    assert node("p", Html("<b>x</b>"), "<b>") == "<p><b>x</b>&lt;b&gt;</p>"


def test_a_chart_has_the_figures_in_its_table():
    text = chart([Line("loss", [1, 2, 3], [0.5, None, 0.25])], "t", "iteration", "loss")
    cells = [one for one in Reader(text).texts if one.strip()]
    assert cells[-6:] == ["1", "0.5", "2", "-", "3", "0.25"]
    assert "nothing was measured" in chart([Line("loss", [1], [None])], "t", "x", "y")


def test_a_long_line_is_thinned_to_means():
    line = thinned(Line("x", list(range(1000)), [float(value) for value in range(1000)]))
    assert len(line.x) == 334
    assert line.y[0] == pytest.approx(1.0) and line.x[-1] == 999


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 100), (0, 0.034), (-3, 4), (30, 80), (5, 5), (0, 0)])
def test_steps_are_few_and_cover(low, high):
    ticks = steps(low, high)
    assert 2 <= len(ticks) <= 9 and ticks[0] <= low and ticks[-1] >= high - 1e-9


def test_bars_of_no_value_are_empty_and_said():
    text = bars(["cat"], {"IoU": [None]}, "t")
    assert "width:0.00%" in text and ">-<" in text


def test_a_matrix_is_in_per_cent_of_the_truth_and_many_classes_are_a_list():
    confusion = np.zeros((4, 4), np.int64)
    confusion[0, :2] = (30, 10)
    confusion[1, 3] = 5
    texts = Reader(matrix(confusion, ["background", "cat", "dog"])).texts
    assert {"75.0", "25.0", "100.0", "none"} <= set(texts)
    many = np.diag(np.full(51, 7))
    many[3, 4] = 21
    texts = Reader(matrix(many, [f"c{number}" for number in range(50)])).texts
    assert texts[-3:] == ["c3", "c4", "75.0"]


def test_a_curve_of_one_point_shows_it():
    lonely = str(chart([Line("loss", [3], [1.5])], "loss", "iteration", "loss"))
    assert lonely.count("<circle") == 1
    assert "<circle" not in str(chart([Line("loss", [3, 4], [1.5, 1.0])], "loss", "iteration", "loss"))
