import signal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.load import load_preset
from wsss_cli.crf import dense_crf
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.errors import Interrupted
from wsss_cli.inference import predict as predicting
from wsss_cli.inference.predict import predict, slide, window_starts
from wsss_cli.metrics.boundary import Boundary
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.scoring import counting
from wsss_cli.scoring.partial import Kept
from wsss_cli.stages import evaluate
from wsss_cli.stages.evaluate import score_network


class Colours(nn.Module):
    """A network of six classes whose logits are colours; with `pooled`, they also know the mean of what is seen."""

    def __init__(self, pooled=0.0):
        super().__init__()
        self.pooled = pooled

    @property
    def backbone(self):
        return self

    def normalise(self, x):
        return x.float() / 64 - 2

    def forward(self, x):
        x = torch.cat([x, -x], 1)
        return x + self.pooled * x.mean((2, 3), keepdim=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    prepare_toy(folder, images=1, val=3, size=64)
    return open_dataset(folder)


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(3, [(0, 3)]), (4, [(0, 4)]), (5, [(0, 4), (1, 4)]), (10, [(0, 4), (3, 4), (6, 4)]), (11, [0, 3, 6, 7])],
)
def test_windows_cover_a_side_and_the_last_ends_with_it(length, starts):
    expected = [start if isinstance(start, tuple) else (start, 4) for start in starts]
    assert window_starts(length, window=4, stride=3) == expected


def test_sliding_is_the_mean_of_the_windows_that_see_a_pixel():
    x = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 3, 4, 6)
    logits = slide(Colours(pooled=1.0), x, EvalConfig(mode="slide", window=4, stride=2))
    # windows 0..3 (mean 1.5) and 2..5 (mean 3.5); columns 2 and 3 are seen by both
    means = torch.tensor([1.5, 1.5, 2.5, 2.5, 3.5, 3.5])
    assert logits.shape == (1, 6, 4, 6)
    assert torch.allclose(logits[0, 0], torch.arange(6.0) + means)
    assert torch.allclose(logits[0, 3], -(torch.arange(6.0) + means))


def test_windows_of_a_network_without_context_change_nothing(dataset, ctx):
    image = read_image(dataset.split("val")[0].image)
    whole, windows = (
        predict(Colours(), [image], EvalConfig(mode=mode, window=40, stride=17), ctx, "fp32", ms_flip=True)
        for mode in ("whole", "slide")
    )
    assert np.array_equal(whole["single"], windows["single"])
    assert np.allclose(whole["ms_flip_confidence"], windows["ms_flip_confidence"], atol=1e-5)


def test_an_image_and_its_mirror_of_all_images_of_a_size_are_one_forward_for_each_scale(dataset, ctx):
    image, model, seen = read_image(dataset.split("val")[0].image), Colours(), []
    model.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    predict(model, [image, image], EvalConfig(), ctx, "fp32", ms_flip=True)
    assert seen == [(4, 3, side, side) for side in (32, 48, 64, 80, 96, 112)]


def test_probabilities_are_those_of_the_labels(dataset, ctx):
    image = read_image(dataset.split("val")[0].image)
    config = EvalConfig(scales=(0.5, 1.0))
    found = predict(Colours(), [image, image[:, ::-1]], config, ctx, "fp32", ms_flip=True, probabilities=True)
    for mode in ("single", "ms_flip"):
        planes = found[f"{mode}_probabilities"]
        assert planes.shape == (2, 6, 64, 64)
        assert np.allclose(planes.sum(1), 1, atol=1e-5)
        assert np.array_equal(planes.argmax(1), found[mode])
    assert np.allclose(found["ms_flip_probabilities"].max(1), found["ms_flip_confidence"])


def test_scores_of_a_network_with_crf_and_boundaries(dataset, ctx):
    preset = load_preset("toy", ["eval.scales=[1.0]", "eval.crf.iterations=2"])
    samples = dataset.split("val")
    scores, lost = score_network(
        Colours(), samples, dataset, preset, ctx, ms_flip=True, crf=True, boundary=True, title="eval"
    )
    assert lost == []
    assert scores.keys() == {"single", "ms_flip", "ms_flip_crf"}
    plain, refined, contours = Confusion(6), Confusion(6), Boundary(6)
    for sample in samples:
        image, mask = read_image(sample.image), read_mask(sample.mask)
        found = predict(Colours(), [image], preset.eval, ctx, "fp32", ms_flip=True, probabilities=True)
        plain.add(found["single"][0], mask)
        contours.add(found["single"][0], mask)
        unary = -np.log(np.clip(found["ms_flip_probabilities"][0], 1e-5, 1))
        refined.add(dense_crf(image, unary, **preset.eval.crf.model_dump()).argmax(0), mask)
    assert scores["single"]["confusion"] == plain.matrix.tolist()
    assert scores["ms_flip_crf"]["confusion"] == refined.matrix.tolist()
    assert refined.matrix.tolist() != plain.matrix.tolist()
    assert scores["single"]["biou"] == pytest.approx((100 * contours.iou()).tolist(), nan_ok=True)
    assert scores["single"]["mbiou"] == pytest.approx(100 * np.nanmean(contours.iou()))


@pytest.mark.parametrize("ms_flip", [False, True])
def test_counted_on_the_device_or_by_a_thread_the_scores_are_the_same(dataset, ctx, monkeypatch, ms_flip):
    preset, samples = load_preset("toy", ["eval.scales=[1.0]"]), dataset.split("val")
    here, _ = score_network(Colours(), samples, dataset, preset, ctx, ms_flip=ms_flip, title="eval")
    monkeypatch.setattr(counting, "COUNT_THERE", ("cpu",))
    monkeypatch.setattr(counting, "count_here", None)  # so that it cannot be taken
    there, _ = score_network(Colours(), samples, dataset, preset, ctx, ms_flip=ms_flip, title="eval")
    assert there == here
    assert sum(map(sum, there["single"]["confusion"])) > 0


@pytest.mark.parametrize("options", [{}, {"crf": True}, {"boundary": True}], ids=str)
def test_a_stopped_evaluation_goes_on_where_it_stood(dataset, ctx, tmp_path, monkeypatch, options):
    monkeypatch.setitem(predicting.PIXELS_PER_BATCH, "cpu", 64 * 64)  # a batch for each of the three images
    preset, samples = load_preset("toy", ["eval.crf.iterations=1"]), dataset.split("val")
    score = partial(score_network, Colours(), samples, dataset, preset, ms_flip=False, title="eval", **options)
    expected, _ = score(ctx)
    seen = []

    def stop_at(ctx, number):
        def forward(module, given):
            seen.append(len(given[0]))
            if len(seen) == number:
                ctx.stop.signal = signal.SIGINT

        model = Colours()
        model.register_forward_pre_hook(forward)
        return partial(score_network, model, *score.args[1:], ctx, **score.keywords)

    monkeypatch.setattr(evaluate, "prefetch", lambda batches, load, workers, ahead: map(load, batches))
    kept = Kept(tmp_path / "eval.part.json", {"step": 1})
    with pytest.raises(Interrupted):
        stop_at(Context(torch.device("cpu"), tmp_path), 2)(kept=kept)
    assert len(seen) == 2
    other, _ = stop_at(ctx, 0)(kept=Kept(kept.path, {"step": 2}))  # of other weights: all anew
    assert (other, len(seen)) == (expected, 5)
    found, lost = stop_at(ctx, 0)(kept=kept)
    assert len(seen) == 5 + 1  # the last of three images
    assert (found, lost) == (expected, [])


def test_an_evaluation_keeps_its_counts_as_it_goes(dataset, ctx, tmp_path, monkeypatch):
    monkeypatch.setitem(predicting.PIXELS_PER_BATCH, "cpu", 64 * 64)
    monkeypatch.setattr(evaluate, "PIECE_SECONDS", 0.0)
    monkeypatch.setattr(evaluate, "prefetch", lambda batches, load, workers, ahead: map(load, batches))
    ticks = iter(range(1000))
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(monotonic=lambda: next(ticks)))  # always late
    written = []
    monkeypatch.setattr(Kept, "write", lambda kept, counts, lost, batches: written.append(batches))
    preset, samples = load_preset("toy"), dataset.split("val")
    kept = Kept(tmp_path / "eval.part.json", {})
    scores, _ = score_network(Colours(), samples, dataset, preset, ctx, ms_flip=False, title="eval", kept=kept)
    assert written == [1, 2]
    assert scores == score_network(Colours(), samples, dataset, preset, ctx, ms_flip=False, title="eval")[0]


@pytest.mark.gpu
def test_a_gpu_counts_its_own_predictions(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "count_here", None)
    preset, samples = load_preset("toy", ["eval.scales=[1.0]"]), dataset.split("val")
    ctx = Context(torch.device("cuda"), tmp_path)
    scores, _ = score_network(Colours(), samples, dataset, preset, ctx, ms_flip=True, title="eval")
    counted = Confusion(6)
    for sample in samples:
        found = predict(Colours(), [read_image(sample.image)], preset.eval, ctx, preset.train.precision, ms_flip=True)
        counted.add(found["ms_flip"][0], read_mask(sample.mask))
    assert scores["ms_flip"]["confusion"] == counted.matrix.tolist()
