"""True masks that users bring, looked at one by one: size, values, palette, and whether they are masks of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wsss_cli.data.images import open_picture, stored_size
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.table import show_some
from wsss_cli.errors import DataError
from wsss_cli.files import files_below
from wsss_cli.labels import IGNORE

Oddity = Literal["", "black-and-white", "all-255", "swapped"]
BLACK = (0, 0, 0)


@dataclass(frozen=True)
class MaskLook:
    """What a mask holds.

    Attributes:
        values: those that occur, ascending.
        code, problem, fix: why it cannot be used; empty where it can.
        oddity: what is strange about it. black-and-white: only 0 and 255; all-255; swapped: its palette draws 0 in a
            colour and a class in black.
    """

    values: tuple[int, ...] = ()
    code: str = ""
    problem: str = ""
    fix: str = ""
    oddity: Oddity = ""


def look_at_mask(
    path: Path, image: Path, size: tuple[int, int], count: int, read: Callable[[Path], np.ndarray] = read_mask
) -> MaskLook:
    """Look at the mask of an image.

    Args:
        size: height and width of the image as shown.
        count: number of classes, background included.
        read: returns class indices, uint8 [H, W].
    """
    try:
        mask = read(path)
    except DataError as error:
        return MaskLook((), "unreadable", error.message, error.hint or "repair or remove the file")
    values = tuple(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())
    if mask.shape != size:
        problem = f"{path} is {_sides(mask.shape)}, its image {_sides(size)}"
        stored, orientation = stored_size(image)
        if mask.shape == stored:
            problem += f" as shown (its pixels are stored as {_sides(stored)}, EXIF orientation {orientation})"
        return MaskLook(values, "mask-size", problem, "make the mask anew at the size of the image as shown")
    wrong = [value for value in values if count <= value < IGNORE]
    if wrong:
        fix = f"pixels are 0 (background), 1..{count - 1} (classes) or 255 (not scored)"
        return MaskLook(values, "mask-value", f"{path} holds the value {wrong[0]}", fix)
    return MaskLook(values, oddity=_oddity(path, values))


def _sides(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def _oddity(path: Path, values: tuple[int, ...]) -> Oddity:
    if values == (IGNORE,):
        return "all-255"
    if values == (0, IGNORE):
        return "black-and-white"
    if path.suffix.lower() != ".png" or 0 not in values:
        return ""
    with open_picture(path) as image:
        flat = (image.getpalette() or []) if image.mode == "P" else []
    colors = [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]
    drawn = [colors[value] for value in values if 0 < value < min(len(colors), IGNORE)]
    return "swapped" if colors and colors[0] != BLACK and BLACK in drawn else ""


def refuse_useless(looks: Sequence[MaskLook]) -> None:
    """Refuse masks of which none can be used, or none holds a class and some hold 255.

    Args:
        looks: at all masks; none is no error.
    Raises:
        DataError: with the reason.
    """
    usable = [look for look in looks if not look.code]
    if looks and not usable:
        raise DataError(f"none of the {len(looks):,} masks can be used, first: {looks[0].problem}", looks[0].fix)
    odd = {look.oddity for look in usable}
    if odd and odd <= {"all-255", "black-and-white"}:
        held = "255 only" if odd == {"all-255"} else "0 and 255 only"
        raise DataError(
            f"all {len(usable):,} masks hold {held}: are objects 255? 255 is not scored",
            "write class indices: 0 background, 1, 2, ... the classes; 255 where a pixel is not to be scored",
        )


def odd_lines(looks: Sequence[MaskLook]) -> list[str]:
    """A line for each kind of strange mask."""
    counts = Counter(look.oddity for look in looks if not look.code)
    says = {
        "black-and-white": "holds 0 and 255 only: are objects 255? 255 is not scored",
        "all-255": "holds 255 only: nothing in it is scored",
        "swapped": "has a palette that draws 0 in a colour and a class in black: are background and class swapped?",
    }
    return [_some_masks(counts[kind], said) for kind, said in says.items() if counts[kind]]  # type: ignore[index]


def _some_masks(count: int, said: str) -> str:
    """'1 mask holds ...', '3 masks hold ...'"""
    plural = said.replace("holds", "hold", 1).replace("has", "have", 1).replace("in it", "in them")
    return f"1 mask {said}" if count == 1 else f"{count:,} masks {plural}"


def disagreements(
    looks: Mapping[str, MaskLook], tags: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> tuple[dict[str, int], dict[str, int], int]:
    """Images by class that have its tag but not its pixels, and its pixels but not its tag; and images with either.

    Args:
        looks: by image; those that cannot be used do not count.
        tags: class indices by image.
        classes: names, background first.
    """
    bare, untagged, images = Counter[str](), Counter[str](), 0
    for name, look in looks.items():
        if not look.code:
            drawn, tagged = {value for value in look.values if 0 < value < IGNORE}, set(tags[name])
            bare.update(classes[index] for index in tagged - drawn)
            untagged.update(classes[index] for index in drawn - tagged)
            images += drawn != tagged
    return dict(sorted(bare.items())), dict(sorted(untagged.items())), images


def disagreement_line(bare: Mapping[str, int], untagged: Mapping[str, int], images: int) -> str:
    """The counts of `disagreements` in words; empty where there are none."""
    kinds = (("tagged, not in the mask", bare), ("in the mask, not tagged", untagged))
    said = [f"{what}: {', '.join(f'{label} {n:,}' for label, n in counts.items())}" for what, counts in kinds if counts]
    return f"tags and mask disagree in {images:,} image{'s' * (images != 1)}; {'; '.join(said)}" if said else ""


def refuse_unmatched(wanted: Sequence[str], folder: Path) -> None:
    """Refuse a folder of masks of which none belongs to an image.

    Raises:
        DataError: showing what was looked for and what lies there.
    """
    there = sorted(path.relative_to(folder).as_posix() for path in files_below(folder) if path.is_file())
    lies = f"there is {show_some(there)}" if there else "the folder is empty"
    raise DataError(
        f"--masks: none of {len(wanted):,} images has a mask in {folder}; looked for {show_some(wanted, 2)}, {lies}",
        "name each mask after its photograph: 001.png for 001.jpg, holiday/002.png for holiday/002.jpg",
    )
