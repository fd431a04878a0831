from __future__ import annotations

import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from wsss_cli.data.images import image_size, read_image
from wsss_cli.data.remote import is_there, read_url, url_of
from wsss_cli.data.splits import Split
from wsss_cli.errors import DataError, ResourceError


@pytest.mark.parametrize(
    ("path", "url"),
    [
        (Path("s3://bucket/a b/c.jpg"), "s3://bucket/a b/c.jpg"),
        (Path("memory://trip/1.png"), "memory://trip/1.png"),
        (Path("file:///data/1.png"), "file:///data/1.png"),
        ("https://place/1.jpg?size=2", "https://place/1.jpg?size=2"),
        (Path("/data/s3:/1.jpg"), ""),
        (Path("a:/1.jpg"), ""),
        ("1.jpg", ""),
    ],
)
def test_a_path_stands_for_a_url(path: str | Path, url: str) -> None:
    assert url_of(path) == url


def _list(folder: Path, *images: str, mask: str = "") -> Split:
    (folder / "splits").mkdir(exist_ok=True)
    rows = "".join(f"{number},{image},{mask},cat\n" for number, image in enumerate(images))
    (folder / "splits" / "train.csv").write_text(f"id,image,mask,labels\n{rows}")
    return Split(folder, "train", ("background", "cat"))


def test_photographs_of_a_list_are_read_where_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "1.png")
    Image.fromarray(pixels).save(tmp_path / "2.jpg", exif=exif)
    for name in ("1.png", "2.jpg"):
        with fsspec.open(f"memory://remote/{name}", "wb") as file:
            file.write((tmp_path / name).read_bytes())
    for place in (f"file://{tmp_path}", "memory://remote"):
        samples = _list(tmp_path, f"{place}/1.png", f"{place}/2.jpg", "1.png")
        assert [sample.image.name for sample in samples] == ["1.png", "2.jpg", "1.png"]
        for sample, name in zip(samples, ("1.png", "2.jpg", "1.png"), strict=True):
            assert is_there(sample.image)
            assert np.array_equal(read_image(sample.image), read_image(tmp_path / name))
            assert image_size(sample.image) == ((8, 6) if name == "2.jpg" else (6, 8))
    assert samples.sha256 == _list(tmp_path, "1.png", "2.jpg", "1.png").sha256  # the same data elsewhere


def test_urls_that_a_path_cannot_hold_and_masks_are_refused(tmp_path: Path) -> None:
    for image in ("s3://bucket//1.jpg", "S3://bucket/1.jpg", "s3://bucket/./1.jpg", "://1.jpg"):
        with pytest.raises(DataError, match=r"line 2: the URL '.*' cannot be taken"):
            _list(tmp_path, image)
    with pytest.raises(DataError, match="line 2: the mask is a URL"):
        _list(tmp_path, "1.jpg", mask="s3://bucket/1.png")


def test_what_is_not_there_is_lost_and_what_does_not_answer_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cannot read image memory://gone/1\.jpg: there is no such file"):
        read_image(Path("memory://gone/1.jpg"))
    for work in (read_image, image_size, is_there):
        with pytest.raises(ResourceError, match=r"cannot read nothing://place/1\.jpg: .*nothing"):
            work(Path("nothing://place/1.jpg"))  # a kind of storage that there is not

    def closed(*arguments: str) -> None:
        raise PermissionError("no\nentry")

    def lacking(*arguments: str) -> None:
        raise ImportError("of this kind of storage")

    for url, package in (("s3://place/1.jpg", "s3fs"), ("https://place/1.jpg", "aiohttp requests")):
        with monkeypatch.context() as patch:
            patch.setattr(fsspec, "open", lacking)
            with pytest.raises(ResourceError, match="of this kind of storage") as refused:
                read_url(url)
        assert refused.value.hint == f"pip install 'wsss[remote]' {package}"
    with monkeypatch.context() as patch:
        patch.setattr(fsspec, "open", closed)
        with pytest.raises(ResourceError, match=r"cannot read s3://place/1\.jpg: no entry"):
            image_size(Path("s3://place/1.jpg"))
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    for work in (read_url, is_there):
        with pytest.raises(ResourceError, match="URLs are read by fsspec, which is not installed") as caught:
            work("s3://place/1.jpg")
        assert caught.value.hint == "pip install 'wsss[remote]'"
