import cv2
import numpy as np
import pytest
import torch

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Sample
from wsss_cli.data.masks import write_mask
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, UsageError
from wsss_cli.labels import voc_palette
from wsss_cli.ranks.who import Ranks
from wsss_cli.stages import kernel_choice, preflight
from wsss_cli.stages.kernel_choice import check_kernels, chosen_kernels, training_kernels
from wsss_cli.stages.paths import confidence_files, confidence_path, mask_path
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.preflight import check_ranks
from wsss_cli.stages.train import run_train
from wsss_cli.stages.training_data import check_confidence, training_item

K = 4


@pytest.fixture
def sample(tmp_path):
    """A photograph of 20 x 30 with a pseudo mask, tagged with class 2."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(0, 256, (20, 30, 3), np.uint8))
    mask = np.zeros((20, 30), np.uint8)
    mask[5:, :12], mask[:5] = 2, 255
    write_mask(mask_path(tmp_path / "run", "a"), mask, voc_palette(K))
    confidence_path(tmp_path / "run", "a").parent.mkdir()
    cv2.imwrite(str(confidence_path(tmp_path / "run", "a")), np.full((20, 30), 200, np.uint8))
    return Sample("a", tmp_path / "a.png", mask_path(tmp_path / "run", "a"), (2,))


def item(sample, *methods, run=None):
    place = "train.augment={ scale_min = 1.0, scale_max = 1.0, base_long = 30, base_short = 20 }"
    config = load_preset("toy", ["train.crop=32", place, *(f"train.{method}" for method in methods)]).train
    trust = confidence_files(run) if run else None
    return training_item(sample, np.random.default_rng(0), config=config, num_classes=K, confidence=trust)


def test_a_batch_holds_what_the_methods_ask_for_and_nothing_else(sample, tmp_path):
    assert set(item(sample)) == {"image", "mask"}
    assert set(item(sample, 'loss=[{kind="cross-entropy", balance="fg-bg"}]')) == {"image", "mask"}
    assert set(item(sample, 'loss=[{kind="cross-entropy"}, {kind="gated-crf"}]')) == {"image", "mask", "size"}
    assert set(item(sample, "noise.update={}")) == {"image", "mask", "tags"}
    assert set(item(sample, "noise.confidence=ignore", run=tmp_path / "run")) == {"image", "mask", "confidence"}


def test_tags_size_and_confidence_are_those_of_the_image(sample, tmp_path):
    made = item(sample, "noise.teacher={}", "noise.confidence=weight", run=tmp_path / "run")
    assert made["tags"].tolist() == [1, 0, 1, 0]
    assert made["size"].tolist() == [20, 30]
    expected = np.zeros((32, 32), np.uint8)
    expected[:20, :30] = 200
    np.testing.assert_array_equal(made["confidence"], expected)
    np.testing.assert_array_equal(made["mask"], item(sample)["mask"])


def test_a_pseudo_run_without_confidence_maps_is_refused(sample, tmp_path):
    check_confidence(tmp_path / "run", [sample])
    other = Sample("b", sample.image, sample.mask, (2,))
    with pytest.raises(DataError, match="no confidence map of 1 of 2 images, first: b") as caught:
        check_confidence(tmp_path / "run", [sample, other])
    assert "train.noise.confidence=none" in caught.value.hint


def test_fused_kernels_are_refused_where_they_cannot_run(tmp_path, monkeypatch):
    preset, ctx = load_preset("toy", ["train.kernels=fused"]), Context(torch.device("cpu"), tmp_path / "runs")
    with pytest.raises(UsageError, match="they run on CUDA, and the device is cpu") as caught:
        run_train(Step("train", tmp_path / "runs" / "train", "id"), Experiment(preset, None, tmp_path), ctx)
    assert caught.value.hint == "--set train.kernels=plain"
    assert not (tmp_path / "runs").exists()
    check_kernels(load_preset("toy").train, "cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Triton"):
        check_kernels(preset.train, "cuda")


def test_fused_kernels_are_refused_on_ranks_whose_batch_norm_is_one(monkeypatch):
    monkeypatch.setattr(kernel_choice, "here", lambda: Ranks(0, 2))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(UsageError, match="sees the images of one rank"):
        check_kernels(load_preset("toy", ["train.kernels=fused"]).train, "cuda")
    check_kernels(load_preset("toy", ["train.kernels=fused", "train.sync_bn=false"]).train, "cuda")


def test_ranks_with_a_batch_norm_of_their_own_have_two_images(monkeypatch):
    monkeypatch.setattr(preflight, "here", lambda: Ranks(0, 2))
    own = "train.sync_bn=false"
    with pytest.raises(UsageError, match="2 ranks have fewer than 2 images at a time of a batch of 2"):
        check_ranks(load_preset("toy", [own, "train.batch=2"]).train)
    for settings in (
        ["train.batch=2"],
        [own, "train.batch=4"],
        [own, "train.batch=2", "train.head={kind='segformer'}"],
    ):
        check_ranks(load_preset("toy", settings).train)


def test_auto_takes_kernels_where_they_can_run_and_the_settings_go_with_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    config = load_preset("toy").train
    assert config.kernels == "auto" and training_kernels(config, "cuda") == "fused"
    assert training_kernels(config, "cpu") == "plain" and chosen_kernels("plain", "cuda") == "plain"
    for setting in ("train.compile=true", "train.channels_last=false"):
        assert training_kernels(load_preset("toy", [setting]).train, "cuda") == "plain"
    monkeypatch.setattr(kernel_choice, "here", lambda: Ranks(0, 2))
    assert training_kernels(config, "cuda") == "plain"  # one batch norm over the ranks
    assert training_kernels(load_preset("toy", ["train.sync_bn=false"]).train, "cuda") == "fused"
    check_kernels(config, "cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert chosen_kernels("auto", "cuda") == "plain"
    check_kernels(config, "cpu")


@pytest.mark.parametrize("setting", ["train.compile=true", "train.channels_last=false"])
def test_fused_kernels_have_their_conditions(setting):
    with pytest.raises(UsageError, match=r"needs channels_last = true and compile = false"):
        load_preset("toy", ["train.kernels=fused", setting])
