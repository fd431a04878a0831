"""Labels of several kinds on one photograph: which counts where, by hand; and through the command."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.joined import Joined, join, part_place, read_parts
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.drawn import drawn
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.data.trusted import add_trusted, read_trusted
from wsss_cli.errors import DataError

O = 255  # noqa: E741 open


def maps(**kinds):
    return {kind: np.array([values], np.uint8) for kind, values in kinds.items()}


@pytest.mark.parametrize(
    ("kinds", "expected", "overruled", "contradictions"),
    [
        # each says of one pixel what no other says
        ({"mask": [1, O, O, O], "scribbles": [O, 2, O, O], "points": [O, O, 3, O]}, [1, 2, 3, O], 0, 0),
        # a mask before a scribble, a scribble before a point; what agrees is no matter
        ({"mask": [1, 1, O], "scribbles": [2, 1, 2], "points": [3, 1, 3]}, [1, 1, 2], 3, 0),
        # a scribble and a partial map: what they contradict is open, also for points and boxes, but not for a mask
        (
            {"partial": [1, 1, O, 1], "scribbles": [2, 1, 2, 2], "points": [1, 1, 1, O], "boxes": [0, 0, 0, 0]},
            [O, 1, 2, O], 1, 2,
        ),
        ({"mask": [1, O], "partial": [1, 1], "scribbles": [2, 2]}, [1, O], 0, 1),
        # anything drawn before the background and the inside of boxes, which nobody drew, so that it is not counted
        ({"boxes": [0, 0, 4, O], "scribbles": [2, O, O, 3]}, [2, 0, 4, 3], 0, 0),
        ({"boxes": [0, 0, 4, O], "points": [O, 2, 3, O]}, [0, 2, 3, O], 0, 0),
        # a whole mask says of its 255 that it is undecided: boxes do not decide it
        ({"mask": [1, O, O], "boxes": [0, 0, 4], "points": [O, O, 2]}, [1, O, 2], 0, 0),
    ],
)  # fmt: skip
def test_which_kind_counts_where(kinds, expected, overruled, contradictions):
    counts = Joined()
    for order in (kinds, dict(reversed(kinds.items()))):  # which came first is no matter
        counts = Joined()
        assert join(maps(**order), counts).tolist() == [expected]
        assert counts == Joined(1, overruled, contradictions)


@pytest.fixture
def dataset(tmp_path):
    prepare_toy(tmp_path / "toy", images=4, val=2, size=64)
    return open_dataset(tmp_path / "toy")


def add(dataset, kind, labels, place=0, **more):
    sample = dataset.split("train")[place]
    return add_trusted(dataset, [(sample, sample.mask, labels)], kind, f"{kind} by hand", **more).of(sample.id)


def lines(value, *rows):
    labels = np.full((64, 64), O, np.uint8)
    labels[list(rows)] = value
    return labels


def test_kinds_are_joined_and_one_takes_the_place_of_itself_alone(dataset):
    assert add(dataset, "scribbles", lines(1, 0)).kind == "partial"
    labels = add(dataset, "points", lines(2, 0, 5))
    assert labels.kind == "partial" and labels.entry.source == "scribbles by hand and points by hand"
    assert (labels.read()[[0, 5, 6], 0] == [1, 2, O]).all()
    labels = add(dataset, "scribbles", lines(3, 9))  # in place of the first ones
    assert (labels.read()[[0, 5, 9], 0] == [2, 2, 3]).all()
    labels = add(dataset, "mask", lines(0, 5, 7))
    assert labels.kind == "mask" and (labels.read()[[0, 5, 7, 9], 0] == [2, 0, 0, 3]).all()
    assert set(read_parts(labels.file.parent)[dataset.split("train")[0].id]) == {"mask", "scribbles", "points"}
    labels = add(dataset, "boxes", lines(0, *range(64)), clear=True)
    assert labels.kind == "partial" and not labels.read().any()
    assert [file.name for file in labels.file.parent.rglob("*.png")] == [labels.file.name]


def test_labels_that_were_added_before_kinds_were_noted_are_joined_as_what_they_are(dataset):
    first = add(dataset, "partial", lines(1, 0))
    (first.file.parent / ".parts/index.csv").unlink()
    labels = add(dataset, "points", lines(2, 0, 5))
    assert (labels.read()[[0, 5], 0] == [1, 2]).all() and labels.kind == "partial"


def test_other_photographs_keep_their_fingerprint(dataset):
    before = add(dataset, "scribbles", lines(1, 0), place=1).entry
    add(dataset, "points", lines(2, 0, 5))
    after = read_trusted(dataset.root).entries[dataset.split("train")[1].id]
    assert before == after


@pytest.mark.parametrize("number", range(8))
def test_an_addition_that_was_killed_is_made_whole_by_the_same_command(dataset, monkeypatch, number):
    """Before each of the six files is put in its place, and before each of both indexes is written."""
    chosen = dataset.split("train")[:2]
    for place in (0, 1):
        add(dataset, "scribbles", lines(1, 0), place)
    points, writes = [(one, one.mask, lines(2, 0, 5)) for one in chosen], []
    replace = type(dataset.root).replace

    def killed(path, target):
        if ".trusted.new" not in target.parts:
            writes.append(target)
            if len(writes) > number:
                raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(dataset.root), "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            add_trusted(dataset, points, "points", "p")
    assert len(writes) == number + 1
    after = add_trusted(dataset, points, "points", "p")
    for one in chosen:
        labels = after.of(one.id)
        assert labels.entry.source == "scribbles by hand and p" and (labels.read()[[0, 5], 0] == [1, 2]).all()


def test_a_part_that_was_changed_by_hand_is_not_believed(dataset):
    add(dataset, "scribbles", lines(1, 0))
    labels = add(dataset, "points", lines(2, 5))
    before = labels.read()
    write_mask(part_place(labels.file.parent, labels.file.stem, "scribbles"), lines(2, 9), dataset.colors)
    with pytest.raises(DataError, match=r"the scribbles of train_000000 in .* are not those that its index says"):
        add(dataset, "points", lines(2, 7))
    assert (read_trusted(dataset.root).of(labels.file.stem).read() == before).all()


@pytest.mark.parametrize("text", ["id,kind\n", "id,kind,sha256,source\na,sketch,x,y\n", "id,kind,sha256,source\na\n"])
def test_a_damaged_index_of_kinds_is_one_line(dataset, text):
    folder = add(dataset, "scribbles", lines(1, 0)).file.parent
    (folder / ".parts/index.csv").write_text(text)
    with pytest.raises(DataError, match=r"\.parts/index\.csv"):
        add(dataset, "points", lines(2, 5))


def test_two_commands_join_what_they_add(dataset, tmp_path):
    samples = dataset.split("train")
    for kind in ("scribbles", "partial"):
        for number, sample in enumerate(samples[:3]):
            labels = drawn(read_mask(sample.mask), "scribbles", 0)
            if kind == "partial":
                labels[labels != O] = 1 if number == 0 else 255  # one photograph contradicts, two say nothing
                labels[60] = 0
            write_mask(tmp_path / kind / f"{sample.id}.png", labels, dataset.colors)

    def run(*arguments):
        done = CliRunner().invoke(app, ["prepare", "labels", str(dataset.root), *map(str, arguments)])
        assert done.exit_code == 0, done.exception
        return done

    first = json.loads(run(tmp_path / "scribbles", "--kind", "scribbles", "--json").stdout)
    assert (first["joined"], first["contradictions"], first["partial"]) == (0, 0, 3)
    told = json.loads(run(tmp_path / "partial", "--kind", "partial", "--json").stdout)
    scribbles = read_mask(tmp_path / "scribbles" / f"{samples[0].id}.png")
    partial = read_mask(tmp_path / "partial" / f"{samples[0].id}.png")
    clash = sum(
        int(((a != O) & (b != O) & (a != b)).sum())
        for a, b in (
            (read_mask(tmp_path / kind_a / f"{one.id}.png"), read_mask(tmp_path / "partial" / f"{one.id}.png"))
            for kind_a in ("scribbles",)
            for one in samples[:3]
        )
    )
    assert clash > 0 and (told["joined"], told["overruled"], told["contradictions"]) == (3, 0, clash)
    joined = read_trusted(dataset.root).of(samples[0].id).read()
    assert (joined[(scribbles != O) & (partial != O) & (scribbles != partial)] == O).all()
    assert (joined[60, scribbles[60] == O] == 0).all()
    assert "3 photographs with labels of several kinds" in run(tmp_path / "partial", "--kind", "partial").stderr
