"""True masks that users bring, looked at one by one: size, values, palette, and whether they are masks of classes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wsss_cli.data.images import PNG, TURNED, open_picture, stored_size
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.foreign import in_place_of_pngs
from wsss_cli.data.sources.photographs import by_folders
from wsss_cli.data.sources.table import show_some, smallest
from wsss_cli.errors import DataError
from wsss_cli.files import names_below
from wsss_cli.labels import IGNORE
from wsss_cli.talk import counted, say, sides

Oddity = Literal["", "black-and-white", "all-255", "swapped"]
Colors = list[tuple[int, ...]]
BLACK = (0, 0, 0)
AS_THEY_ARE = "The numbers are taken as they are"
INDEXED = b"\3"  # colour type of a PNG, in its header
HEAD = 4096  # bytes of a PNG in which its palette is, but behind a long colour profile
LOOKED_INTO = 20  # label maps whose palette is strange, until none is looked into any more
ODD: dict[Oddity, str] = {
    "black-and-white": "holds 0 and 255 only: are objects 255? 255 is not scored",
    "all-255": "holds 255 only: nothing in it is scored",
    "swapped": "has a palette that draws 0 in a colour and a class in black: are background and class swapped?",
}


@dataclass(frozen=True)
class MaskLook:
    """What a mask holds.

    Attributes:
        values: those that occur, ascending.
        code, problem, fix: why it cannot be used; empty where it can.
        oddity: what is strange about it. black-and-white: only 0 and 255; all-255; swapped: its palette draws 0 in a
            colour and a class in black.
        turned: EXIF turns the photograph, and its sides stay as they are: they do not tell which way up the mask is.
    """

    values: tuple[int, ...] = ()
    code: str = ""
    problem: str = ""
    fix: str = ""
    oddity: Oddity = ""
    turned: bool = False


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
        problem = f"{path} is {sides(mask.shape)}, its image {sides(size)}"
        stored, orientation = stored_size(image)
        if mask.shape == stored:
            problem += f" as shown (its pixels are stored as {sides(stored)}, EXIF orientation {orientation})"
        return MaskLook(values, "mask-size", problem, "make the mask anew at the size of the image as shown")
    wrong = [value for value in values if count <= value < IGNORE]
    if wrong:
        fix = f"pixels are 0 (background), 1..{count - 1} (classes) or 255 (not scored)"
        return MaskLook(values, "mask-value", f"{path} holds the value {wrong[0]}", fix)
    return MaskLook(values, oddity=_oddity(path, values), turned=_turned(image, size))


def _turned(image: Path, size: tuple[int, int]) -> bool:
    try:
        stored, orientation = stored_size(image)
    except DataError:  # of a photograph that cannot be read, which is said elsewhere
        return False
    return orientation != 1 and stored == size


def _oddity(path: Path, values: tuple[int, ...]) -> Oddity:
    if values == (IGNORE,):
        return "all-255"
    if values == (0, IGNORE):
        return "black-and-white"
    return "swapped" if path.suffix.lower() == ".png" and _swapped(path) else ""


def _swapped(path: Path) -> bool:
    """Whether a PNG has a palette that draws 0 in a colour and another number, which occurs, in black."""
    colors = _palette(path)
    return _odd(colors) and any(number and colors[number] == BLACK for number in _used(path, colors))


def _odd(colors: Colors) -> bool:
    return bool(colors) and colors[0] != BLACK and BLACK in colors


def _palette(path: Path) -> Colors:
    """The colours of a PNG's palette, from its first bytes, as thousands are looked at; empty where it has none."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head.startswith(PNG) or head[25:26] != INDEXED or (at := head.find(b"PLTE")) < 0:
        return []
    flat = head[at + 4 : at + 4 + int.from_bytes(head[at - 4 : at])]
    return [(flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat) - 2, 3)]


def _used(path: Path, colors: Colors) -> list[int]:
    """The numbers of classes that occur in a PNG and have a colour in its palette."""
    with open_picture(path) as image:
        used = [int(number) for _, number in image.getcolors(256) or []]  # type: ignore[arg-type]
    return [number for number in used if number < min(len(colors), IGNORE)]


def say_swapped(files: Sequence[Path]) -> None:
    """Ask where label maps have palettes of other numbers than the classes have.

    Programs that reduce colours number them anew, in each file for itself, and those numbers are no classes. A file
    that cannot be read is the matter of whoever reads it.
    """
    first: tuple[Path, Colors] | None = None
    looked = 0
    for file in files:
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            colors = _palette(file)
            same = first is not None and colors == first[1] and not _odd(colors)
            if not colors or same or looked == LOOKED_INTO:
                continue
            first = first or (file, colors)
            others = {
                n for n, (a, b) in enumerate(zip(first[1], colors, strict=False)) if a != b and BLACK not in (a, b)
            }
            if not others and not _odd(colors):
                continue
            looked += 1
            if _odd(colors) and _swapped(file):
                say(f"warning: {file} {ODD['swapped']} {AS_THEY_ARE}")
                return
            if differ := others.intersection(_used(file, colors)):
                two = f"the palettes of {first[0]} and {file} draw the number {min(differ)} in other colours"
                say(f"warning: {two}: did a program that reduces colours number them anew? {AS_THEY_ARE}")
                return


class MaskTally:
    """What many masks hold, in numbers.

    Args:
        classes: names, background first.
    Attributes:
        looks: masks that were looked at.
        bad: those of them that cannot be used.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.looks = self.bad = 0
        self._first: MaskLook | None = None
        self._odd, self._bare, self._untagged = Counter[Oddity](), Counter[str](), Counter[str]()
        self._images = self._turned = 0

    def add(self, look: MaskLook, tags: Collection[int] | None) -> None:
        """Count a mask; one that cannot be used counts as such only.

        Args:
            tags: class indices of its image; None: it has none to be compared with.
        """
        self.looks += 1
        if look.code:
            self.bad += 1
            self._first = self._first or look
            return
        self._odd[look.oddity] += 1
        self._turned += look.turned
        if tags is not None:
            drawn, tagged = {value for value in look.values if 0 < value < IGNORE}, set(tags)
            self._bare.update(self.classes[index] for index in tagged - drawn)
            self._untagged.update(self.classes[index] for index in drawn - tagged)
            self._images += drawn != tagged

    def refuse_bad(self) -> None:
        """Refuse masks of which any cannot be used.

        Raises:
            DataError: with the first reason.
        """
        if self._first:
            raise DataError(
                f"{counted(self.bad, 'mask')} of {self.looks:,} cannot be used, the first: {self._first.problem}",
                self._first.fix,
            )

    def refuse_useless(self) -> None:
        """Refuse masks of which none can be used, or none holds a class and some hold 255; none at all are no error.

        Raises:
            DataError: with the reason.
        """
        usable = self.looks - self.bad
        if self._first and not usable:
            raise DataError(
                f"none of the {self.looks:,} masks can be used, first: {self._first.problem}", self._first.fix
            )
        odd = {kind for kind, count in self._odd.items() if count}
        if odd and odd <= {"all-255", "black-and-white"}:
            held = "255 only" if odd == {"all-255"} else "0 and 255 only"
            raise DataError(
                f"all {usable:,} masks hold {held}: are objects 255? 255 is not scored",
                "write class indices: 0 background, 1, 2, ... the classes; 255 where a pixel is not to be scored",
            )

    def lines(self) -> list[str]:
        """A line for each kind of strange mask, and one where tags and masks disagree."""
        lines = [_some_masks(self._odd[kind], said) for kind, said in ODD.items() if self._odd[kind]]
        if self._images:
            kinds = (("tagged, not in the mask", self._bare), ("in the mask, not tagged", self._untagged))
            said = [
                f"{what}: {', '.join(f'{label} {n:,}' for label, n in sorted(counts.items()))}"
                for what, counts in kinds
                if counts
            ]
            lines.append(f"tags and mask disagree in {counted(self._images, 'image')}; {'; '.join(said)}")
        if self._turned:
            lines.append(f"{counted(self._turned, 'photograph')} {TURNED.format('masks', 'made')}")
        return lines


def _some_masks(count: int, said: str) -> str:
    """'1 mask holds ...', '3 masks hold ...'"""
    plural = said.replace("holds", "hold", 1).replace("has", "have", 1).replace("in it", "in them")
    return f"1 mask {said}" if count == 1 else f"{count:,} masks {plural}"


def refuse_unmatched(wanted: Sequence[str], folder: Path) -> None:
    """Refuse a folder of masks of which none belongs to an image.

    Raises:
        DataError: showing what was looked for and what lies there.
    """
    there = smallest((name for name in names_below(folder) if (folder / name).is_file()), by_folders)
    lies = f"there is {show_some(there.first)}" if there.count else "the folder is empty"
    hint = "name each mask after its photograph: 001.png for 001.jpg, holiday/002.png for holiday/002.jpg"
    if not any(name.lower().endswith(".png") for name in names_below(folder)):
        others, what = in_place_of_pngs(folder)
        lies, hint = f"there is no .png{others}", what or hint
    raise DataError(
        f"--masks: none of {len(wanted):,} images has a mask in {folder}; looked for {show_some(wanted, 2)}, {lies}",
        hint,
    )
