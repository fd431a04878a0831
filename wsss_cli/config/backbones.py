"""`backbone_weights`: one setting that gives the backbones of all stages their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss_cli.config.base import BackboneConfig

Table = dict[str, Any]

SETTING = "backbone_weights"
TABLES = (("classifier",), ("affinity", "irn"), ("affinity", "psa"), ("train",))
ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def make_way(layer: Table, sources: dict[str, str]) -> None:
    """Where a layer gives the setting, it stands over the single weights of the layers under it.

    Args:
        sources: where each setting comes from, by dotted key; loses those that the setting is to fill.
    """
    if not layer.get(SETTING):
        return
    for path in TABLES:
        table = _backbone(layer, path)
        if table is None or "weights" not in table:
            sources.pop(_key(path), None)


def fill(merged: Table, sources: dict[str, str]) -> None:
    """Give every backbone the weights that the setting says, but for those that have been given theirs.

    Args:
        merged: all layers of a preset; changes.
        sources: where each setting comes from, by dotted key; gains those that are filled.
    """
    value = merged.get(SETTING)
    if not isinstance(value, str) or not value:
        return
    for path in TABLES:
        backbone = _backbone(merged, path)
        if backbone is not None and _key(path) not in sources:
            backbone["weights"] = weights_of(value, str(backbone.get("name", BackboneConfig.model_construct().name)))
            sources[_key(path)] = sources[SETTING]


def weights_of(value: str, name: str) -> str:
    """The weights of a backbone: the file that a folder has for its name, else the word or file itself.

    Where a folder has none, it is the file that would be taken, which is missed, by name, before any work.
    """
    if not Path(value).is_dir():
        return value
    files = [Path(value) / f"{name}{ending}" for ending in ENDINGS]
    return str(next((file for file in files if file.is_file()), files[0]))


def _key(path: tuple[str, ...]) -> str:
    return ".".join((*path, "backbone", "weights"))


def _backbone(table: Table, path: tuple[str, ...]) -> Table | None:
    """The table `backbone` of a section; None where there is none."""
    inner: Any = table
    for part in (*path, "backbone"):
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else None
