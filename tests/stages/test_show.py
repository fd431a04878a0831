"""Sheets of a run's photographs, of a layer's features, of training samples."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.errors import UsageError
from wsss_cli.stages import show
from wsss_cli.stages.features import layer_output, principal_colors
from wsss_cli.stages.plan import open_experiment
from wsss_cli.stages.show import Choice, leave_sheet, show_layer, show_run, show_training


@pytest.fixture
def rows(monkeypatch):
    """What a sheet is drawn of: the titles of each example's pictures."""
    seen = []
    draw = show.examples_sheet

    def watched(examples, dataset, cell_height=200):
        seen[:] = [(one.title, [shot.title for shot in one.shots], one.missing) for one in examples]
        return draw(examples, dataset, cell_height)

    monkeypatch.setattr(show, "examples_sheet", watched)
    return seen


def test_masks_are_shown_with_the_cams_that_they_were_made_of(home, ctx, rows):
    picture = show_run(home / "runs/pseudo-toy-2", Choice(3), ctx)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and len(rows) == 3
    for title, shots, missing in rows:
        tags = title.split("(")[1].rstrip(")").split(", ")
        assert sorted(shots[1 : 1 + len(tags)]) == sorted(f"CAM: {tag}" for tag in tags)
        assert shots[1 + len(tags) :] == ["pseudo mask", "truth", "errors"] and not missing


def test_a_training_shows_what_it_predicts_on_val_and_by_name_on_train(home, ctx, rows):
    run = home / "runs/train-toy-3"
    show_run(run, Choice(2), ctx)
    assert [row[0].split("_")[0] for row in rows] == ["val", "val"]
    assert rows[0][1] == ["image", "prediction", "truth", "errors"]
    show_run(run, Choice(ids=("train_000003", "val_000001")), ctx)
    assert rows[0][1][1].startswith("CAM: ") and "pseudo mask" in rows[0][1]
    assert rows[1][1] == ["image", "prediction", "truth", "errors"] and not rows[1][2]


def test_a_photograph_that_is_not_listed_is_refused_with_the_nearest(home, ctx):
    with pytest.raises(UsageError, match="train_00003") as error:
        show_run(home / "runs/train-toy-3", Choice(ids=("train_00003",)), ctx)
    assert "train_000003" in error.value.hint


def test_training_samples_are_those_of_the_training(home, ctx, rows, monkeypatch):
    from wsss_cli.data.loader import Batches
    from wsss_cli.stages.training_data import training_item

    drawn = {}

    def watched(sample, rng, **options):
        item = training_item(sample, rng, **options)
        drawn[sample.id, int(rng.integers(1 << 30))] = item["image"]  # after all that the sample has drawn
        return item

    monkeypatch.setattr(show, "training_item", watched)
    preset = load_preset("toy", [f'dataset.path="{home / "toy"}"', "train.crop=32"])
    exp = open_experiment(preset, home / "runs")
    show_training(exp, home / "runs/pseudo-toy-2", Choice(2), ctx)
    assert rows[0][1] == ["image", *(f"training: epoch {number}" for number in (1, 2, 3))]
    samples, make = show._training(exp, home / "runs/pseudo-toy-2", ctx)
    batches = Batches(samples, make, 6, preset.seed)
    before = dict(drawn)
    for step in range(3):
        for key in batches.keys(step):
            batches.item(key)
    again = {key: image for key, image in drawn.items() if key in before}
    assert len(before) == 6 and all((again[key] == image).all() for key, image in before.items())
    assert len(drawn) == 18  # the training's own six of each epoch, and none beside them


def test_without_masks_training_samples_are_shown_all_the_same(home, tmp_path, ctx, rows):
    said = []
    ctx.ui.say = said.append
    preset = load_preset("toy", [f'dataset.path="{home / "toy"}"', "train.crop=32"])
    show_training(open_experiment(preset, tmp_path / "none"), None, Choice(2), ctx)
    assert len(rows) == 2 and len(rows[0][1]) == 4 and "no pseudo masks yet" in said[0]


class Two(nn.Module):
    """Red and green of an image, and their sum."""

    def __init__(self):
        super().__init__()
        self.backbone, self.add, self.unused = Backbone(), nn.Conv2d(2, 1, 1), nn.Identity()

    def forward(self, x):
        return self.add(self.backbone(x))


class Backbone(nn.Module):
    def normalise(self, x):
        return x.float() / 255

    def forward(self, x):
        return x[:, :2, ::2, ::2]


def test_features_of_a_layer_are_what_it_gives(ctx):
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 255
    maps = layer_output(Two(), "backbone", image, ctx)
    assert maps.shape == (2, 2, 3) and (maps[0] == 1).all() and (maps[1] == 0).all()
    for layer, word in (("unused", "no part"), ("ad", "no module 'ad'")):
        with pytest.raises(UsageError, match=word):
            layer_output(Two(), layer, image, ctx)


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (3, 1, 2, 0), (0, 1, 3, 2)])
def test_what_has_four_axes_and_is_no_map_is_refused(axes, ctx):
    class Turned(Two):
        def forward(self, x):
            return self.unused(super().forward(x).permute(*axes))

    with pytest.raises(UsageError, match="whose last two axes are not height and width"):
        layer_output(Turned(), "unused", np.zeros((4, 6, 3), np.uint8), ctx)


def test_colours_of_features_are_principal_components_of_all_pictures():
    generator = np.random.default_rng(0)
    wide = generator.normal(size=(2, 1, 40, 50)).astype(np.float32) * 10
    narrow = generator.normal(size=(2, 1, 40, 50)).astype(np.float32)
    first, second = np.concatenate([narrow[0], wide[0]]), np.concatenate([narrow[1], wide[1]])
    colors = principal_colors([first, second])
    assert [one.shape for one in colors] == [(40, 50, 3)] * 2
    for picture, source in zip(colors, (first, second), strict=True):
        for channel, feature in ((0, 1), (1, 0)):  # the one that varies most is red
            assert abs(np.corrcoef(picture[..., channel].ravel(), source[feature].ravel())[0, 1]) > 0.99
        assert (picture[..., 2] == 0).all()  # there is no third


def test_a_layer_of_a_stage_without_a_network_is_refused(home, ctx):
    with pytest.raises(UsageError, match="pseudo run, which has no network"):
        show_layer(home / "runs/pseudo-toy-2", "x", Choice(), ctx)


def test_a_sheet_that_cannot_be_drawn_costs_no_run(home, tmp_path, ctx):
    shutil.copytree(home / "runs/pseudo-toy-2", tmp_path / "run")
    record = tmp_path / "run/inputs.json"
    record.write_text(record.read_text().replace(str(home / "toy"), str(tmp_path / "gone")))
    said = []
    ctx.ui.say = said.append
    leave_sheet(tmp_path / "run", ctx)
    assert len(said) == 1 and "no examples.jpg" in said[0] and not (tmp_path / "run/examples.jpg").exists()
    leave_sheet(home / "runs/pseudo-toy-2", ctx)
    assert (home / "runs/pseudo-toy-2/examples.jpg").stat().st_size > 2000


def test_torch_is_asked_for_no_gradient(ctx):
    layer_output(Two(), "add", np.zeros((4, 4, 3), np.uint8), ctx)
    assert torch.is_grad_enabled()
