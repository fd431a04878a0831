"""What of a run is scored: pairs of its files and the true masks of a split."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.rows import Each, Rows
from wsss_cli.stages.paths import Files

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
