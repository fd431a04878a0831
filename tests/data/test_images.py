from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_cli.data.images import read_image
from wsss_cli.errors import DataError


def _photo(side: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    pixels = np.array([[[250, 10, 20], [1, 2, 3]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "[bold], ü.png")
    image = read_image(tmp_path / "[bold], ü.png")
    assert image.tolist() == pixels.tolist()
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]


def test_a_grey_image_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.array([[5, 200]], np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[5, 5, 5], [200, 200, 200]]]


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, :24] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left comes to the top
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "turned.jpg")
    assert image.shape == (48, 16, 3)
    assert image[:20].min() > 200
    assert image[28:].max() < 50


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_that_do_not_decode_are_named(tmp_path: Path, suffix: str) -> None:
    _photo().save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    for name, content in (("empty", b""), ("half", data[: len(data) // 2]), ("head", data[:30]), ("text", b"hello")):
        (tmp_path / f"{name}.{suffix}").write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.{suffix} cannot be decoded"):
            read_image(tmp_path / f"{name}.{suffix}")


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused(tmp_path: Path) -> None:
    _photo(8).save(tmp_path / "small.jpg")
    thumbnail = (tmp_path / "small.jpg").read_bytes()
    _photo().save(tmp_path / "big.jpg")
    data = (tmp_path / "big.jpg").read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    (tmp_path / "whole.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_image(tmp_path / "whole.jpg").shape == (40, 40, 3)
    (tmp_path / "cut.jpg").write_bytes(data[:2] + segment + data[2 : len(data) * 3 // 4])
    with pytest.raises(DataError, match=r"cut\.jpg"):
        read_image(tmp_path / "cut.jpg")


def test_bytes_after_the_end_of_a_jpeg_are_no_damage(tmp_path: Path) -> None:
    _photo().save(tmp_path / "motion.jpg")
    with (tmp_path / "motion.jpg").open("ab") as file:
        file.write(b"\x00video" * 20000)
    assert read_image(tmp_path / "motion.jpg").shape == (40, 40, 3)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
