"""Mean field over permutohedral lattices in C, built for this processor when it is first used.

Without a C compiler, or where its results differ from pydensecrf2's, `mean_field` gives None and says why once.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import multiprocessing
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.errors import WriteError
from wsss_cli.files import write_bytes
from wsss_cli.processes import check_stop
from wsss_cli.talk import say

SOURCE = Path(__file__).with_name("lattice.c")
FLAGS = ("-std=gnu11", "-O2", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
BUILD_S = 300.0
MOST_CHANNELS = 128  # of a row of a lattice: labellings times labels but one
LIMIT = (
    2e-3  # of the posterior's difference from pydensecrf2 in the trial: rounding, where two labels are near each other
)

_library: list[ctypes.CDLL | None] = []
_why_not: list[str] = []
_one_at_a_time = threading.Lock()


def usable() -> bool:
    """Whether the lattice of this package is used here; built and tried when this is first asked."""
    return _loaded() is not None


def why_not() -> str:
    """Why the lattice of this package is not used here; empty where it is."""
    return "" if usable() else _why_not[0]


def mean_field(image: np.ndarray, unary: np.ndarray, iterations: int, **kernels: float) -> np.ndarray | None:
    """What pydensecrf2 computes, on one core; see `dense_crf` for the arguments.

    The labels of an image's pixels sum to one, so messages are filtered for all labels but the last; labellings share
    the lattices; a pixel's messages, softmax and sums for the next step are one pass over the pixels.

    Args:
        unary: float32 [S, K, H, W], K >= 2.
        kernels: gauss_sxy, gauss_compat, bilateral_sxy, bilateral_srgb and bilateral_compat.
    Returns:
        Q, float32 of the same shape; None: not here, or not with so many labels or features so far apart.
    Raises:
        Interrupted, Preempted: a stop was asked for, between two iterations.

    Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010; the
    conventions of pydensecrf2, to the same lattice points and weights.
    """
    library = _loaded()
    if library is None or iterations < 1:
        return None
    return _mean_field(library, image, unary, iterations, **kernels)


def _mean_field(
    library: ctypes.CDLL, image: np.ndarray, unary: np.ndarray, iterations: int, **kernels: float
) -> np.ndarray | None:
    stacks, labels, height, width = unary.shape
    if stacks > 1 and stacks * (labels - 1) > MOST_CHANNELS:
        each = [_mean_field(library, image, one[None], iterations, **kernels) for one in unary]
        return None if any(one is None for one in each) else np.concatenate([one for one in each if one is not None])
    features, weights = _features(image, **kernels)
    energies = np.ascontiguousarray(unary, np.float32)
    posterior = np.empty_like(energies)
    axes = (ctypes.c_int * 2)(*(each.shape[-1] for each in features))
    places = (ctypes.c_void_p * 2)(*(each.ctypes.data for each in features))
    compat = (ctypes.c_float * 2)(*weights)
    field = library.field_new(height * width, stacks, labels, len(features), axes, places, compat)
    if not field:
        return None
    try:
        library.field_begin(field, energies.ctypes.data)
        for iteration in range(iterations):
            check_stop()
            library.field_step(field, energies.ctypes.data, posterior.ctypes.data if iteration + 1 == iterations else 0)
    finally:
        library.field_free(field)
    return posterior


def _features(
    image: np.ndarray,
    *,
    gauss_sxy: float,
    gauss_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
) -> tuple[list[np.ndarray], list[float]]:
    """Of each kernel that has a weight, float32 [H, W, 2 or 5] in its standard deviations, and the weight."""
    height, width = image.shape[:2]
    place = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    features, weights = [], []
    if gauss_compat > 0:
        features.append(place / np.float32(gauss_sxy))
        weights.append(gauss_compat)
    if bilateral_compat > 0:
        colour = image.astype(np.float32) / np.float32(bilateral_srgb)
        features.append(np.concatenate([place / np.float32(bilateral_sxy), colour], axis=-1))
        weights.append(bilateral_compat)
    return features, weights


def _loaded() -> ctypes.CDLL | None:
    with _one_at_a_time:
        if not _library:
            try:
                library = _built()
                _try(library)
                _library.append(library)
            except (OSError, RuntimeError, subprocess.SubprocessError, _NotHereError) as error:
                _library.append(None)
                why = " ".join(str(error).split())[:160]
                _why_not[:] = [why]
                if multiprocessing.parent_process() is None:  # which its workers need not say again
                    say(f"the dense CRF takes longer here, by pydensecrf2 and not by its own lattice: {why}")
        return _library[0]


class _NotHereError(Exception):
    pass


def _built() -> ctypes.CDLL:
    """The library, from the user's cache, where it is named by what it was built from, by and for, and its content.

    Raises:
        _NotHereError: there is no compiler, or it fails, or makes something else.
        OSError: it cannot be opened.
    """
    command = _compiler()
    built_for = "\n".join([*FLAGS, str(Path(command[0]).resolve()), *command[1:], platform.platform(), _processor()])
    digest = hashlib.sha256(SOURCE.read_bytes() + built_for.encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "wsss"
    for file in sorted(cache.glob(f"lattice-{digest[:16]}-*.so")):
        if file.is_file() and file.stem.endswith(_content(file)):  # a damaged one could end the process
            return _opened(file)
    with tempfile.TemporaryDirectory(prefix="wsss-") as folder:
        new = Path(folder) / "lattice.so"
        command = [*command, *FLAGS, "-shared", "-fPIC", "-o", str(new), str(SOURCE), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=BUILD_S)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no word"]
            raise _NotHereError(
                f"{command[0]} fails: {next((one for one in lines if 'error' in one.lower()), lines[0])}"
            )
        if not new.is_file():
            raise _NotHereError(f"{command[0]} has written nothing")
        library = _opened(new)
        with contextlib.suppress(OSError, WriteError):  # no home that can be written to: it is built each time
            cache.mkdir(parents=True, exist_ok=True)
            write_bytes(cache / f"lattice-{digest[:16]}-{_content(new)}.so", new.read_bytes())
        return library


def _compiler() -> list[str]:
    """The C compiler and its first arguments: $CC, as a path or as make reads it, else what is there.

    Raises:
        _NotHereError: there is none.
    """
    named = os.environ.get("CC", "").strip()
    if not named:
        path = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if path is None:
            raise _NotHereError("there is no C compiler (cc, gcc or clang)")
        return [path]
    try:
        words = [named] if shutil.which(named) else shlex.split(named)
    except ValueError:  # a quote that is not closed
        words = [named]
    path = shutil.which(words[0]) if words else None
    if path is None:
        raise _NotHereError(f"$CC is {named!r}, and no such program is here")
    return [path, *words[1:]]


def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _processor() -> str:
    """What this processor can do, as far as it is known: a shared cache serves machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _opened(file: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(file))
    if not hasattr(library, "field_new"):
        raise _NotHereError(f"{file} is another library")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.field_new.restype = pointer
    library.field_new.argtypes = [ctypes.c_int64, number, number, number, pointer, pointer, pointer]
    library.field_begin.argtypes = [pointer, pointer]
    library.field_step.argtypes = [pointer, pointer, pointer]
    library.field_free.argtypes = [pointer]
    return library


def _try(library: ctypes.CDLL) -> None:
    """Compute a small image beside pydensecrf2.

    Raises:
        _NotHereError: the posteriors differ.
    """
    from wsss_cli.crf.dense import pydensecrf_mean_field

    numbers = np.random.default_rng(0)
    image = np.kron(numbers.integers(0, 256, (4, 5, 3)), np.ones((6, 7, 1))).astype(np.uint8)
    image += numbers.integers(0, 4, image.shape, dtype=np.uint8)
    unary = numbers.uniform(0, 4, (2, 3, *image.shape[:2])).astype(np.float32)
    kernels: dict[str, Any] = {"gauss_sxy": 3.0, "gauss_compat": 3.0, "bilateral_sxy": 20.0, "bilateral_srgb": 5.0}
    kernels |= {"bilateral_compat": 4.0}
    ours = _mean_field(library, image, unary, 3, **kernels)
    theirs = np.stack([pydensecrf_mean_field(image, one, 3, **kernels) for one in unary])
    error = np.inf if ours is None else float(np.abs(ours - theirs).max())
    if not error <= LIMIT:
        raise _NotHereError(f"its results differ by {error:.1e}, {LIMIT:g} being the limit")
