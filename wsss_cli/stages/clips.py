"""Frames of videos as photographs to segment."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from wsss_cli.data.videos import Video, frames_of, is_video
from wsss_cli.engine.sweep import Batch, Lost
from wsss_cli.errors import UsageError
from wsss_cli.files import matching
from wsss_cli.rows import Each
from wsss_cli.stages.photographs import Photograph


@dataclass(frozen=True)
class Frame(Photograph):
    """A frame that is decoded.

    Attributes:
        pixels: RGB, uint8 [H, W, 3].
    """

    pixels: np.ndarray


@dataclass(frozen=True)
class Clip:
    """The frames of a video that are to be segmented.

    Attributes:
        every: one of so many.
    """

    video: Video
    every: int

    @property
    def photographs(self) -> Sequence[Photograph]:
        """Each frame: its name is that of the video, and its number in it, from 1."""
        path = self.video.path
        return Each(
            range(1, self.video.frames + 1, self.every),
            lambda number: Photograph(f"{path} frame {number}", path, f"{path.stem}/{number:06d}"),
        )

    def batches(
        self, pending: Sequence[Photograph], count: int, lost: Lost, check: Callable[[], object]
    ) -> Iterator[Batch[Photograph]]:
        """Frames that are decoded as they are asked for, `count` together; fewer where the video ends early.

        Args:
            lost: is told of those that do not decode.
        """
        numbers = array("I", (int(photo.name.rpartition("/")[2]) for photo in pending))
        decoded = self._decoded(pending, frames_of(self.video.path, numbers, check), lost)
        while batch := list(islice(decoded, count)):
            yield Batch(batch, self.video.size)

    def _decoded(
        self, pending: Sequence[Photograph], images: Iterator[np.ndarray | None], lost: Lost
    ) -> Iterator[Frame]:
        for photo, image in zip(pending, images, strict=False):
            if image is None:
                lost.append({"id": photo.id, "reason": f"{photo.id} does not decode"})
            else:
                yield Frame(photo.id, photo.image, photo.name, image)


def videos_of(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Videos that a command line names by files or patterns, each once, and all else.

    Raises:
        UsageError: there is no such video, or the frames of two would have one name.
    """
    videos: dict[Path, None] = {}
    others = []
    for name in arguments:
        path = Path(name)
        if not is_video(name) or path.is_dir():
            others.append(name)
        elif path.exists():
            videos[path] = None
        else:
            matches = matching(Path(path.anchor), str(path.relative_to(path.anchor))) if "*" in name else []
            if not matches:
                raise UsageError(f"{name} names no video", "give files, or a quoted pattern such as 'clips/*.mp4'")
            videos.update(dict.fromkeys(matches))
    stems = [path.stem for path in videos]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), ""):
        raise UsageError(
            f"two videos are named {twice}; the masks of their frames would overwrite each other",
            "run wsss infer once for each, with an --out of its own",
        )
    return list(videos), others
