import math

import numpy as np
import pytest
import torch
from references.noise import curve, drop_by_search, iou_by_loops

from wsss_cli.config.noise import UpdateConfig
from wsss_cli.noise.update import IouCurves, slope_drop

CPU = torch.device("cpu")


def replaced_by_loops(target, probability, corrected, threshold):
    """(labels, certainty), where the prediction is sure of another class than that of a corrected label."""
    fresh, certainty = target.copy(), np.ones(target.shape)
    for b, y, x in np.ndindex(*target.shape):
        p = probability[b, :, y, x]
        best = int(p.argmax())
        if target[b, y, x] in corrected and best != target[b, y, x] and p[best] > threshold:
            fresh[b, y, x], certainty[b, y, x] = best, p[best]
    return fresh, certainty


# -- the fit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [5, 6, 12])
def test_the_slope_of_a_known_curve_drops_as_computed_by_hand(points):
    # f' is proportional to exp(-x / 2)
    assert slope_drop(curve(points)) == pytest.approx(1 - math.exp(-0.5 * (points - 1)), abs=1e-3)


def test_the_drop_of_a_slow_curve_has_its_power():
    # f'(x) is proportional to x^(c - 1) exp(-b x^c)
    expected = 1 - 9 ** (0.6 - 1) * math.exp(-0.3 * (9**0.6 - 1))
    assert slope_drop(curve(9, 0.7, 0.3, 0.6)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_the_best_one_of_points_with_noise(seed):
    rng = np.random.default_rng(seed)
    iou = curve(12, rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.8), rng.uniform(0.6, 1.3)) + rng.normal(0, 0.02, 12)
    iou[rng.integers(1, 11)] = np.nan
    assert slope_drop(iou.clip(0, 1)) == pytest.approx(drop_by_search(iou.clip(0, 1)), abs=1e-3)


def test_points_without_the_class_are_left_out_of_the_fit():
    iou = curve(8)
    iou[[1, 4]] = np.nan
    assert slope_drop(iou) == pytest.approx(1 - math.exp(-0.5 * 7), abs=1e-3)


@pytest.mark.parametrize("iou", [curve(4), np.full(9, np.nan), np.zeros(9), np.full(9, 0.004)])
def test_too_few_points_and_a_class_that_is_not_learned_have_no_slope(iou):
    assert math.isnan(slope_drop(iou))


def test_a_line_has_no_drop_to_speak_of():
    assert slope_drop(np.linspace(0.02, 0.2, 10)) < 0.5


# -- the record --------------------------------------------------------------------------------------------------------


def test_a_point_is_the_iou_over_all_batches_of_its_part():
    curves = IouCurves(3, UpdateConfig(points=5), iters=10, device=CPU)
    curves.record(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]], dtype=torch.uint8))
    assert curves.after_step(1) == []
    assert len(curves.curves) == 0
    curves.record(torch.tensor([[[0, 1, 2, 1]]]), torch.tensor([[[0, 0, 0, 1]]], dtype=torch.uint8))
    assert curves.after_step(2) == []
    # background: 2 hits, labelled 4, predicted 3; class 1: 2 hits, labelled 3, predicted 3; class 2: never labelled
    np.testing.assert_allclose(curves.curves.numpy(), [[2 / 5, 2 / 4, np.nan]])
    assert curves.confusion.sum() == 0


def test_points_are_those_of_the_loops():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 0, 1, 2, 255], (6, 2, 5, 7)).astype(np.uint8)
    predictions = np.where(rng.random(labels.shape) < 0.5, labels % 255, rng.integers(0, 4, labels.shape))
    curves = IouCurves(4, UpdateConfig(points=5), iters=10, device=CPU)
    for step in range(6):
        curves.record(torch.from_numpy(predictions[step]), torch.from_numpy(labels[step]))
        curves.after_step(step + 1)
    expected = [iou_by_loops(predictions[step : step + 2], labels[step : step + 2], 4) for step in (0, 2, 4)]
    np.testing.assert_allclose(curves.curves.numpy(), expected)
    assert np.isnan(expected).sum() == 3


def played(curves, values, start=0):
    """Feed parts of one iteration whose IoU of class 1 are `values` (in thousandths); when its labels got corrected."""
    found = []
    for step, value in enumerate(values, start + 1):
        label = torch.ones(1, 1, 1000, dtype=torch.uint8)
        prediction = torch.zeros(1, 1, 1000, dtype=torch.int64)
        prediction[..., : round(1000 * value)] = 1
        curves.record(prediction, label)
        found += [(step, label) for label in curves.after_step(step)]
    return found


def test_a_class_is_corrected_from_the_point_on_where_its_curve_is_flat():
    curves = IouCurves(3, UpdateConfig(points=12), iters=12, device=CPU)
    assert played(curves, curve(12)) == [(6, 1)]  # 1 - exp(-2) = 0.86 at point 5, 1 - exp(-2.5) = 0.92 at point 6
    assert curves.corrected.tolist() == [False, True, False]


def test_a_record_that_is_saved_and_loaded_goes_on_alike():
    whole = IouCurves(3, UpdateConfig(points=12), iters=24, device=CPU)
    played(whole, curve(9))
    rest = IouCurves(3, UpdateConfig(points=12), iters=24, device=CPU)
    rest.load_state(whole.state())
    played(whole, curve(15)[9:], 9)
    played(rest, curve(15)[9:], 9)
    assert torch.equal(torch.nan_to_num(whole.curves), torch.nan_to_num(rest.curves))
    assert torch.equal(whole.confusion, rest.confusion) and whole.confusion.sum() > 0
    assert torch.equal(whole.corrected, rest.corrected)


# -- the replacement ---------------------------------------------------------------------------------------------------


def flat(*classes):
    curves = IouCurves(3, UpdateConfig(), iters=100, device=CPU)
    corrected = torch.zeros(3, dtype=torch.bool)
    corrected[list(classes)] = True
    curves.load_state({**curves.state(), "corrected": corrected})
    return curves


def test_sure_predictions_replace_the_labels_of_corrected_classes_by_hand():
    target = torch.tensor([[[1, 1, 1, 2, 255]]])
    probability = torch.tensor(
        [[0.9, 0.8, 0.05, 0.9, 0.9], [0.05, 0.1, 0.9, 0.05, 0.05], [0.05, 0.1, 0.05, 0.05, 0.05]]
    )
    fresh, certainty = flat(1).replace(target, probability.view(1, 3, 1, 5))
    assert fresh.tolist() == [[[0, 1, 1, 2, 255]]]  # sure; at the threshold; the same; not corrected; no label
    assert certainty.flatten().tolist() == pytest.approx([0.9, 1.0, 1.0, 1.0, 1.0])
    fresh, _ = flat().replace(target, probability.view(1, 3, 1, 5))
    assert torch.equal(fresh, target)


def test_replacement_is_that_of_the_loop():
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 6, 7), generator=rng)
    target[0, :2] = 255
    probability = (4 * torch.randn(2, 3, 6, 7, generator=rng)).softmax(1)
    fresh, certainty = flat(0, 2).replace(target, probability)
    expected = replaced_by_loops(target.numpy(), probability.numpy(), (0, 2), 0.8)
    np.testing.assert_array_equal(fresh.numpy(), expected[0])
    np.testing.assert_array_equal(certainty.numpy(), expected[1])
    assert (fresh != target).sum() > 5


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    prediction, label = torch.randint(0, 3, (2, 8, 8)), torch.randint(0, 3, (2, 8, 8)).to(torch.uint8)
    label[0, :3] = 255
    here = IouCurves(3, UpdateConfig(points=5), iters=5, device=CPU)
    there = IouCurves(3, UpdateConfig(points=5), iters=5, device=torch.device("cuda"))
    here.record(prediction, label)
    there.record(prediction.cuda(), label.cuda())
    here.after_step(1)
    there.after_step(1)
    assert torch.equal(here.curves, there.curves)
