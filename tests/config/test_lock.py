import json
import re

import pytest
from pydantic import BaseModel

from wsss_cli.config.affinity import IrnConfig, PsaConfig
from wsss_cli.config.classifier import ClassifierConfig
from wsss_cli.config.load import load_preset, preset_names
from wsss_cli.config.lock import IRRELEVANT, difference, identity, to_toml
from wsss_cli.config.refine import PseudoConfig
from wsss_cli.config.train import TrainConfig

TOY = load_preset("toy")
STAGES = ("classifier", "recam", "cam", "pseudo", "train")


def id_with(stage, *overrides):
    return identity(load_preset("toy", overrides), stage, "data", "up")


def test_an_identity_is_a_sha256_that_never_changes_by_itself():
    assert re.fullmatch("[0-9a-f]{64}", identity(TOY, "cam"))
    assert identity(TOY, "cam", "data", "up") == id_with("cam")


def test_each_stage_has_its_own_identity():
    assert len({identity(TOY, stage) for stage in STAGES}) == 5


@pytest.mark.parametrize("stage", STAGES)
def test_data_set_and_upstream_change_it(stage):
    assert len({identity(TOY, stage, a, b) for a in ("", "x") for b in ("", "y")}) == 4


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=1", set(STAGES)),
        ("dataset.train=other", set(STAGES)),
        ("classifier.iters=7", {"classifier"}),
        ("classifier.optim.lr=1e-5", {"classifier", "recam"}),
        ("classifier.backbone.weights=none", {"classifier", "recam"}),
        ("classifier.weights=a.pt", set()),  # that is what is read
        ("cam.flip=false", {"cam"}),
        ("cam.method.kind=gradcam", {"recam", "cam"}),
        ('pseudo.steps=[{kind="crf", crf={gauss_sxy=4.0}}]', {"pseudo"}),
        ("pseudo.min_confidence=0.5", {"pseudo"}),
        ("train.optim.kind=sgd", {"train"}),
        ("train.supervision=full", {"train"}),
        ("dataset.path=/elsewhere", set()),
        ("description=other words", set()),
        ("eval.scales=[1.0]", set()),
        ("pseudo.workers=3", set()),
        ("train.data_workers=3", set()),
        ("classifier.data_workers=3", set()),
        ("classifier.log_interval=3", set()),
        ("classifier.checkpoint_interval=3", set()),
        ("train.kernels=fused", set()),
        ("train.log_interval=3", set()),
        ("train.val_interval=3", set()),
        ("train.val_images=3", set()),
        ("train.checkpoint_interval=3", set()),
    ],
)
def test_a_setting_changes_the_stages_that_use_it(override, changed):
    assert {stage for stage in STAGES if id_with(stage, override) != id_with(stage)} == changed


def test_what_is_called_irrelevant_exists():
    models: dict[str, type[BaseModel]] = {
        "classifier": ClassifierConfig,
        "recam": ClassifierConfig,
        "irn": IrnConfig,
        "psa": PsaConfig,
        "pseudo": PseudoConfig,
        "train": TrainConfig,
    }
    for section, keys in IRRELEVANT.items():
        assert set(keys) <= set(models[section].model_fields)


@pytest.mark.parametrize("name", preset_names())
def test_a_lock_file_loads_as_the_same_preset(name, tmp_path):
    preset = load_preset(name, ["seed=5"])
    path = tmp_path / "preset.lock.toml"
    path.write_text(to_toml(preset))
    loaded = load_preset(str(path))
    assert loaded == preset.model_copy(update={"extends": ""})
    for stage in STAGES:
        assert identity(loaded, stage, "d") == identity(preset, stage, "d")


def test_a_lock_file_survives_names_with_quotes_and_line_feeds(tmp_path):
    preset = load_preset("toy", ["description='say \"no\"'", 'dataset.path="a\\nb\\u0001é"'])
    path = tmp_path / "preset.lock.toml"
    path.write_bytes(to_toml(preset).encode())
    assert load_preset(str(path)) == preset
    assert preset.dataset.path == "a\nb\x01é"


def test_difference_names_what_differs_and_nothing_else():
    old = {"seed": 0, "train": {"iters": 20000, "optim": {"lr": 0.1}}, "same": [1]}
    new = {"seed": 0, "train": {"iters": 40000, "optim": {"lr": 0.1, "momentum": 0.9}}, "same": [1]}
    assert difference(old, new) == ["train.iters: 20000 -> 40000", "train.optim.momentum: None -> 0.9"]
    assert difference(old, json.loads(json.dumps(old))) == []
