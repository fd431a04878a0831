"""TIFFs that are no photographs are refused with what they are, and no other file is."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from wsss_cli.data.images import decode_image, image_size, read_image
from wsss_cli.data.tiff import has_straight_alpha, refuse_unshown, sample_bits, tiff_tags
from wsss_cli.errors import DataError
from wsss_cli.stages.serve import check_size

UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(bits: int, bands: int, form: int = UNSIGNED, *, big: bool = False, order: str = "<") -> bytes:
    """A TIFF of 4x3 pixels of 0, written tag by tag."""
    size, count = ("Q", 8) if big else ("I", 4)
    mark = {"<": b"II", ">": b"MM"}[order]
    start = mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8)))
    entries = {256: 4, 257: 3, 258: bits, 259: 1, 262: 2 if bands in (3, 4) else 1, 273: 0, 277: bands, 278: 3, 279: 0}
    entries[339] = form
    entries[279] = 4 * 3 * bands * bits // 8
    length = len(start) + (8 if big else 2) + len(entries) * (20 if big else 12) + count
    several = length if bands > 1 else 0  # where the bits and forms of each band lie
    entries[273] = length + 4 * bands
    body = b""
    for tag, value in sorted(entries.items()):
        if tag in (258, 339) and 2 * bands > count:
            place = several + (2 * bands if tag == 339 else 0)
            body += struct.pack(f"{order}HH{size}{size}", tag, 3, bands, place)
        elif tag in (258, 339):
            body += struct.pack(f"{order}HH{size}", tag, 3, bands) + struct.pack(f"{order}{bands}H", *[value] * bands)
            body += b"\0" * (count - 2 * bands)
        else:
            body += struct.pack(f"{order}HH{size}", tag, 4, 1) + struct.pack(f"{order}I", value) + b"\0" * (count - 4)
    head = struct.pack(order + ("Q" if big else "H"), len(entries))
    lists = struct.pack(f"{order}{bands}H", *[bits] * bands) + struct.pack(f"{order}{bands}H", *[form] * bands)
    return start + head + body + struct.pack(order + size, 0) + lists + bytes(entries[279])


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(
    ("bits", "bands", "form", "why"),
    [
        (32, 1, FLOAT, "a TIFF with floating-point samples"),
        (16, 3, FLOAT, "a TIFF with floating-point samples"),
        (16, 1, SIGNED, "a TIFF with samples with a sign"),
        (8, 4, SIGNED, "a TIFF with samples with a sign"),
        (32, 1, UNSIGNED, "a TIFF with samples of 32 bits"),
        (8, 5, UNSIGNED, "a TIFF with 5 bands of 8 bits"),
        (16, 13, UNSIGNED, "a TIFF with 13 bands of 16 bits"),
        (16, 2, UNSIGNED, "a TIFF with 2 bands of 16 bits"),
    ],
)
def test_a_tiff_that_is_no_photograph_is_refused_by_all_who_read_it(tmp_path, bits, bands, form, why, order, big):
    data = tiff(bits, bands, form, big=big, order=order)
    file = tmp_path / "scene.tif"
    file.write_bytes(data)
    for read in (lambda: decode_image(data, "scene.tif"), lambda: image_size(file), lambda: check_size(data, 100)):
        with pytest.raises(DataError, match=why) as caught:
            read()
        assert f"gdal_translate -ot Byte -scale -b 1 {'-b 2 -b 3 ' * (bands > 2)}IN OUT" in caught.value.hint


@pytest.mark.parametrize(("bits", "bands"), [(8, 1), (8, 3), (8, 4), (16, 1), (16, 3), (16, 4)])
def test_a_tiff_that_is_one_passes(bits, bands):
    data = tiff(bits, bands)
    tags = tiff_tags(io.BytesIO(data))
    refuse_unshown(tags, "scene.tif")
    assert sample_bits(tags) == bits and tags[277] == bands
    if bits == 8:
        assert not decode_image(data, "scene.tif").any()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_and_damaged_files_have_no_tags():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(buffer, "PNG")
    whole = tiff(8, 5)
    for data in (b"", b"II", b"II*\0", buffer.getvalue(), *(whole[:length] for length in range(0, 60, 3))):
        tags = tiff_tags(io.BytesIO(data))
        refuse_unshown(tags, "x")
        assert not has_straight_alpha(tags)
    assert sample_bits(tiff_tags(io.BytesIO(buffer.getvalue()))) == 8


def test_a_first_page_that_is_a_smaller_copy_is_no_photograph(tmp_path):
    """A DNG that is called .tif: its first page is a thumbnail, the photograph lies behind it."""

    def saved(kind, *more):
        first, info = Image.new("RGB", (4, 3)), TiffImagePlugin.ImageFileDirectory_v2()
        info[254] = kind
        first.save(tmp_path / "x.tif", tiffinfo=info, save_all=True, append_images=more)
        return tmp_path / "x.tif"

    for read in (image_size, read_image):
        with pytest.raises(DataError, match="whose first page is a smaller copy of another one"):
            read(saved(1, Image.new("RGB", (40, 30))))
        read(saved(0, Image.new("RGB", (40, 30))))
        read(saved(1))  # the one page that it has
