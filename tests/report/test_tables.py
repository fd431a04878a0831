"""Tables: what is shown on a terminal, off it, and in files."""

import csv
import io
import json
import re

import pytest

from wsss_cli.report.tables import Table, class_table, curve_table, print_table, truth_lines, value_table

RESULT = {
    "classes": ["background", "[bold]cat[/bold]"],
    "iou": [91.234, None],
    "acc": [95.0, None],
    "miou": 91.234,
    "macc": 95.0,
    "aacc": 94.5,
    "protocol": "val, 10 images",
}
CURVE = {
    "thresholds": [step / 100 for step in range(100)],
    "miou": [float(40 - abs(step - 33)) if step < 70 else 0.0 for step in range(100)],
    "fp": [float(100 - step) for step in range(100)],
    "fn": [None] * 100,
    "best_threshold": 0.33,
    "protocol": "train, 10 images",
}


def test_plain_is_aligned_and_ends_with_the_protocol() -> None:
    assert class_table({"single scale": RESULT}, "val").to_plain() == (
        "val\n"
        "class               IoU    Acc\n"
        "----------------  -----  -----\n"
        "background        91.23  95.00\n"
        "[bold]cat[/bold]      -      -\n"
        "----------------  -----  -----\n"
        "mean              91.23  95.00\n"
        "aAcc 94.50\n"
        "val, 10 images\n"
    )


def test_several_results_have_two_columns_each() -> None:
    table = class_table(
        {"single scale": RESULT, "ms+flip": {**RESULT, "iou": [92.0, 1.0], "miou": 46.5}}, notes=["subset"]
    )
    assert table.columns == ("class", "single scale IoU", "Acc", "ms+flip IoU", "Acc")
    assert table.rows[1] == ("[bold]cat[/bold]", "-", "-", "1.00", "-")
    assert table.footer == ("mean", "91.23", "95.00", "46.50", "95.00")
    assert table.notes[1] == "single scale: val, 10 images"
    assert table.notes[-1] == "subset"


def test_terminal_shows_names_as_they_are() -> None:
    shown = io.StringIO()
    print_table(class_table({"single scale": RESULT}), shown, is_terminal=True)
    assert "[bold]cat[/bold]" in shown.getvalue()
    assert "91.23" in shown.getvalue()
    assert "\x1b[" in shown.getvalue()


@pytest.mark.parametrize("columns", [1, 24])
def test_a_terminal_too_narrow_for_columns_shows_all_cells_all_the_same(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = io.StringIO()
    print_table(class_table({"single scale": RESULT}), shown, is_terminal=True)
    assert "[bold]cat[/bold]" in shown.getvalue()
    assert "91.23" in shown.getvalue()


def test_no_color_on_a_terminal_and_no_escapes_off_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    colourless, plain = io.StringIO(), io.StringIO()
    table = value_table([("seed mIoU", 51.5)])
    print_table(table, colourless, is_terminal=True)
    assert "\x1b[3" not in colourless.getvalue()
    print_table(table, plain)
    assert plain.getvalue() == table.to_plain()


def test_control_characters_cannot_reach_the_terminal() -> None:
    table = Table("a\x1b[2J", ("class",), (("cat\x1b[31m\n",),), notes=("\x07",))
    assert table.to_plain() == "a\\u001b[2J\nclass\n---------------\ncat\\u001b[31m\\n\n\\u0007\n"
    shown = io.StringIO()
    print_table(table, shown, is_terminal=True)
    assert "\x1b[31m" not in shown.getvalue()
    assert "cat\\u001b[31m\\n" in shown.getvalue()


def test_wide_characters_stay_aligned() -> None:
    lines = Table("", ("class", "IoU"), (("猫", "1.00"), ("cat", "2.00"))).to_plain().splitlines()
    assert lines[2:] == ["猫     1.00", "cat    2.00"]


def test_markdown_escapes_cells() -> None:
    table = Table("t", ("class", "IoU"), (("a|b_c", "1"),), ("mIoU", "1"), ("note",))
    assert table.to_markdown() == (
        "**t**\n\n| class | IoU |\n| :-- | --: |\n| a\\|b\\_c | 1 |\n| **mIoU** | **1** |\n\nnote\n"
    )


def test_csv_and_json_hold_the_cells() -> None:
    table = Table("t", ("class", "IoU"), (('a,"b"', "1.00"),), ("mIoU", "1.00"), ("note",))
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [["class", "IoU"], ['a,"b"', "1.00"], ["mIoU", "1.00"]]
    assert json.loads(table.to_json())["rows"] == [['a,"b"', "1.00"]]


def test_values_have_two_decimals_and_no_head() -> None:
    rows = [("seed mIoU", 51.256), ("images", 1234), ("ratio", None), ("device", "CPU")]
    assert value_table(rows, notes=["end"]).to_plain() == (
        "seed mIoU  51.26\nimages     1,234\nratio          -\ndevice       CPU\nend\n"
    )


def test_curve_has_twenty_steps_and_its_best() -> None:
    table = curve_table(CURVE)
    assert [row[0] for row in table.rows][5:9] == ["0.25", "0.30", "0.33", "0.35"]
    assert len(table.rows) == 21
    assert table.rows[7] == ("0.33", "40.00", "67.00", "-", "#" * 24 + " best")
    assert table.rows[0] == ("0.00", "7.00", "100.00", "-", "####")
    assert table.rows[-1][4] == ""
    assert table.notes == ("train, 10 images",)
    assert curve_table({**CURVE, "protocol": ["train", "subset"]}).notes == ("train", "subset")


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("", ("a", "b"), (("1",),))
    with pytest.raises(ValueError, match="no results"):
        class_table({})


def test_over_and_under_activation_have_columns_and_the_undecided_share_a_line() -> None:
    scores = {**RESULT, "fp": [3.0, 12.5], "fn": [5.0, None], "mfp": 12.5, "mfn": None, "undecided_share": 0.249}
    table = class_table({"255 as background": scores, "255 left out": scores}, metrics=("iou", "fp", "fn"))
    assert table.columns[1:4] == ("255 as background IoU", "FP", "FN")
    assert table.rows[1][1:4] == ("-", "12.50", "-")
    assert table.footer[1:4] == ("91.23", "12.50", "-")
    assert [note for note in table.notes if "undecided" in note] == ["undecided (255): 24.90 %"]


def test_what_of_the_truth_is_not_scored_stands_under_the_table() -> None:
    scores = {"classes": ["background", "cat", "dog"], "label": [3, 0, 0], "unscored_share": 0.25}
    assert truth_lines(scores) == ["unscored (255 in the truth): 25.00 %", "never in the truth: cat, dog"]
    assert truth_lines({"classes": ["background"], "label": [3], "unscored_share": 0.0}) == []


@pytest.mark.parametrize(("width", "apart"), [(60, True), (200, False)])
def test_rows_that_do_not_fit_a_terminal_are_taken_apart(
    monkeypatch: pytest.MonkeyPatch, width: int, apart: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    heads = ("method", "backbone", "data", "fps", "device", "mIoU (ms+flip)")
    row = ("DeepLabV3+", "tf_efficientnet_lite0-D16", "voc-animals", "-", "NVIDIA-H100-80GB-HBM3", "71.23")
    table = Table("all", heads, (row, row), notes=("note",))
    assert table.fits(width) == (not apart)
    shown = io.StringIO()
    print_table(table, shown, is_terminal=True)
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).strip() for line in shown.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert (lines.count("backbone         tf_efficientnet_lite0-D16") == 2) == apart
    assert any("fps" in line for line in lines) == (not apart)  # it says nothing
    assert (lines[0], lines[-1]) == ("all", "note")


@pytest.mark.parametrize("width", [48, 60])
def test_names_stay_whole_beside_text_where_they_fit(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    name = "runs/train-toy-1a2b3c4d"
    shown = io.StringIO()
    table = Table("", ("run", "made", "mIoU"), ((name, "on 2026-11-27 at 16:57", "71.23"),), left=frozenset({0, 1}))
    print_table(table, shown, is_terminal=True)
    assert name in shown.getvalue()
    assert "71.23" in shown.getvalue()
