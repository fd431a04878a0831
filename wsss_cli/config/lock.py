"""What identifies a run: the sections of the preset that its stage uses, the data set, and the run it reads."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import tomli_w

from wsss_cli.config.schema import Preset

Stage = Literal["cam", "irn", "psa", "pseudo", "train", "relabel"]


def identity(preset: Preset, stage: Stage, dataset_fingerprint: str = "", upstream: str = "") -> str:
    """SHA-256, hexadecimal, of all that decides what a stage makes.

    Args:
        dataset_fingerprint: of the data set directory.
        upstream: identity of the run that the stage reads; empty where it reads none.
    """
    table: set[str] = {stage}
    sections = preset.model_dump(mode="json", include={"seed", "dataset"} | table)
    sections |= preset.affinity.model_dump(mode="json", include=table)
    sections["dataset"].pop("path")  # where the data lies does not matter, what it holds does
    for section, irrelevant in IRRELEVANT.items():
        if section in sections:
            for key in irrelevant:
                sections[section].pop(key)
    sections |= {"stage": stage, "fingerprint": dataset_fingerprint, "upstream": upstream}
    return hashlib.sha256(json.dumps(sections, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


IRRELEVANT = {
    "irn": ("workers",),
    "psa": ("workers",),
    "pseudo": ("workers",),
    "train": ("workers", "kernels", "log_interval", "val_interval", "val_images", "checkpoint_interval"),
}
"""Settings that change how a stage works but not what it makes."""


def to_toml(preset: Preset) -> str:
    """The preset, fully resolved, as TOML that `load_preset` takes."""
    return tomli_w.dumps({**preset.model_dump(mode="json", exclude_none=True), "extends": ""})


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines such as 'train.iters: 20000 -> 40000' for every setting that differs."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            lines += difference(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before} -> {after}")
    return lines
