"""Photographs that a command line names: files, folders, patterns."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from os.path import normpath
from pathlib import Path

from wsss_cli.data.endings import passed_over
from wsss_cli.data.heif import how_to_read
from wsss_cli.data.images import IMAGE_ENDINGS, OTHER_ENDINGS
from wsss_cli.data.packed import has_twins
from wsss_cli.data.pages import pages_lines
from wsss_cli.data.texts import Spool, in_order_of
from wsss_cli.data.videos import OTHER_VIDEOS, VIDEO_ENDINGS
from wsss_cli.engine.records import is_run
from wsss_cli.errors import UsageError
from wsss_cli.files import files_below, is_hidden, matching, names_below
from wsss_cli.inference.journal import NAME as JOURNAL
from wsss_cli.inference.journal import later_kinds
from wsss_cli.rows import Each
from wsss_cli.talk import counted, shell_word

MARK = "/./"
PASSED_OVER = (*OTHER_ENDINGS, *VIDEO_ENDINGS, *OTHER_VIDEOS)  # in folders and by patterns, which is said
OTHER_FILES = {"soft": ".npz", "geotiff": ".tif"}  # of kinds that are no PNG
KINDS = ("masks", "overlays", "confidence")  # folders of what is written of photographs
LATER = (
    "numbers",
    "colors",
    "soft",
    "geotiff",
)  # and those that earlier versions did not write: the journal knows of them


@dataclass(frozen=True)
class Photograph:
    """A file to segment.

    Attributes:
        name: of its mask, without ending: its own, with the folders below the one that was given.
    """

    id: str
    image: Path
    name: str


def file_of(folder: Path, kind: str, name: str) -> Path:
    """The file of a kind (`KINDS`, `LATER`) that is written of the photograph of a name."""
    return folder / kind / f"{name}{OTHER_FILES.get(kind, '.png')}"


def photograph(path: str | Path) -> Photograph:
    """The photograph of a path, in which `/./` parts the folder that was given from what is in it."""
    image, (_, marked, below) = Path(path), str(path).partition(MARK)
    return Photograph(str(image), image, Path(below).with_suffix("").as_posix() if marked else image.stem)


def find_images(arguments: Sequence[str], out: Path, say: Callable[[str], None]) -> Sequence[str]:
    """Image files named by files, folders (with those below them) and glob patterns, in order, each once.

    Args:
        out: where the masks go; what lies there is no photograph.
        say: hears of endings that are not read, of folders that a pattern passes by, and of files of several pages.
    Returns:
        Paths for `photograph`.
    Raises:
        UsageError: something given names no image or is a run, the masks of two images would have one name, or an
            image lies where masks are written.
        DataError: a folder cannot be read.
    """
    each: list[Sequence[str]] = []
    for name in arguments:
        path = Path(name)
        if is_run(path):
            raise UsageError(f"{name} is a run, and photographs are named here", "give one run, then photographs")
        if (path / "dataset.json").is_file():
            raise UsageError(f"{name} is a data set, and photographs are named here", "give the folder of its images")
        if path.suffix.lower() in OTHER_VIDEOS and path.is_file():
            raise UsageError(
                f"{name} is a video, and those that end in {path.suffix} are not read",
                f"convert it to one of {', '.join(VIDEO_ENDINGS)}: ffmpeg -i {shell_word(name)} clip.mp4",
            )
        others: Counter[str] = Counter()
        matches, folders = (_in_folder(path, out, others), []) if path.is_dir() else _matching(name, others)
        passed = [folder for folder in folders if _has_images(folder, out)]
        clips = sum(others.pop(ending, 0) for ending in VIDEO_ENDINGS)
        unread = ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
        if not matches:
            is_gone = not os.path.lexists(name) and not set(name) & set("*?[")
            raise UsageError(
                f"there is no {name}"
                if is_gone
                else f"{name} names no image{f' that is read, but {unread}' if unread else ''}{_not_searched(passed)}",
                f"give {shell_word(passed[0])} itself"
                if passed
                else how_to_read(others)
                or ("name videos, or a pattern such as 'clips/*.mp4'" if clips else "")
                or f"give files, a folder or a pattern of {', '.join(IMAGE_ENDINGS)}; videos by their names: "
                + ", ".join(VIDEO_ENDINGS),
            )
        if unread:
            say(f"{name}: passed over, as these endings are not read: {unread}")
            if how := how_to_read(others):
                say(f"hint: {how}")
        if clips:
            say(f"{name}: {counted(clips, 'video')} passed over: name them, or a pattern such as 'clips/*.mp4'")
        if passed:
            say(f"{name}{_not_searched(passed)}; give them too, or run this for each, with an --out of its own")
        each.append(matches)
    paths = each[0] if len(each) == 1 else _once(chain.from_iterable(each))
    _refuse_written(paths, out)
    if has_twins(array("q", (hash(photograph(path).name) for path in paths))):
        counts = Counter(photograph(path).name for path in paths)
        if twice := [name for name, count in counts.items() if count > 1]:
            first, second, *_ = (path for path in paths if photograph(path).name == twice[0])
            raise _twins(twice[0], Path(first), Path(second))
    for line in pages_lines(paths):
        say(line)
    return Each(paths, str)


def _twins(name: str, first: Path, second: Path) -> UsageError:
    """What is wrong with two files whose masks would have one name; a.xml beside a.jpg is no photograph."""
    strange = [path for path in (first, second) if path.suffix.lower() not in IMAGE_ENDINGS]
    if strange:
        left_out = " and ".join(shell_word(str(path)) for path in strange)
        return UsageError(
            f"two files are named {name}; their masks would overwrite each other: {first}, {second}",
            f"leave out {left_out}, or give the folder itself: of it only {', '.join(IMAGE_ENDINGS)} are taken",
        )
    fix = "rename one" if first.parent == second.parent else "give the folder above both"
    return UsageError(
        f"two images are named {name}; their masks would overwrite each other: {first}, {second}",
        f"{fix}, or run wsss infer once for each, with an --out of its own",
    )


def _once(paths: Iterable[str]) -> list[str]:
    """Each path as it comes first, however it is written: `photos/./1.jpg` is photos/1.jpg."""
    here, first = Path.cwd(), dict[str, str]()
    for path in paths:
        first.setdefault(normpath(here / path), path)
    return list(first.values())


def _refuse_written(paths: Iterable[str], out: Path) -> None:
    """Refuse photographs that lie where masks and the like are written: they would be written over."""
    places = [(out / kind).resolve() for kind in KINDS]
    later = [(out / kind).resolve() for kind in later_kinds(out)]
    last: tuple[str, bool] | None = None
    for path in paths:
        folder, png = path.rpartition("/")[0], path.endswith((".png", ".tif"))
        if (folder, png) == last:
            continue
        last = folder, png
        if any(Path(folder).resolve().is_relative_to(place) for place in (*places, *(later if png else ()))):
            raise UsageError(f"{Path(path)} lies where masks are written", "choose another --out")


def _in_folder(folder: Path, out: Path, others: Counter[str]) -> Spool:
    """Images of a folder and those below it, sorted, but for hidden ones, masks and data sets; endings are counted.

    Args:
        out: where the masks go, and names lie meanwhile.
    """
    written: list[str] = []
    later = tuple(f"{kind}/" for kind in later_kinds(folder))
    if out.resolve() == folder.resolve():
        written.extend(f"{kind}/" for kind in KINDS)
    elif out.resolve().is_relative_to(folder.resolve()):
        written.append(f"{out.resolve().relative_to(folder.resolve()).as_posix()}/")

    def names() -> Iterator[str]:
        for name in names_below(folder):
            if name == JOURNAL:
                written.extend(f"{kind}/" for kind in KINDS)
            elif name.endswith((f"/{JOURNAL}", "/dataset.json")):
                written.append(name.rpartition("/")[0] + "/")
            elif not is_hidden(name):
                ending = Path(name).suffix.lower()
                if ending in IMAGE_ENDINGS and not (ending in (".png", ".tif") and name.startswith(later)):
                    yield name
                elif counted_as := passed_over(folder / name, PASSED_OVER):
                    others[counted_as] += 1

    ordered = in_order_of(names(), out)
    return Spool(out, (f"{folder}{MARK}{name}" for name in ordered if not name.startswith(tuple(written))))


def _matching(name: str, others: Counter[str]) -> tuple[list[str], list[Path]]:
    """The image of a name, or those that match a pattern, sorted, and the folders that match it or are passed by."""
    path = Path(name)
    if path.is_file():
        return [str(path)], []
    anchor, pattern = _as_written(path)
    inside = matching(anchor, f"{pattern}/*" if pattern.endswith("**") else pattern)  # as the shells have it
    folders = [each for each in inside if each.is_dir()]
    files = sorted(set(inside).difference(folders))
    matches = [str(each) for each in files if each.suffix.lower() in IMAGE_ENDINGS]
    others.update(ending for each in files if (ending := passed_over(each, PASSED_OVER)))
    if "**" in pattern:  # it goes into folders, but not where links lead
        folders = [each for each in (anchor / _above(Path(pattern))).rglob("*") if each.is_symlink() and each.is_dir()]
    return matches, folders


def _as_written(path: Path) -> tuple[Path, str]:
    """The leading folders of a pattern that are there as they are written, and the pattern of what is in them."""
    least = 1 if path.is_absolute() else 0
    at = next((at for at in range(len(path.parts) - 1, least, -1) if Path(*path.parts[:at]).is_dir()), least)
    return Path(*path.parts[:at]), Path(*path.parts[at:]).as_posix()


def _above(pattern: Path) -> Path:
    """The folder that a pattern searches."""
    parts = pattern.parts
    return Path(*parts[: next(at for at, part in enumerate(parts) if "*" in part)])


def _has_images(folder: Path, out: Path) -> bool:
    if folder.name.startswith(".") or folder.resolve() == out.resolve():
        return False
    return any(path.suffix.lower() in IMAGE_ENDINGS for path in files_below(folder))


def _not_searched(folders: Sequence[Path]) -> str:
    if not folders:
        return ""
    shown = f"{', '.join(map(str, folders[:3]))}{', ...' if len(folders) > 3 else ''}"
    return f": {'1 folder' if len(folders) == 1 else f'{len(folders)} folders'} with images not searched: {shown}"
