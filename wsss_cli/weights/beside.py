"""What a weight file is by its name and by the files that hubs keep beside it. Nothing here loads torch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from wsss_cli.errors import WeightsError
from wsss_cli.weights.choice import split_choice

CONFIG = ("config.json", "preprocessor_config.json")
SAME = 0.01
PART = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.|\.index\.json$")  # of weights in several files
JOIN = "read each part with safetensors.torch.load_file, and write all their tensors as one with save_file"
KEYS = (("mean", "std"), ("image_mean", "image_std"))  # timm's, and transformers'


def check_file(path: Path) -> None:
    """Refuse what is no file, and one of several files that weights lie in.

    Raises:
        WeightsError: it is one of these.
    """
    if not path.is_file():
        what = "are a folder" if path.is_dir() else "are no plain file" if path.exists() else "do not exist"
        raise WeightsError(f"weights {path} {what}", "name the file" if path.is_dir() else "check the path")
    if PART.search(path.name):
        raise WeightsError(f"{path} is a part of weights that lie in several files, or their list", JOIN)


def normalised_otherwise(weights: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """A sentence where a file beside the weights names another normalisation than the one that is used; else nothing.

    Args:
        weights: file, or FILE:KEY.
        mean, std: that is used, of RGB in 0..1.
    """
    folder, ours = split_choice(weights)[0].parent, (*mean, *std)
    for name in CONFIG:
        for theirs in _said(folder / name):
            if any(abs(one - other) > SAME for one, other in zip(theirs, ours, strict=True)):
                here, there = (", ".join(f"{value:g}" for value in each) for each in (ours, theirs))
                return f"{folder / name} has mean and std {there} for these weights, and images get {here}"
    return ""


def _said(file: Path) -> list[tuple[float, ...]]:
    """Means and then deviations of three channels in 0..1 that a file names; one that cannot be read says nothing."""
    try:
        table: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    tables = [table, table.get("pretrained_cfg")] if isinstance(table, dict) else []
    pairs: list[list[Any]] = [[each.get(m), each.get(s)] for each in tables if isinstance(each, dict) for m, s in KEYS]
    return [tuple(map(float, chain.from_iterable(pair))) for pair in pairs if all(map(_three, pair))]


def _three(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(one, int | float) for one in values)
