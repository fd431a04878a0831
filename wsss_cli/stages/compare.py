"""Runs beside each other: what they differ in, and by how much their scores differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from wsss_cli.config.base import TrainingConfig
from wsss_cli.errors import UsageError
from wsss_cli.report.charts import Line, percent
from wsss_cli.report.plots import line_plot
from wsss_cli.scoring.by_image import Difference, paired_difference
from wsss_cli.stages.lineage import Told, tell
from wsss_cli.talk import counted

INTERVAL = (
    "mIoU in points, of trainings at a single scale; 95 % interval of the paired bootstrap over photographs. "
    "It does not hold what another seed of the training would change."
)


SCORES = ("run", "views", "mIoU", "mAcc", "aAcc", "FP", "FN", "boundary IoU", "unscored")
"""Columns of `score_rows`."""


@dataclass(frozen=True)
class Gap:
    """How a run's score differs from the first one's; None: it cannot be told, for the reason in `why`."""

    run: str
    first: str
    difference: Difference | None
    why: str = ""

    @property
    def cells(self) -> tuple[str, str, str]:
        """The difference, its interval and the number of images, as they are shown."""
        if (gap := self.difference) is None:
            return "-", self.why, "-"
        return f"{gap.value:+.2f}", f"{gap.low:+.2f} to {gap.high:+.2f}", f"{gap.images:,}"


def tell_all(runs: Sequence[Path]) -> list[Told]:
    """All that is told of runs of one stage.

    Raises:
        UsageError: no run directory, or runs of different stages.
        DataError: a record of inputs cannot be read.
    """
    told = [tell(run) for run in runs]
    stages = {one.last.stage for one in told}
    if len(stages) > 1:
        raise UsageError(
            f"runs of different stages cannot stand beside each other: {', '.join(sorted(stages))}",
            "compare trainings with trainings, masks with masks; the lineage of one run shows its other stages",
        )
    return told


def score_rows(told: Sequence[Told]) -> list[tuple[str, ...]]:
    """The scores of runs as they are shown, a row for each way in which one was scored."""
    rows = []
    for one in told:
        for key, name in one.modes:
            score = one.last.scores[key]
            share = score.get("unscored_share", one.last.scores.get("unscored_share"))
            values = (percent(score.get(field)) for field in ("miou", "macc", "aacc", "mfp", "mfn", "mbiou"))
            rows.append((one.name, name, *values, "-" if share is None else f"{100 * share:.1f} %"))
    return rows


def gaps(told: Sequence[Told], check: Callable[[], object]) -> list[Gap]:
    """The difference of each run but the first from the first.

    Args:
        check: looks at a stop flag.
    """
    first, areas = told[0], told[0].areas()
    listed = []
    for one in told[1:]:
        classes = one.last.inputs.classes if one.last.inputs else ()
        other = one.areas()
        difference, why = None, ""
        if first.last.inputs is None or classes != first.last.inputs.classes:
            why = "other classes"
        elif damaged := [each.name for each in (told[0], one) if each.last.why_no_scores]:
            why = f"the eval.json of {damaged[0]} is damaged"
        elif areas is None or other is None:
            why = "not scored image by image yet: run wsss eval on both"
        else:
            difference = paired_difference(areas, other, len(classes), check)
            why = "" if difference else "no common image"
        listed.append(Gap(one.name, first.name, difference, why))
    return listed


@dataclass(frozen=True)
class Pace:
    """How long the iterations of a training took, by its log lines, each of which is a mean over its interval.

    Attributes:
        seconds, deviation: mean of an iteration, and standard deviation over the lines.
        slowest: iteration of the slowest line.
        waiting: share of the time in which data was waited for.
    """

    run: str
    seconds: float
    deviation: float
    slowest: int
    lines: int
    waiting: float

    def __str__(self) -> str:
        lines = f"s.d. {self.deviation:.3f} of {counted(self.lines, 'log line')}, the slowest at {self.slowest:,}"
        return f"{self.run}: {self.seconds:.3f} s an iteration ({lines}), {self.waiting:.0%} of it waiting for data"


def paces(told: Sequence[Told]) -> list[Pace]:
    """How long iterations took, of each classifier or training that has logged any."""
    listed = []
    for one in told:
        rows = [row for row in one.last.metrics if row.get("kind") == "train" and row.get("img_s")]
        section = getattr(one.last.preset, one.last.stage, None)
        if rows and isinstance(section, TrainingConfig):
            times = section.batch / np.array([row["img_s"] for row in rows])
            waiting = float(np.mean([row.get("data_wait", 0.0) for row in rows]))
            slowest = int(rows[int(times.argmax())]["step"])
            listed.append(Pace(one.name, float(times.mean()), float(times.std()), slowest, len(rows), waiting))
    return listed


def curves(told: Sequence[Told], width: int = 900) -> np.ndarray:
    """The losses, learning rates and validations of runs over their iterations, below each other.

    Returns:
        RGB, uint8 [H, width, 3].
    Raises:
        UsageError: no run has logged any.
    """
    losses, rates, scores = [], [], []
    for one in told:
        trained = [row for row in one.last.metrics if row.get("kind") == "train" and "loss" in row]
        scored = [row for row in one.last.metrics if row.get("kind") == "val" and row.get("miou") is not None]
        losses.append(Line(one.name, [row["step"] for row in trained], [row["loss"] for row in trained]))
        rated = [row for row in trained if "lr" in row]
        rates.append(Line(one.name, [row["step"] for row in rated], [1000 * row["lr"] for row in rated]))
        scores.append(Line(one.name, [row["step"] for row in scored], [row["miou"] for row in scored]))
    panels = []
    titles = ("loss", "learning rate, thousandths", "mIoU of validations, per cent")
    for lines, title in zip((losses, rates, scores), titles, strict=True):
        if some := [line for line in lines if any(y is not None and isfinite(y) for y in line.y)]:
            panels.append(line_plot(some, title, "iteration", width))
    if not panels:
        raise UsageError(
            f"no finite number was logged by {', '.join(one.name for one in told)}",
            "losses are logged every train.log_interval iterations; name runs of classifiers or trainings",
        )
    return np.vstack(panels)
