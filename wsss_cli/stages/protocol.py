"""What the protocol of an evaluation says, and what is seen to before one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.crf.dense import Backend
from wsss_cli.data.dataset import Dataset
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError
from wsss_cli.inference.network import Network
from wsss_cli.talk import counted as plural


def changed_list(network: Network, dataset: Dataset, split: str, ctx: Context) -> list[str]:
    """The protocol line of a list that is another one than at the training's time; it is said, too."""
    now = dataset.split_sha256[split]
    if network.split_sha256.get(split, now) == now:
        return []
    changed = "changed after the training (another SHA-256)"
    ctx.ui.say(f"split {split!r} of {dataset.root} {changed}: scored as it is now, and the protocol says so")
    return [f"split {split} {changed}"]


def check_classes(dataset: Dataset, classes: Sequence[str], run: Path) -> None:
    """See that a data set has the classes of a network.

    Raises:
        DataError: it has others.
    """
    if dataset.classes != classes:
        raise DataError(
            f"{dataset.root} has other classes than {run}: {_listed(dataset.classes)}, not {_listed(classes)}",
            "name the data set that it was trained on with --data"
            + (f", or train on this one: wsss train --init {shlex.quote(str(run))}" if run.is_dir() else ""),
        )


def counted(masks: int, lost: int) -> str:
    """'95 of 100 images; 5 lost'."""
    return f"{masks - lost} of {plural(masks, 'image')}; {lost} lost" if lost else plural(masks, "image")


def _listed(classes: Sequence[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


def views_in_words(config: EvalConfig) -> str:
    """Which views of an image the network sees."""
    base = "original image" if config.base == "image" else f"short side {config.short_side}"
    mode = "whole image" if config.mode == "whole" else f"windows of {config.window}, stride {config.stride}"
    return f"{mode}, scale 1 = {base}"


def further_lines(config: EvalConfig, backend: Backend, *, ms_flip: bool, crf: bool, boundary: bool) -> list[str]:
    """Protocol lines of what was asked for besides the single scale."""
    lines = []
    if ms_flip:
        lines.append(f"ms+flip: scales {', '.join(f'{scale:g}' for scale in config.scales)}, softmax averaged")
    if crf:
        p, kind = config.crf, "exact CRF" if backend == "triton" else "CRF"
        bilateral = f"{p.bilateral_sxy:g}/{p.bilateral_srgb:g}/{p.bilateral_compat:g}"
        lines.append(
            f"{kind} on the probabilities: {p.gauss_sxy:g}/{p.gauss_compat:g}, {bilateral}, {p.iterations} iterations"
        )
    else:
        lines.append("no CRF")
    if boundary:
        lines.append("boundary IoU: within 2 % of the diagonal of a contour; pixels whose truth is 255 are in no class")
    return lines
