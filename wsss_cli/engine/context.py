"""Where and how work runs: device, precision, run folder, stop flag, and somebody to tell about progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import torch

from wsss_cli.engine.devices import check_device, check_number
from wsss_cli.engine.stop import Stop
from wsss_cli.ranks.who import cores_here, here
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from wsss_cli.engine.sweep import Pool

Event = dict[str, Any]


class Bar(Protocol):
    def advance(self, n: int = 1, **fields: Any) -> None: ...


class Ui(Protocol):
    """What the engine says while it works; the command line prints it, tests collect it."""

    def say(self, line: str) -> None: ...
    def progress(self, total: int, title: str) -> AbstractContextManager[Bar]: ...
    def training_progress(self, title: str, iters: int) -> AbstractContextManager[Callable[[Event], None]]: ...


class Silent:
    """A `Ui` that says nothing."""

    def say(self, line: str) -> None:
        pass

    @contextlib.contextmanager
    def progress(self, total: int, title: str) -> Iterator[Bar]:
        yield self

    @contextlib.contextmanager
    def training_progress(self, title: str, iters: int) -> Iterator[Callable[[Event], None]]:
        yield lambda event: None

    def advance(self, n: int = 1, **fields: Any) -> None:
        pass


@dataclass
class Context:
    """Where and how work runs.

    Attributes:
        pool: what works through batches in place of this process.
    """

    device: torch.device
    runs: Path
    ui: Ui = field(default_factory=Silent)
    stop: Stop = field(default_factory=Stop)
    loggers: tuple[str, ...] = ()  # that trainings are sent on to
    pool: Pool | None = None

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Automatic mixed precision as the preset asks for it ('auto', 'fp32', 'bf16')."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16(precision))

    def in_bf16(self, precision: str) -> bool:
        """Whether a precision of a preset ('auto', 'fp32', 'bf16') means bfloat16 here."""
        return precision == "bf16" or (precision == "auto" and bf16_serves(self.device))

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {counted(torch.get_num_threads(), 'thread')}"


def bf16_serves(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


def make_context(device: str, runs: Path, ui: Ui | None = None) -> Context:
    """A context on 'auto' (CUDA where there is one), 'cpu' or 'cuda', with the threads and precision that suit it.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    ranks = here()
    if ranks.world > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{ranks.local}"
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen.index or 0)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    torch.set_num_threads(cores_here())
    cv2.setNumThreads(cores_here())
    return Context(chosen, Path(runs), ui or Silent())


def pick_device(device: str) -> torch.device:
    """The device that 'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:N' means; changes no setting.

    Raises:
        UsageError: no such device, or CUDA is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    check_number(device, torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return torch.device(device)


@contextlib.contextmanager
def planned(device: torch.device) -> Iterator[None]:
    """Let cuDNN time its algorithms for each shape of the body. Crops have one, photographs, as validation sees, many.

    Nothing changes on other devices, and where algorithms are to be deterministic.
    """
    before = torch.backends.cudnn.benchmark
    fixed = device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = before or fixed
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
