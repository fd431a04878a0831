"""Which background thresholds the pseudo masks of a preset are made with."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.config.affinity import IrnConfig
from wsss_cli.config.refine import PseudoConfig
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError
from wsss_cli.files import read_json
from wsss_cli.processes import cores, in_processes
from wsss_cli.pseudo.thresholds import LEVELS, LOWEST, class_factors, otsu, score_histogram
from wsss_cli.scoring.cams import cam_curve

GIVE_THEM = "--set pseudo.threshold=fixed --set pseudo.fg_threshold=0.4 --set pseudo.bg_threshold=0.2"
PIECE = 64  # images whose histogram is made in one go


@dataclass(frozen=True)
class Thresholds:
    """Background scores of the two runs.

    Attributes:
        fg, bg: confident foreground, confident background.
        best: the threshold that both are offsets from; None where they are fixed.
        by_class: own threshold of class 1, 2, ..., None: `best`; empty: one for all.
    """

    fg: float
    bg: float
    best: float | None = None
    by_class: tuple[float | None, ...] = ()

    @property
    def factors(self) -> tuple[float, ...]:
        """Factors on the scores of class 1, 2, ...; empty: none."""
        return class_factors(self.best, self.by_class) if self.best is not None else ()


def choose_thresholds(preset: Preset, dataset: Dataset, scores: Path, cam_run: Path, ctx: Context) -> Thresholds:
    """The thresholds that a preset asks for.

    Args:
        scores: folder of the scores that are thresholded: the CAMs of the cam run, or what steps made of them.
    Raises:
        DataError: the train curve is asked for and there are no masks, or no score differs from another.
    """
    config = preset.pseudo
    if config.threshold == "fixed":
        return Thresholds(config.fg_threshold, config.bg_threshold)
    if config.threshold == "train-curve":
        best, by_class = _from_curve(preset, dataset, scores, cam_run, ctx)
    else:
        best, by_class = _from_scores(preset, dataset, scores, ctx)
    return Thresholds(*around(best, config), best, by_class if config.per_class else ())


def around(best: float, config: PseudoConfig | IrnConfig) -> tuple[float, float]:
    """The thresholds (fg, bg) whose offsets from the best one `config` gives, kept within the scores."""
    fg, bg = min(best + config.fg_threshold, 0.99), max(best + config.bg_threshold, LOWEST)
    return round(fg, 4), round(bg, 4)


Found = tuple[float, tuple[float | None, ...]]


def _from_curve(preset: Preset, dataset: Dataset, scores: Path, cam_run: Path, ctx: Context) -> Found:
    """Where the scores agree best with the masks of the score split; the cam run knows it of its own CAMs."""
    stored: dict[str, Any] = {}
    if scores == cam_run / "cams" and (cam_run / "eval.json").is_file():
        stored = read_json(cam_run / "eval.json")
    if "best_threshold" not in stored or (preset.pseudo.per_class and "class_thresholds" not in stored):
        split = preset.dataset.score
        samples = dataset.split(split) if split in dataset.split_sha256 else []
        pairs = [(scores / f"{s.id}.npz", s.mask) for s in samples if s.mask is not None]
        scored = [(file, mask) for file, mask in pairs if file.is_file()]
        if not scored:
            raise DataError(
                f"{cam_run} has no threshold curve, as split {split!r} has no masks to score seeds on",
                f"find thresholds from the scores: --set pseudo.threshold=self; or give them: {GIVE_THEM}",
            )
        with ctx.ui.progress(len(scored), "seed curve") as bar:
            stored = cam_curve(scored, dataset.num_classes, workers=cores(), progress=bar.advance)
    return stored["best_threshold"], tuple(stored.get("class_thresholds", ())[1:])


def _from_scores(preset: Preset, dataset: Dataset, scores: Path, ctx: Context) -> Found:
    """Otsu's threshold of all scores of the train split, and of each class's."""
    files = [scores / f"{s.id}.npz" for s in dataset.split(preset.dataset.train)]
    files = [file for file in files if file.is_file()]
    pieces = [files[start : start + PIECE] for start in range(0, len(files), PIECE)]
    work = functools.partial(score_histogram, num_classes=dataset.num_classes)
    counts = np.zeros((dataset.num_classes, LEVELS), np.int64)
    with ctx.ui.progress(len(files), "scores") as bar:
        made = in_processes(work, pieces, cores(), few=8, check=ctx.stop.check)
        for piece, found in zip(pieces, made, strict=True):
            counts += found
            bar.advance(len(piece))
    best = otsu(counts.sum(axis=0))
    if best is None:
        raise DataError(f"the scores in {scores} are all alike, so no threshold parts them", GIVE_THEM)
    return best, tuple(otsu(histogram) for histogram in counts[1:])
