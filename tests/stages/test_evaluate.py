import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.base import RUN
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.load import load_preset
from wsss_cli.crf import dense_crf
from wsss_cli.data import batches
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, Interrupted, UsageError
from wsss_cli.files import read_json
from wsss_cli.inference.predict import largest_batch, predict, slide, window_starts
from wsss_cli.labels import voc_palette
from wsss_cli.metrics.boundary import Boundary
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.report.tables import class_table
from wsss_cli.scoring.by_image import read_areas
from wsss_cli.scoring.partial import PartialCounts
from wsss_cli.stages import network_scores
from wsss_cli.stages.network_scores import ScoreOptions, score_network


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
    logits = slide(Colours(pooled=1.0), x, EvalConfig(mode="slide", window=4, stride=2), lambda: None)
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


def test_a_view_that_is_named_twice_counts_once(dataset, ctx):
    image = read_image(dataset.split("val")[0].image)
    once, twice = (
        predict(
            Colours(), [image], EvalConfig.model_validate({"scales": scales}, context=RUN), ctx, "fp32", ms_flip=True
        )
        for scales in ((0.5, 1.0), (1.0, 0.5, 1.0))
    )
    assert np.array_equal(once["ms_flip_confidence"], twice["ms_flip_confidence"])
    for section in ("eval", "relabel"):
        with pytest.raises(UsageError, match="1 is there twice; a view counts once"):
            load_preset("toy", [f"{section}.scales=[1.0, 0.5, 1.0]"])


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


@pytest.mark.parametrize(
    ("config", "ms_flip", "count"),
    [
        (EvalConfig(), False, 16),
        (EvalConfig(), True, 16),  # scale 1.75: 1.6 million pixels with the mirrored ones, so 20 would fit
        (EvalConfig(scales=(4.0,)), True, 4),
        (EvalConfig(scales=(4.0,)), False, 16),
        (EvalConfig(base="short", short_side=2048), False, 8),
    ],
)
def test_batches_on_a_gpu_go_by_the_largest_view(tmp_path, config, ms_flip, count):
    ctx = Context(torch.device("cuda"), tmp_path)
    assert largest_batch((512, 512), config, ctx, ms_flip=ms_flip) == count


def test_scores_of_a_network_with_crf_and_boundaries(dataset, ctx):
    preset = load_preset("toy", ["eval.scales=[1.0]", "eval.crf.iterations=2"])
    samples = dataset.split("val")
    options = ScoreOptions(ms_flip=True, crf=True, boundary=True)
    scores, lost = score_network(Colours(), samples, dataset, preset, ctx, options=options, title="eval")
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
def test_counted_on_the_device_or_behind_it_the_scores_are_the_same(dataset, ctx, monkeypatch, ms_flip):
    preset, samples = load_preset("toy", ["eval.scales=[1.0]"]), dataset.split("val")
    score = partial(score_network, Colours(), samples, dataset, preset, ctx, title="eval")
    here, _ = score(options=ScoreOptions(ms_flip=ms_flip))
    monkeypatch.setattr(network_scores, "COUNT_THERE", ("cpu",))
    monkeypatch.setattr(Confusion, "add", None)  # so that it cannot be called
    there, _ = score(options=ScoreOptions(ms_flip=ms_flip))
    assert there == here
    assert sum(map(sum, there["single"]["confusion"])) > 0


@pytest.mark.parametrize("there", [(), ("cpu",)])
@pytest.mark.parametrize("boundary", [False, True])
def test_the_share_of_unscored_pixels_and_absent_classes_are_said(dataset, ctx, tmp_path, monkeypatch, there, boundary):
    monkeypatch.setattr(network_scores, "COUNT_THERE", there)
    preset, samples = load_preset("toy", ["eval.scales=[1.0]"]), []
    for number, sample in enumerate(dataset.split("val")):
        mask = np.full((64, 64), 255, np.uint8)
        mask[:16] = 2 * number  # classes 0, 2, 4
        write_mask(tmp_path / f"{number}.png", mask, voc_palette(6))
        samples.append(replace(sample, mask=tmp_path / f"{number}.png"))
    options = ScoreOptions(ms_flip=True, boundary=boundary)
    scores, lost = score_network(Colours(), samples, dataset, preset, ctx, options=options, title="eval")
    assert lost == []
    names = ", ".join(dataset.classes[index] for index in (1, 3, 5))
    for mode in ("single", "ms_flip"):
        assert scores[mode]["unscored_share"] == 0.75
    notes = class_table(scores, "a run").notes
    assert "unscored (255 in the truth): 75.00 %" in notes and f"never in the truth: {names}" in notes


def test_a_truth_with_a_value_that_is_no_class_is_an_error_with_its_file(dataset, ctx, tmp_path):
    first, *others = dataset.split("val")
    write_mask(tmp_path / "seven.png", np.full((64, 64), 7, np.uint8), voc_palette(8))
    samples = [*others, replace(first, mask=tmp_path / "seven.png")]
    score = partial(score_network, Colours(), samples, dataset, load_preset("toy"), ctx, title="eval")
    with pytest.raises(DataError, match=r"seven\.png holds the value 7; 6 classes are 0\.\.5 \(or 255\)"):
        score(options=ScoreOptions())


class Stopping(Colours):
    """Asks for a stop in its forward pass of a number, and counts them."""

    def __init__(self, ctx=None, number=0):
        super().__init__()
        self.ctx, self.number, self.seen = ctx, number, 0

    def forward(self, x):
        self.seen += 1
        if self.seen == self.number:
            self.ctx.stop.signal = signal.SIGINT
        return super().forward(x)


@pytest.fixture
def one_by_one(monkeypatch):
    """A batch for each image."""
    monkeypatch.setitem(batches.PIXELS_PER_BATCH, "cpu", 64 * 64)


@pytest.mark.parametrize(
    "options", [ScoreOptions(), ScoreOptions(crf=True), ScoreOptions(boundary=True)], ids=["plain", "crf", "boundary"]
)
def test_a_stopped_evaluation_goes_on_where_it_stood(dataset, ctx, tmp_path, one_by_one, options):
    preset, samples = load_preset("toy", ["eval.crf.iterations=1"]), dataset.split("val")

    def score(model, ctx=ctx, **stored):
        return score_network(model, samples, dataset, preset, ctx, options=options, title="eval", **stored)

    expected, _ = score(Colours(), images=tmp_path / "unbroken.npz")
    file, stopped = tmp_path / "eval.part.json", Context(torch.device("cpu"), tmp_path)
    with pytest.raises(Interrupted):
        score(Stopping(stopped, 2), stopped, partial=PartialCounts(file, {"step": 1}), images=tmp_path / "no.npz")
    assert read_json(file)["batches"] == [0, 1]
    other = Stopping()  # of other weights: all anew
    assert score(other, partial=PartialCounts(file, {"step": 2}))[0] == expected
    assert other.seen == 3
    rest = Stopping()
    assert score(rest, partial=PartialCounts(file, {"step": 1}), images=tmp_path / "again.npz") == (expected, [])
    assert rest.seen == 1  # the last of three images
    unbroken, again = read_areas(tmp_path / "unbroken.npz"), read_areas(tmp_path / "again.npz")
    assert again.names == unbroken.names == tuple(sample.id for sample in samples)
    assert np.array_equal(again.dense(6), unbroken.dense(6))
    assert again.dense(6).sum(axis=0).T.tolist() == [expected["single"][key] for key in ("intersect", "pred", "label")]


def test_counts_of_other_batches_are_not_gone_on_with(dataset, ctx, tmp_path, one_by_one, monkeypatch):
    preset, samples, stored = load_preset("toy"), dataset.split("val"), PartialCounts(tmp_path / "part.json", {})
    score = partial(score_network, dataset=dataset, preset=preset, options=ScoreOptions(), title="eval")
    stopped = Context(torch.device("cpu"), tmp_path)
    with pytest.raises(Interrupted):
        score(Stopping(stopped, 1), samples, ctx=stopped, partial=stored)
    assert read_json(stored.path)["sizes"] == [1, 1, 1]
    monkeypatch.setitem(batches.PIXELS_PER_BATCH, "cpu", 3 * 64 * 64)
    assert score(Colours(), samples, ctx=ctx, partial=stored) == score(Colours(), samples, ctx=ctx)


def test_an_evaluation_stores_its_counts_as_it_goes_and_what_it_has_lost(dataset, tmp_path, one_by_one, monkeypatch):
    monkeypatch.setattr("wsss_cli.scoring.partial.WRITE_SECONDS", 0.0)
    preset, samples = load_preset("toy"), dataset.split("val")
    (tmp_path / "cut.png").write_bytes(samples[1].image.read_bytes()[:-30])  # its header is whole
    samples = [samples[0], replace(samples[1], image=tmp_path / "cut.png"), samples[2]]
    stored, stopped = PartialCounts(tmp_path / "part.json", {}), Context(torch.device("cpu"), tmp_path)
    score = partial(score_network, dataset=dataset, preset=preset, options=ScoreOptions(), title="eval")
    whole, lost = score(Colours(), samples, ctx=stopped, partial=stored)
    assert [entry["id"] for entry in lost] == [samples[1].id]
    assert whole == score(Colours(), [samples[0], samples[2]], ctx=stopped)[0]
    part = read_json(stored.path)  # as a kill before the last image would leave it
    assert (part["batches"], part["lost"]) == ([0, 1], lost)
    rest = Stopping()
    assert score(rest, samples, ctx=stopped, partial=stored) == (whole, lost)
    assert rest.seen == 1


@pytest.mark.gpu
def test_a_gpu_counts_its_own_predictions(dataset, tmp_path):
    preset, samples = load_preset("toy", ["eval.scales=[1.0]"]), dataset.split("val")
    ctx = Context(torch.device("cuda"), tmp_path)
    scores, _ = score_network(
        Colours(), samples, dataset, preset, ctx, options=ScoreOptions(ms_flip=True), title="eval"
    )
    counted = Confusion(6)
    for sample in samples:
        found = predict(Colours(), [read_image(sample.image)], preset.eval, ctx, preset.train.precision, ms_flip=True)
        counted.add(found["ms_flip"][0], read_mask(sample.mask))
    assert scores["ms_flip"]["confusion"] == counted.matrix.tolist()
