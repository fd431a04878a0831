"""dataset.json, which a user may write by hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wsss_cli.config.forms import Form, read_form
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette

Byte = Annotated[int, Field(ge=0, le=255)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class ClassRecord(_Part):
    name: str
    color: Annotated[tuple[Byte, Byte, Byte], Field(strict=False)] | None = None  # a list: see _names_will_do


class SplitRecord(_Part):
    images: int = 0
    sha256: str = ""


class DatasetRecord(Form):
    """Classes alone will do: ["background", "cat", ...], or [{"name": "background", "color": [0, 0, 0]}, ...].

    Attributes:
        classes: background first; those without a colour get that of VOC.
        source: what it was made from; part of the fingerprint.
        protocol: notes for the protocol lines of tables.
        splits: those that were written; more may lie in splits/.
    """

    classes: Annotated[tuple[ClassRecord, ...], Field(min_length=2, max_length=255)]
    name: str = ""
    source: str = ""
    protocol: tuple[str, ...] = ()
    splits: dict[str, SplitRecord] = Field(default_factory=dict)

    @field_validator("classes", mode="before")
    @classmethod
    def _names_will_do(cls, classes: Any) -> Any:
        # a validator that comes before makes pydantic see lists as Python, where strict mode takes none for a tuple
        if not isinstance(classes, (list, tuple)):
            return classes
        return tuple({"name": entry} if isinstance(entry, str) else entry for entry in classes)

    @field_validator("classes")
    @classmethod
    def _background_first(cls, classes: tuple[ClassRecord, ...]) -> tuple[ClassRecord, ...]:
        if classes[0].name != "background" or len({entry.name for entry in classes}) < len(classes):
            raise ValueError("the first class must be 'background', and no name may occur twice")
        return classes

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(entry.name for entry in self.classes)

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of each class."""
        palette = voc_palette(len(self.classes))
        return tuple(entry.color or default for entry, default in zip(self.classes, palette, strict=True))


def read_dataset(root: Path) -> DatasetRecord:
    """dataset.json of a data set directory.

    Raises:
        DataError: there is none, it cannot be taken, or it was written by a newer version.
    """
    if (root.parent / "dataset.json").is_file() and not (root / "dataset.json").is_file():
        raise DataError(f"{root} lies in a data set and is none", f"give the folder: {shlex.quote(str(root.parent))}")
    if not (root / "dataset.json").is_file():
        raise DataError(
            f"no data set at {root} (it has no dataset.json)",
            "make one with `wsss prepare toy`, `wsss prepare voc-aug` or `wsss prepare folder` (each has --help)",
        )
    hint = 'classes are a list like ["background", "cat", ...] or [{"name": "background", "color": [0, 0, 0]}, ...]'
    return read_form(root / "dataset.json", DatasetRecord, hint=hint)
