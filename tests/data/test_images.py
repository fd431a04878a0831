from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsss_cli.data.images import image_size, read_image, stored_size, turn_upright
from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError, UsageError


def _photo(side: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    pixels = np.array([[[250, 10, 20], [1, 2, 3]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "[bold], ü.png")
    image = read_image(tmp_path / "[bold], ü.png")
    assert image.tolist() == pixels.tolist()
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(("mode", "ending"), [("RGB", "jp2"), ("RGB", "j2k"), ("YCbCr", "jp2")])
def test_luma_and_chroma_give_the_colours_that_were_stored(tmp_path: Path, mode: str, ending: str) -> None:
    pixels = np.full((32, 32, 3), (200, 30, 30), np.uint8)
    pixels[16:] = 30, 30, 200
    Image.fromarray(pixels).convert(mode).save(tmp_path / f"a.{ending}")
    image = read_image(tmp_path / f"a.{ending}")
    assert np.abs(image.astype(int) - pixels).max() <= 4 and image.flags["C_CONTIGUOUS"]
    if mode == "YCbCr":
        (tmp_path / "cut.jpg").write_bytes((tmp_path / f"a.{ending}").read_bytes()[:130])
        with pytest.raises(DataError, match="cut"):
            read_image(tmp_path / "cut.jpg")


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


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_that_hold_fewer_are_refused_before_they_are_black(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    path = tmp_path / f"deep.{suffix}"
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64, 1).repeat(channels, 2)  # a camera of 12 bits
    assert cv2.imwrite(str(path), pixels)
    with pytest.raises(DataError, match=rf"deep\.{suffix} has 16 bits a sample and none above a sixteenth") as caught:
        read_image(path)
    assert "stretch" in caught.value.hint
    assert cv2.imwrite(str(path), pixels * 16)
    assert np.abs(read_image(path).astype(int) - pixels[..., :1] // 16).max() <= 1
    assert cv2.imwrite(str(path), np.zeros((4, 4), np.uint8))  # black, of 8 bits
    assert not read_image(path).any()


def test_of_several_pages_the_first_is_taken(tmp_path: Path) -> None:
    first, second = _photo(), Image.new("RGB", (40, 40))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    assert np.array_equal(read_image(tmp_path / "pages.tif"), np.asarray(first))


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


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_from_the_header_is_that_of_the_image_as_shown(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 6)).save(tmp_path / f"p.{suffix}", exif=exif)
    shown = (8, 6) if orientation >= 5 else (6, 8)
    assert image_size(tmp_path / f"p.{suffix}") == shown == read_image(tmp_path / f"p.{suffix}").shape[:2]
    assert stored_size(tmp_path / f"p.{suffix}") == ((6, 8), orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_upright_as_a_photograph_is(tmp_path: Path, orientation: int) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(turn_upright(pixels, orientation), read_image(tmp_path / "p.png"))


def test_exif_behind_the_pixels_of_a_png_turns_it_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "p.png", exif=exif)
    data = (tmp_path / "p.png").read_bytes()
    start, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    tail = data.index(b"IEND") - 4
    (tmp_path / "p.png").write_bytes(data[:start] + data[end:tail] + data[start:end] + data[tail:])
    assert image_size(tmp_path / "p.png") == (8, 6) == read_image(tmp_path / "p.png").shape[:2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "value"), [(3, "H2x"), (4, "I"), (1, "B3x")])
def test_an_orientation_of_any_type_turns_size_and_pixels_alike(tmp_path, suffix, order, kind, value):
    """OpenCV takes one of four bytes, or of one, for another than EXIF's readers do."""
    exif = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IHHHI{value}I", 8, 1, 0x0112, kind, 1, 6, 0)
    Image.new("RGB", (8, 6)).save(tmp_path / f"p.{suffix}", exif=b"Exif\0\0" + exif)
    assert image_size(tmp_path / f"p.{suffix}") == read_image(tmp_path / f"p.{suffix}").shape[:2]


def test_damaged_and_absurd_exif_turns_nothing(tmp_path: Path) -> None:
    for name, exif in (("a", b"Exif\0\0MM\0*\0\0"), ("b", b"Exif\0\0")):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.jpg", exif=exif)
        assert image_size(tmp_path / f"{name}.jpg") == (6, 8) == read_image(tmp_path / f"{name}.jpg").shape[:2]


def test_a_missing_photograph_has_no_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        image_size(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png cannot be read as an image"):
        image_size(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_the_limit_on_pixels_is_enforced_and_says_how_to_raise_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / f"p.{suffix}")
    monkeypatch.setenv("WSSS_MAX_PIXELS", "48")
    assert read_image(tmp_path / f"p.{suffix}").shape == (6, 8, 3)
    monkeypatch.setenv("WSSS_MAX_PIXELS", "47")
    with pytest.raises(DataError, match=rf"p\.{suffix} has 8x6 pixels") as caught:
        read_image(tmp_path / f"p.{suffix}")
    assert "WSSS_MAX_PIXELS=48" in caught.value.hint
    monkeypatch.setenv("WSSS_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="WSSS_MAX_PIXELS=many"):
        read_image(tmp_path / f"p.{suffix}")


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    side = 20_000  # decoded, 1.2 GB
    head = chunk(b"IHDR", side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0]))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match="400,000,000; the limit is 178,000,000"):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="cannot be decoded"):  # the limit alone
        read_image(_cut(tmp_path / "bomb.png", side=4))


def _cut(path: Path, side: int) -> Path:
    data = bytearray(path.read_bytes())
    data[16:24] = side.to_bytes(4) * 2
    path.write_bytes(data)
    return path


def test_pipes_and_folders_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"pipe\.jpg is no image but a pipe"):
            read(tmp_path / "pipe.jpg")
        with pytest.raises(DataError, match=r"folder\.jpg is no image but a folder"):
            read(tmp_path / "folder.jpg")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_a_long_text_or_colour_profile_is_read_as_without(tmp_path: Path, kind: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _photo().crop((0, 0, 40, 30)).save(tmp_path / "plain.png", exif=exif)
    mask = Image.fromarray(np.arange(40, dtype=np.uint8).reshape(8, 5))
    mask.save(tmp_path / "plain-mask.png")
    packed = zlib.compress(bytes(3 * 2**20))
    data = {b"zTXt": b"k\0\0" + packed, b"iTXt": b"k\0\1\0\0\0" + packed, b"iCCP": b"p\0\0" + packed}
    chunk = len(data[kind]).to_bytes(4) + kind + data[kind] + zlib.crc32(kind + data[kind]).to_bytes(4)
    for name in ("plain", "plain-mask"):
        whole = (tmp_path / f"{name}.png").read_bytes()
        (tmp_path / f"{name}-before.png").write_bytes(whole[:33] + chunk + whole[33:])
        (tmp_path / f"{name}-behind.png").write_bytes(whole[:-12] + chunk + whole[-12:])
    for place in ("before", "behind"):
        file = tmp_path / f"plain-{place}.png"
        assert np.array_equal(read_image(file), read_image(tmp_path / "plain.png"))
        assert image_size(file) == (40, 30)
        assert stored_size(file) == ((30, 40), 6)
        assert np.array_equal(read_mask(tmp_path / f"plain-mask-{place}.png"), np.asarray(mask))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_fourth_band_of_a_tiff_changes_no_colour(tmp_path, orientation):
    colours = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    band = np.full((6, 9), 100, np.uint8)  # near infrared, which programs call alpha
    for name, pixels in (("three", colours), ("four", np.dstack([colours, band]))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_image(tmp_path / "four.tif"), read_image(tmp_path / "three.tif"))


def test_an_image_without_pixels_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(DataError, match="0x0 pixels"):
        image_size(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04\x14\0", "a ZIP archive, or a document that is one"),
        (b"\xff\xd8\xff", "a JPEG of which too little is there"),
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><title>404</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("grün und blau\n".encode(), "text"),
        (bytes(range(20)), "of a format that is not known"),
    ],
)
def test_a_file_that_is_no_image_is_named_as_what_it_is(tmp_path, content, kind):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg cannot be read as an image: it is {kind}"):
        image_size(tmp_path / "a.jpg")


@pytest.mark.parametrize(("number", "helps"), [(errno.EACCES, "make it readable"), (errno.ENOENT, "check the path")])
def test_what_helps_depends_on_why_a_file_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, helps: str
) -> None:
    def refuse(path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.jpg").write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=f"cannot read image .*a.jpg: {os.strerror(number)}") as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.hint.startswith(helps)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL"),
        (b"%PDF-1.4", "a PDF"),
    ],
)
def test_what_does_not_decode_is_said_as_what_it_is(tmp_path, content, kind):
    (tmp_path / "p.jpg").write_bytes(content)
    with pytest.raises(DataError, match=f"cannot be decoded: it is {kind}"):
        read_image(tmp_path / "p.jpg")
