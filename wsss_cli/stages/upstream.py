"""Which run a stage belongs to, and which earlier run it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsss_cli.config.affinity import needs
from wsss_cli.config.lock import identity
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset
from wsss_cli.engine.records import Inputs, find_runs, is_run, read_inputs, read_run
from wsss_cli.engine.rundir import run_path
from wsss_cli.errors import UsageError


@dataclass
class Result:
    """What a stage leaves: its run directory, its scores, and the items it lost."""

    run: Path
    scores: dict[str, Any] = field(default_factory=dict)
    lost: list[dict[str, str]] = field(default_factory=list)
    skipped: bool = False


def cam_identity(preset: Preset, dataset: Dataset) -> str:
    return identity(preset, "cam", dataset.fingerprint)


def affinity_identity(preset: Preset, kind: Literal["irn", "psa"], dataset: Dataset, cam: str) -> str:
    return identity(preset, kind, dataset.fingerprint, cam)


def pseudo_identity(preset: Preset, dataset: Dataset, cam: str) -> str:
    """Of the pseudo run that is made from a cam run, and from the affinity networks that its steps use."""
    networks = [affinity_identity(preset, needs(step), dataset, cam) for step in preset.pseudo.walks]
    return identity(preset, "pseudo", dataset.fingerprint, " ".join([cam, *networks]))


def train_identity(preset: Preset, dataset: Dataset, masks: str) -> str:
    return identity(preset, "train", dataset.fingerprint, masks)


def find_upstream(
    stage: str, preset: Preset, dataset: Dataset, own: str, runs: Path, given: Path | None, say: Callable[[str], None]
) -> tuple[Path, str] | None:
    """The finished run of an earlier stage to read: the one given, else the one with exactly this preset's settings,
    else the newest one on the same data set.

    Args:
        own: identity that this preset's run of `stage` has.
        say: told which run is taken.
    Returns:
        (directory, identity), or None where no run fits.
    """
    if given is not None:
        record = read_run(given, stage)
        if read_inputs(given).classes != dataset.classes:
            raise UsageError(f"{given} was made with other classes than the data set {dataset.root} has")
        return given, record.identity
    exact = run_path(runs, stage, preset.name, own)
    done = [(path, record) for path, record in find_runs(runs, stage) if record.state == "done"]
    for path, record in done:
        if record.identity == own:
            say(f"{stage} run: {path}")
            return path, own
    if is_run(exact):
        return None  # begun with these settings: it is to be finished rather than replaced by another
    for path, record in done:
        if read_inputs(path).dataset_fingerprint == dataset.fingerprint:
            say(f"{stage} run: {path} (the newest on this data set; made with other settings than {preset.name}'s)")
            return path, record.identity
    return None


def dataset_inputs(dataset: Dataset, **runs: Any) -> Inputs:
    """What a stage reads: the data set, and `runs`, the fields of `Inputs` that name earlier runs."""
    return Inputs(
        dataset=str(dataset.root),
        dataset_name=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        colors=dataset.colors,
        protocol=dataset.protocol,
        **runs,
    )
