"""HEIC and AVIF: each turned once, as EXIF says; without what reads them, its name."""

import io

import numpy as np
import pytest
from PIL import Image

from wsss_cli.data import heif
from wsss_cli.data.images import IMAGE_ENDINGS, ORIENTATION, decode_image, image_size, read_image, turn_upright
from wsss_cli.errors import DataError, UsageError
from wsss_cli.stages import photographs
from wsss_cli.stages.photographs import find_images
from wsss_cli.stages.serve import check_size

HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def saved(file, kind, orientation):
    """A photograph with a colour in each corner, whose EXIF says an orientation; its pixels as stored."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif ".avif" not in heif.endings_read():
        pytest.skip("this Pillow has no AVIF")
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32, 0] = pixels[20:, :32, 1] = pixels[:20, 32:, 2] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(file, kind, exif=exif.tobytes(), quality=100)
    return pixels


def corners(image):
    return [
        int(image[row, column].argmax()) if image[row, column].max() > 128 else 3
        for row in (3, -4)
        for column in (3, -4)
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_photographs_are_turned_once(tmp_path, kind, orientation):
    file = tmp_path / "a.bin"
    stored = saved(file, kind, orientation)
    image, upright = read_image(file), turn_upright(stored, orientation)
    assert image.shape == upright.shape and image_size(file) == upright.shape[:2]
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    assert corners(image) == corners(upright)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_the_server_takes_them(tmp_path, kind, monkeypatch):
    saved(tmp_path / "a.bin", kind, 6)
    data = (tmp_path / "a.bin").read_bytes()
    heif._register.cache_clear()
    check_size(data, megapixels=1)
    with pytest.raises(DataError, match="megapixels"):
        check_size(data, megapixels=0)
    monkeypatch.setattr(heif, "endings_read", lambda: ())
    with pytest.raises(DataError, match="the file is a photograph in"):
        check_size(data, megapixels=1)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_damaged_ones_and_those_of_too_many_pixels_are_named(tmp_path, kind, monkeypatch):
    file = tmp_path / "a.bin"
    saved(file, kind, 1)
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:40]):
        with pytest.raises(DataError, match="a photo cannot be decoded"):
            decode_image(data, "a photo")
    monkeypatch.setenv("WSSS_MAX_PIXELS", "2000")
    with pytest.raises(DataError, match=r"has 64x40 pixels, 2,560; the limit is 2,000"):
        read_image(file)


def test_what_to_install_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(heif, "endings_read", lambda: ())
    (tmp_path / "a.heic").write_bytes(HEIC_HEAD)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"a\.heic is a photograph in HEIC; .* after pip install 'wsss\[heic\]'"):
            read(tmp_path / "a.heic")
    with pytest.raises(DataError, match=r"is a photograph in AVIF; .* after pip install 'pillow>=11\.3'"):
        decode_image(b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "a.avif")
    with pytest.raises(DataError, match="cannot be decoded"):  # a video is neither
        decode_image(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100), "a.mp4")


def test_folders_with_photographs_that_are_not_read_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(heif, "endings_read", lambda: (".avif",))
    monkeypatch.setattr(photographs, "IMAGE_ENDINGS", (".jpg", ".avif"))
    monkeypatch.setattr(photographs, "PASSED_OVER", (".heic", ".heif", ".gif"))
    for name in ("b.heic", "c.heif", "d.gif"):
        (tmp_path / name).touch()
    heard = []
    with pytest.raises(UsageError, match=r"names no image that is read, but 1 \.gif, 1 \.heic, 1 \.heif") as error:
        find_images([str(tmp_path)], tmp_path / "out", heard.append)
    assert error.value.hint == ".heic and .heif can be read after pip install 'wsss[heic]'"
    (tmp_path / "a.avif").touch()
    assert len(find_images([str(tmp_path)], tmp_path / "out", heard.append)) == 1
    assert heard[-1] == "hint: .heic and .heif can be read after pip install 'wsss[heic]'"


def test_endings_that_are_read_are_those_of_what_is_installed():
    assert set(heif.endings_read()) == set(IMAGE_ENDINGS) & {".heic", ".heif", ".avif"}
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    assert decode_image(data.getvalue(), "a").shape == (4, 4, 3)
