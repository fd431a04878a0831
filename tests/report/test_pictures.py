"""Pictures: colours and places where they can be computed."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsss_cli.errors import WriteError
from wsss_cli.report import pictures
from wsss_cli.report.pictures import error_map, heatmap, overlay, sheet, text_width, write_picture, write_texts

COLORS = ((0, 0, 0), (200, 0, 0), (0, 100, 0))
GREY = np.full((40, 60, 3), 100, np.uint8)


def test_overlay_tints_classes_and_leaves_background() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:30] = 1
    mask[10:30, 40:55] = 255
    picture = overlay(GREY, mask, COLORS, alpha=0.5)
    assert picture[20, 20].tolist() == [150, 50, 50]
    assert picture[2, 2].tolist() == [100, 100, 100]
    assert picture[20, 48].tolist() == [162, 162, 146]
    assert picture[10, 20].tolist() not in ([150, 50, 50], [100, 100, 100])  # the outline
    assert (GREY == 100).all()


def test_overlay_enlarges_a_mask_and_skips_unknown_classes() -> None:
    picture = overlay(GREY, np.array([[0, 2], [7, 7]], np.uint8), COLORS, alpha=1.0)
    assert picture[10, 45].tolist() == [0, 100, 0]
    assert picture[35, 30].tolist() == [100, 100, 100]


def test_an_error_map_tells_what_is_missed_false_and_confused() -> None:
    mask = np.array([[0, 1, 1, 2, 255, 1]], np.uint8)
    truth = np.array([[1, 0, 1, 1, 1, 255]], np.uint8)
    picture = error_map(np.full((1, 6, 3), 100, np.uint8), mask, truth)[0].tolist()
    right = [160, 160, 160]
    missed, false, confused = [0, 114, 178], [230, 159, 0], [204, 121, 167]
    assert picture == [missed, false, right, confused, missed, right]


def test_heatmap_is_warm_where_the_score_is_high() -> None:
    picture = heatmap(GREY, np.array([[0.0, 1.0]], np.float32)).astype(int)
    assert picture.shape == GREY.shape
    assert picture[20, 58, 0] > picture[20, 58, 2] + 50
    assert picture[20, 2, 2] > picture[20, 2, 0]
    assert picture[20, 58].sum() > picture[20, 2].sum()  # lighter, for those who see no hue


def test_heatmap_takes_scores_outside_the_range() -> None:
    picture = heatmap(GREY, np.array([[np.nan, 7.0]], np.float32))
    assert (picture[:, -1] == heatmap(GREY, np.ones((1, 1), np.float32))[:, -1]).all()


def test_sheet_places_cells_at_equal_height() -> None:
    red, blue = np.zeros((10, 20, 3), np.uint8), np.zeros((400, 200, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    picture = sheet([[red, blue], [None, blue]], ["image", "truth"], cell_height=100)
    reds, blues = (picture == (255, 0, 0)).all(2), (picture == (0, 0, 255)).all(2)
    assert reds.sum() == 100 * 200
    assert blues.sum() == 2 * 100 * 50
    top = np.flatnonzero(reds.any(1))[0]
    assert np.flatnonzero(blues.any(1))[0] == top
    assert (picture[:top] < 128).any()  # the titles
    assert (picture[:, :10] == 255).all()  # a white margin


def test_a_white_picture_has_an_edge_on_a_sheet() -> None:
    picture = sheet([[np.full((100, 60, 3), 255, np.uint8)]], ["sure"], cell_height=100)
    assert (picture == (228, 228, 228)).all(2).sum() == 2 * (100 + 60) + 4


def test_sheet_with_row_titles_and_legend_is_taller_and_shows_colours() -> None:
    cells = [[GREY, GREY]]
    plain = sheet(cells, ["a", "b"], cell_height=100)
    full = sheet(
        cells, ["a", "b"], row_titles=["one"], legend=[("cat", (200, 0, 0)), ("ä" * 200, (0, 100, 0))], cell_height=100
    )
    assert full.shape[0] > plain.shape[0] + 22
    assert full.shape[1] == plain.shape[1]
    assert (full == (200, 0, 0)).all(2).sum() == 14 * 14
    assert (full == (0, 100, 0)).all(2).sum() == 14 * 14


def test_sheet_refuses_rows_of_another_length() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        sheet([[GREY]], ["a", "b"])


def test_png_holds_the_colours_and_is_whole_or_absent(tmp_path: Path) -> None:
    write_picture(tmp_path / "new" / "p.png", np.full((2, 3, 3), (1, 2, 3), np.uint8))
    assert cv2.imread(str(tmp_path / "new" / "p.png"))[0, 0].tolist() == [3, 2, 1]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["p.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_picture(tmp_path / "file" / "p.png", GREY)


def test_names_in_letters_of_other_languages_are_drawn(monkeypatch):
    def drawn(text):
        return write_texts(np.full((40, 120, 3), 255, np.uint8), [((4, 20), text, 20, (0, 0, 0), "lm")])

    accented = drawn("dogs \u00e9")
    assert (accented != drawn("dogs \u0180")).any()  # not the one box of a font without both
    monkeypatch.setattr(pictures, "_wide_font", lambda size: None)
    assert (drawn("dogs \u00e9") == drawn("dogs e")).all() and text_width("\u00e9", 14) == text_width("e", 14)
    assert (drawn("\u732b") == drawn("?")).all()


def test_an_overlay_takes_little_memory_beside_the_picture() -> None:
    image, mask = np.full((1500, 2000, 3), 100, np.uint8), np.ones((1500, 2000), np.uint8)
    tracemalloc.start()
    picture = overlay(image, mask, [(0, 0, 0), (200, 0, 0)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * mask.size, "in floating point the whole picture alone takes 24 bytes a pixel, and twice"
    assert (picture[700:800, 900:1000] == (150, 50, 50)).all()


def test_a_very_wide_picture_is_a_strip_in_its_cell() -> None:
    wide, tall = np.full((2, 9000, 3), 7, np.uint8), np.zeros((9000, 2, 3), np.uint8)
    picture = sheet([[wide], [tall]], ["image"], cell_height=50)
    assert picture.shape[1] < 500 and (picture == 7).any()
