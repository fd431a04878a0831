"""What `wsss infer` writes beside masks: that it says what the mask says, and is never that of another mask."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_infer import Sees, photograph

from wsss_cli.config.load import load_preset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.engine.context import Context, Silent
from wsss_cli.errors import UsageError
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import predict
from wsss_cli.inference.tiles import Tiles
from wsss_cli.stages.infer import run_infer
from wsss_cli.stages.photographs import find_images

ALL = ("overlays", "confidence", "numbers", "colors", "soft")
COLORS = tuple((40 * index, 255 - index, 7) for index in range(6))


@pytest.fixture
def network():
    return Network(Sees(), load_preset("toy"), tuple("abcdef"), COLORS, 3, "data/toy", "run 1")


@pytest.fixture
def infer(tmp_path):
    def infer(network, *photos, out="out", beside=(), ui=None, **how):
        ctx = Context(torch.device("cpu"), tmp_path, ui=ui or Silent())
        summary = run_infer(network, photos, tmp_path / out, ctx, **{"ms_flip": False, "beside": beside, **how})
        assert summary["lost"] == []
        return summary["images"]

    return infer


def kinds_of(folder, name="a"):
    return sorted(file.parent.name for file in folder.glob(f"*/{name}.*"))


@pytest.mark.parametrize("ms_flip", [False, True])
def test_all_files_say_what_the_network_says(infer, network, tmp_path, ms_flip):
    photo, out = photograph(tmp_path, "a", 70, 100), tmp_path / "out"
    assert infer(network, photo, beside=ALL, ms_flip=ms_flip) == 1
    mode = "ms_flip" if ms_flip else "single"
    shown = {"single": not ms_flip, "ms_flip": ms_flip, "probabilities": True}
    ctx = Context(torch.device("cpu"), tmp_path)
    maps = predict(network.model, [read_image(photo)], network.preset.eval, ctx, "fp32", **shown)
    mask, scores = maps[mode][0], np.rint(maps[f"{mode}_probabilities"][0] * 255)
    assert len(np.unique(mask)) > 1
    assert np.array_equal(read_mask(out / "masks/a.png"), mask)
    with Image.open(out / "numbers/a.png") as numbers, Image.open(out / "colors/a.png") as colors:
        assert (numbers.mode, colors.mode) == ("L", "RGB")
        assert np.array_equal(numbers, mask)
        assert np.array_equal(colors, np.array(COLORS)[mask])
    with np.load(out / "soft/a.npz", allow_pickle=False) as soft:
        assert (soft["scores"].dtype, soft["scores"].shape) == (np.uint8, (6, 70, 100))
        assert np.array_equal(soft["scores"], scores)
        assert soft["classes"].tolist() == list("abcdef")
    assert np.array_equal(read_mask(out / "confidence/a.png"), scores.max(axis=0))
    assert Image.open(out / "overlays/a.png").size == (100, 70)


def test_scores_of_tiles_fit_their_mask(infer, network, tmp_path):
    photo = photograph(tmp_path, "a", 70, 100)
    infer(network, photo, beside=["soft", "confidence"], tiles=Tiles(40, 10))
    mask = read_mask(tmp_path / "out/masks/a.png")
    with np.load(tmp_path / "out/soft/a.npz") as soft:
        scores = soft["scores"]
    assert scores.shape == (6, 70, 100)
    assert np.array_equal(np.take_along_axis(scores, mask[None].astype(int), 0)[0], scores.max(axis=0))
    assert np.array_equal(read_mask(tmp_path / "out/confidence/a.png"), scores.max(axis=0))


@pytest.mark.parametrize("kind", ALL)
def test_what_is_wanted_later_is_written_then_and_is_never_that_of_an_older_mask(infer, network, tmp_path, kind):
    photo, out = photograph(tmp_path, "a", 30, 40), tmp_path / "out"
    assert infer(network, photo) == 1 and kinds_of(out) == ["masks"]
    assert infer(network, photo, beside=[kind]) == 1 and kinds_of(out) == sorted(["masks", kind])
    assert infer(network, photo, beside=[kind]) == infer(network, photo) == 0
    assert kinds_of(out) == sorted(["masks", kind])
    next(out.glob(f"{kind}/a.*")).unlink()
    assert infer(network, photo, beside=[kind]) == 1
    assert infer(network, photo, ms_flip=True) == 1
    assert kinds_of(out) == (["masks", "overlays"] if kind == "overlays" else ["masks"])
    assert infer(network, photo, ms_flip=True, beside=[kind]) == 1


@pytest.mark.parametrize("kind", ["masks", *ALL])
@pytest.mark.parametrize("left", [0, 0.5, 1])
def test_what_is_there_but_cut_off_is_made_anew(infer, network, tmp_path, kind, left):
    photos = [photograph(tmp_path, name, 30, 40) for name in "ab"]
    assert infer(network, *photos, beside=ALL) == 2
    (file,) = (tmp_path / "out" / kind).glob("a.*")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)] + (b"more behind it" if left == 1 else b""))
    heard, ui = [], Silent()
    ui.say = heard.append
    assert infer(network, *photos, beside=ALL, ui=ui) == (left < 1)
    assert (file.read_bytes() == whole) == (left < 1)
    assert heard == ([f"1 photograph with files in {tmp_path / 'out'} that are cut off: made anew"] if left < 1 else [])


@pytest.mark.parametrize("kind", ["numbers", "colors", "soft"])
def test_files_that_nobody_predicted_are_left_alone_in_a_folder_of_predictions(infer, network, tmp_path, kind):
    photo = photograph(tmp_path, "a", 30, 40)
    infer(network, photo)
    drawn = tmp_path / "out" / kind / ("a.npz" if kind == "soft" else "a.png")
    drawn.parent.mkdir()
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(UsageError, match=f"{kind}/{drawn.name} is there, and nothing says that it was predicted"):
        infer(network, photo, beside=[kind])
    assert infer(network, photo, ms_flip=True) == infer(replace(network, model=Sees(most=10**8)), photo) == 1
    assert drawn.read_bytes() == b"drawn by hand"


def test_folders_of_photographs_are_taken_for_masks_only_where_these_were_written(
    infer, network, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/colors").mkdir(parents=True)
    photograph(tmp_path, "drawn", 30, 40).rename("photos/colors/a.jpg")
    here = tmp_path / "photos"
    for beside, images in (((), 1), (["numbers"], 1), (["colors"], 1), (["colors"], 0)):
        paths = find_images(["photos"], here, print)
        assert list(paths) == ["photos/./colors/a.jpg"]
        assert infer(network, *paths, out="photos", beside=beside) == images
    assert Path("photos/colors/colors/a.png").is_file()
    with pytest.raises(UsageError, match="lies where masks are written"):
        find_images(["photos/colors/colors/a.png"], here, print)
