"""The page of a run: from directories as stages leave them, with a stand-in for the trained network."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_runs import copy_without_masks

from wsss_cli.data.dataset import Sample
from wsss_cli.errors import UsageError
from wsss_cli.stages.examples import spread
from wsss_cli.stages.report import write_report


class Reader(HTMLParser):
    """Headings, captions and warnings of a page; pictures are counted."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.pictures = [], 0
        self.feed(text)
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.pictures += tag == "img"

    def handle_data(self, data):
        self.texts.append(data.strip())


def read(home, out, ctx, *names, **options):
    write_report([home / "runs" / name for name in names], out, ctx, **options)
    return Reader(out.read_text(encoding="utf-8"))


def test_a_training_has_its_lineage_scores_curves_and_photographs(home, tmp_path, ctx):
    page = read(home, tmp_path / "x.html", ctx, "train-toy-3", photographs=2)
    for expected in ("IoU by class", "Where it comes from", "loss, train", "Confusion", "Time and memory", "Commands"):
        assert expected in page.texts
    assert {"cam-toy-1", "pseudo-toy-2", "train-toy-3"} <= set(page.texts)
    assert "weak supervision" in page.text and "on val" in page.texts and "2.5 GiB" in page.texts
    assert "31.25 at 0.50" in page.texts
    assert "Validation photographs: the worst" in page.texts
    assert "seed: 0 -> 3" in page.text  # the masks were made with another one
    # 2 worst, 2 best, 2 of all: image, prediction, truth, errors; 2 of training: image, CAM, mask, truth, errors
    assert page.pictures == 6 * 4 + 2 * 5


def test_what_was_lost_is_named_and_is_no_markup(home, tmp_path, ctx):
    write_report([home / "runs/pseudo-toy-2"], tmp_path / "x.html", ctx)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "unreadable &lt;b&gt;" in text and "1 photograph was lost" in text
    assert "No scores" in text


def test_two_trainings_stand_beside_each_other_with_an_interval(home, tmp_path, ctx):
    page = read(home, tmp_path / "x.html", ctx, "train-toy-3", "train-toy-4", photographs=1)
    assert "train-toy-4 - train-toy-3" in page.texts
    row = page.texts[page.texts.index("train-toy-4 - train-toy-3") :]
    assert float(next(cell for cell in row[1:] if cell)) > 5
    assert "seed: 3 -> 4" in page.text and "Validation photographs: train-toy-4 is ahead" in page.texts


def test_runs_of_different_stages_are_refused(home, tmp_path, ctx):
    with pytest.raises(UsageError, match="cam, train"):
        write_report([home / "runs/train-toy-3", home / "runs/cam-toy-1"], tmp_path / "x.html", ctx)


def test_a_folder_in_place_of_the_page_is_refused_before_any_work(home, tmp_path, ctx):
    with pytest.raises(UsageError, match="is a folder"):
        write_report([home / "runs/train-toy-3"], tmp_path, ctx)


def test_runs_and_data_that_are_gone_are_said(home, tmp_path, ctx):
    shutil.copytree(home, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/runs/cam-toy-1")
    (tmp_path / "copy/runs/pseudo-toy-2/inputs.json").write_text(
        (home / "runs/pseudo-toy-2/inputs.json").read_text().replace(str(home), str(tmp_path / "gone"))
    )
    page = read(tmp_path / "copy", tmp_path / "x.html", ctx, "pseudo-toy-2")
    assert "cam-toy-1" in page.texts and "is no run directory" in page.text
    assert page.pictures == 0


def test_without_true_masks_tags_are_compared(home, tmp_path, ctx, monkeypatch):
    copy_without_masks(home, tmp_path / "copy")
    heard = []
    monkeypatch.setattr(ctx.ui, "say", heard.append)
    page = read(tmp_path / "copy", tmp_path / "x.html", ctx, "train-toy-3", photographs=2)
    assert heard == [
        "no true masks for validation; "
        "in 0 of 6 training photographs the network finds exactly the tagged classes (0 %)",
    ]
    assert "Predictions and tags" in page.texts and "No true masks for validation." in page.text
    assert "The least sure photographs" in page.texts and "found where not tagged" in page.texts


def test_examples_of_a_long_list_are_chosen_without_reading_all_of_it():
    class Long(list):
        read = 0

        def __getitem__(self, at):
            Long.read += 1
            return super().__getitem__(at)

        def __iter__(self):
            raise AssertionError("all of it was read")

    samples = Long(Sample(f"{n}", Path("x"), None, (1, 2) if n % 3 == 0 else (1,)) for n in range(10_000))
    chosen = spread(samples, 6)
    assert [len(sample.labels) for sample in chosen] == [2, 2, 2, 1, 1, 1]
    assert Long.read <= 6 * 32
    assert int(chosen[0].id) < 3_000 < 7_000 < int(chosen[2].id)
