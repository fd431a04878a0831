"""Confusion: hand-computed, against the reference implementation, and as properties."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsss_cli.errors import DataError
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.on_device import DeviceConfusion

GOLDEN = Path(__file__).parents[1] / "golden"
REFERENCE = json.loads((GOLDEN / "iou_metric.json").read_text())
metric_pair = runpy.run_path(str(GOLDEN / "rules.py"))["metric_pair"]

label_maps = arrays(np.uint8, (5, 4), elements=st.sampled_from([0, 1, 2, 3, 7, 255]))
pairs = st.lists(st.tuples(label_maps, label_maps), min_size=1, max_size=5)


def confusion_of(images: list[tuple[np.ndarray, np.ndarray]], num_classes: int = 3) -> Confusion:
    confusion = Confusion(num_classes)
    for pred, truth in images:
        confusion.add(pred, truth)
    return confusion


def test_counts_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
    pred = np.array([[0, 1, 1, 1], [0, 2, 1, 9]], np.uint8)
    confusion = confusion_of([(pred, truth)])
    assert confusion.matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    areas = {name: area.tolist() for name, area in confusion.areas().items()}
    assert areas == {"intersect": [1, 2, 1], "union": [3, 3, 2], "pred": [2, 3, 1], "label": [2, 2, 2]}


@settings(deadline=None)
@given(pairs)
def test_counts_on_a_device_are_the_same(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    there = DeviceConfusion(3, torch.device("cpu"))
    for pred, truth in images:
        there.add(torch.from_numpy(pred), torch.from_numpy(truth))
    assert there.matrix().tolist() == confusion_of(images).matrix.tolist()


@pytest.mark.parametrize("ignore", [255, 0, 7, -1])
@pytest.mark.parametrize("num_classes", [1, 2, 21, 254, 255, 300])
def test_small_and_large_images_are_counted_alike(num_classes: int, ignore: int) -> None:
    pred, truth = np.random.default_rng(0).integers(0, 256, (2, 256, 256), np.uint8)  # all values, together above FEW
    large, small, plain = (Confusion(num_classes) for _ in range(3))
    large.add(pred, truth, ignore)
    for rows in np.split(np.arange(256), 8):
        small.add(pred[rows], truth[rows], ignore)
        plain.add(pred[rows].astype(np.int64), truth[rows].astype(np.int64), ignore)
    assert small.matrix.tolist() == large.matrix.tolist() == plain.matrix.tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("num_classes", [2, 21, 81, 255])
def test_a_gpu_counts_as_a_cpu(num_classes: int) -> None:
    rng = np.random.default_rng()
    pred, truth = rng.integers(0, 256, (2, 4, 375, 500), np.uint8)
    there = DeviceConfusion(num_classes, torch.device("cuda"))
    there.add(torch.from_numpy(pred).cuda(), torch.from_numpy(truth).cuda())
    assert there.matrix().tolist() == confusion_of([(pred, truth)], num_classes).matrix.tolist()


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["spec"]["seed"]))
def test_areas_equal_the_reference(case: dict) -> None:
    spec = dict(case["spec"])
    seed, images = spec.pop("seed"), spec.pop("n_images")
    confusion = Confusion(spec["nc"])
    for k in range(images):
        confusion.add(*metric_pair(seed * 100 + k, **spec))
    assert {f"area_{name}": area.tolist() for name, area in confusion.areas().items()} == {
        name: case[name] for name in ("area_intersect", "area_union", "area_pred", "area_label")
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_values_outside_the_classes_equal_the_reference(dtype: type) -> None:
    golden = REFERENCE["out_of_range"]
    confusion = Confusion(21)
    confusion.add(np.array(golden["pred"], dtype), np.array(golden["label"], dtype))
    areas = confusion.areas()
    assert [areas[name].tolist() for name in ("intersect", "union", "pred", "label")] == golden["areas"]


def test_negative_values_are_outside_the_classes() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([[-1, 0, 1]]), np.array([[1, -1, 255]]))
    assert confusion.matrix.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_exact_beyond_float32() -> None:
    confusion = confusion_of([(np.zeros((1, 1), np.uint8),) * 2])
    confusion.matrix[0, 0] = 2**24
    confusion.add(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    assert confusion.areas()["intersect"][0] == 2**24 + 1


def test_another_ignore_index() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1, 2]]), np.array([[0, 0, 255]]), ignore_index=0)
    assert confusion.matrix.sum() == 1
    assert confusion.matrix[3, 2] == 1


def test_shapes_that_differ_are_refused_with_both_sizes() -> None:
    with pytest.raises(DataError, match=r"2x3 and truth is 3x2"):
        Confusion(3).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def test_floats_and_foreign_merges_are_refused() -> None:
    with pytest.raises(TypeError, match="integers"):
        Confusion(3).add(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="4 classes into 3"):
        Confusion(3).merge(Confusion(4))


@settings(deadline=None)
@given(pairs)
def test_every_cell_equals_a_plain_count(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    expected = np.zeros((4, 4), np.int64)
    for pred, truth in images:
        for p, t in zip(pred.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t != 255:
                expected[min(t, 3), min(p, 3)] += 1
    assert (confusion_of(images).matrix == expected).all()


@settings(deadline=None)
@given(pairs, st.randoms(use_true_random=False), st.integers(0, 5))
def test_order_and_grouping_do_not_matter(
    images: list[tuple[np.ndarray, np.ndarray]], random: object, cut: int
) -> None:
    whole = confusion_of(images)
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = confusion_of(shuffled[:cut])
    merged.merge(confusion_of(shuffled[cut:]))
    assert (merged.matrix == whole.matrix).all()


@settings(deadline=None)
@given(pairs, st.permutations(range(3)))
def test_renaming_classes_renames_the_areas(images: list[tuple[np.ndarray, np.ndarray]], order: list[int]) -> None:
    renamed = np.arange(256, dtype=np.uint8)
    renamed[:3] = order
    before = confusion_of(images).areas()
    after = confusion_of([(renamed[pred], renamed[truth]) for pred, truth in images]).areas()
    for name in before:
        assert (after[name][order] == before[name]).all()


@settings(deadline=None)
@given(pairs, st.permutations(range(20)))
def test_pixel_order_does_not_matter(images: list[tuple[np.ndarray, np.ndarray]], order: list[int]) -> None:
    moved = [tuple(plane.ravel()[order].reshape(plane.shape) for plane in pair) for pair in images]
    assert (confusion_of(moved).matrix == confusion_of(images).matrix).all()  # type: ignore[arg-type]
