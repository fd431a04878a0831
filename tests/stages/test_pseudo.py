"""The pseudo stage on a few generated images and CAMs made from their true masks."""

import cv2
import numpy as np
import pytest
import torch

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.cli.eval_sources import pseudo_run
from wsss_cli.config.load import load_preset
from wsss_cli.config.thresholds import CurveThreshold
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context, Silent
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import read_json, write_json
from wsss_cli.pseudo.thresholds import otsu, score_histogram
from wsss_cli.scoring.cams import cam_curve
from wsss_cli.stages.outcome import outcome
from wsss_cli.stages.paths import confidence_path, mask_path
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_pseudo
from wsss_cli.stages.thresholds import around

IMAGES = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    prepare_toy(folder, images=IMAGES, val=1, size=64)
    return folder


@pytest.fixture(scope="module")
def cams(data, tmp_path_factory):
    """A cam run: blurred true masks, each class at a level of its own."""
    run, dataset = tmp_path_factory.mktemp("runs") / "cam-made", open_dataset(data)
    for sample in dataset.split("train"):
        mask = read_mask(sample.mask)
        planes = [
            cv2.GaussianBlur((mask == label).astype(np.float32), (0, 0), 3)[::2, ::2] * (0.5 + 0.08 * label)
            for label in sample.labels
        ]
        write_cam(run / "cams" / f"{sample.id}.npz", np.stack(planes), sample.labels, mask.shape)
    write_json(run / "run.json", {"stage": "cam", "state": "done", "identity": "made"})
    write_json(run / "inputs.json", {"dataset": str(data), "classes": dataset.classes, "colors": dataset.colors})
    return run


def pseudo_of(preset, ctx, cams):
    exp = open_experiment(preset, ctx.runs)
    steps = plan_pseudo(exp, cams, ctx.ui.say)
    run_steps(steps, exp, ctx)
    return outcome(steps).last


@pytest.fixture
def made(data, cams, tmp_path):
    """Make the pseudo masks with the given settings: (run directory, scores)."""
    ctx = Context(torch.device("cpu"), tmp_path / "runs")

    def made(*overrides):
        preset = load_preset("toy", [f"dataset.path={data}", "pseudo.workers=1", *overrides])
        result = pseudo_of(preset, ctx, cams)
        assert result.lost == []
        return result.run, result.scores

    return made


def pairs(data, cams):
    return [(cams / "cams" / f"{s.id}.npz", s.mask) for s in open_dataset(data).split("train")]


def test_masks_scores_and_cost_of_several_steps(made, data):
    run, scores = made('pseudo.steps=[{kind="par", iterations=2}, {kind="crf", crf={bilateral_srgb=25.0}}]')
    for sample in open_dataset(data).split("train"):
        assert set(np.unique(read_mask(mask_path(run, sample.id)))) <= {0, *sample.labels, 255}
        assert read_mask(confidence_path(run, sample.id)).shape == (64, 64)
    assert scores == read_json(run / "eval.json")
    assert list(scores["seconds_per_image"]) == ["read", "1 par", "2 crf", "write"]
    assert all(seconds > 0 for seconds in scores["seconds_per_image"].values())
    assert (scores["timed_images"], scores["peak_memory_mib"] > 50) == (IMAGES, True)
    for policy in ("background", "drop"):
        assert len(scores[policy]["biou"]) == len(scores[policy]["fp"]) == 6
        assert 0 < scores[policy]["mbiou"] < 100
    assert "PAR, 2 iterations, scale 0.5, label CRF 3/3, 50/25/10, 10 iterations" in scores["protocol"][0]


def test_what_is_there_is_not_made_again(made, data):
    run, scores = made("pseudo.steps=[]")
    first, *others = open_dataset(data).split("train")
    kept = {sample.id: mask_path(run, sample.id).stat().st_mtime_ns for sample in others}
    before = read_mask(mask_path(run, first.id))
    mask_path(run, first.id).unlink()
    write_json(run / "run.json", {**read_json(run / "run.json"), "state": "preempted"})
    again, resumed = made("pseudo.steps=[]")
    assert again == run
    assert {name: mask_path(run, name).stat().st_mtime_ns for name in kept} == kept
    assert (read_mask(mask_path(run, first.id)) == before).all()
    assert resumed["timed_images"] == 1
    assert resumed["background"] == scores["background"]


def test_fixed_thresholds_are_taken_as_given(made, data, cams):
    _, scores = made("pseudo.threshold={ kind='fixed', fg=0.4, bg=0.4 }", "pseudo.steps=[]")
    assert (scores["fg_threshold"], scores["bg_threshold"]) == (0.4, 0.4)
    assert "thresholds 0.4 and 0.4 (fixed), no refinement" in scores["protocol"][0]
    curve = cam_curve(pairs(data, cams), 6, check=lambda: None)
    assert scores["background"]["miou"] == pytest.approx(curve["miou"][40])
    assert scores["background"]["undecided_share"] == 0


@pytest.mark.parametrize(("threshold", "warned"), [(1.0, True), (0.4, False)])
def test_masks_without_any_object_are_not_made_without_a_word(data, cams, tmp_path, threshold, warned):
    lines, talk = [], Silent()
    talk.say = lines.append
    ctx = Context(torch.device("cpu"), tmp_path / "runs", ui=talk)
    fixed = f"pseudo.threshold={{ kind='fixed', fg={threshold}, bg={threshold} }}"
    pseudo_of(load_preset("toy", [f"dataset.path={data}", "pseudo.workers=1", "pseudo.steps=[]", fixed]), ctx, cams)
    assert any(f"{IMAGES} of {IMAGES} masks have no pixel of a class" in line for line in lines) == warned


def test_the_train_curve_is_that_of_the_scores_that_are_thresholded(made, data, cams):
    best = cam_curve(pairs(data, cams), 6, check=lambda: None)["best_threshold"]
    offsets = ["pseudo.threshold={ fg_offset=0.05, bg_offset=-0.1 }", "pseudo.steps=[]"]
    _, scores = made(*offsets)  # the cam run has no eval.json
    assert (scores["fg_threshold"], scores["bg_threshold"]) == pytest.approx((best + 0.05, best - 0.1))


def test_thresholds_by_class_reach_the_best_iou_of_each(made, data, cams):
    curve = cam_curve(pairs(data, cams), 6, check=lambda: None)
    none = ["pseudo.threshold={ fg_offset=0.0, bg_offset=0.0 }", "pseudo.steps=[]"]
    _, one = made(*none)
    _, each = made(*none, "pseudo.threshold.per_class=true")
    assert list(each["class_thresholds"].values()) == curve["class_thresholds"][1:]
    assert len(set(curve["class_thresholds"][1:])) > 1
    assert each["background"]["miou"] > one["background"]["miou"]
    assert "(train-curve, a threshold for each class)" in each["protocol"][0]


def test_thresholds_of_the_scores_alone_need_no_masks(made, data, cams):
    files = [cam for cam, _ in pairs(data, cams)]
    best = otsu(score_histogram(files, 6).sum(axis=0))
    _, scores = made("pseudo.threshold={ kind='self', fg_offset=0.05, bg_offset=-0.1 }", "pseudo.steps=[]")
    assert scores["threshold"] == best
    assert scores["fg_threshold"] == pytest.approx(best + 0.05, abs=1e-4)
    assert scores["bg_threshold"] == pytest.approx(best - 0.1, abs=1e-4)
    assert 0.1 < best < 0.6


def test_without_masks_there_is_no_curve(data, cams, tmp_path):
    bare = tmp_path / "bare"
    (bare / "splits").mkdir(parents=True)
    for name in ("train", "val"):
        lines = (data / "splits" / f"{name}.csv").read_text().splitlines()
        head = lines[0].split(",")
        rows = [line.split(",") for line in lines[1:]]
        for row in rows:
            row[head.index("mask")] = ""
            row[head.index("image")] = str(data / "splits" / row[head.index("image")])
        (bare / "splits" / f"{name}.csv").write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    (bare / "dataset.json").write_text((data / "dataset.json").read_text())
    preset = load_preset("toy", [f"dataset.path={bare}", "pseudo.workers=1", "pseudo.steps=[]"])
    with pytest.raises(DataError, match=r"has no masks to score seeds on.*pseudo\.threshold\.kind=self"):
        pseudo_of(preset, Context(torch.device("cpu"), tmp_path / "runs"), cams)


def test_an_image_without_scores_is_lost_and_named(data, cams, tmp_path):
    other = tmp_path / "cam-other"
    first, *others = open_dataset(data).split("train")
    for sample in others:
        cam, classes, size = read_cam(cams / "cams" / f"{sample.id}.npz")
        write_cam(other / "cams" / f"{sample.id}.npz", cam, classes, size)
    for name in ("run.json", "inputs.json"):
        (other / name).write_text((cams / name).read_text())
    preset = load_preset("toy", [f"dataset.path={data}", "pseudo.workers=1", "pseudo.steps=[]"])
    result = pseudo_of(preset, Context(torch.device("cpu"), tmp_path / "runs"), other)
    assert result.lost == [{"id": first.id, "reason": f"{other} has no CAM of it"}]


def test_the_scores_of_a_run_have_the_columns_that_are_asked_for(made):
    run, scores = made("pseudo.steps=[]")
    stored, table = pseudo_run(run, ["iou", "fp", "fn", "biou"])
    assert stored == scores
    assert table.columns[1:5] == ("255 as background IoU", "FP", "FN", "boundary IoU")
    assert table.footer[2:5] == tuple(f"{scores['background'][key]:.2f}" for key in ("mfp", "mfn", "mbiou"))
    assert f"undecided (255): {100 * scores['background']['undecided_share']:.2f} %" in table.notes
    for policy in ("background", "drop"):
        del scores[policy]["biou"]
    write_json(run / "eval.json", scores)
    with pytest.raises(UsageError, match=r"was scored without biou .*wsss eval --pred .*/masks --truth MASKS"):
        pseudo_run(run, ["iou", "biou"])


NETWORKS = ["affinity.irn.backbone.weights=none", "affinity.psa.backbone.weights=none"]
for table in ("irn", "psa"):
    NETWORKS += [
        f"affinity.{table}.{key}" for key in ("iters=2", "batch=2", "crop=64", "data_workers=0", "label_workers=1")
    ]


def test_walks_train_their_networks_first_and_their_scores_are_thresholded(made, data, cams, tmp_path):
    steps = 'pseudo.steps=[{kind="irn-walk", iterations=8}, {kind="psa-walk", iterations=8}, {kind="crf"}]'
    run, scores = made(*NETWORKS, steps)
    assert list(scores["walk_seconds_per_image"]) == ["1 irn-walk", "2 psa-walk"]
    assert list(scores["seconds_per_image"]) == ["read", "1 crf", "write"]
    assert "IRN walk, radius 5, beta 10, 8 steps, PSA walk" in scores["protocol"][0]
    assert {path.name.split("-")[0] for path in (tmp_path / "runs").iterdir()} == {"irn", "psa", "pseudo"}
    for sample in open_dataset(data).split("train"):
        _, classes, size = read_cam(cams / "cams" / f"{sample.id}.npz")
        first, *_ = read_cam(run / "scores" / "1-irn-walk" / f"{sample.id}.npz")
        last, last_classes, last_size = read_cam(run / "scores" / "2-psa-walk" / f"{sample.id}.npz")
        assert (last_classes, last_size, classes) == (sample.labels, size, sample.labels)
        assert first.max() == pytest.approx(1.0)  # divided by the maximum over all classes
        assert last.min() >= 0 and last.max() <= 1 and np.ptp(last) > 0
        assert set(np.unique(read_mask(mask_path(run, sample.id)))) <= {0, *sample.labels, 255}
    walked = [(run / "scores" / "2-psa-walk" / f"{s.id}.npz", s.mask) for s in open_dataset(data).split("train")]
    assert scores["threshold"] == cam_curve(walked, 6, check=lambda: None)["best_threshold"]

    other, _ = made(*NETWORKS, steps.replace("iterations=8", "iterations=9", 1))
    assert other != run
    assert len(list((tmp_path / "runs").glob("irn-*"))) == 1  # the walk is another, the network the same


@pytest.mark.parametrize(
    ("best", "offsets", "expected"),
    [
        (0.4, (0.05, -0.2), (0.45, 0.2)),
        (0.01, (-0.25, -0.4), (0.01, 0.01)),  # a teacher's label maps: every score is 0 or 1
        (0.2, (-0.1, -0.4), (0.1, 0.01)),
        (0.995, (0.1, 0.0), (0.99, 0.99)),
    ],
)
def test_thresholds_at_offsets_stay_in_their_order(best, offsets, expected):
    assert around(best, CurveThreshold(fg_offset=offsets[0], bg_offset=offsets[1])) == expected
