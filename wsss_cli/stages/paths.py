"""Where the runs of stages keep what they make of an image."""

from __future__ import annotations

from pathlib import Path

FOLDERS = {"cam": "cams", "pseudo": "masks"}  # of what is made last of an image


def cam_path(run: Path, sample: str) -> Path:
    """Where a cam run keeps the CAMs of an image."""
    return run / "cams" / f"{sample}.npz"


def label_path(run: Path, sample: str) -> Path:
    """Where an irn or psa run keeps the label that its network learns an image from."""
    return run / "labels" / f"{sample}.png"


def mask_path(run: Path, sample: str) -> Path:
    """Where a pseudo run keeps the mask of an image."""
    return run / "masks" / f"{sample}.png"


def confidence_path(run: Path, sample: str) -> Path:
    """Where a pseudo run keeps the confidence of an image's mask: 8-bit grey, 255 = certain, 0 = undecided."""
    return run / "confidence" / f"{sample}.png"
