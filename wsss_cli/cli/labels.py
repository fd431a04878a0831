"""`wsss prepare labels`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_cli.cli import console
from wsss_cli.cli.following import line, once_more, refuse_useless
from wsss_cli.cli.import_scores import label_renames
from wsss_cli.cli.options import RUNS, JsonOption
from wsss_cli.engine.stop import Stop
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import is_hidden
from wsss_cli.talk import counted, is_quiet

if TYPE_CHECKING:
    import numpy as np

    from wsss_cli.data.dataset import Dataset, Sample
    from wsss_cli.data.drawings.incoming import DrawnOn, Wanted
    from wsss_cli.data.joined import Joined
    from wsss_cli.data.trusted import TrustedLabels


def labels(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Data set directory.")],
    masks: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE", help="Folder of label maps, ID.png (255: nothing is said), or a tool's export."
        ),
    ] = None,
    kind: Annotated[
        Literal["mask", "partial", "scribbles", "points", "boxes"],
        typer.Option(help="mask: whole masks, which are trained on alone; all others say nothing of some pixels."),
    ] = "mask",
    box_fill: Annotated[
        Literal["crf", "none"],
        typer.Option(help="Of boxes: their inside is told by a dense CRF, or nothing is said of it."),
    ] = "crf",
    rename: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=CLASS", help="A label of the export means a class; repeatable.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="The list of photographs that are trained on.")] = "train",
    draw: Annotated[
        Literal["masks", "scribbles", "points", "boxes"] | None,
        typer.Option(help="In place of SOURCE: drawn from the true masks, as annotators would, for experiments."),
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
    them in place of pseudo masks. Labels of a kind take the place of those of this kind that a photograph has. Those of
    several kinds are joined: whole masks count before scribbles, scribbles before points, all of these before boxes.

    SOURCE is a folder of PNGs, or what a tool exports: COCO's JSON of instances, Label Studio's JSON, 'CVAT for images
    1.1' (XML), ScribbleSup's XML files, or a CSV with the columns image,class,x,y or image,class,x0,y0,x1,y1.

    \b
    wsss prepare labels data/mine corrected/
    wsss prepare labels data/mine annotations.xml
    wsss prepare labels data/mine project.json --kind scribbles
    wsss prepare labels data/mine boxes.csv --kind boxes
    wsss prepare labels data/voc-aug --split train_aug --draw masks --share 0.05 --seed 1
    wsss prepare labels data/mine --clear
    """
    from wsss_cli.cli.preparing import alone
    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.data.joined import Joined
    from wsss_cli.data.trusted import add_trusted, clear_trusted, read_trusted

    _refuse_mixtures(masks, draw, clear, "boxes" in (kind, draw))
    opened = open_dataset(dataset, console.say)
    joined = Joined()
    with alone(dataset), Stop(console.say_at_once).listening() as stop:
        before = {} if clear else read_trusted(opened.root).entries
        if masks is not None:
            source, maps = _from_source(opened, split, masks, kind, box_fill, rename)
            add_trusted(opened, maps, kind, source, stop.check, clear=clear, joined=joined)
        elif draw is not None:
            source = f"{draw} drawn from true masks, share {share:g}, seed {seed}"
            source += _inside(box_fill) if draw == "boxes" else ""
            maps = _drawn(opened, split, draw, box_fill, share, seed)
            drawn_kind = "mask" if draw == "masks" else draw
            add_trusted(opened, maps, drawn_kind, source, stop.check, clear=clear, joined=joined)
        else:
            clear_trusted(opened.root)
        trusted = read_trusted(opened.root)
    new = sum(entry != before.get(name) for name, entry in trusted.entries.items())
    _say(dataset, trusted, new, joined, as_json=json_output)
    if trusted.entries and not is_quiet() and not json_output:
        console.say(_next(dataset, opened.split(split)))


def _refuse_mixtures(masks: Path | None, draw: str | None, clear: bool, boxes: bool) -> None:
    """Refuse two sources of labels or none, and options that say nothing of the one that is named.

    Raises:
        UsageError: as told above.
    """
    if masks is not None and draw is not None:
        raise UsageError("SOURCE and --draw are two sources of labels", "give one of them")
    if masks is None and draw is None and not clear:
        raise UsageError("nothing to add", "name label maps or a tool's export, or --draw masks")
    if draw is None:
        refuse_useless(("--share", "--seed"), "for labels that are drawn only", "add --draw, or leave it out")
    if masks is None:
        hint = "leave it out" if draw is None else f"leave it out: --draw {draw} says of which kind they are"
        refuse_useless(("--kind", "--rename"), "for labels of a SOURCE only, and none is named", hint)
        if draw is None:
            refuse_useless(("--split", "--box-fill"), "for new labels only, and there are none")
    if not boxes:
        refuse_useless(("--box-fill",), "for boxes only", "add --kind boxes, or leave it out")


def _say(dataset: Path, trusted: TrustedLabels, new: int, joined: Joined, *, as_json: bool) -> None:
    """What labels there are now, and what became of those of several kinds."""
    from wsss_cli.data.images import TURNED

    kinds = Counter(entry.kind for entry in trusted.entries.values())
    if as_json:
        object_ = {"dataset": str(dataset), "new": new, "masks": kinds["mask"], "partial": kinds["partial"]}
        counts = {"joined": joined.photographs, "overruled": joined.overruled, "contradictions": joined.contradictions}
        counts["untagged"] = joined.untagged
        console.result_json({**object_, **counts, "fingerprint": trusted.fingerprint})
        return
    if joined.photographs:
        console.say(
            f"{counted(joined.photographs, 'photograph')} with labels of several kinds, which are joined: "
            f"{counted(joined.overruled, 'pixel')} of a kind that counts less are overruled, "
            f"{counted(joined.contradictions, 'pixel')} of scribbles and partial maps contradict each other and are 255"
        )
    if joined.turned:
        console.say(f"{counted(joined.turned, 'photograph')} {TURNED.format('labels', 'drawn')}")
    if joined.untagged:
        console.say(
            f"{counted(joined.untagged, 'photograph')} with labels of a class that is none of its tags: "
            f"{line('verify', dataset)} names them"
        )
    console.result(f"labels of {dataset}: {kinds['mask']:,} whole masks, {kinds['partial']:,} partial ({new:,} new)")


def _next(dataset: Path, samples: Sequence[Sample]) -> str:
    """The command that comes next: the newest `wsss run` on this data set, by way of these labels.

    Without any tag there are no CAMs to mix labels with. Trials are passed over.
    """
    from wsss_cli.engine.records import find_runs, read_inputs

    way = "mixed" if any(sample.labels for sample in samples) else "partial"
    for path, record in find_runs(RUNS):
        with contextlib.suppress(DataError):
            inputs = read_inputs(path)
            same = not inputs.limit and Path(inputs.dataset).resolve() == dataset.resolve()
            if same and record.argv[1:2] == ("run",) and (after := once_more(record.argv, "train.supervision", way)):
                return f"next: {after}"
    return f"next: {line('run', '--preset', 'NAME', '--data', dataset, '--set', f'train.supervision={way}')}"


def _from_source(
    dataset: Dataset,
    split: str,
    path: Path,
    kind: Literal["mask", "partial", "scribbles", "points", "boxes"],
    box_fill: Literal["crf", "none"],
    rename: list[str] | None,
) -> tuple[str, Iterator[tuple[Sample, Path, np.ndarray]]]:
    """Label maps of a folder of PNGs, or of a tool's export, and where they come from, in words."""
    from wsss_cli.data.drawings.incoming import Wanted, drawn_labels, drawn_on, is_drawing

    source = f"{'' if kind in ('mask', 'partial') else f'{kind} '}from {path.name or path}"
    if not is_drawing(path):
        if rename and path.exists():
            raise UsageError(f"--rename is of the labels of a tool's export, and {path} is none", "leave it out")
        return source, _from_folder(dataset, split, path, whole=kind == "mask")
    boxes = None
    if kind == "boxes":
        from wsss_cli.pseudo.boxes import box_labels

        boxes = partial(box_labels, fill=box_fill)
        source += _inside(box_fill)
    wanted = Wanted(kind, label_renames(rename or ()), boxes)
    drawings = drawn_on(dataset, dataset.split(split), path, wanted, console.say)
    if boxes is None:
        return source, drawn_labels(drawings, path, wanted, 1)
    return source, _with_progress(drawings, path, wanted)


def _inside(box_fill: Literal["crf", "none"]) -> str:
    return f", inside {'told by a dense CRF' if box_fill == 'crf' else 'left open'}"


def _with_progress(
    drawings: Iterator[DrawnOn], path: Path, wanted: Wanted
) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """Label maps of boxes, which all are looked at before the first CRF: about a second of work each."""
    from wsss_cli.data.drawings.incoming import drawn_labels
    from wsss_cli.processes import cores

    every = list(drawings)
    with console.progress(len(every), "boxes") as bar:
        for one in drawn_labels(every, path, wanted, cores()):
            yield one
            bar.advance()


def _from_folder(
    dataset: Dataset, split: str, folder: Path, *, whole: bool
) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """Every label map of a folder, and of those in it.

    Args:
        whole: they are whole masks.
    Raises:
        DataError: there are none, one is of no photograph of the list, or all mean 0 or 255 otherwise.
        UsageError: a prediction for other classes than those of the data set.
    """
    from wsss_cli.data.masks import read_mask
    from wsss_cli.data.sources.foreign import PICTURES, beside_pngs, in_place_of_pngs
    from wsss_cli.data.sources.label_maps import LabelMaps
    from wsss_cli.data.sources.mask_checks import say_swapped
    from wsss_cli.data.sources.results import place_of, places_by_name

    if not folder.exists():
        raise DataError(f"there is no {folder}", "SOURCE is a folder of label maps, or a file that a tool has exported")
    if not folder.is_dir():
        raise DataError(f"{folder} is neither a file nor a folder", "write what it gives into a file, and name that")
    seen = [file for file in folder.rglob("*") if not is_hidden(file.relative_to(folder).as_posix())]
    files = sorted(file for file in seen if file.suffix.lower() == ".png")
    if not files:
        lies, hint = in_place_of_pngs(folder)
        named = "label maps are PNGs named like their photographs, ID.png"
        raise DataError(f"there is no .png in {folder}{lies}", hint or named)
    samples = dataset.split(split)
    places = places_by_name(samples)
    chosen: dict[int, Path] = {}
    for file in files:
        place = place_of(file.relative_to(folder).as_posix(), places, of_map=True)
        if place is None:
            raise DataError(
                f"{file} is of no photograph of split {split!r}",
                f"take it out, or name its list with --split; those of this one are called such as {samples[0].id}.png",
            )
        if place in chosen:
            raise DataError(f"{chosen[place]} and {file} are of one photograph", "leave one")
        chosen[place] = file
    for line_ in beside_pngs(map(str, seen), "label maps", (".json", ".xml", *PICTURES)):
        console.say(line_)
    say_swapped(list(chosen.values()))
    if (folder.parent / "made.jsonl").is_file():  # of predictions
        from wsss_cli.inference.journal import refuse_other_classes

        names = (file.relative_to(folder).with_suffix("").as_posix() for file in files)
        refuse_other_classes(folder.parent, names, dataset.classes, str(dataset.root))
    tagless = not any(sample.labels for sample in samples)
    maps = LabelMaps(folder, whole)
    with console.progress(len(chosen), "labels") as bar:
        for place, file in chosen.items():
            labels = read_mask(file)
            yield samples[place], file, labels
            maps.see(labels, shows=tagless or bool(samples[place].labels))
            bar.advance()
    maps.refuse_odd()
    for line_ in maps.lines():
        console.say(line_)


def _drawn(
    dataset: Dataset,
    split: str,
    draw: Literal["masks", "scribbles", "points", "boxes"],
    box_fill: Literal["crf", "none"],
    share: float,
    seed: int,
) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """Labels of a share of the photographs that have a true mask, chosen by the seed.

    Raises:
        DataError: none has one.
    """
    import numpy as np

    from wsss_cli.data.sources.drawn import drawn_on_masks

    samples = dataset.split(split)
    masked = [place for place, there in enumerate(samples.masked) if there]
    if not masked:
        raise DataError(f"no photograph of split {split!r} has a true mask to draw from", "name a folder of label maps")
    count = round(share * len(masked))
    if not count:
        raise UsageError(f"--share {share:g} of {len(masked)} photographs is none", "a larger share")
    chosen = np.random.default_rng(seed).permutation(len(masked))[:count]
    places = sorted(masked[int(number)] for number in chosen)
    fill = None
    if draw == "boxes" and box_fill == "crf":
        from wsss_cli.pseudo.boxes import box_labels

        fill = partial(box_labels, fill="crf")
    rows = ((samples[place], seed + place) for place in places)
    with console.progress(count, f"drawing {draw}") as bar:
        for one in drawn_on_masks(rows, draw, fill):
            yield one
            bar.advance()
