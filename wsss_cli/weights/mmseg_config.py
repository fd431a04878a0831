"""What a checkpoint of MMSegmentation says beside its weights: its making, and its config, of which nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DILATIONS = {8: (1, 12, 24, 36), 16: (1, 6, 12, 18)}
"""Of the ASPP, by output stride."""
BODY = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2))}
"""Strides and dilations of the backbone's four stages, by output stride."""
SHORT = 512
"""The shorter side, pixels, to which an imported network's photographs are resized."""
TEXTS = ("cfg", "config")  # keys of `meta`, 1.x and 0.x


def said(meta: Mapping[str, Any], word: str) -> Any:
    """The `classes` or `palette` in a checkpoint of MMSegmentation: 0.x has capitals, 1.x `dataset_meta`, in either."""
    inner = meta.get("dataset_meta")
    names = inner if isinstance(inner, dict) else meta
    return names.get(word, names.get(word.upper()))


def about(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its own making, plain values only."""
    keys = ("mmseg_version", "mmengine_version", "iter", "epoch", "experiment_name", "time")
    return {key: meta[key] for key in keys if isinstance(meta.get(key), (str, int))}


def read_config(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of the config's tables, such as `model`; empty where there is none that can be read.

    Args:
        meta: of the checkpoint.
    """
    text = next((meta[key] for key in TEXTS if isinstance(meta.get(key), str)), "")
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {
        line.targets[0].id: _plain(line.value)
        for line in body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def _plain(node: ast.expr) -> Any:
    """A dict, tuple or plain value; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {one.arg: _plain(one.value) for one in node.keywords if one.arg}
    if isinstance(node, (ast.List, ast.Tuple)):
        return tuple(map(_plain, node.elts))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def trained_stride(config: Mapping[str, Any]) -> int | None:
    """The output stride, 8 or 16, whose dilations the decode head has; None: it does not say, or has others."""
    dilations = _table(config, "decode_head").get("dilations")
    return next((stride for stride, each in DILATIONS.items() if each == dilations), None)


def otherwise(config: Mapping[str, Any]) -> list[str]:
    """What of the network is otherwise than it is built here, in words: its outputs will differ."""
    head, backbone, before = (_table(config, key) for key in ("decode_head", "backbone", "data_preprocessor"))
    before = before or _dict(config.get("data_preprocessor")) or _dict(config.get("img_norm_cfg"))
    other = {"decode_head.align_corners": head.get("align_corners")} if head.get("align_corners") else {}
    dilations = head.get("dilations")
    if dilations is not None and trained_stride(config) is None:
        other["decode_head.dilations"] = dilations
    if backbone.get("multi_grid") is not None:
        other["backbone.multi_grid"] = backbone["multi_grid"]
    for key, usual in (("mean", MEAN), ("std", STD)):
        if isinstance(before.get(key), tuple) and before[key] != usual:
            other[key] = before[key]
    for key in ("bgr_to_rgb", "to_rgb"):
        if before.get(key) is False:
            other[key] = False
    other |= _body_otherwise(backbone, trained_stride(config)) | _test_otherwise(config)
    return [f"{key} = {said}" for key, said in other.items()]


def _body_otherwise(backbone: Mapping[str, Any], stride: int | None) -> dict[str, Any]:
    """What of the backbone is otherwise; its weights have the same names and shapes all the same."""
    other = {"backbone.style": backbone["style"]} if backbone.get("style", "pytorch") != "pytorch" else {}
    dilations = backbone.get("dilations")
    dilated = isinstance(dilations, tuple) and any(one != 1 for one in dilations)
    if dilated and not backbone.get("contract_dilation"):  # False where it is not said
        other["backbone.contract_dilation"] = False
    if stride is not None:
        for key, usual in zip(("strides", "dilations"), BODY[stride], strict=True):
            if isinstance(backbone.get(key), tuple) and backbone[key] != usual:
                other[f"backbone.{key}"] = backbone[key]
    return other


def _test_otherwise(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the way in which photographs are predicted is otherwise."""
    mode = _table(config, "test_cfg").get("mode", "whole")
    other = {"test_cfg.mode": mode} if mode != "whole" else {}
    steps = config.get("test_pipeline")
    for step in map(_dict, steps if isinstance(steps, tuple) else ()):
        scale = step.get("scale", step.get("img_scale"))
        sides = scale if isinstance(scale, tuple) else ()
        if sides and all(isinstance(side, int) for side in sides) and min(sides) != SHORT:
            other["test_pipeline's scale"] = scale
    return other


def _table(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _dict(_dict(config.get("model")).get(key))


def _dict(table: Any) -> dict[str, Any]:
    return table if isinstance(table, dict) else {}
