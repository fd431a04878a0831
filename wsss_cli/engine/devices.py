"""Which devices there are, without loading torch."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version

from wsss_cli.errors import UsageError
from wsss_cli.talk import counted


def check_device(device: str) -> None:
    """Refuse a word that names no device.

    Raises:
        UsageError: it is none of auto, cpu, cuda and cuda:N.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise UsageError(f"--device {device}: there is no such device", "give auto, cpu, cuda or cuda:N")


def device_type(device: str) -> str:
    """'cuda' or 'cpu': what a word for a device, 'auto' among them, means here.

    Raises:
        UsageError: no such device, here or at all.
    """
    check_device(device)
    count = 0 if device == "cpu" else cuda_devices()
    check_number(device, count)
    return "cuda" if count else "cpu"


def check_number(device: str, count: int) -> None:
    """Refuse a CUDA device that is not there.

    Args:
        count: of CUDA devices that can be used.
    Raises:
        UsageError: there is none, or not so many.
    """
    if device.startswith("cuda") and not count:
        raise UsageError(
            f"--device {device}: this machine has no usable CUDA device", "leave --device out, or give cpu"
        )
    if int(device.partition(":")[2] or 0) >= max(count, 1):
        raise UsageError(f"--device {device}: this machine has {counted(count, 'CUDA device')}", "count from 0")


def check_ranks(ranks: int, device: str) -> None:
    """Refuse more ranks than this machine has GPUs for, where they are to use these.

    Raises:
        UsageError: with both numbers, or where all ranks are given one device.
    """
    if ":" in device:
        raise UsageError(f"--gpus {ranks}: each rank has a device of its own", f"leave --device {device} out")
    count = 0 if device == "cpu" else cuda_devices()
    if 0 < count < ranks:
        raise UsageError(
            f"--gpus {ranks}: this machine has {counted(count, 'CUDA device')}",
            f"--gpus {count}, or --device cpu for processes",
        )


def check_share(title: str, images: int, ranks: int) -> None:
    """Refuse a training whose ranks outnumber the images that it sees at a time.

    Raises:
        UsageError: with both numbers.
    """
    if images < ranks:
        raise UsageError(
            f"{title}: {counted(images, 'image')} at a time for {ranks} ranks", "a larger batch, or fewer ranks"
        )


def cuda_devices() -> int:
    """GPUs that torch could use: as many as the driver shows, none where torch is built for the CPU alone."""
    try:
        if version("torch").endswith("+cpu"):
            return 0
    except PackageNotFoundError:
        return 0
    for library, begin, count in (
        ("libcuda.so.1", "cuInit", "cuDeviceGetCount"),
        ("libamdhip64.so", "hipInit", "hipGetDeviceCount"),
    ):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        number = ctypes.c_int(0)
        if getattr(driver, begin)(0) == 0 and getattr(driver, count)(ctypes.byref(number)) == 0:
            return number.value
    return 0


def check_ray() -> None:
    """See that Ray is there, without importing it.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray, which is not installed", "install wsss[ray]: pip install 'wsss[ray]'")
