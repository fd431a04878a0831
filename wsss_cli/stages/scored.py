"""What of a run is scored: pairs of its files and the true masks of a split."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.files import write_json
from wsss_cli.processes import cores
from wsss_cli.rows import Each, Rows
from wsss_cli.scoring.cams import UnlabelledError, cam_curve
from wsss_cli.stages.paths import Files, cam_files

Pair = tuple[Path, Path]


def score_samples(dataset: Dataset, preset: Preset) -> Sequence[Sample]:
    """The samples of the score split that have masks; none where there is no such split."""
    if preset.dataset.score not in dataset.split_sha256:
        return ()
    samples = dataset.split(preset.dataset.score)
    return Rows(samples, array("Q", (number for number, there in enumerate(samples.masked) if there)))


def with_masks(files: Files, samples: Sequence[Sample]) -> Sequence[Pair]:
    """(file, true mask) of each of the samples, all with masks, that has its file."""

    def pair(sample: Sample) -> Pair:
        assert sample.mask is not None
        return files.of(sample.id), sample.mask

    return Each(files.with_file(samples), pair)


def score_seeds(
    dataset: Dataset, preset: Preset, run: RunDir, ctx: Context, how: Callable[[str], str]
) -> dict[str, Any]:
    """The threshold curve of a cam run's scores on the score split, where it has masks; written to its eval.json.

    Args:
        how: from the words for what was scored to the first protocol line.
    Returns:
        The curve; empty where nothing can be scored.
    """
    masked = score_samples(dataset, preset)
    scored = with_masks(cam_files(run.path), masked)
    if not scored:
        return {}
    try:
        with ctx.ui.progress(len(scored), "seed curve") as bar:
            curve = cam_curve(
                scored,
                dataset.num_classes,
                check=ctx.stop.check,
                names=dataset.classes,
                workers=cores(),
                progress=bar.advance,
            )
    except UnlabelledError as error:
        ctx.ui.say(f"the CAMs are not scored: {error.message}")
        return {}
    protocol = [how(f"{dataset.name}/{preset.dataset.score} ({len(scored)} images)"), *dataset.protocol]
    curve["without_cam"] = len(masked) - len(scored)
    curve = {**curve, "classes": list(dataset.classes), "protocol": protocol}
    write_json(run.path / "eval.json", curve)
    return curve
