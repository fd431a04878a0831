"""Scoring of masks and CAMs on disk: hand-computed, against a plain loop, and with bad input."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from references.thresholds import areas_by_pixel

from wsss_cli.cam.store import read_cam, upsample, write_cam
from wsss_cli.data.dataset import Sample
from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources.mask_checks import say_swapped
from wsss_cli.errors import DataError, Preempted
from wsss_cli.labels import voc_palette
from wsss_cli.metrics.scores import mean_fn, mean_fp, miou
from wsss_cli.scoring import cams, masks
from wsss_cli.scoring.masks import pair_masks

cam_curve = partial(cams.cam_curve, check=lambda: None)
score_masks = partial(masks.score_masks, check=lambda: None)


def save(folder: Path, **masks: list[list[int]] | np.ndarray) -> Path:
    for name, mask in masks.items():
        write_mask(folder / f"{name}.png", np.array(mask, np.uint8), voc_palette(3))
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return save(tmp_path / "truth", a=[[0, 1, 1, 255]], b=[[2, 2], [0, 0]])


@pytest.fixture
def pred(tmp_path: Path) -> Path:
    return save(tmp_path / "pred", a=[[0, 1, 255, 255]], b=[[2, 255], [0, 1]], c=[[0]])


def test_by_hand_and_by_policy(pred: Path, truth: Path) -> None:
    as_background = score_masks(pred, truth, 3)
    assert as_background["label"] == [3, 2, 2]
    assert as_background["pred"] == [4, 2, 1]
    assert as_background["intersect"] == [2, 1, 1]
    assert as_background["union"] == [5, 3, 2]
    assert as_background["miou"] == pytest.approx(100 * (2 / 5 + 1 / 3 + 1 / 2) / 3)
    assert as_background["undecided_share"] == pytest.approx(2 / 7)
    assert (as_background["images"], as_background["extra"]) == (2, 1)

    for folder in (pred, truth):
        save(folder / ".ipynb_checkpoints", a=[[2]])
    assert score_masks(pred, truth, 3) == as_background

    dropped = score_masks(pred, truth, 3, undecided="drop")
    assert (dropped["label"], dropped["pred"], dropped["intersect"]) == ([3, 1, 1], [2, 2, 1], [2, 1, 1])
    assert dropped["undecided_share"] == pytest.approx(2 / 7)

    as_is = score_masks(pred, truth, 3, undecided="as-is")
    assert (as_is["label"], as_is["pred"], as_is["intersect"]) == ([3, 2, 2], [2, 2, 1], [2, 1, 1])
    assert as_is["undecided_share"] == pytest.approx(2 / 7)
    assert as_is["unscored_share"] == as_background["unscored_share"] == dropped["unscored_share"] == 1 / 8


def test_protocol_says_split_count_and_policy(pred: Path, truth: Path) -> None:
    result = score_masks(pred, truth, 3, names=["background", "cat", "dog"])
    assert result["protocol"] == "masks, 2 images; true 255 is not scored; predicted 255 counts as background"
    assert result["classes"] == ["background", "cat", "dog"]
    assert "not scored, which flatters" in score_masks(pred, truth, 3, undecided="drop")["protocol"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_palette_of_other_numbers_is_asked_about(pred: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks.score_masks(pred, truth, 4, check=lambda: None)
    assert not capsys.readouterr().err
    file = min(pred.glob("*.png"))
    indexed = Image.fromarray(np.array(Image.open(file)), "P")
    indexed.putpalette([128, 0, 0, 0, 0, 0, 0, 0, 0])
    indexed.save(file)
    masks.score_masks(pred, truth, 4, check=lambda: None)
    assert capsys.readouterr().err == (
        f"warning: {file} has a palette that draws 0 in a colour and a class in black: are background and class "
        "swapped? The numbers are taken as they are\n"
    )


def test_palettes_that_differ_among_label_maps_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def palette(name: str, *colors: int) -> Path:
        indexed = Image.fromarray(np.uint8([[0, 1], [2, 2]]), "P")
        indexed.putpalette(colors)
        indexed.save(tmp_path / name)
        return tmp_path / name

    first, same = (
        palette("a.png", 0, 0, 0, 128, 0, 0, 0, 128, 0),
        palette("b.png", 0, 0, 0, 128, 0, 0, 0, 128, 0, 9, 9, 9),
    )
    say_swapped([first, same, palette("c.png", 0, 0, 0, 128, 0, 0)])
    assert not capsys.readouterr().err
    other = palette("d.png", 0, 0, 0, 0, 128, 0, 128, 0, 0)
    say_swapped([first, same, other])
    said = capsys.readouterr().err
    assert f"the palettes of {first} and {other} draw the number 1 in other colours" in said
    say_swapped([first, palette("e.png", 128, 0, 0, 0, 0, 0, 0, 128, 0)])
    assert "are background and class swapped?" in capsys.readouterr().err


def test_values_outside_the_classes_are_an_error_with_the_file(pred: Path, truth: Path) -> None:
    with pytest.raises(DataError, match=r"pred/b\.png holds the value 2; 2 classes are 0\.\.1"):
        score_masks(pred, truth, 2)
    save(pred, b=[[1, 1], [0, 0]])
    with pytest.raises(DataError, match=r"truth/b\.png holds the value 2; 2 classes are 0\.\.1"):
        score_masks(pred, truth, 2)


def test_samples_with_folders_and_dots_in_their_ids(tmp_path: Path) -> None:
    masks = save(tmp_path / "truth", **{"one.v2": [[1]], "two": [[0]]})
    save(tmp_path / "pred", **{"x/one.v2": [[1]], "two": [[0]]})
    samples = [
        Sample("x/one.v2", tmp_path / "i.jpg", masks / "one.v2.png", (1,)),
        Sample("two", tmp_path / "i.jpg", masks / "two.png", ()),
    ]
    assert score_masks(tmp_path / "pred", samples, 2)["intersect"] == [1, 1]


def test_missing_predictions_are_counted_and_named(pred: Path, truth: Path) -> None:
    save(truth, d=[[0]], e=[[0]])
    with pytest.raises(DataError, match=r"2 of 4 images have no prediction in .*, the first: d\.png"):
        score_masks(pred, truth, 3)


def test_predictions_of_other_names_are_shown_beside_those_looked_for(pred: Path, tmp_path: Path) -> None:
    truth = save(tmp_path / "named", x_gtFine_labelTrainIds=[[0]])
    with pytest.raises(DataError, match=r"such as \w\.png, where .* such as x_gtFine_labelTrainIds\.png") as caught:
        score_masks(pred, truth, 3)
    assert "predict them too" not in caught.value.hint


def test_a_folder_without_masks_is_said_by_what_it_has(truth: Path, tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        (tmp_path / "cams").mkdir(exist_ok=True)
        (tmp_path / "cams" / name).touch()
    with pytest.raises(DataError, match=r"there is no mask \(\.png\) in .*cams, but 2 \.npy: a\.npy, b\.npy") as caught:
        score_masks(tmp_path / "cams", truth, 3)
    assert "CAMs .npz files" in caught.value.hint


def test_no_truth_is_refused(pred: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no true masks in .*empty"):
        score_masks(pred, tmp_path / "empty", 3)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        score_masks(pred, tmp_path / "nowhere", 3)
    with pytest.raises(DataError, match="images without a true mask: 1 of 1, the first is 'a'"):
        score_masks(pred, [Sample("a", tmp_path / "a.jpg", None, ())], 3)


@pytest.mark.parametrize("ending", [".tif", ".npy"])
def test_what_lies_in_place_of_true_masks_is_named(tmp_path, ending):
    (tmp_path / "truth").mkdir()
    (tmp_path / f"truth/a{ending}").write_bytes(b"x")
    with pytest.raises(DataError, match=rf"no true masks in .*truth, but .*a\{ending}"):
        pair_masks(tmp_path, tmp_path / "truth")


def test_another_size_names_both_files_and_sizes(pred: Path, truth: Path) -> None:
    save(pred, b=[[0, 0, 0]])
    with pytest.raises(DataError, match=r"pred/b\.png is 3x1 and its true mask .*truth/b\.png is 2x2"):
        score_masks(pred, truth, 3)


def test_damaged_prediction_is_named(pred: Path, truth: Path) -> None:
    (pred / "b.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"b\.png cannot be decoded"):
        score_masks(pred, truth, 3)


def test_processes_give_the_same_and_report_progress(tmp_path: Path, processes_at_once: None) -> None:
    rng = np.random.default_rng(0)
    for k in range(40):
        save(tmp_path / "pred", **{f"m{k}": rng.choice([0, 1, 2, 255], (6, 5))})
        save(tmp_path / "truth", **{f"m{k}": rng.choice([0, 1, 2, 255], (6, 5))})
    told: list[int] = []
    parallel = score_masks(tmp_path / "pred", tmp_path / "truth", 3, workers=2, progress=told.append)
    assert parallel == score_masks(tmp_path / "pred", tmp_path / "truth", 3)
    assert (sum(told), len(told) > 1) == (40, True)

    save(tmp_path / "pred", m5=[[0]])  # an error crosses the process border with its hint
    with pytest.raises(DataError, match=r"m5\.png is 1x1") as error:
        score_masks(tmp_path / "pred", tmp_path / "truth", 3, workers=2)
    assert error.value.hint == "both must have the size of the image"


def test_scoring_looks_at_the_stop_flag(pred: Path, truth: Path, tmp_path: Path) -> None:
    def check() -> None:
        raise Preempted("stopped")

    with pytest.raises(Preempted):
        masks.score_masks(pred, truth, 3, check=check)
    write_cam(tmp_path / "a.npz", np.zeros((1, 2, 2)), (1,), (1, 4))
    with pytest.raises(Preempted):
        cams.cam_curve([(tmp_path / "a.npz", truth / "a.png")], 3, check=check)


def test_an_exception_from_progress_ends_the_work(pred: Path, truth: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_masks(pred, truth, 3, progress=stop)


def test_pairs_keep_the_order_of_the_truth_and_skip_what_macos_keeps_beside_files(pred: Path, truth: Path) -> None:
    (pred / "._c.png").write_bytes(b"")
    (truth / "._a.png").write_bytes(b"")
    assert pair_masks(pred, truth) == ([(pred / "a.png", truth / "a.png"), (pred / "b.png", truth / "b.png")], 1)


def test_a_mask_whose_name_begins_with_a_dot_is_scored_as_infer_writes_it(pred: Path, truth: Path) -> None:
    for folder in (pred, truth):
        (folder / ".e.png").write_bytes((truth / "a.png").read_bytes())
    pairs, others = pair_masks(pred, truth)
    assert (pred / ".e.png", truth / ".e.png") in pairs and others == 1


def cam_file(
    path: Path, cam: list[list[list[float]]] | np.ndarray, classes: tuple[int, ...], size: tuple[int, int]
) -> Path:
    write_cam(path, np.asarray(cam, np.float32), classes, size)
    return path


def test_curve_by_hand(tmp_path: Path) -> None:
    masks = save(tmp_path, t=[[1, 1, 0, 255]])
    cam = cam_file(tmp_path / "t.npz", [[[1.0, 0.6, 0.4, 0.2]]], (1,), (1, 4))  # 0.6, 0.4 and 0.2 are whole 255ths
    curve = cam_curve([(cam, masks / "t.png")], 2, (0.0, 0.2, 0.4, 0.5, 0.6, 0.99))
    # Foreground: the first 3 pixels below 0.4, then 2 (a score equal to the threshold is background), then 1.
    three, two, one = (0 + 2 / 3) / 2, 1.0, (1 / 2 + 1 / 2) / 2
    assert curve["miou"] == pytest.approx([100 * value for value in (three, three, two, two, one, one)])
    assert curve["fp"] == pytest.approx([100 / 3, 100 / 3, 0, 0, 0, 0])
    assert curve["fn"] == pytest.approx([0, 0, 0, 0, 50, 50])
    assert curve["best_threshold"] == 0.4
    assert curve["best"]["intersect"] == [1, 2]
    assert curve["images"] == 1
    assert curve["unscored_share"] == 1 / 4
    assert "threshold 0.40 is the best of 6 on these same images" in curve["protocol"]


def test_image_without_tags_is_background(tmp_path: Path) -> None:
    masks = save(tmp_path, t=[[1, 0]])
    cam = cam_file(tmp_path / "t.npz", np.zeros((0, 1, 2)), (), (1, 2))
    curve = cam_curve([(cam, masks / "t.png")], 3)
    assert curve["best"]["pred"] == [2, 0, 0]
    assert (curve["best_threshold"], len(curve["thresholds"])) == (0.0, 100)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_curve_equals_a_loop_over_thresholds(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder, rng = tmp_path_factory.mktemp("curve"), np.random.default_rng(seed)
    images, pairs = [], []
    for k in range(3):
        size = (int(rng.integers(4, 9)), int(rng.integers(4, 9)))
        classes = tuple(sorted(int(c) for c in rng.choice(np.arange(1, 5), rng.integers(0, 4), replace=False)))
        levels = (
            rng.integers(0, 6, (len(classes), 3, 4)) / 5
        )  # few levels, so that scores tie with each other and with t
        path = cam_file(folder / f"{k}.npz", levels, classes, size)
        truth = rng.choice([0, 1, 2, 3, 4, 255], size).astype(np.uint8)
        save(folder, **{str(k): truth})
        images.append((upsample(read_cam(path)[0], size), classes, truth))
        pairs.append((path, folder / f"{k}.png"))
    thresholds = (0.0, 0.1, 0.2, 0.4, 0.55, 0.8, 0.99)
    curve = cam_curve(pairs, 5, thresholds)
    expected = [areas_by_pixel(images, 5, threshold) for threshold in thresholds]
    assert curve["miou"] == pytest.approx([miou(areas) for areas in expected])
    assert curve["fp"] == pytest.approx([mean_fp(areas) for areas in expected], nan_ok=True)
    assert curve["fn"] == pytest.approx([mean_fn(areas) for areas in expected], nan_ok=True)
    best = expected[thresholds.index(curve["best_threshold"])]
    assert all(curve["best"][name] == areas.tolist() for name, areas in best.items())


def test_curve_in_processes_gives_the_same(tmp_path: Path, processes_at_once: None) -> None:
    rng = np.random.default_rng(1)
    save(tmp_path, t=rng.choice([0, 1, 2, 255], (6, 6)))
    pairs = [
        (cam_file(tmp_path / f"{k}.npz", rng.random((2, 3, 3)), (1, 2), (6, 6)), tmp_path / "t.png") for k in range(40)
    ]
    assert cam_curve(pairs, 3, workers=2) == cam_curve(pairs, 3)


def test_curve_refuses_bad_input(tmp_path: Path) -> None:
    masks = save(tmp_path, t=[[1, 0]], blank=[[255, 255]], seven=[[7, 0]])
    good = cam_file(tmp_path / "good.npz", [[[1.0, 0.0]]], (1,), (1, 2))
    with pytest.raises(DataError, match="no CAMs to score"):
        cam_curve([], 2)
    with pytest.raises(DataError, match=r"good\.npz has a CAM of class 1, which is not in 1\.\.0"):
        cam_curve([(good, masks / "blank.png")], 1)
    with pytest.raises(DataError, match=r"seven\.png holds the value 7; 2 classes are 0\.\.1"):
        cam_curve([(good, masks / "seven.png")], 2)
    with pytest.raises(DataError, match="no pixel of the true masks has a label"):
        cam_curve([(good, masks / "blank.png")], 2)
    large = cam_file(tmp_path / "large.npz", [[[1.0, 0.0]]], (1,), (5, 2))
    with pytest.raises(DataError, match=r"large\.npz is 2x5 and its true mask .*t\.png is 2x1"):
        cam_curve([(large, masks / "t.png")], 2)
    with pytest.raises(DataError, match=r"none\.npz"):
        cam_curve([(tmp_path / "none.npz", masks / "t.png")], 2)
