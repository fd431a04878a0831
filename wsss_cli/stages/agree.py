"""The step `agree` of the pseudo stage, over all images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsss_cli.cam.store import read_cam, upsample, write_cam
from wsss_cli.config.refine import AgreeStep
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep_items
from wsss_cli.errors import DataError
from wsss_cli.files import json_lines
from wsss_cli.pseudo.agree import Agreement, agree
from wsss_cli.ranks.who import cores_here
from wsss_cli.rows import Each
from wsss_cli.stages.opening import not_there
from wsss_cli.stages.paths import Files, cam_files

JOURNAL = "agreement.jsonl"  # a line for each photograph


@dataclass(frozen=True)
class AgreeJob:
    """An image's scores, the CAMs that they are held against, and where the outcome goes."""

    id: str
    scores: Path
    cam: Path
    out: Path


def run_agree(
    step: AgreeStep,
    samples: Sequence[Sample],
    scores: Files,
    judge: Path,
    run: RunDir,
    out: Files,
    ctx: Context,
) -> Lost:
    """Hold the scores of samples against the CAMs of a run. What is there already is left as it is.

    Args:
        judge: the cam run.
    Returns:
        Every lost item: {'id', 'reason'}.
    """
    cams, lost = cam_files(judge), list[dict[str, str]]()

    def job(sample: Sample) -> AgreeJob:
        return AgreeJob(sample.id, scores.of(sample.id), cams.of(sample.id), out.of(sample.id))

    options = SweepOptions("agreement", workers=cores_here(), processes=True)
    work = partial(_judge, step=step)
    with (run.path / JOURNAL).open("a", encoding="utf-8") as journal:
        for item, one in sweep_items(Each(not_there(samples, out), job), work, options, lost, ctx, run.log):
            journal.write(json.dumps({"id": item.id, **vars(one)}) + "\n")
    return lost


def agreement(run: Path, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """What came of a step agree, by class: photographs with a region, and those in which the CAM stands in.

    Returns:
        {class: {'images', 'with_region', 'by_cam'}}, of classes that any photograph has; empty without such a step.
    """
    table = {name: {"images": 0, "with_region": 0, "by_cam": 0} for name in classes}
    for one in {line["id"]: line for line in json_lines(run / JOURNAL)}.values():
        for key in ("classes", "cams"):
            for label in one[key]:
                table[classes[label]]["images"] += 1
                table[classes[label]]["with_region" if key == "classes" else "by_cam"] += 1
    return {name: counts for name, counts in table.items() if counts["images"]}


ANEW = "tags or photograph have changed since: remove the older file, and run the command that made it again"


def _judge(job: AgreeJob, step: AgreeStep) -> Agreement:
    scores, classes, size = read_cam(job.scores)
    cam, others, seen = read_cam(job.cam)
    if seen != size or set(others) != set(classes):
        raise DataError(f"{job.cam} is of other tags or of an image of another size than {job.scores}", ANEW)
    planes = upsample(cam, size)[[others.index(label) for label in classes]] if classes else np.zeros((0, *size))
    judged, outcome = agree(upsample(scores, size), planes.astype(np.float32), classes, step)
    write_cam(job.out, judged, classes, size)
    return outcome
