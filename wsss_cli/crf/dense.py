"""Dense CRF: one function with one meaning, whichever implementation computes it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from wsss_cli.errors import DataError


def dense_crf(
    image: np.ndarray,
    unary: np.ndarray,
    *,
    gauss_sxy: float,
    gauss_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
    iterations: int = 10,
    backend: Literal["auto", "lattice"] = "auto",
) -> np.ndarray:
    """Mean field over a spatial and a bilateral Gaussian kernel with Potts compatibilities, all pixel pairs.

    Q0 = softmax(-U); each iteration Q <- softmax(-U + sum_k w_k K_k Q), K_k symmetrically normalised, a pixel's
    message to itself included.

    Args:
        image: RGB, uint8 [H, W, 3].
        unary: negative log-probabilities, float32 [K, H, W], K >= 1.
        gauss_sxy, bilateral_sxy: standard deviations in space, pixels.
        bilateral_srgb: standard deviation in colour, 0..255 units.
        gauss_compat, bilateral_compat: weights of the kernels; 0 leaves a kernel out.
        backend: 'lattice' is pydensecrf's permutohedral approximation on the CPU; 'auto' takes the fastest there is.
    Returns:
        Q, the posterior, float32 [K, H, W], sums to 1 over K.
    Raises:
        DataError: shapes differ, the image is not uint8, or the unary holds NaN or infinity.

    Source: Kraehenbuehl and Koltun, NeurIPS 2011, eq. 3 and algorithm 1; conventions of pydensecrf.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"dense CRF: the image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    if unary.ndim != 3 or unary.shape[1:] != image.shape[:2]:
        raise DataError(f"dense CRF: unary {list(unary.shape)} does not fit an image of {list(image.shape[:2])}")
    if not np.isfinite(unary).all():
        raise DataError("dense CRF: the unary holds NaN or infinity", "clip probabilities before taking the logarithm")
    if unary.shape[0] == 1:
        return np.ones(unary.shape, np.float32)
    from pydensecrf import densecrf  # a compiled extension: only where it is used

    labels, height, width = unary.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(labels, -1), dtype=np.float32))
    if gauss_compat > 0:
        field.addPairwiseGaussian(sxy=gauss_sxy, compat=gauss_compat)
    if bilateral_compat > 0:
        field.addPairwiseBilateral(
            sxy=bilateral_sxy, srgb=bilateral_srgb, rgbim=np.ascontiguousarray(image), compat=bilateral_compat
        )
    return np.asarray(field.inference(iterations), dtype=np.float32).reshape(labels, height, width)


def label_unary(labels: np.ndarray, count: int, gt_prob: float) -> np.ndarray:
    """Unary energies of a hard label map: -log gt_prob at the label, the rest shared by the other labels.

    Args:
        labels: int [H, W], values 0 .. count-1.
        count: number of labels, at least 2.
    Returns:
        float32 [count, H, W].

    Source: pydensecrf `unary_from_labels` with zero_unsure=False.
    """
    energy = np.full((count, *labels.shape), -np.log((1.0 - gt_prob) / (count - 1)), np.float32)
    np.put_along_axis(energy, labels[None].astype(np.int64), np.float32(-np.log(gt_prob)), axis=0)
    return energy
