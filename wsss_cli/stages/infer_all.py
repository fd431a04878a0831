"""`run_infer` of photographs and of the frames of videos, one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wsss_cli.data.videos import COUNTED, open_video
from wsss_cli.engine.context import Context
from wsss_cli.engine.sweep import Lost
from wsss_cli.errors import DataError
from wsss_cli.stages.clips import Clip

ALL = 10**9  # frames: a year of them


def infer_all(
    infer: Callable[..., dict[str, Any]],
    photographs: Sequence[str],
    videos: Sequence[Path],
    ctx: Context,
    *,
    every: int,
    limit: int,
) -> dict[str, Any]:
    """Summaries of `infer`, added up; a video that does not decode is lost, and the others go on.

    Args:
        infer: `run_infer` of what is given as `images`.
        every: one of so many frames.
        limit: frames of each video; 0: all.
    """
    lost: Lost = []
    summaries = [infer(images=photographs)] if photographs else []
    for path in videos:
        try:
            video = open_video(path, (limit - 1) * every + 1 if limit else ALL, ctx.stop.check)
            if video.missing:
                of = f"{'' if path.suffix.lower() in COUNTED else 'about '}{video.frames + video.missing:,}"
                said = f"{video.frames:,} frames are found of {of} that the file says it has"
                ctx.ui.say(f"warning: {path}: {said}; behind one that is damaged, the numbers of the others are lower")
            summaries.append(infer(images=Clip(video, every)))
        except DataError as error:
            lost.append({"id": str(path), "reason": error.message})
    summaries = summaries or [infer(images=())]
    total = {**summaries[0], "lost": [*(entry for each in summaries for entry in each["lost"]), *lost]}
    for key in ("images", "kept"):
        total[key] = sum(each[key] for each in summaries)
    if "missing" in total:
        total["missing"] = dict(sum((Counter(each["missing"]) for each in summaries), Counter[str]()))
    return total
