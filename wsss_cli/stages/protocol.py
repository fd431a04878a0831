"""What the protocol of an evaluation says, and what is seen to before one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.crf.dense import Backend
from wsss_cli.data.dataset import Dataset
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError
from wsss_cli.inference.network import Network
from wsss_cli.labels import told_apart
from wsss_cli.talk import counted as plural
from wsss_cli.talk import shell_word


def changed_list(network: Network, dataset: Dataset, split: str, ctx: Context) -> list[str]:
    """The protocol line of a list that is another one than at the training's time; it is said, too."""
    now = dataset.split_sha256[split]
    if network.split_sha256.get(split, now) == now:
        return []
    changed = "changed after the training (another SHA-256)"
    ctx.ui.say(f"split {split!r} of {dataset.root} {changed}: scored as it is now, and the protocol says so")
    return [f"split {split} {changed}"]


def check_classes(dataset: Dataset, classes: Sequence[str], run: Path, option: str = "--data") -> None:
    """See that a data set has the classes of a network.

    Args:
        run: where the network lies.
        option: that names the data set.
    Raises:
        DataError: it has others.
    """
    if dataset.classes != classes:
        (now, then), place = told_apart(dataset.classes, classes), shell_word(dataset.root)
        again = f"wsss train --preset NAME --data {place} --init {shell_word(run)} --reset-head"
        raise DataError(
            f"{dataset.root} has other classes than {run}: {len(dataset.classes)} ({now}), not {len(classes)} ({then})",
            f"name the data set that it was trained on with {option}"
            + (f", or train on this one: {again}" if run.is_dir() else ""),
        )


def counted(masks: int, lost: int) -> str:
    """'95 of 100 images; 5 lost'."""
    return f"{masks - lost} of {plural(masks, 'image')}; {lost} lost" if lost else plural(masks, "image")


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
