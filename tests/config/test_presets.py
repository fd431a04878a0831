"""The presets that come with the program say what their names promise."""

import itertools

import pytest

from wsss_cli.config.base import AdamWConfig, Model
from wsss_cli.config.load import load_preset, preset_folder, preset_names
from wsss_cli.config.lock import difference, to_toml
from wsss_cli.engine.fit import lr_factor

ROWS = list(itertools.product(("r50", "r101"), ("voc", "coco"), ("full", "weak")))
ZOO = {  # MMSegmentation, VOC 2012 + Aug: (iterations, single scale, ms+flip)
    "r50": [(20000, 75.93, 77.50), (40000, 76.81, 77.57)],
    "r101": [(20000, 77.22, 78.59), (40000, 78.62, 79.53)],
}


def differing(left, right):
    lines = difference(load_preset(left).model_dump(mode="json"), load_preset(right).model_dump(mode="json"))
    return {line.split(":")[0] for line in lines} - {"name", "description", "extends", "reference"}


@pytest.mark.parametrize(("depth", "data", "supervision"), ROWS)
def test_a_row_of_the_table_differs_from_its_base_in_what_its_name_says(depth, data, supervision):
    expected = set()
    if depth == "r101":
        expected |= {"train.backbone.name"}
    if data == "coco":
        expected |= {"dataset.path", "dataset.train", "classifier.iters"}
    if supervision == "weak":
        made = {"affinity.irn", "pseudo.threshold.fg", "pseudo.threshold.bg", "pseudo.steps"}  # how masks are made
        expected |= {"train.supervision"} | made
    name = f"deeplabv3p-{depth}-{data}-{supervision}"
    assert differing("deeplabv3p-r50-voc-full", name) == expected
    assert load_preset(name).train.backbone.name == f"resnet{depth[1:]}c"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_comes_back_from_its_own_lock(name, tmp_path):
    (tmp_path / f"{name}.toml").write_text(to_toml(load_preset(name)))
    again = load_preset(str(tmp_path / f"{name}.toml"))
    assert again.model_copy(update={"extends": ""}) == load_preset(name).model_copy(update={"extends": ""})


@pytest.mark.parametrize("depth", ZOO)
def test_the_reference_figures_are_those_of_the_zoo(depth):
    given = load_preset(f"deeplabv3p-{depth}-voc-full").reference
    assert [(row.iters, row.miou, row.miou_ms_flip) for row in given] == ZOO[depth]
    assert load_preset(f"deeplabv3p-{depth}-voc-weak").reference == ()
    assert load_preset(f"deeplabv3p-{depth}-coco-full").reference == ()


def test_the_reference_figures_of_adamw_are_those_of_the_fork():
    given = {name: load_preset(name).reference for name in preset_names() if name.endswith("-adamw")}
    assert len(given) == 8
    found = {name: [(row.iters, row.miou, row.miou_ms_flip) for row in rows] for name, rows in given.items() if rows}
    assert found == {
        "deeplabv3p-r101-voc-weak-adamw": [(40000, 76.70, 77.77)],
        "deeplabv3p-r101-coco-full-adamw": [(80000, 58.85, 59.75)],
    }


@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith("deeplabv3p-")])
def test_the_header_of_a_preset_has_its_reference_figures(name):
    lines = itertools.takewhile(
        lambda line: line.startswith("#"), (preset_folder() / f"{name}.toml").read_text().splitlines()
    )
    shown = [line.split() for line in lines if " iterations  " in line]
    assert shown == [
        ["#", f"{row.iters:,}", "iterations", f"{row.miou:.2f}", "/", f"{row.miou_ms_flip:.2f}"]
        for row in load_preset(name).reference
    ]


@pytest.mark.parametrize(("depth", "data", "supervision"), ROWS)
def test_the_adamw_recipe_warms_up_and_ends_at_zero(depth, data, supervision):
    preset = load_preset(f"deeplabv3p-{depth}-{data}-{supervision}-adamw")
    train = preset.train
    assert isinstance(train.optim, AdamWConfig)
    assert (train.optim.lr, train.optim.head_lr_mult, train.optim.weight_decay) == (1e-4, 10.0, 0.01)
    assert train.iters == (40000 if data == "voc" else 80000)
    assert (train.supervision, train.backbone.name) == (supervision, f"resnet{depth[1:]}c")
    factors = [lr_factor(step, train.iters, train.schedule) for step in (0, 1499, 1500, train.iters - 1)]
    assert factors == pytest.approx([1e-6, 1.0, 1.0, 0.0])


def test_segformer_has_its_published_schedule():
    train = load_preset("segformer-pvtv2b2-voc-weak").train
    assert (train.backbone.name, train.head.kind, train.head.channels, train.aux.weight) == (
        "pvt_v2_b2",
        "segformer",
        256,
        0,
    )
    assert (train.batch, train.crop, train.schedule.power, train.schedule.warmup_iters) == (16, 512, 1.0, 1500)
    assert (train.optim.lr, train.optim.head_lr_mult, train.optim.norm_decay) == (6e-5, 10.0, False)


def below(model):
    return [model, *(inner for each in model.__subclasses__() for inner in below(each))]


MODELS = [model for model in below(Model) if not any(field.is_required() for field in model.model_fields.values())]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_defaults_are_what_would_be_taken_from_a_user(model):
    """They are made without being looked at."""
    defaults = model.model_construct()
    assert model.model_validate_json(defaults.model_dump_json()) == defaults


def test_there_are_models_with_defaults():
    assert len(MODELS) > 30
