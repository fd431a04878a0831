"""What identifies a run: the sections of the preset that its stage uses, the data set, and the run it reads."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wsss_cli.config.base import Added
from wsss_cli.config.classifier import ClassifierConfig
from wsss_cli.config.schema import Preset

Stage = Literal["classifier", "recam", "cam", "irn", "psa", "pseudo", "train", "relabel"]


def identity(preset: Preset, stage: Stage, dataset_fingerprint: str = "", upstream: str = "") -> str:
    """SHA-256, hexadecimal, of all that decides what a stage makes.

    Args:
        dataset_fingerprint: of the data set directory.
        upstream: identity of the run that the stage reads; empty where it reads none.
    """
    preset_settings = decisive(preset)
    settings = preset_settings | preset_settings.get("affinity", {})
    if stage == "recam":  # a second training of the classifier, as a method of CAMs asks for it
        settings["recam"] = {**settings["classifier"], "method": settings["cam"]["method"]}
    sections = {name: settings[name] for name in ("seed", "dataset", stage) if name in settings}
    sections["dataset"].pop("path")  # where the data lies does not matter, what it holds does
    for section, irrelevant in IRRELEVANT.items():
        for key in irrelevant:
            if not (key in VALIDATION and preset.train.patience):
                (sections.get(section) or {}).pop(key, None)
    sections |= {"stage": stage, "fingerprint": dataset_fingerprint, "upstream": upstream}
    return _sha256(sections)


def weights_identity(config: ClassifierConfig, content: str) -> str:
    """What stands for the identity of a run where a classifier is given as a file.

    Args:
        config: the network that it is put into.
        content: SHA-256 of the file.
    """
    network = {key: value for key, value in decisive(config).items() if key in ("backbone", "consistency", "precision")}
    network["backbone"].pop("weights")
    return _sha256({**network, "content": content})


def _sha256(table: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def decisive(value: Any) -> Any:
    """Settings as JSON has them, without those that were added later (`config.base.Added`) and are neutral."""
    if isinstance(value, BaseModel):
        settings = ((key, getattr(value, key), field) for key, field in type(value).model_fields.items())
        return {key: decisive(setting) for key, setting, field in settings if not _neutral(setting, field)}
    return [decisive(item) for item in value] if isinstance(value, (list, tuple)) else value


def _neutral(value: Any, field: FieldInfo) -> bool:
    return any(isinstance(mark, Added) and decisive(value) == decisive(mark.neutral) for mark in field.metadata)


TRAINING = ("data_workers", "log_interval", "checkpoint_interval")
VALIDATION = ("val_interval", "val_images")  # with patience they decide when a training ends
IRRELEVANT = {
    "classifier": ("weights", *TRAINING),
    "recam": ("weights", "iters", *TRAINING),
    "irn": ("label_workers", "kernels", *TRAINING),
    "psa": ("label_workers", "kernels", *TRAINING),
    "pseudo": ("workers",),
    "train": ("kernels", *VALIDATION, *TRAINING),
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
