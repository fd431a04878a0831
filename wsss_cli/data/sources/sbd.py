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

    again = "unpack benchmark.tgz anew"
    try:
        table = loadmat(path)
    except NotImplementedError as error:  # SciPy says so of MATLAB 7.3 alone, which is HDF5
        raise DataError(
            f"{path} is not an SBD mask: it is a file of MATLAB 7.3 (HDF5)", f"save it with -v7, or {again}"
        ) from error
    except Exception as error:  # SciPy raises many types on a damaged file
        raise DataError(f"{path} is not an SBD mask: {error}", again) from error
    try:
        labels = np.asarray(table["GTcls"]["Segmentation"][0, 0])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        names = ", ".join(name for name in table if not name.startswith("__")) or "nothing"
        said = f"{path} is not an SBD mask: it has no GTcls.Segmentation; it holds {names}"
        raise DataError(said, f"masks are of SBD's folder cls, not of inst or bnd: {again}") from error
    if labels.dtype.kind not in "buif" or not np.isin(labels, np.arange(256)).all():
        said = f"{path} is not an SBD mask: its labels are not all whole numbers from 0 to 255"
        raise DataError(said, again)
    return labels.astype(np.uint8)
