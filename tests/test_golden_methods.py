"""From CAMs to masks, against frozen results of plain references; tests/golden/make_methods.py wrote them.

The ways to CAMs are in test_golden_cams.py, training on noisy masks in test_golden_noise.py.
"""

import numpy as np
import pytest
import torch

from wsss_cli.cam.store import write_cam
from wsss_cli.config.affinity import IrnWalk, PsaConfig, PsaWalk
from wsss_cli.config.base import CrfConfig
from wsss_cli.config.thresholds import CurveThreshold
from wsss_cli.crf import dense_crf
from wsss_cli.data.masks import write_mask
from wsss_cli.labels import voc_palette
from wsss_cli.losses.gated_crf import gated_crf_energy
from wsss_cli.pseudo.affinity_labels import psa_label
from wsss_cli.pseudo.affinity_loss import boundary_loss, feature_loss
from wsss_cli.pseudo.pairs import half_disc
from wsss_cli.pseudo.par import par
from wsss_cli.pseudo.thresholds import class_factors, otsu, score_histogram
from wsss_cli.pseudo.walk import irn_walk, psa_walk
from wsss_cli.scoring.cams import cam_curve
from wsss_cli.stages.thresholds import around

CRF = {
    "gauss_sxy": 2.0,
    "gauss_compat": 1.5,
    "bilateral_sxy": 6.0,
    "bilateral_srgb": 20.0,
    "bilateral_compat": 4.0,
    "iterations": 5,
}


@pytest.mark.parametrize(("backend", "tolerance"), [("exact", 1e-5), ("lattice", 0.2)])
def test_dense_crf(golden, backend, tolerance):
    found = dense_crf(golden["crf_image"], golden["crf_unary"], **CRF, backend=backend)
    np.testing.assert_allclose(found, golden["crf_posterior"], atol=tolerance)


def test_pixel_adaptive_refinement(golden):
    image, planes = (torch.from_numpy(golden[name])[None].float() for name in ("par_image", "par_planes"))
    found = par(image, planes, dilations=(1, 2), iterations=4, w1=0.3, w2=0.01)[0]
    np.testing.assert_allclose(found, golden["par_refined"], atol=1e-5)


def test_irn_walk(golden):
    step = IrnWalk(radius=5, beta=10.0, iterations=256)
    found = irn_walk(torch.from_numpy(golden["irn_cam"]), torch.from_numpy(golden["irn_edge"]), step).numpy()
    np.testing.assert_allclose(found, golden["irn_walked"], atol=1e-4)
    assert (found.argmax(0) == golden["irn_walked"].argmax(0)).all()


def test_gated_crf(golden):
    p, image, gate = (torch.from_numpy(golden[f"gated_{name}"])[None] for name in ("p", "image", "gate"))
    assert gated_crf_energy(p, image, gate, 3, 2.5, 30.0).item() == pytest.approx(float(golden["gated_energy"]))


def test_boundary_loss(golden):
    logits, labels = torch.from_numpy(golden["boundary_logits"]).float(), torch.from_numpy(golden["boundary_labels"])
    loss = boundary_loss(logits.requires_grad_(), labels, half_disc(4))
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["boundary_loss"]), rel=1e-5)
    np.testing.assert_allclose(logits.grad, golden["boundary_gradient"], rtol=1e-4, atol=1e-6)


def test_psa_loss(golden):
    features = torch.from_numpy(golden["psa_features"].copy()).requires_grad_()
    loss = feature_loss(features, torch.from_numpy(golden["psa_labels"]), half_disc(4))
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["psa_loss"]), rel=1e-5)
    np.testing.assert_allclose(features.grad, golden["psa_gradient"], rtol=1e-4, atol=1e-6)


def test_psa_walk(golden):
    step = PsaWalk(radius=4, beta=4.0, iterations=8, alpha=3.0)
    found = psa_walk(torch.from_numpy(golden["psa_cam"]), torch.from_numpy(golden["psa_features"][0]), step)
    np.testing.assert_allclose(found, golden["psa_walked"], rtol=1e-5)


def test_psa_labels(golden):
    config = PsaConfig(alpha_low=2.0, alpha_high=8.0, crf=CrfConfig(**CRF))
    found = psa_label(golden["psa_image"], golden["psa_scores"], (4, 7), config, "exact")
    np.testing.assert_array_equal(found, golden["psa_label"])


@pytest.fixture
def files(golden, tmp_path):
    """Stored CAMs and true masks."""
    images = zip(golden["curve_levels"], golden["curve_classes"], golden["curve_truth"], strict=True)
    pairs = []
    for number, (levels, classes, truth) in enumerate(images):
        pairs.append((tmp_path / f"{number}.npz", tmp_path / f"{number}.png"))
        write_cam(pairs[-1][0], levels / 255, tuple(classes.tolist()), truth.shape)
        write_mask(pairs[-1][1], truth, voc_palette(4))
    return pairs


def test_thresholds_from_the_curve(golden, files):
    curve = cam_curve(files, 4, [step / 20 for step in range(20)], check=lambda: None)
    np.testing.assert_allclose(curve["miou"], 100 * golden["curve_iou"].mean(1), rtol=1e-12)
    assert curve["best_threshold"] == golden["curve_best"]
    assert curve["class_thresholds"] == [None, *golden["curve_by_class"]]
    for (fg, bg), expected in zip(((0.1, -0.9), (0.9, -0.05)), golden["curve_offsets"], strict=True):
        offsets = CurveThreshold(fg_offset=fg, bg_offset=bg)
        assert around(curve["best_threshold"], offsets) == pytest.approx(expected, abs=1e-9)


def test_thresholds_from_the_scores(golden, files):
    counts = score_histogram([file for file, _ in files], 5)
    np.testing.assert_array_equal(counts, golden["otsu_counts"])
    best, by_class = otsu(counts.sum(0)), [otsu(row) for row in counts[1:]]
    assert best == pytest.approx(float(golden["otsu_best"]), abs=1e-12)
    np.testing.assert_allclose(np.array(by_class, float), golden["otsu_by_class"], rtol=1e-12)
    np.testing.assert_allclose(class_factors(best, by_class), golden["otsu_factors"], rtol=1e-12)
