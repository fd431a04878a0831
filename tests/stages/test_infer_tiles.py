"""Photographs larger than a tile: what each tile decides, and that nothing else changes."""

import json

import numpy as np
import pytest
import torch
from test_infer import Sees, photograph
from toy_runs import Blue

from wsss_cli.config.load import load_preset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.engine.context import Context
from wsss_cli.errors import ResourceError, UsageError
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import predict
from wsss_cli.inference.tiles import Tiles
from wsss_cli.stages.infer import run_infer


def network_of(model, *settings):
    preset = load_preset("toy", ["eval.scales=[1.0,1.5]", *settings])
    return Network(model, preset, tuple("abcdef"), ((0, 0, 0),) * 6, 3, "data/toy", "run 1")


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path)


@pytest.fixture
def infer(tmp_path, ctx):
    def infer(network, photo, tiles, out="out", **how):
        done = run_infer(network, [photo], tmp_path / out, ctx, **{"ms_flip": False, "tiles": tiles, **how})
        return read_mask(tmp_path / out / "masks" / photo.name), done["images"]

    return infer


def test_tiles_end_with_the_photograph_and_the_nearest_centre_decides():
    tiles = Tiles(10, 4)
    assert tiles.spans(22) == [(0, 10, 0, 8), (6, 16, 8, 14), (12, 22, 14, 22)]
    assert tiles.spans(20) == [(0, 10, 0, 8), (6, 16, 8, 13), (10, 20, 13, 20)]  # the last is moved inwards
    assert tiles.spans(10) == [(0, 10, 0, 10)]
    assert tiles.spans(7) == [(0, 7, 0, 7)]
    assert Tiles(10, 0).spans(20) == [(0, 10, 0, 10), (10, 20, 10, 20)]
    for length in range(1, 60):
        spans = Tiles(10, 7).spans(length)
        for pixel in range(length):
            centres = [abs((start + end) / 2 - pixel - 0.5) for start, end, _, _ in spans]
            (decides,) = [number for number, (*_, first, last) in enumerate(spans) if first <= pixel < last]
            assert centres[decides] == min(centres)
            assert spans[decides][0] <= pixel < spans[decides][1]


@pytest.mark.parametrize("ms_flip", [False, True])
def test_each_tile_is_looked_at_as_a_photograph(infer, ctx, tmp_path, ms_flip):
    network, photo = network_of(Sees()), photograph(tmp_path, "large", 70, 100)
    image = read_image(photo)
    mask, _ = infer(network, photo, Tiles(40, 10), ms_flip=ms_flip, beside=["confidence"])
    nearest = np.full((70, 100), np.inf)
    expected, sure = np.zeros((70, 100), np.uint8), np.zeros((70, 100), np.uint8)
    mode = "ms_flip" if ms_flip else "single"
    for top in (0, 30):
        for left in (0, 30, 60):
            part = image[top : top + 40, left : left + 40]
            shown = {"single": not ms_flip, "ms_flip": ms_flip, "probabilities": True}
            maps = predict(network.model, [part], network.preset.eval, ctx, "fp32", **shown)
            rows, columns = np.arange(top, top + 40), np.arange(left, left + 40)
            far = (rows[:, None] + 0.5 - top - 20) ** 2 + (columns + 0.5 - left - 20) ** 2
            here = np.s_[top : top + 40, left : left + 40]
            nearer = far < nearest[here]
            nearest[here][nearer] = far[nearer]
            expected[here][nearer] = maps[mode][0][nearer]
            sure[here][nearer] = np.rint(maps[f"{mode}_probabilities"][0].max(0) * 255)[nearer]
    assert len(np.unique(mask)) > 1
    assert np.array_equal(mask, expected)
    assert np.array_equal(read_mask(tmp_path / "out/confidence/large.png"), sure)
    whole, _ = infer(network, photo, None, "whole", ms_flip=ms_flip)
    assert (mask != whole).any()  # this network sees far


def test_there_are_no_seams_where_a_network_does_not_look_far(infer, tmp_path):
    network, photo = network_of(Blue()), photograph(tmp_path, "large", 90, 130)
    whole, _ = infer(network, photo, None, "whole")
    assert len(np.unique(whole)) == 2
    for side, overlap in ((40, 10), (50, 0), (90, 89), (129, 3)):
        assert np.array_equal(infer(network, photo, Tiles(side, overlap), f"{side}")[0], whole)


def test_no_more_than_a_tile_goes_through_the_network(infer, tmp_path):
    network, photo = network_of(Sees(most=40 * 40)), photograph(tmp_path, "large", 70, 100)
    with pytest.raises(ResourceError) as short:
        infer(network, photo, Tiles(80, 10))
    assert short.value.hint == "make it need less: --tile 40"
    assert infer(network, photo, Tiles(40, 10))[0].shape == (70, 100)


def test_photographs_no_larger_than_a_tile_are_as_before_and_tiles_are_a_setting(infer, tmp_path):
    network, photo = network_of(Sees()), photograph(tmp_path, "small", 40, 30)
    whole, _ = infer(network, photo, None)
    before = (tmp_path / "out/made.jsonl").read_text()
    assert "tiles" not in before
    tiled, count = infer(network, photo, Tiles(40, 10))
    assert np.array_equal(tiled, whole) and count == 1
    assert infer(network, photo, Tiles(40, 10))[1] == 0
    assert [infer(network, photo, Tiles(*other))[1] for other in ((40, 9), (41, 9))] == [1, 1]
    assert infer(network, photo, None)[1] == 1
    keys = [row["key"] for row in map(json.loads, before.split("\n")[1:]) if "settings" in row]
    assert (tmp_path / "out/made.jsonl").read_text().count(f'"key": "{keys[0]}"') == 3  # settings, and twice the item


def test_tiles_that_cannot_be_are_refused(infer, tmp_path):
    with pytest.raises(UsageError, match="--overlap 40 is not below --tile 40") as error:
        Tiles(40, 40)
    assert error.value.hint == "for example --overlap 5"
    photo = photograph(tmp_path, "small", 40, 30)
    for network, mode in ((network_of(Sees()), "slide"), (network_of(Sees(), 'eval.mode="slide"'), "")):
        with pytest.raises(UsageError, match="--tile goes with mode whole, and windows are asked for"):
            infer(network, photo, Tiles(40, 10), mode=mode)
    assert infer(network, photo, Tiles(40, 10), mode="whole")[1] == 1
