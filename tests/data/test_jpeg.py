"""JPEGs: the pixels that OpenCV gives, upright, and none of one of which a part is lost."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from wsss_cli.data.images import decode_and_tell, decode_image
from wsss_cli.errors import DataError


def jpeg(mode: str = "RGB", size: tuple[int, int] = (97, 71), **options) -> bytes:
    noise = np.random.default_rng(3).integers(0, 256, (12, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_pixels_are_those_of_opencv(mode, options, subsampling):
    for size in ((97, 71), (1, 1), (3, 50)):
        data = jpeg(mode, size, subsampling=subsampling, **options)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        image, wrong = decode_and_tell(data, "a.jpg")
        assert np.array_equal(image, expected) and image.flags.c_contiguous
        assert not wrong


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_opencv_turns_it(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(exif=exif)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decode_image(data, "a.jpg"), expected)
    assert expected.shape[:2] == ((97, 71) if orientation >= 5 else (71, 97))


def _mark(data: bytes) -> bytes:
    middle = len(data) * 2 // 3
    return data[:middle] + b"\xff\xd9" + data[middle + 2 :]


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


def _zeros(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(300) + data[middle + 300 :]


def _restart(data: bytes) -> bytes:
    return data.replace(b"\xff\xd2", b"\xff\xd6", 1)


@pytest.mark.parametrize("damage", [_mark, _cut, _zeros, _restart])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_one_of_which_a_part_is_lost_is_refused_by_name(damage, mode, capfd):
    data = damage(jpeg(mode, (300, 200), restart_marker_rows=2 if damage is _restart else 0))
    with pytest.raises(DataError, match=r"image photos/a\.jpg is damaged within: Corrupt JPEG data") as caught:
        decode_image(data, "photos/a.jpg")
    assert "replace the file" in caught.value.hint
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("filling", [bytes(500), b"\x11" * 500, b"\1\2\3\4\5\6\7", b"\5\6"])
def test_bytes_too_many_behind_whole_pixels_are_told_and_no_loss(filling):
    data = jpeg()
    image, wrong = decode_and_tell(data[:-2] + filling + data[-2:], "a.jpg")
    assert np.array_equal(image, decode_image(data, "a.jpg")) and "extraneous bytes" in wrong
