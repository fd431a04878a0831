"""The Semantic Boundaries Dataset: where its parts are, and its masks in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError


def sbd_root(sbd: Path) -> Path:
    """The folder with cls/, train.txt and val.txt of an unpacked release.

    Raises:
        DataError: there is none.
    """
    for root in (sbd, sbd / "dataset", sbd / "benchmark_RELEASE" / "dataset"):
        if (root / "cls").is_dir():
            return root
    raise DataError(
        f"{sbd} is no SBD release: it has no dataset/cls folder", "give the unpacked benchmark_RELEASE folder"
    )


def read_labels(path: Path) -> np.ndarray:
    """Class indices, uint8 [H, W], of a mask: a PNG, or one of SBD's .mat files.

    Raises:
        DataError: it cannot be read.
    """
    return _read_mat(path) if path.suffix == ".mat" else read_mask(path)


def _read_mat(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0], dtype=np.uint8)
    except Exception as error:  # SciPy raises many types on a damaged file
        raise DataError(f"{path} is not an SBD mask: {error}", "unpack benchmark.tgz anew") from error
