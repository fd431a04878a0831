from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_cli.data import splits
from wsss_cli.data.columns import names_of, sizes_of
from wsss_cli.data.dataset import Dataset, Sample, open_dataset, write_dataset
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette

CLASSES = ("background", "cat", "dog")
IDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)


def _write(root: Path, splits: dict[str, list[Sample]], **changes: object) -> Dataset:
    given_ = {
        "name": "d",
        "classes": CLASSES,
        "colors": voc_palette(3),
        "source": "s",
        "protocol": ["p"],
        "findings": [],
    }
    return write_dataset(root, splits=splits, **(given_ | changes))  # type: ignore[arg-type]


def _sample(root: Path, name: str, labels: tuple[int, ...] = (1,), mask: bool = False) -> Sample:
    return Sample(name, root / "img" / f"{name}.jpg", root / "masks" / f"{name}.png" if mask else None, labels)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set", tmp_path / "else"
    train = [_sample(outside, "b", (1, 2)), _sample(outside, "a", ())]
    val = [_sample(inside, "v", (2,), mask=True)]
    made = _write(inside, {"train": train, "val": val})
    again = open_dataset(inside)
    assert again == made
    assert again.split("train") == train  # in the order given
    assert again.split("val") == val
    assert (again.classes, again.num_classes, again.protocol) == (CLASSES, 3, ("p",))
    rows = (inside / "splits" / "train.csv").read_text().splitlines()
    assert rows == ["id,image,mask,labels", f"b,{outside}/img/b.jpg,,cat|dog", f"a,{outside}/img/a.jpg,,"]
    assert (inside / "splits" / "val.csv").read_text().splitlines()[1] == "v,img/v.jpg,masks/v.png,dog"
    record = json.loads((inside / "dataset.json").read_text())
    assert record["splits"]["train"] == {"images": 2, "sha256": made.split_sha256["train"]}


@settings(max_examples=60, deadline=None)
@given(names=st.lists(IDS, min_size=1, max_size=5, unique=True))
def test_odd_ids_survive(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("odd")
    usable = [name for name in names if not name.startswith("/") and ".." not in name.split("/")]
    samples = [_sample(root, name, (1,), mask=True) for name in [*usable, '[bold]x[/bold], "q" ünï']]
    assert _write(root, {"train": samples}).split("train") == samples


def test_the_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    def made(place: str, labels: tuple[int, ...], **changes: object) -> str:
        return _write(tmp_path / place, {"train": [_sample(tmp_path / place, "a", labels)]}, **changes).fingerprint

    first = made("here", (1,))
    assert made("there", (1,)) == first
    assert made("labels", (2,)) != first
    assert made("classes", (1,), classes=("background", "cat", "cow")) != first
    assert made("source", (1,), source="other") != first


@pytest.mark.parametrize("more", ["", ', "splits": {"train": {}}'])
def test_a_set_written_by_hand_needs_names_and_rows_only(tmp_path: Path, more: str) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "dataset.json").write_text(f'{{"classes": ["background", "cat", "dog"]{more}}}')
    (tmp_path / "splits" / "train.csv").write_text("id,image,mask,labels\nx,photos/x.jpg,,dog|cat\n")
    made = open_dataset(tmp_path)
    assert made.split("train") == [Sample("x", tmp_path / "photos" / "x.jpg", None, (1, 2))]
    assert made.colors == voc_palette(3)
    assert made.name == tmp_path.name


def test_a_folder_that_is_no_data_set_points_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "wsss prepare" in caught.value.hint


def test_an_unknown_split_names_the_nearest(tmp_path: Path) -> None:
    made = _write(tmp_path, {"train_aug": [_sample(tmp_path, "a")], "val": [_sample(tmp_path, "v")]})
    with pytest.raises(DataError, match="no split 'trainaug'") as caught:
        made.split("trainaug")
    assert caught.value.hint == "did you mean 'train_aug'? it has: train_aug, val"


def test_an_empty_split_is_refused_on_both_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split 'val' of d is empty"):
        _write(tmp_path, {"train": [_sample(tmp_path, "a")], "val": []})
    assert not (tmp_path / "dataset.json").exists()
    made = _write(tmp_path, {"train": [_sample(tmp_path, "a")]})
    (tmp_path / "splits" / "train.csv").write_text("id,image,mask,labels\n")
    with pytest.raises(DataError, match=r"split 'train' .* is empty"):
        made.split("train")


def test_duplicate_ids_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split 'train': 1 duplicate id: a"):
        _write(tmp_path, {"train": [_sample(tmp_path, "a"), _sample(tmp_path, "b"), _sample(tmp_path, "a")]})


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "line\nbreak"])
def test_ids_that_cannot_name_a_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be an id"):
        _write(tmp_path, {"train": [Sample(name, tmp_path / "x.jpg", None, ())]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,image,mask,labels,width,height\na,a.jpg,,cat,8\n", "line 2: not the six fields"),
        ("id,image,mask,labels,width,height\na,a.jpg,,cat,8,\n", "line 2: width '8' and height ''"),
        ("id,image,mask,labels,width,height\na,a.jpg,,cat,8,0\n", "line 2: width '8' and height '0'"),
        ("id,image,mask,labels\na,a.jpg,,catt\n", r"train\.csv, line 2: unknown class 'catt'"),
        ("id,image,mask,labels\na,a.jpg,,background\n", "unknown class 'background'"),
        ("id,image,mask,labels\na,a.jpg,,cat\na,b.jpg,,dog\n", "1 duplicate id: a"),
        ("id,image,mask,labels\na,a.jpg,cat\n", "line 2: not the four fields"),
        ("id,image,mask,labels\na,,,cat\n", "line 2: not the four fields"),
        ("image,labels\na.jpg,cat\n", r"must start with the line id,image,mask,labels \(run `wsss prepare`"),
        ("id;image;mask;labels\na;a.jpg;;cat\n", r"id,image,mask,labels \(save it with commas between columns\)"),
        (
            "id,image,mask,labels\na,a.jpg,,cat;dog\n",
            r"unknown class 'cat;dog' .*several are joined by \| \(cat\|dog\)",
        ),
        ('id,image,mask,labels\n"a,a.jpg,,cat\n', r"train\.csv, line \d: unexpected end of data"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    _write(tmp_path, {"train": [_sample(tmp_path, "a")]})
    (tmp_path / "splits" / "train.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        '{"classes": ["cat", "dog"]}',
        '{"classes": ["background"]}',
        '{"classes": ["background", "cat", "cat"]}',
        '{"classes": ["background", {"name": "cat", "color": [0, 0, 300]}]}',
        '{"classes": ["background", {"color": [0, 0, 0]}]}',
        '{"name": "no classes"}',
        "[1]",
        "{",
    ],
)
def test_a_bad_record_is_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / "dataset.json").write_text(record)
    with pytest.raises(DataError, match=r"dataset\.json"):
        open_dataset(tmp_path)


def test_a_missing_split_file_is_named_and_a_stale_one_removed(tmp_path: Path) -> None:
    _write(tmp_path, {"train": [_sample(tmp_path, "a")], "old": [_sample(tmp_path, "b")]})
    assert list(_write(tmp_path, {"train": [_sample(tmp_path, "a")]}).split_sha256) == ["train"]
    (tmp_path / "splits" / "train.csv").unlink()
    with pytest.raises(DataError, match=r"train\.csv is missing"):
        open_dataset(tmp_path)


def test_sizes_are_written_and_change_no_identity(tmp_path: Path) -> None:
    bare = [_sample(tmp_path, "a", (1, 2), mask=True), _sample(tmp_path, "b", ())]
    first = _write(tmp_path / "bare", {"train": bare})
    sized = _write(tmp_path / "sized", {"train": [replace(bare[0], size=(60, 80)), bare[1]]})
    assert (sized.fingerprint, sized.split_sha256) == (first.fingerprint, first.split_sha256)
    rows = (sized.root / "splits" / "train.csv").read_text().splitlines()
    assert [row.split(",")[-2:] for row in rows] == [["width", "height"], ["80", "60"], ["", ""]]
    assert [sample.size for sample in sized.split("train")] == [(60, 80), None]
    assert (
        sizes_of(sized.split("train")).tolist() == sizes_of(list(sized.split("train"))).tolist() == [[60, 80], [0, 0]]
    )
    assert sizes_of(sized.split("train")[1:]).tolist() == sizes_of(first.split("train")[:1]).tolist() == [[0, 0]]
    assert open_dataset(sized.root).edited == ()


def test_a_list_has_the_sha256_that_it_always_had(tmp_path: Path) -> None:
    """Identities of runs hang on it."""
    (tmp_path / "splits").mkdir()
    (tmp_path / "dataset.json").write_text('{"classes": ["background", "cat", "d\u00f6g"]}')
    rows = [
        'a,x/../a.jpg,m/a.png,cat|d\u00f6g|cat\n"q"",",./p//q.jpg,a.png,\r\n\r\n',
        "b/c,/x/c.jpg/,m/./b.png,d\u00f6g\n\u00e9.,e.jpg,../m.png,",
    ]
    (tmp_path / "splits" / "t.csv").write_bytes(f"\ufeffid,image,mask,labels\n{''.join(rows)}".encode())
    made = open_dataset(tmp_path)
    samples = list(made.split("t"))
    content = [
        [
            s.id,
            s.image.name,
            f"{s.mask.parent.name}/{s.mask.name}" if s.mask else "",
            [made.classes[c] for c in s.labels],
        ]
        for s in samples
    ]
    assert made.split_sha256["t"] == hashlib.sha256(json.dumps(content).encode()).hexdigest()
    assert [sample.id for sample in samples] == list(names_of(made.split("t"))) == ["a", 'q",', "b/c", "\u00e9."]
    assert list(names_of(made.split("t")[::-2])) == ["\u00e9.", 'q",']
    assert made.split("t")[-1] == samples[-1]


def test_rows_are_read_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "BLOCK", 3)
    monkeypatch.setattr(splits, "MANY", 4)
    samples = [_sample(tmp_path, f"s{number}", (1,)) for number in range(11)]
    made = _write(tmp_path, {"train": samples})
    assert made.split("train") == samples
    assert [made.split("train")[number].id for number in (10, 0, 5)] == ["s10", "s0", "s5"]
    content = [[sample.id, sample.image.name, "", ["cat"]] for sample in samples]
    assert made.split_sha256["train"] == hashlib.sha256(json.dumps(content).encode()).hexdigest()
    (tmp_path / "splits" / "train.csv").write_text("id,image,mask,labels\n" + "s1,a.jpg,,cat\n" * 9)
    with pytest.raises(DataError, match="1 duplicate id: s1"):
        open_dataset(tmp_path)


def test_a_list_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    made = _write(tmp_path, {"train": [_sample(tmp_path, "a"), _sample(tmp_path, "b")]})
    rows, file = made.split("train"), tmp_path / "splits" / "train.csv"
    text = file.read_text()
    os.utime(file, (1, 1))  # the same content
    assert rows[1].id == made.split("train")[1].id == "b"
    file.write_text(text.replace("\na,", "\nx,"))
    rows = made.lists["train"]
    with pytest.raises(DataError, match=r"train\.csv has changed while it was worked with"):
        list(rows)
    other = tmp_path / "other.csv"
    other.write_text(text)
    other.replace(file)
    assert [sample.id for sample in made.split("train")] == ["a", "b"]
