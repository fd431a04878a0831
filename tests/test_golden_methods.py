"""The methods against frozen results of their plain references; tests/golden/make_methods.py wrote them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsss_cli.config.affinity import IrnWalk
from wsss_cli.crf import dense_crf
from wsss_cli.noise.gated_crf import gated_crf_energy
from wsss_cli.pseudo.affinity_loss import boundary_loss
from wsss_cli.pseudo.pairs import half_disc
from wsss_cli.pseudo.par import par
from wsss_cli.pseudo.walk import irn_walk

CRF = {
    "gauss_sxy": 2.0,
    "gauss_compat": 1.5,
    "bilateral_sxy": 6.0,
    "bilateral_srgb": 20.0,
    "bilateral_compat": 4.0,
    "iterations": 5,
}


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "methods.npz", allow_pickle=False) as stored:
        return dict(stored)


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
    assert boundary_loss(logits, labels, half_disc(4)).item() == pytest.approx(float(golden["boundary_loss"]), rel=1e-5)
