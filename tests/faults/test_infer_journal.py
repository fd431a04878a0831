"""A folder of predictions says what made each mask; what another network, setting or photograph made is made anew."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.data.masks import read_mask
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.sweep import sweep
from wsss_cli.errors import BusyError, Preempted, UsageError
from wsss_cli.inference import tiles
from wsss_cli.inference.journal import NAME, noted_items, weights_digest
from wsss_cli.inference.network import Network
from wsss_cli.locks import locked
from wsss_cli.stages import infer


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(infer, "folded", lambda model: model)  # it has no convolution
    torch.manual_seed(0)
    preset = load_preset("toy")
    return Network(nn.Linear(2, 2), preset, ("background", "cat"), ((0, 0, 0), (128, 0, 0)), 3, "data/toy", "run 1")


@pytest.fixture
def photos(tmp_path):
    for name, value in (("a", 0), ("b", 1)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    return [tmp_path / "a.png", tmp_path / "b.png"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Predict masks that hold the first pixel of their photograph, at most 1."""
    ui = Said()

    def predict(model, images, config, ctx, precision, *, single, ms_flip, probabilities):
        mode, sure = "ms_flip" if ms_flip else "single", np.full((2, 8, 8), (0.2, 0.8)[probabilities], np.float32)
        maps = {mode: [np.minimum(image[..., 0], 1) for image in images]}
        return {**maps, f"{mode}_probabilities": [sure for _ in images]} if probabilities else maps

    monkeypatch.setattr(tiles, "predict", predict)

    def run(network, photos, *, ms_flip=False, beside=(), **more):
        ui.lines.clear()
        ctx = Context(torch.device("cpu"), tmp_path, ui)
        made = infer.run_infer(network, photos, tmp_path / "out", ctx, ms_flip=ms_flip, beside=beside, **more)
        assert made["lost"] == []
        return made["images"], made["kept"], [line.split(" mask")[0] for line in ui.lines]

    return run


def test_what_the_same_call_made_is_kept(run, network, photos):
    assert run(network, photos[:1]) == (1, 0, [])
    assert run(network, photos) == (1, 1, [])
    assert run(network, photos) == (0, 2, [])


def test_confidence_is_written_where_it_is_asked_for_and_is_never_that_of_another_mask(run, network, photos, tmp_path):
    sure = tmp_path / "out/confidence"
    assert run(network, photos) == (2, 0, []) and not sure.exists()
    assert run(network, photos, beside=["confidence"]) == (2, 0, [])  # masks alone are not all that is asked for
    assert [read_mask(file).tolist() for file in sorted(sure.iterdir())] == [[[204] * 8] * 8] * 2
    assert run(network, photos, beside=["confidence"]) == run(network, photos) == (0, 2, [])
    assert len(list(sure.iterdir())) == 2
    assert run(replace(network, model=nn.Linear(2, 2)), photos[:1])[0] == 1
    assert [file.name for file in sure.iterdir()] == ["b.png"]


def test_other_weights_or_settings_make_it_anew(run, network, photos):
    run(network, photos)
    other = replace(network, model=nn.Linear(2, 2))
    assert weights_digest(other.model) != weights_digest(network.model)
    assert run(other, photos) == (2, 0, ["2"])
    assert run(network, photos) == (2, 0, ["2"])  # and back
    assert run(network, photos, ms_flip=True) == (2, 0, ["2"])
    views = network.preset.eval.model_copy(update={"scales": (1.0, 2.0)})
    changed = replace(network, preset=network.preset.model_copy(update={"eval": views}))
    assert run(changed, photos, ms_flip=True) == (2, 0, ["2"])


def test_another_photograph_of_the_same_name_is_made_anew(run, network, photos, tmp_path):
    run(network, photos)
    Image.fromarray(np.full((8, 8, 3), 1, np.uint8)).save(photos[0])
    assert run(network, photos) == (1, 1, ["1"])
    assert read_mask(tmp_path / "out" / "masks" / "a.png").max() == 1
    (tmp_path / "elsewhere").mkdir()
    photos[0].rename(tmp_path / "elsewhere" / "a.png")
    assert run(network, [tmp_path / "elsewhere" / "a.png"]) == (1, 0, ["1"])


def test_masks_of_nobody_knows_what_are_not_written_over(run, network, photos, tmp_path):
    run(network, photos)
    (tmp_path / "out" / NAME).unlink()
    with pytest.raises(UsageError, match=r"masks/a.png is there, and nothing says that it was predicted"):
        run(network, photos)


def test_an_overlay_of_an_earlier_mask_is_not_taken_for_one_of_this(run, network, photos):
    run(network, photos, beside=["overlays"])
    assert run(network, photos) == (0, 2, [])
    run(network, photos, ms_flip=True)
    assert run(network, photos, ms_flip=True, beside=["overlays"]) == (2, 0, ["2"])


def test_what_a_kill_left_between_mask_and_line_is_made_anew(run, network, photos, tmp_path, monkeypatch):
    run(network, photos)
    other = replace(network, model=nn.Linear(2, 2))
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(infer.Journal, "add", lambda *arguments, **more: (_ for _ in ()).throw(Preempted("killed")))
        run(other, photos)
    with (tmp_path / "out" / NAME).open("a") as file:
        file.write('\n{"item": "a", "ke')  # and a torn line
    made, kept, _ = run(network, photos)
    assert (made, kept) == (2, 0)


def test_masks_are_noted_as_they_are_written_and_not_when_their_turn_comes(run, network, photos, tmp_path, monkeypatch):
    """A kill would have them made anew."""

    def killed_at_the_first_result(*arguments):
        for _ in sweep(*arguments):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(infer, "sweep", killed_at_the_first_result)
        run(network, photos)
    masks = {file.stem for file in (tmp_path / "out/masks").iterdir()}
    assert masks and set(noted_items(tmp_path / "out")) == masks
    assert run(network, photos) == (2 - len(masks), len(masks), [])


def test_a_folder_has_one_writer_and_what_killed_ones_left_half_written_goes(run, network, photos, tmp_path):
    run(network, photos)
    left = tmp_path / "out" / "masks" / ".a.png.abcd1234.part"
    left.write_bytes(b"half")
    with locked(tmp_path / "out" / ".infer.lock", ""), pytest.raises(BusyError, match="is being written to by another"):
        run(network, photos)
    assert run(network, photos) == (0, 2, []) and not left.exists()
