from __future__ import annotations

import errno
import io
import os
import re
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image

from wsss_cli.data import masks
from wsss_cli.data.images import open_picture
from wsss_cli.data.masks import mask_png, read_mask, write_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)


def test_voc_palette_has_the_published_colours() -> None:
    palette = voc_palette(21)
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[8] == (64, 0, 0)  # cat
    assert palette[15] == (192, 128, 128)  # person
    assert palette[20] == (0, 64, 128)  # tvmonitor
    assert len(set(voc_palette(255))) == 255


@settings(max_examples=60, deadline=None)
@given(mask=hnp.arrays(np.uint8, SHAPES))
def test_a_mask_comes_back_as_it_was_written(mask: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("masks") / "deep" / "[bold], ü 1.png"
    write_mask(path, mask, voc_palette(21))
    again = read_mask(path)
    assert again.dtype == np.uint8
    assert np.array_equal(again, mask)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_palette_shows_class_colours_and_a_light_border(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[0, 1, 2, 255]], np.uint8), ((0, 0, 0), (9, 8, 7), (1, 2, 3)))
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        shown = np.array(image.convert("RGB"))
    assert shown.tolist() == [[[0, 0, 0], [9, 8, 7], [1, 2, 3], [224, 224, 192]]]


def test_a_grey_mask_is_read_as_indices(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 7], [20, 255]], np.uint8)).save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[0, 7], [20, 255]]


def _packed(path: Path, indices: np.ndarray, bits: int, *, palette: bool = False) -> Path:
    """Write indices [H, W] as a PNG of 1, 2 or 4 bits a pixel; H and W in multiples of 8."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    places = ((indices[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    rows = np.packbits(places.reshape(len(indices), -1), axis=1)
    height, width = indices.shape
    head = chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + bytes([bits, 3 if palette else 0, 0, 0, 0]))
    colors = chunk(b"PLTE", bytes(range(3 << bits))) if palette else b""
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + colors + data + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_are_refused_as_their_values_are_stretched(tmp_path: Path, bits: int) -> None:
    indices = np.arange(64).reshape(8, 8) % (1 << bits)
    with pytest.raises(DataError, match=r"m\.png is a grey mask of 2 or 4 bits a pixel") as caught:
        read_mask(_packed(tmp_path / "m.png", indices, bits))
    assert "palette" in caught.value.hint
    assert np.array_equal(read_mask(_packed(tmp_path / "m.png", indices, bits, palette=True)), indices)


def test_a_mask_of_one_bit_holds_background_and_class_one(tmp_path: Path) -> None:
    indices = np.arange(64).reshape(8, 8) % 2
    assert np.array_equal(read_mask(_packed(tmp_path / "m.png", indices, 1)), indices)


def test_a_mask_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_mask(tmp_path / "m.png", np.zeros((2, 2), np.int64), voc_palette(2))
    assert not (tmp_path / "m.png").exists()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_a_mask_without_class_indices_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png is a mask of mode") as caught:
        read_mask(tmp_path / "m.png")
    assert "palette" in caught.value.hint


def test_missing_empty_and_truncated_masks_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png is missing"):
        read_mask(tmp_path / "gone.png")
    noise = np.random.default_rng(0).integers(0, 21, (50, 50), np.uint8)
    write_mask(tmp_path / "whole.png", noise, voc_palette(21))
    data = (tmp_path / "whole.png").read_bytes()
    for name, content, why in (
        ("empty.png", b"", "it is empty"),
        ("half.png", data[: len(data) // 2], ""),
        ("text.png", b"not an image", "it is text"),
        ("page.png", b"<!DOCTYPE html><p>", "it is a web page"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} cannot be decoded: {why}"):
            read_mask(tmp_path / name)


def test_a_pipe_is_no_mask_and_neither_is_one_of_too_many_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png is no plain file"):
        read_mask(tmp_path / "pipe.png")
    write_mask(tmp_path / "m.png", np.zeros((3, 5), np.uint8), voc_palette(2))
    monkeypatch.setenv("WSSS_MAX_PIXELS", "14")
    with pytest.raises(DataError, match=r"m\.png has 5x3 pixels") as caught:
        read_mask(tmp_path / "m.png")
    assert "WSSS_MAX_PIXELS=15" in caught.value.hint


def test_a_mask_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(masks, "_plain_indices", refused)
    with pytest.raises(DataError, match=r"cannot read mask .*a.png: Permission denied \(make it readable\)"):
        masks.read_mask(path)


# -- decoded without Pillow: as Pillow would ---------------------------------------------------------------------------

DRAWN = np.random.default_rng(0).integers(0, 256, (13, 30), np.uint8)
PLAIN = mask_png(DRAWN, voc_palette(21))


def saved(tmp_path: Path, **how: object) -> bytes:
    Image.open(io.BytesIO(PLAIN)).save(tmp_path / "saved.png", **how)
    return (tmp_path / "saved.png").read_bytes()


def grey(values: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", values)[1])


def with_chunk(name: bytes, content: bytes, crc: int = 0) -> bytes:
    head = len(content).to_bytes(4) + name + content
    return PLAIN[:33] + head + (zlib.crc32(name + content) ^ crc).to_bytes(4) + PLAIN[33:]


def in_two(data: bytes) -> bytes:
    """The pixels in two chunks."""
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at])
    parts = (data[at + 4 : at + 9], data[at + 9 : at + 4 + size])
    chunks = (len(part).to_bytes(4) + b"IDAT" + part + zlib.crc32(b"IDAT" + part).to_bytes(4) for part in parts)
    return data[: at - 4] + b"".join(chunks) + data[at + 8 + size :]


SORTS = {
    "as written": (lambda folder: PLAIN, True),
    "grey, rows filtered": (lambda folder: grey(np.sort(DRAWN, axis=1)), False),
    "in two chunks": (lambda folder: in_two(PLAIN), True),
    "transparent": (partial(saved, transparency=3), True),
    "with a text": (lambda folder: with_chunk(b"tEXt", b"a\0b"), True),
    "4 bits": (partial(saved, bits=4), False),
    "stored": (partial(saved, compress_level=0), True),
    "a text with a wrong check sum": (lambda folder: with_chunk(b"tEXt", b"a\0b", 1), False),
    "more behind the end": (lambda folder: PLAIN + b"more", True),
}


@pytest.mark.parametrize("sort", SORTS)
def test_a_mask_is_what_pillow_reads(sort: str, tmp_path: Path) -> None:
    data, is_direct = SORTS[sort]
    file = tmp_path / "m.png"
    file.write_bytes(data(tmp_path))
    with open_picture(file) as image:
        expected = np.array(image, dtype=np.uint8)
    mask = read_mask(file)
    assert mask.dtype == np.uint8
    assert mask.flags.writeable
    assert mask.flags.c_contiguous
    assert np.array_equal(mask, expected)
    assert (masks._plain_indices(file) is not None) == is_direct


@pytest.mark.parametrize("keep", [8, 20, 33, 60, len(PLAIN) - 30, len(PLAIN) - 12])
def test_what_is_cut_off_is_left_to_pillow(keep: int, tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(PLAIN[:keep])
    assert masks._plain_indices(tmp_path / "m.png") is None


@pytest.mark.parametrize("at", range(8, len(PLAIN) - 12))
def test_a_changed_byte_gives_no_mask_unseen(at: int, tmp_path: Path) -> None:
    changed = bytearray(PLAIN)
    changed[at] ^= 1
    (tmp_path / "m.png").write_bytes(changed)
    assert masks._plain_indices(tmp_path / "m.png") is None


def test_a_jpeg_that_is_called_png_is_no_mask_whatever_its_values(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:35, 10:45] = 1
    Image.fromarray(mask).save(tmp_path / "a.png", "JPEG")
    assert int(np.array(Image.open(tmp_path / "a.png")).max()) < 3  # all are classes, and not those that were saved
    with pytest.raises(DataError, match=r"a\.png is a JPEG, whatever its name, which changes") as caught:
        read_mask(tmp_path / "a.png")
    assert caught.value.hint == "make the mask anew, and save it as PNG"


def test_a_value_that_is_no_class_asks_for_their_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png holds the value 9; 3 classes are .*is the number of classes right"):
        masks.check_values(np.full((8, 8), 9, np.uint8), 3, tmp_path / "a.png")


def test_a_mask_that_exif_turns_or_that_has_pages_is_refused(tmp_path: Path) -> None:
    """Viewers show the one turned, and of the other one of several: what is stored is not what is seen."""
    exif = Image.Exif()
    for orientation, says in ((3, "a mask that EXIF turns (orientation 3)"), (1, "")):
        exif[0x0112] = orientation
        (tmp_path / "m.png").write_bytes(saved(tmp_path, exif=exif.tobytes()))
        if says:
            with pytest.raises(DataError, match=re.escape(says)):
                read_mask(tmp_path / "m.png")
        else:
            assert np.array_equal(read_mask(tmp_path / "m.png"), DRAWN)
    for kind in ("PNG", "TIFF"):
        Image.fromarray(DRAWN).save(
            tmp_path / "m.png", kind, save_all=True, append_images=[Image.fromarray(DRAWN[::-1])]
        )
        with pytest.raises(DataError, match="a mask of 2 pages or frames"):
            read_mask(tmp_path / "m.png")
