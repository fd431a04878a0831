"""Dense CRF: one function with one meaning, whichever implementation computes it."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from typing import Any, Literal

import numpy as np

from wsss_cli.crf import lattice
from wsss_cli.errors import DataError, UsageError
from wsss_cli.processes import check_stop

Backend = Literal["auto", "lattice", "pydensecrf2", "exact", "triton"]
TOLERANCE = 3e-4  # of the Triton kernel: pairs of tiles whose kernel is nowhere above this are left out
_GPU = threading.Lock()  # threads take turns on it: its memory holds the planes of one image


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
    backend: Backend = "auto",
) -> np.ndarray:
    """Mean field over a spatial and a bilateral Gaussian kernel with Potts compatibilities, all pixel pairs.

    Q0 = softmax(-U); each iteration Q <- softmax(-U + sum_k w_k K_k Q), K_k symmetrically normalised, a pixel's
    message to itself included.

    Args:
        image: RGB, uint8 [H, W, 3].
        unary: negative log-probabilities, float32 [K, H, W], K >= 1; or [S, K, H, W], S labellings of the image that
            share its kernels.
        gauss_sxy, bilateral_sxy: standard deviations in space, pixels.
        bilateral_srgb: standard deviation in colour, 0..255 units.
        gauss_compat, bilateral_compat: weights of the kernels; 0 leaves a kernel out.
        backend: 'lattice' is the permutohedral approximation on the CPU, by `lattice.mean_field` where that can run
            and else by pydensecrf2, whose labels both give; 'pydensecrf2' is that alone; 'exact' sums over all pairs in
            torch on the CPU, in float32, for small images (its time grows with the square of the pixels); 'triton' sums
            over all pairs but those whose kernel is below TOLERANCE, on a GPU; 'auto' is 'triton' where that can run,
            else 'lattice'.
    Returns:
        Q, the posterior, float32, of the shape of `unary`, sums to 1 over K.
    Raises:
        DataError: shapes differ, the image is not uint8, or the unary holds NaN or infinity.
        UsageError: 'triton' on a machine without a CUDA device or without Triton.

    Source: Kraehenbuehl and Koltun, NeurIPS 2011, eq. 3 and algorithm 1; conventions of pydensecrf.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"dense CRF: the image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    if unary.ndim not in (3, 4) or unary.shape[-2:] != image.shape[:2]:
        raise DataError(f"dense CRF: unary {list(unary.shape)} does not fit an image of {list(image.shape[:2])}")
    if not np.isfinite(unary).all():
        raise DataError("dense CRF: the unary holds NaN or infinity", "clip probabilities before taking the logarithm")
    if unary.shape[-3] == 1:
        return np.ones(unary.shape, np.float32)
    kernels = {
        "gauss_sxy": gauss_sxy,
        "gauss_compat": gauss_compat,
        "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb,
        "bilateral_compat": bilateral_compat,
    }
    stacks = unary.reshape(-1, *unary.shape[-3:])
    if backend == "lattice" or (backend == "auto" and backend_for("cuda") == "lattice"):
        own_lattice = lattice.mean_field(image, stacks, iterations, **kernels)
        posterior = _each_by_pydensecrf(image, stacks, iterations, **kernels) if own_lattice is None else own_lattice
    elif backend == "pydensecrf2":
        posterior = _each_by_pydensecrf(image, stacks, iterations, **kernels)
    else:
        posterior = _mean_field(image, stacks, iterations, gpu=backend != "exact", **kernels)
    return posterior.reshape(unary.shape)


def backend_for(device: str) -> Backend:
    """What computes the dense CRF of a stage on a device ('cpu', 'cuda'): a GPU where the kernel passes its trial."""
    if device != "cuda" or not gpu_can():
        lattice.usable()  # built once, before worker processes look for it
        return "lattice"
    import torch

    from wsss_cli.crf.mean_field import TRIAL
    from wsss_cli.kernels.trials import usable

    with _GPU:
        return "triton" if usable(TRIAL, torch.device("cuda", torch.cuda.current_device())) else "lattice"


def gpu_can() -> bool:
    """Whether the exact dense CRF can run on a GPU of this machine."""
    if importlib.util.find_spec("triton") is None:
        return False
    import torch  # half a gigabyte: worker processes name their backend and need not hold it

    return torch.cuda.is_available()


def _mean_field(image: np.ndarray, unary: np.ndarray, iterations: int, *, gpu: bool, **kernels: Any) -> np.ndarray:
    if gpu and not gpu_can():
        raise UsageError(
            "dense CRF: backend 'triton' needs a CUDA device and the package triton", "backend 'lattice' runs anywhere"
        )
    import torch

    from wsss_cli.crf.mean_field import mean_field

    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    tolerance = TOLERANCE if gpu else None
    with _GPU if gpu else contextlib.nullcontext():
        images = [torch.from_numpy(np.ascontiguousarray(image)).to(device)]
        unaries = [torch.from_numpy(np.ascontiguousarray(unary, dtype=np.float32)).to(device)]
        posteriors = mean_field(images, unaries, iterations=iterations, tolerance=tolerance, **kernels)
        return posteriors[0].cpu().numpy()


def _each_by_pydensecrf(image: np.ndarray, stacks: np.ndarray, iterations: int, **kernels: Any) -> np.ndarray:
    return np.stack([pydensecrf_mean_field(image, stack, iterations, **kernels) for stack in stacks])


def pydensecrf_mean_field(
    image: np.ndarray,
    unary: np.ndarray,
    iterations: int,
    *,
    gauss_sxy: float,
    gauss_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
) -> np.ndarray:
    """`dense_crf` of one labelling, float32 [K, H, W], by pydensecrf2."""
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
    posterior, *buffers = field.startInference()  # as `field.inference` does, which would not be left before its end
    for _ in range(iterations):
        check_stop()
        field.stepInference(posterior, *buffers)
    return np.asarray(posterior, dtype=np.float32).reshape(labels, height, width)


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
