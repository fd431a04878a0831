"""Masks of georeferenced TIFFs lie where their photographs lie."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from test_infer_outputs import COLORS, kinds_of
from toy_runs import Blue

from wsss_cli.cli.infer import _show
from wsss_cli.config.load import load_preset
from wsss_cli.data.geotiff import geo_mask, geo_tags
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.engine.context import Context, Silent
from wsss_cli.inference.network import Network
from wsss_cli.stages.infer import run_infer
from wsss_cli.stages.photographs import find_images

KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)  # projected, pixels are areas, UTM 33N
PLACES = {
    "scale": {33550: (0.25, 0.3, 0.0), 33922: (0.0, 0.0, 0.0, 500000.25, 5200000.5, 0.0)},
    "turned": {34264: (0.2, 0.05, 0, 10.0, 0.04, -0.2, 0, 50.0, 0, 0, 0, 0, 0, 0, 0, 1.0)},
}


def photograph(file, place, **more):
    tags = ImageFileDirectory_v2()
    for tag, values in place.items():
        tags.tagtype[tag], tags[tag] = 12, values
    if place:
        tags.tagtype[34735], tags[34735] = 3, KEYS
        tags.tagtype[34737], tags[34737] = 2, "a text|"
    for tag, value in more.items():
        tags[int(tag[1:])] = value
    draw = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(draw).save(file, "TIFF", tiffinfo=tags)
    return file


@pytest.mark.parametrize("place", PLACES)
def test_a_mask_takes_over_where_its_photograph_lies(tmp_path, place):
    photo = photograph(tmp_path / "a.tif", PLACES[place])
    mask = np.arange(1200, dtype=np.uint8).reshape(30, 40) % 6
    (tmp_path / "mask.tif").write_bytes(geo_mask(mask, COLORS, geo_tags(photo)))
    with Image.open(photo) as image, Image.open(tmp_path / "mask.tif") as written:
        assert written.mode == "P" and np.array_equal(written, mask)
        assert written.getpalette()[:18] == [value for color in COLORS for value in color]
        for tag in (*PLACES[place], 34735, 34737):
            assert written.tag_v2[tag] == image.tag_v2[tag]
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(photo) as image, rasterio.open(tmp_path / "mask.tif") as written:
        assert written.crs == image.crs and written.crs.to_epsg() == 32633
        assert written.transform == image.transform and written.bounds == image.bounds
        assert np.array_equal(written.read(1), mask)


def test_reading_them_says_nothing(tmp_path, capfd):
    assert read_image(photograph(tmp_path / "a.tif", PLACES["scale"])).shape == (30, 40, 3)
    assert capfd.readouterr() == ("", "")


def test_photographs_that_lie_nowhere_have_no_tags(tmp_path):
    assert geo_tags(photograph(tmp_path / "plain.tif", {})) is None
    assert geo_tags(photograph(tmp_path / "turned.tif", PLACES["scale"], _274=6)) is None
    (tmp_path / "torn.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:20])
    assert geo_tags(tmp_path / "torn.tif") is geo_tags(tmp_path / "gone.tif") is geo_tags(tmp_path / "a.png") is None


def test_infer_writes_them_of_photographs_that_have_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photograph(tmp_path / "photos/a.tif", PLACES["scale"])
    photograph(tmp_path / "photos/b.tif", {})
    network = Network(Blue(), load_preset("toy"), tuple("abcdef"), COLORS, 3, "data/toy", "run 1")
    heard, ui = [], Silent()
    ui.say = heard.append
    ctx = Context(torch.device("cpu"), tmp_path, ui=ui)

    def infer(*beside):
        paths = find_images(["photos"], tmp_path / "photos", print)
        done = run_infer(network, paths, tmp_path / "photos", ctx, ms_flip=False, beside=beside)
        return done["images"], done["kept"]

    assert infer() == (2, 0)
    assert [infer("geotiff"), infer("geotiff"), infer()] == [(1, 1), (0, 2), (0, 2)]
    assert heard == ["geotiff: 1 photograph without: no georeferenced TIFF, or turned by EXIF"] * 2
    assert (kinds_of(tmp_path / "photos"), kinds_of(tmp_path / "photos", "b")) == (["geotiff", "masks"], ["masks"])
    with Image.open("photos/geotiff/a.tif") as written:
        assert np.array_equal(written, read_mask("photos/masks/a.png"))
    (tmp_path / "photos/geotiff/a.tif").unlink()
    assert infer("geotiff") == (1, 1)
    (tmp_path / "photos/a.tif").unlink()
    heard.clear()
    assert infer("geotiff")[0] == 0 and heard == []  # no photograph at all has one, which the command says


def test_that_no_photograph_has_one_is_said_of_tiffs_alone(tmp_path, capsys):
    masks = {"masks": str(tmp_path), "images": 1, "kept": 0, "geotiff": str(tmp_path / "geotiff")}
    _show(masks, "")
    assert capsys.readouterr().out.endswith("geotiff: no photograph is a georeferenced TIFF\n")
