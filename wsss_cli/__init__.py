"""Weakly supervised semantic segmentation: from image tags to masks and a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss_cli.inference.api import load_segmentor

__all__ = ["__version__", "load_segmentor"]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """`load_segmentor` is imported when it is first asked for: it needs torch, and the command line often does not."""
    if name == "load_segmentor":
        from wsss_cli.inference.api import load_segmentor

        return load_segmentor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
