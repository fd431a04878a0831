"""Which background thresholds the pseudo masks of a preset are made with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.config.schema import Preset
from wsss_cli.config.thresholds import (
    ClassCurveThreshold,
    ComplementThreshold,
    FixedThreshold,
    Offsets,
    TrustedThreshold,
)
from wsss_cli.data.dataset import Dataset
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError
from wsss_cli.processes import cores, in_processes
from wsss_cli.pseudo.thresholds import LEVELS, LOWEST, class_factors, otsu, score_histogram
from wsss_cli.rows import Each
from wsss_cli.scoring.cams import cam_curve
from wsss_cli.scoring.stored import read_scores
from wsss_cli.stages.paths import Files
from wsss_cli.stages.preflight import why_no_seeds
from wsss_cli.stages.scored import score_samples, with_masks
from wsss_cli.stages.trusted import own_labels

GIVE_THEM = "--set pseudo.threshold.kind=fixed --set pseudo.threshold.fg=0.4 --set pseudo.threshold.bg=0.2"
PIECE = 64  # images whose histogram is made in one go


@dataclass(frozen=True)
class Thresholds:
    """Background scores of the two runs.

    Attributes:
        fg, bg: confident foreground, confident background.
        best: the threshold that both are offsets from; None where they are fixed.
        by_class: own threshold of class 1, 2, ..., None: `best`; empty: one for all.
        complement: there are none: the background's score is 1 less the highest of the classes.
    """

    fg: float
    bg: float
    best: float | None = None
    by_class: tuple[float | None, ...] = ()
    complement: bool = False

    @property
    def factors(self) -> tuple[float, ...]:
        """Factors on the scores of class 1, 2, ...; empty: none."""
        return class_factors(self.best, self.by_class) if self.best is not None else ()


def choose_thresholds(preset: Preset, dataset: Dataset, scores: Files, cam_run: Path, ctx: Context) -> Thresholds:
    """The thresholds that a preset asks for.

    Args:
        scores: folder of the scores that are thresholded: the CAMs of the cam run, or what steps made of them.
    Raises:
        DataError: the train curve is asked for and there are no masks, or labels and there are none; or no score
            differs from another.
    """
    config = preset.pseudo.threshold
    if isinstance(config, FixedThreshold):
        return Thresholds(config.fg, config.bg)
    if isinstance(config, ComplementThreshold):
        return Thresholds(0.5, 0.5, complement=True)
    if isinstance(config, ClassCurveThreshold):
        best, by_class = _from_curve(preset, dataset, scores, cam_run, ctx)
    elif isinstance(config, TrustedThreshold):
        best, by_class = _from_labels(preset, dataset, scores, ctx)
    else:
        best, by_class = _from_scores(preset, dataset, scores, ctx)
    return Thresholds(*around(best, config), best, by_class if config.per_class else ())


def around(best: float, offsets: Offsets) -> tuple[float, float]:
    """The thresholds (fg, bg) at their offsets from the best one, each kept within the scores; fg is not below bg."""
    fg, bg = (min(max(best + offset, LOWEST), 0.99) for offset in (offsets.fg_offset, offsets.bg_offset))
    return round(fg, 4), round(bg, 4)


BestThresholds = tuple[float, tuple[float | None, ...]]


def _from_curve(preset: Preset, dataset: Dataset, scores: Files, cam_run: Path, ctx: Context) -> BestThresholds:
    """Where the scores agree best with the masks of the score split; the cam run knows it of its own CAMs."""
    stored: dict[str, Any] = {}
    if scores.folder == cam_run / "cams":
        stored = read_scores(cam_run)
    if "best_threshold" not in stored or (preset.pseudo.per_class and "class_thresholds" not in stored):
        scored = with_masks(scores, score_samples(dataset, preset))
        if not scored:
            raise DataError(
                f"{cam_run} has no threshold curve, as {why_no_seeds(preset.dataset, dataset)}",
                f"find thresholds from the scores: --set pseudo.threshold.kind=self; or give them: {GIVE_THEM}",
            )
        stored = _curve(scored, dataset, ctx)
    return stored["best_threshold"], tuple(stored.get("class_thresholds", ())[1:])


def _from_labels(preset: Preset, dataset: Dataset, scores: Files, ctx: Context) -> BestThresholds:
    """Where the scores agree best with the data set's own labels of the train split, pixels that are 255 left out."""
    trusted = own_labels(dataset)
    samples = [sample for sample in scores.with_file(dataset.split(preset.dataset.train)) if trusted.of(sample.id)]
    if not samples:
        raise DataError(
            f"no photograph of split {preset.dataset.train!r} has labels of its own and scores in {scores.folder}",
            "find thresholds from the scores: --set pseudo.threshold.kind=self",
        )
    for sample in samples:
        trusted.entries[sample.id].verify(trusted.file(sample.id))
    curve = _curve([(scores.of(sample.id), trusted.file(sample.id)) for sample in samples], dataset, ctx)
    return curve["best_threshold"], tuple(curve["class_thresholds"][1:])


def _curve(pairs: Sequence[tuple[Path, Path]], dataset: Dataset, ctx: Context) -> dict[str, Any]:
    with ctx.ui.progress(len(pairs), "seed curve") as bar:
        return cam_curve(pairs, dataset.num_classes, check=ctx.stop.check, workers=cores(), progress=bar.advance)


def _from_scores(preset: Preset, dataset: Dataset, scores: Files, ctx: Context) -> BestThresholds:
    """Otsu's threshold of all scores of the train split, and of each class's."""
    files = Each(scores.with_file(dataset.split(preset.dataset.train)), lambda sample: scores.of(sample.id))
    pieces = Each(range(0, len(files), PIECE), lambda start: list(files[start : start + PIECE]))
    work = functools.partial(score_histogram, num_classes=dataset.num_classes)
    counts = np.zeros((dataset.num_classes, LEVELS), np.int64)
    with ctx.ui.progress(len(files), "scores") as bar:
        histograms = in_processes(work, pieces, cores(), check=ctx.stop.check)
        for piece, histogram in zip(pieces, histograms, strict=True):
            counts += histogram
            bar.advance(len(piece))
    best = otsu(counts.sum(axis=0))
    if best is None:
        raise DataError(f"the scores in {scores.folder} are all alike, so no threshold parts them", GIVE_THEM)
    return best, tuple(otsu(histogram) for histogram in counts[1:])
