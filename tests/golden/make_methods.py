"""Add to methods.npz what it lacks: inputs, and what the plain references make of them in float64.

    python tests/golden/make_methods.py

The references are loops and dense matrices; their results are kept here, so that a change of a reference shows, too.
What the file has stays as it is, to the bit; it is computed again all the same, and a difference beyond rounding is an
error.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import make_cams  # noqa: E402
import make_noise  # noqa: E402
from references import affinity, dense_crf, gated_crf, par, thresholds  # noqa: E402

from wsss_cli.pseudo.pairs import half_disc  # noqa: E402


def refinement():
    """Dense CRF, pixel-adaptive refinement, gated CRF."""
    image, unary, _ = dense_crf.scene(4, seed=11)
    found = {"crf_image": image, "crf_unary": unary}
    found["crf_posterior"] = dense_crf.all_pairs(image, unary, **dense_crf.SETTINGS)

    picture, planes = par.scene(12)
    found |= {"par_image": picture, "par_planes": planes}
    found["par_refined"] = par.by_loops(picture, planes, (1, 2), 4, 0.3, 0.01)

    p, colours, gate = (tensor[0].numpy() for tensor in gated_crf.draw(seed=14))
    found |= {"gated_p": p, "gated_image": colours, "gated_gate": gate}
    found["gated_energy"] = gated_crf.energy_by_pixel(p, colours, gate, 3, 2.5, 30.0)
    return found


def irn():
    rng = np.random.default_rng(13)
    cam, edge = rng.random((2, 10, 12)).astype(np.float32), rng.random((10, 12)).astype(np.float32) ** 3
    offsets = half_disc(5)
    affinities = affinity.loop_affinity(edge.astype(float), offsets) ** 10
    transition = np.linalg.matrix_power(affinity.dense_transition(affinities, offsets), 256)
    walked = ((cam.astype(float) * (1 - edge)).reshape(2, -1) @ transition).reshape(cam.shape)
    found = {"irn_cam": cam, "irn_edge": edge, "irn_walked": walked / walked.max()}

    logits = torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(15), dtype=torch.float64).requires_grad_()
    labels, _ = affinity.random_labels(16, (1, 6, 7))
    loss = affinity.boundary_reference(logits, labels, 4)
    loss.backward()
    found |= {"boundary_logits": logits.detach().numpy(), "boundary_labels": labels.astype(np.uint8)}
    return found | {"boundary_loss": loss.item(), "boundary_gradient": logits.grad.numpy()}


def psa():
    rng = np.random.default_rng(17)
    features = rng.normal(size=(2, 3, 5, 6)).astype(np.float32)
    leaf = torch.from_numpy(features).double().requires_grad_()
    labels, _ = affinity.random_labels(18, (2, 5, 6))
    loss = affinity.feature_reference(leaf, labels, 4)
    loss.backward()
    found = {"psa_features": features, "psa_labels": labels.astype(np.uint8)}
    found |= {"psa_loss": loss.item(), "psa_gradient": leaf.grad.numpy()}

    cam = np.kron(rng.random((2, 5, 6)) ** 2, np.ones((2, 2)))[:, :9, :11].astype(np.float32)
    cam *= rng.random(cam.shape).astype(np.float32)  # odd sides: the last pixels of a row and column have no partner
    found["psa_cam"] = cam
    found["psa_walked"] = affinity.psa_by_matrix(cam.astype(float), features[0].astype(float), 4, 4.0, 8, 3.0)

    image, _, truth = dense_crf.scene(seed=19)
    scores = rng.random((2, *truth.shape)) * np.where(np.arange(truth.shape[1]) < 6, 0.1, 0.35)
    scores[0] += 0.5 * (truth == 1)
    scores[1, 9:] += 0.55
    crf = functools.partial(dense_crf.all_pairs, image, **dense_crf.SETTINGS)
    found |= {"psa_image": image, "psa_scores": scores.astype(np.float32)}
    found["psa_label"] = affinity.label_by_pixel(scores, (4, 7), 2.0, 8.0, crf)
    return found


def background():
    """The best of a curve and what is offset from it; Otsu's; the factors of classes with thresholds of their own."""
    rng = np.random.default_rng(20)
    classes = np.array([[1, 2], [1, 3], [2, 3]], np.uint8)
    truth = np.zeros((3, 8, 9), np.uint8)
    levels = rng.integers(0, 90, (3, 2, 8, 9)).astype(np.uint8)
    for image, own in enumerate(classes):
        truth[image, 1:5, 1:5], truth[image, 4:8, 5:9] = own
        for plane, index in zip(levels[image], own, strict=True):
            plane[truth[image] == index] += np.uint8(40 * index)
    truth[:, 0] = 255
    found = {"curve_levels": levels, "curve_classes": classes, "curve_truth": truth}

    steps = [step / 20 for step in range(20)]
    images = list(zip((levels / 255).astype(np.float32), classes, truth, strict=True))
    areas = [thresholds.areas_by_pixel(images, 4, step) for step in steps]
    iou = np.array([at["intersect"] / at["union"] for at in areas])
    best = steps[int(iou.mean(1).argmax())]
    found |= {"curve_iou": iou, "curve_best": best, "curve_by_class": [steps[row] for row in iou[:, 1:].argmax(0)]}
    found["curve_offsets"] = [[min(best + fg, 0.99), max(best + bg, 0.01)] for fg, bg in ((0.1, -0.9), (0.9, -0.05))]

    counts = thresholds.histogram_by_pixel(list(zip(levels, classes, strict=True)), 5)  # the last one is nowhere
    found |= {"otsu_counts": counts, "otsu_best": thresholds.otsu_by_fractions(counts.sum(0))}
    found["otsu_by_class"] = [thresholds.otsu_by_fractions(row) or np.nan for row in counts[1:]]
    found["otsu_factors"] = [1.0 if np.isnan(own) else found["otsu_best"] / own for own in found["otsu_by_class"]]
    return found


def made():
    parts = (refinement(), irn(), psa(), background(), make_cams.made(), make_noise.made())
    return {name: np.asarray(value) for part in parts for name, value in part.items()}


def complete(file):
    fresh = made()
    with np.load(file, allow_pickle=False) as kept:
        stored = dict(kept)
    for name, value in stored.items():
        np.testing.assert_allclose(fresh[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    np.savez_compressed(file, **{**fresh, **stored})


if __name__ == "__main__":
    complete(HERE / "methods.npz")
