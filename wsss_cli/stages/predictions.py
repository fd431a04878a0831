"""What is written of each photograph that was segmented."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_cli.data.geotiff import geo_mask, geo_tags
from wsss_cli.data.masks import grey_png, write_mask
from wsss_cli.files import write_bytes
from wsss_cli.inference.tiles import Segmented
from wsss_cli.report.pictures import Color, encoded, overlay
from wsss_cli.stages.photographs import Photograph, file_of

Predicted = tuple[Photograph, np.ndarray, Segmented]
"""A photograph, its pixels, and what the network says of it."""


@dataclass(frozen=True)
class Outputs:
    """What is written of each photograph beside its mask.

    Attributes:
        beside: of `KINDS` and `LATER`.
        classes, colors: names and RGB of the classes.
    """

    folder: Path
    beside: frozenset[str]
    classes: tuple[str, ...]
    colors: tuple[Color, ...]

    def files(self, photo: Photograph) -> list[Path]:
        """The mask, and what is wanted beside it."""
        return [file_of(self.folder, kind, photo.name) for kind in ("masks", *self._kinds(photo))]

    def _kinds(self, photo: Photograph) -> list[str]:
        """What is wanted beside a mask and can be had: a photograph that lies nowhere has no GeoTIFF."""
        nowhere = "geotiff" in self.beside and geo_tags(photo.image) is None
        return sorted(self.beside.difference(["geotiff"] if nowhere else []))

    def store(self, predicted: Predicted, before: frozenset[str]) -> None:
        """Write what was predicted, the mask last: one that is there has what belongs to it, and nothing older.

        Args:
            before: kinds that were written at other times: not wanted now, they are of an older mask.
        """
        photo, image, result = predicted
        kinds = self._kinds(photo)
        for kind in sorted(before.difference(kinds)):
            file_of(self.folder, kind, photo.name).unlink(missing_ok=True)
        for kind in kinds:
            write_bytes(file_of(self.folder, kind, photo.name), self._content(kind, photo, image, result))
        write_mask(file_of(self.folder, "masks", photo.name), result.mask, self.colors)

    def _content(self, kind: str, photo: Photograph, image: np.ndarray, result: Segmented) -> bytes:
        match kind:
            case "overlays":
                return encoded(overlay(image, result.mask, self.colors))
            case "numbers":
                return grey_png(result.mask)
            case "colors":
                return encoded(np.array(self.colors, np.uint8)[result.mask])
            case "geotiff" if (tags := geo_tags(photo.image)) is not None:
                return geo_mask(result.mask, self.colors, tags)
            case "soft":
                assert result.scores is not None
                buffer = io.BytesIO()
                np.savez_compressed(buffer, scores=result.scores, classes=np.array(self.classes))
                return buffer.getvalue()
        assert kind == "confidence" and result.confidence is not None
        return grey_png(result.confidence)
