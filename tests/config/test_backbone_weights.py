"""`backbone_weights` gives all backbones their weights, but for those that are given their own beside it or above."""

import pytest

from wsss_cli.config.load import load_preset, origins
from wsss_cli.config.lock import identity, to_toml
from wsss_cli.errors import UsageError

TABLES = ("classifier", "irn", "psa", "train")


def weights(preset):
    tables = (preset.classifier, preset.affinity.irn, preset.affinity.psa, preset.train)
    return {name: table.backbone.weights for name, table in zip(TABLES, tables, strict=True) if table is not None}


@pytest.fixture
def zoo(tmp_path):
    (tmp_path / "zoo").mkdir()
    for name in ("resnet50c.pth", "resnet50c.bin", "resnet101c.safetensors"):
        (tmp_path / "zoo" / name).touch()
    return tmp_path / "zoo"


def test_one_setting_fills_all_tables_that_there_are():
    assert weights(load_preset("toy", ["backbone_weights=w.pth"])) == {"classifier": "w.pth", "train": "w.pth"}
    both = ["affinity.irn.iters=2", "affinity.psa.iters=2", "backbone_weights=none"]
    assert weights(load_preset("toy", both)) == dict.fromkeys(TABLES, "none")
    assert weights(load_preset("toy")) == {"classifier": "imagenet", "train": "imagenet"}


def test_a_folder_has_a_file_for_each_name(zoo):
    preset = load_preset("deeplabv3p-r101-voc-weak", [f"backbone_weights={zoo}"])
    first = str(zoo / "resnet50c.pth")
    assert weights(preset) == {"classifier": first, "irn": first, "train": str(zoo / "resnet101c.safetensors")}
    named = load_preset("toy", [f"backbone_weights={zoo}", "train.backbone.name=resnet50c"])
    assert weights(named) == {"classifier": str(zoo / "tf_efficientnet_lite0.safetensors"), "train": first}


def test_what_is_given_beside_it_or_above_it_stays(tmp_path):
    beside = ["train.backbone.weights=own.pth", "backbone_weights=all.pth"]
    assert weights(load_preset("toy", beside)) == {"classifier": "all.pth", "train": "own.pth"}
    assert weights(load_preset("toy", beside[::-1])) == {"classifier": "all.pth", "train": "own.pth"}
    (tmp_path / "mine.toml").write_text(
        'extends = "toy"\nbackbone_weights = "all.pth"\n[train]\nbackbone.weights = "own.pth"\n'
    )
    mine = str(tmp_path / "mine.toml")
    assert weights(load_preset(mine)) == {"classifier": "all.pth", "train": "own.pth"}
    above = ["classifier.backbone.weights=mine.pth"]
    assert weights(load_preset(mine, above)) == {"classifier": "mine.pth", "train": "own.pth"}
    assert weights(load_preset(mine, ["backbone_weights=none"])) == {"classifier": "none", "train": "none"}


def test_it_shows_where_weights_come_from_and_is_no_part_of_what_identifies_a_run(tmp_path):
    shown = origins("toy", ["backbone_weights=none", "train.backbone.weights=w.pth"])
    assert (shown["classifier.backbone.weights"], shown["train.backbone.weights"]) == ("--set", "--set")
    one, each = (
        load_preset("toy", settings)
        for settings in (["backbone_weights=w.pth"], [f"{t}.backbone.weights=w.pth" for t in ("classifier", "train")])
    )
    assert all(identity(one, stage) == identity(each, stage) for stage in ("classifier", "cam", "train"))
    (tmp_path / "preset.lock.toml").write_text(to_toml(one))
    lock = str(tmp_path / "preset.lock.toml")
    assert load_preset(lock) == one
    assert weights(load_preset(lock, ["backbone_weights=none"])) == {"classifier": "none", "train": "none"}


def test_it_is_a_text():
    with pytest.raises(UsageError, match="backbone_weights"):
        load_preset("toy", ["backbone_weights=3"])
