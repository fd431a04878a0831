"""A run and all that it was made from, as their directories say it. Nothing here loads torch."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import difference
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, open_dataset
from wsss_cli.engine.records import Inputs, RunRecord, is_run, read_inputs, read_record
from wsss_cli.engine.rundir import read_metrics, state_of
from wsss_cli.errors import DataError, WsssError
from wsss_cli.scoring.by_image import AREAS_FILE, ImageAreas, read_areas
from wsss_cli.scoring.stored import read_scores
from wsss_cli.talk import silent

MODES = {
    "train": (
        ("ms_flip_crf", "ms+flip, CRF"),
        ("single_crf", "single scale, CRF"),
        ("ms_flip", "ms+flip"),
        ("single", "single scale"),
    ),
    "pseudo": (("background", "255 as background"), ("drop", "255 left out")),
    "cam": (("best", "at the best threshold"),),
}  # of each stage: where eval.json has its scores, the one that is shown in full first
READS = ("classifier", "recam", "judge", "cam", "irn", "psa", "pseudo", "train")  # earlier runs come first


@dataclass(frozen=True)
class Link:
    """A run of a lineage.

    Attributes:
        why_gone: why it cannot be shown; then nothing else of it is known.
        seconds: that its attempts took together; None: an attempt was killed, and so it is not known.
        scores: its eval.json, empty where it has none.
        why_no_scores: why its eval.json, which is there, cannot be shown.
        metrics: rows of metrics.jsonl.
    """

    path: Path
    stage: str
    record: RunRecord | None = None
    inputs: Inputs | None = None
    preset: Preset | None = None
    state: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[dict[str, Any], ...] = ()
    why_gone: str = ""
    why_no_scores: str = ""

    @property
    def seconds(self) -> float | None:
        if self.record is None or any(attempt.end is None for attempt in self.record.attempts):
            return None
        return sum((attempt.end or 0) - attempt.start for attempt in self.record.attempts)

    @property
    def memory_gib(self) -> float | None:
        """Of a GPU, the highest that a training has logged."""
        logged = [row["memory_gib"] for row in self.metrics if "memory_gib" in row]
        return max(logged) if logged else None

    @property
    def command(self) -> str:
        """The command that made it, quoted for a shell."""
        return shlex.join(["wsss", *(self.record.argv[1:] if self.record else ())])


@dataclass(frozen=True)
class Told:
    """A run that is reported, with all that it was made from.

    Attributes:
        name: how the page calls it.
        links: the lineage, the run last.
        dataset: None: it is gone, for the reason in `why_no_data`.
    """

    name: str
    links: tuple[Link, ...]
    dataset: Dataset | None
    why_no_data: str = ""

    @property
    def last(self) -> Link:
        return self.links[-1]

    @property
    def modes(self) -> list[tuple[str, str]]:
        """Of the scores that it has: (key in eval.json, name), the one to show in full first."""
        return [
            (key, name) for key, name in MODES.get(self.last.stage, ()) if isinstance(self.last.scores.get(key), dict)
        ]

    @property
    def top(self) -> dict[str, Any]:
        """The scores that are shown in full; empty where there are none."""
        return self.last.scores[self.modes[0][0]] if self.modes else {}

    def areas(self) -> ImageAreas | None:
        """What each image adds to the scores, where the evaluation has written it."""
        try:
            return read_areas(self.last.path / AREAS_FILE)
        except DataError:
            return None


def tell(run: Path) -> Told:
    """All that is told of a run.

    Raises:
        UsageError: no run directory.
        DataError: its record of inputs cannot be read.
    """
    links = tuple(lineage(run))
    inputs = links[-1].inputs
    if inputs is None:
        raise DataError(f"{run} cannot be reported: {links[-1].why_gone}", "run its command again: it is mended there")
    try:
        return Told(run.name, links, open_dataset(inputs.dataset, silent, inputs.limit))
    except DataError as error:
        return Told(run.name, links, None, error.message)


def read_link(path: Path, stage: str = "") -> Link:
    """What a run directory says of itself; one that is gone or damaged says why."""
    try:
        record = read_record(path)
        inputs = read_inputs(path)
        preset = load_preset(str(path / "preset.lock.toml"), say=silent)
    except WsssError as error:
        return Link(path, stage or "run", why_gone=error.message)
    scores: dict[str, Any] = {}
    why_no_scores = ""
    try:
        scores = read_scores(path)
    except DataError as error:
        why_no_scores = str(error)
    metrics: tuple[dict[str, Any], ...] = ()
    with contextlib.suppress(DataError):
        metrics = tuple(read_metrics(path))
    state = str(state_of(path, record))
    return Link(path, record.stage, record, inputs, preset, state, scores, metrics, why_no_scores=why_no_scores)


def lineage(run: Path) -> list[Link]:
    """The runs that a run was made from, each after those that it reads, and itself last.

    Raises:
        UsageError: no run directory.
        DataError: its record is damaged or was written by a newer version.
    """
    read_record(run)
    links: dict[Path, Link] = {}

    def follow(link: Link) -> None:
        if link.inputs is not None:
            for stage in READS:
                earlier = getattr(link.inputs, f"{stage}_run")
                if earlier and is_there(earlier, link.path) not in links:
                    follow(read_link(is_there(earlier, link.path), stage))
        links[link.path] = link

    follow(read_link(run))
    return list(links.values())


def is_there(recorded: str, reader: Path) -> Path:
    """Where an earlier run lies: as recorded, or, moved along with the run that reads it, beside that one."""
    path = Path(recorded)
    beside = reader.parent / path.name
    return beside if not is_run(path) and is_run(beside) else path


def changed_settings(link: Link, last: Link) -> list[str]:
    """Settings in which the preset of an earlier run differs from that of the last one, 'old -> new' each."""
    if link.preset is None or last.preset is None:
        return []
    old, new = (one.preset.model_dump(mode="json") for one in (link, last) if one.preset)
    return [line for line in difference(old, new) if not line.startswith(("name:", "description:", "reference:"))]


def find_stage(links: list[Link], stage: str) -> Link | None:
    """The last run of a stage in a lineage that is there."""
    return next((link for link in reversed(links) if link.stage == stage and not link.why_gone), None)
