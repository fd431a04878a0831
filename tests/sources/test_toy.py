from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsss_cli.data.images import image_size, read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.toy import CLASSES, TWO_CLASSES, draw, prepare_toy
from wsss_cli.errors import UsageError


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = prepare_toy(tmp_path / "a", images=6, seed=3, size=64)
    second = prepare_toy(tmp_path / "b", images=6, seed=3, size=64)
    other = prepare_toy(tmp_path / "c", images=6, seed=4, size=64)
    files = _bytes(tmp_path / "a")
    assert files == _bytes(tmp_path / "b")
    assert first.fingerprint == second.fingerprint != other.fingerprint
    photo = "JPEGImages/train_000000.jpg"
    assert files[photo] != _bytes(tmp_path / "c")[photo]


def test_a_larger_set_begins_with_the_smaller(tmp_path: Path) -> None:
    prepare_toy(tmp_path / "a", images=2, val=1, seed=0, size=64)
    prepare_toy(tmp_path / "b", images=4, val=2, seed=0, size=64)
    small, large = _bytes(tmp_path / "a"), _bytes(tmp_path / "b")
    for name in ("train_000000", "train_000001", "val_000000"):
        assert small[f"JPEGImages/{name}.jpg"] == large[f"JPEGImages/{name}.jpg"]
        assert small[f"SegmentationClass/{name}.png"] == large[f"SegmentationClass/{name}.png"]


def test_it_is_laid_out_like_voc(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = prepare_toy(tmp_path, images=8, seed=0, size=64, tick=lambda done, total: seen.append((done, total)))
    assert [len(made.split(name)) for name in ("train", "val")] == [8, 2]
    assert seen == [(done, 10) for done in range(1, 11)]
    assert made.classes == CLASSES
    listed = (tmp_path / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    assert listed == [sample.id for sample in made.split("train")]
    for sample in [*made.split("train"), *made.split("val")]:
        assert sample.mask is not None
        assert read_image(sample.image).shape == (64, 64, 3)
        assert image_size(sample.mask) == (64, 64)
        assert set(np.unique(read_mask(sample.mask))) - {0, 255} == set(sample.labels)


def test_drawings_are_what_a_demonstration_needs() -> None:
    drawings = [draw(0, "train", index) for index in range(120)]
    two = np.mean([len(drawing.labels) == 2 for drawing in drawings])
    assert abs(two - TWO_CLASSES) < 0.12
    counts = np.bincount(np.concatenate([drawing.labels for drawing in drawings]), minlength=6)
    assert counts[1:].min() >= 15
    for drawing in drawings:
        for label in drawing.labels:  # large enough to learn, and one piece
            region = (drawing.mask == label).astype(np.uint8)
            assert 0.03 < region.mean() < 0.35
            assert cv2.connectedComponents(region)[0] == 2


def test_an_outline_of_one_pixel_has_no_label() -> None:
    drawing = draw(1, "val", 0)
    border = drawing.mask == 255
    inside = (drawing.mask > 0) & ~border
    around = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert np.array_equal(border, around & ~inside)


def test_bodies_are_more_saturated_than_the_background() -> None:
    objects, others = [], []
    for index in range(30):
        drawing = draw(0, "train", index)
        saturation = cv2.cvtColor(drawing.image, cv2.COLOR_RGB2HSV)[..., 1]
        objects.append(saturation[(drawing.mask > 0) & (drawing.mask < 255)].mean())
        others.append(saturation[drawing.mask == 0].mean())
    assert np.mean(objects) > 2 * np.mean(others)


def test_the_body_does_not_depend_on_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsss_cli.data.sources import toy

    images = []
    for label in range(1, len(CLASSES)):
        image, mask = np.zeros((96, 96, 3), np.float32), np.zeros((96, 96), np.uint8)
        toy._draw_object(np.random.default_rng(7), image, mask, label, (48.0, 48.0), 50.0)
        images.append(image)
    same = np.all([np.array_equal(images[0], image) for image in images[1:]])
    assert not same
    agree = np.all([(images[0] == image).all(-1) for image in images[1:]], axis=0) & (images[0] > 0).any(-1)
    drawn = (images[0] > 0).any(-1)
    assert 0.5 < agree.sum() / drawn.sum() < 0.9  # the body is alike, the part (a third or so) is not


@pytest.mark.parametrize("bad", [{"images": 0}, {"val": 0}, {"seed": -1}, {"size": 16}])
def test_counts_out_of_range_are_refused(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="cannot draw"):
        prepare_toy(tmp_path, **({"images": 2, "size": 64} | bad))
    assert not list(tmp_path.iterdir())


def test_lists_of_other_images_are_not_written_over(tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder = tmp_path / split
        listed = folder / f"ImageSets/Segmentation/{split}.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("2007_000032\n")
        with pytest.raises(UsageError, match=rf"{split}\.txt lists other images \(2007_000032\)"):
            prepare_toy(folder, images=1, val=1, size=32)
        assert [path.name for path in folder.iterdir()] == ["ImageSets"]
        assert listed.read_text() == "2007_000032\n"
    prepare_toy(tmp_path / "again", images=1, val=1, size=32)
    prepare_toy(tmp_path / "again", images=2, val=1, size=32)
    assert (tmp_path / "again/ImageSets/Segmentation/train.txt").read_text() == "train_000000\ntrain_000001\n"
