"""`wsss prepare labels`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_cli.cli import console
from wsss_cli.cli.following import line
from wsss_cli.cli.options import JsonOption
from wsss_cli.engine.stop import Stop
from wsss_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from wsss_cli.data.dataset import Dataset, Sample


def labels(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Data set directory.")],
    masks: Annotated[
        Path | None, typer.Argument(metavar="MASKS", help="Folder of label maps, ID.png; 255 where nothing is said.")
    ] = None,
    kind: Annotated[
        Literal["mask", "partial"],
        typer.Option(help="mask: whole masks, which are trained on alone; partial: a pseudo mask fills their 255."),
    ] = "mask",
    split: Annotated[str, typer.Option(metavar="NAME", help="The list of photographs that are trained on.")] = "train",
    draw: Annotated[
        Literal["masks", "scribbles", "points", "boxes"] | None,
        typer.Option(help="In place of MASKS: drawn from the true masks, as annotators would, for experiments."),
    ] = None,
    share: Annotated[
        float, typer.Option(metavar="F", min=0.0, max=1.0, help="With --draw: share of the photographs.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**62 - 1, help="With --draw: of which those are.")] = 0,
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Take away the labels that are there; with new ones, once those are all read."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Add labels that may be trained on to a data set: a few whole masks, scribbles, points, boxes.

    They lie in DATASET/trusted, beside the truth that results are scored with. `--set train.supervision=mixed` puts
    them in place of pseudo masks. A label map of a photograph that has one already takes its place.

    \b
    wsss prepare labels data/mine corrected/
    wsss prepare labels data/mine scribbles/ --kind partial
    wsss prepare labels data/voc-aug --split train_aug --draw masks --share 0.05 --seed 1
    wsss prepare labels data/mine --clear
    """
    from wsss_cli.cli.preparing import alone
    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.data.trusted import add_trusted, clear_trusted, read_trusted

    if masks is not None and draw is not None:
        raise UsageError("MASKS and --draw are two sources of labels", "give one of them")
    if masks is None and draw is None and not clear:
        raise UsageError("nothing to add", "name a folder of label maps, or --draw masks")
    opened = open_dataset(dataset, console.say)
    with alone(dataset), Stop(console.say_at_once).listening() as stop:
        before = {} if clear else read_trusted(opened.root).entries
        if masks is not None:
            source, maps = f"from {masks.name or masks}", _from_folder(opened, split, masks)
            add_trusted(opened, maps, kind, source, stop.check, clear=clear)
        elif draw is not None:
            source = f"{draw} drawn from true masks, share {share:g}, seed {seed}"
            maps = _drawn(opened, split, draw, share, seed)
            add_trusted(opened, maps, "mask" if draw == "masks" else "partial", source, stop.check, clear=clear)
        else:
            clear_trusted(opened.root)
        trusted = read_trusted(opened.root)
    kinds = Counter(entry.kind for entry in trusted.entries.values())
    new = sum(entry != before.get(name) for name, entry in trusted.entries.items())
    if json_output:
        object_ = {"dataset": str(dataset), "new": new, "masks": kinds["mask"], "partial": kinds["partial"]}
        console.result_json({**object_, "fingerprint": trusted.fingerprint})
        return
    console.result(f"labels of {dataset}: {kinds['mask']:,} whole masks, {kinds['partial']:,} partial ({new:,} new)")
    if trusted.entries:
        console.say(f"next: {line('run', '--preset', 'NAME', '--data', dataset, '--set', 'train.supervision=mixed')}")


def _from_folder(dataset: Dataset, split: str, folder: Path) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """Every label map of a folder, and of those in it.

    Raises:
        DataError: there are none, or one is of no photograph of the list.
    """
    from wsss_cli.data.masks import read_mask
    from wsss_cli.data.sources.results import place_of, places_by_name

    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", "label maps are PNGs named like their photographs, ID.png")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() == ".png" and file.name[0] != ".")
    if not files:
        raise DataError(f"there is no .png in {folder}", "label maps are PNGs named like their photographs, ID.png")
    samples = dataset.split(split)
    places = places_by_name(samples)
    chosen: dict[int, Path] = {}
    for file in files:
        place = place_of(file.relative_to(folder).as_posix(), places)
        if place is None:
            raise DataError(
                f"{file} is of no photograph of split {split!r}", f"such as {samples[0].id}.png; see --split"
            )
        if place in chosen:
            raise DataError(f"{chosen[place]} and {file} are of one photograph", "leave one")
        chosen[place] = file
    with console.progress(len(chosen), "labels") as bar:
        for place, file in chosen.items():
            yield samples[place], file, read_mask(file)
            bar.advance()


def _drawn(
    dataset: Dataset, split: str, draw: Literal["masks", "scribbles", "points", "boxes"], share: float, seed: int
) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """Labels of a share of the photographs that have a true mask, chosen by the seed.

    Raises:
        DataError: none has one.
    """
    import numpy as np

    from wsss_cli.data.masks import read_mask
    from wsss_cli.data.sources.drawn import drawn

    samples = dataset.split(split)
    masked = [place for place, there in enumerate(samples.masked) if there]
    if not masked:
        raise DataError(f"no photograph of split {split!r} has a true mask to draw from", "name a folder of label maps")
    count = round(share * len(masked))
    if not count:
        raise UsageError(f"--share {share:g} of {len(masked)} photographs is none", "a larger share")
    chosen = np.random.default_rng(seed).permutation(len(masked))[:count]
    with console.progress(count, f"drawing {draw}") as bar:
        for place in sorted(masked[int(number)] for number in chosen):
            mask = samples[place].mask
            assert mask is not None
            yield samples[place], mask, drawn(read_mask(mask), draw, seed + place)
            bar.advance()
