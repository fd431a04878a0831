"""`wsss prepare`."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_cli.cli import console, labels, template
from wsss_cli.cli.commands import App
from wsss_cli.cli.following import line, refuse_useless
from wsss_cli.cli.options import JsonOption, ShardOption
from wsss_cli.cli.preparing import (
    alone,
    any_preset,
    fetching,
    report,
    say_fetched,
    share,
    short_schedule,
    ticking,
    whole,
)
from wsss_cli.cli.sharded import chosen
from wsss_cli.engine.stop import Stop
from wsss_cli.errors import DataError, UsageError
from wsss_cli.processes import cores

app = App(help="Make a data set directory: images, tags and (for scoring) masks, in the form that every stage reads.")
app.command("template")(template.template)
app.command("labels")(labels.labels)
OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Data set directory to write; data/NAME if left out.")
]
WorkersOption = Annotated[
    int, typer.Option(metavar="N", min=0, max=1024, help="Worker processes; 0: one for each core.")
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch what is missing from its official site.")]


class Unlabelled(enum.StrEnum):
    """What becomes of validation images without a tag."""

    keep = "keep"
    drop = "drop"


@app.command()
def toy(
    images: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Training images.")] = 400,
    val: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=10**6, help="Validation images; a quarter of --images if left out."),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=2**62 - 1, help="The same seed gives the same bytes.")
    ] = 0,
    size: Annotated[int, typer.Option(metavar="N", min=32, max=2048, help="Side of the square images, pixels.")] = 128,
    out: OutOption = None,
    json_output: JsonOption = False,
) -> None:
    """Draw a small data set in the VOC layout, with masks for scoring.

    \b
    wsss prepare toy
    wsss prepare toy --images 240 --seed 1 --out data/toy-1
    """
    from wsss_cli.data.sources.toy import prepare_toy

    out = out or Path("data/toy")
    total = images + (max(1, images // 4) if val is None else val)
    with alone(out), console.progress(total, "drawing") as bar:
        prepared = prepare_toy(
            out, images=images, val=val, seed=seed, size=size, tick=lambda done, total: bar.advance(1)
        )
    report(prepared, out, json_output, line("run", "--preset", "toy", "--data", out))


@app.command("voc-aug")
def voc_aug(
    devkit: Annotated[Path | None, typer.Option(metavar="DIR", help="VOCdevkit; searched for if left out.")] = None,
    sbd: Annotated[Path | None, typer.Option(metavar="DIR", help="SBD's benchmark_RELEASE.")] = None,
    aug_masks: Annotated[Path | None, typer.Option(metavar="DIR", help="A ready SegmentationClassAug.")] = None,
    tags: Annotated[Path | None, typer.Option(metavar="FILE", help="Lines `id tag tag ...`, or CSV id,labels.")] = None,
    tags_from_masks: Annotated[bool, typer.Option("--tags-from-masks", help="Take tags from masks; noted.")] = False,
    classes: Annotated[str, typer.Option(metavar="A,B,...", help="Keep these classes; the others become 255.")] = "",
    download: DownloadOption = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the data set.")] = "voc-aug",
    out: OutOption = None,
    workers: WorkersOption = 0,
    shard: ShardOption = "",
    json_output: JsonOption = False,
) -> None:
    """Pascal VOC 2012 + SBD: the splits train_aug (10,582 images), train (1,464) and val (1,449).

    \b
    wsss prepare voc-aug
    wsss prepare voc-aug --devkit ~/VOCdevkit --sbd ~/benchmark_RELEASE
    wsss prepare voc-aug --classes cat,cow,dog,horse,person,sheep --name voc-animals
    wsss prepare voc-aug --shard 3/16
    wsss prepare voc-aug --download

    Looks for the devkit in ./VOCdevkit, ./data/VOCdevkit and $WSSS_DATA, and for benchmark_RELEASE beside it;
    --download (3.4 GB, goes on after a break) puts both into $WSSS_DATA or ./data. Tags come from Annotations/*.xml,
    else from ImageSets/image_labels.txt. A devkit with shorter lists is taken as they say, and every score then says
    "subset".
    """
    from wsss_cli.data.sources.devkit import VocSource, download_voc, find_devkit, with_sbd_beside
    from wsss_cli.data.sources.voc import prepare_voc, voc_preparation

    out = out or Path("data") / name
    names = _class_names(classes)
    if download:
        with fetching() as tell:
            say_fetched(download_voc(devkit, sbd=sbd is None and aug_masks is None, tell=tell))
    source = with_sbd_beside(VocSource(find_devkit(devkit), sbd, aug_masks, tags, tags_from_masks, names))
    console.say(f"devkit: {source.root}{f', SBD: {source.sbd}' if source.sbd else ''}")
    with (
        ticking("checking masks") as tick_looks,
        ticking("converting masks") as tick,
        Stop(console.say_at_once).listening() as stop,
    ):
        if part := chosen(shard, 1):
            work = voc_preparation(source, out, name, check=stop.check, workers=workers or cores())
            prepared = share(work, out, part, stop.check, tick_looks, json_output)
        else:
            with whole(out):
                prepared = prepare_voc(
                    source, out, name, check=stop.check, workers=workers or cores(), tick=tick, tick_looks=tick_looks
                )
    report(prepared.dataset, out, json_output, any_preset(out), prepared.findings, prepared.lines, prepared.summary)


@app.command()
def coco14(
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder with annotations/; searched for.")] = None,
    val_unlabelled: Annotated[
        Unlabelled, typer.Option(help="Validation images without a tag: keep all 40,504, or drop to 40,137.")
    ] = Unlabelled.keep,
    orientation: Annotated[
        Literal["auto", "stored", "shown"],
        typer.Option(
            help="Annotations were made on the pixels as stored, or as EXIF shows them; auto: by their sizes."
        ),
    ] = "auto",
    download: DownloadOption = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the data set.")] = "coco14",
    out: OutOption = None,
    workers: WorkersOption = 0,
    shard: ShardOption = "",
    json_output: JsonOption = False,
) -> None:
    """MS COCO 2014, 80 classes: the splits train (82,081 images) and val (40,504).

    \b
    wsss prepare coco14
    wsss prepare coco14 --root ~/coco --out data/coco14
    wsss prepare coco14 --val-unlabelled drop --name coco14-labelled
    wsss prepare coco14 --shard 3/16
    wsss prepare coco14 --download

    Looks for annotations/, train2014/ and val2014/ in ./coco, ./data/coco, ./COCO, ./data/COCO and $WSSS_DATA;
    --download (20 GB, goes on after a break) puts them into the one it finds, else $WSSS_DATA/coco or ./data/coco.
    Masks are painted from the instances, larger ones first; crowd regions become 255. The hash of all masks is printed:
    two users with the same one have the same ground truth. COCO-Stuff is out of scope.

    Masks come upright as the photographs do. Where EXIF turns photographs, the sizes in the JSON tell once for all of
    them on which pixels annotations were made; where they do not tell, it is the pixels as stored, and that is said.
    """
    from wsss_cli.data.sources.coco import coco_preparation, prepare_coco
    from wsss_cli.data.sources.coco_root import download_coco, find_coco

    out = out or Path("data") / name
    if download:
        with fetching() as tell:
            say_fetched(download_coco(root, tell))
    source = find_coco(root)
    console.say(f"COCO: {source}")
    keep, processes = val_unlabelled is Unlabelled.keep, workers or cores()
    with (
        ticking("reading sizes") as tick_sizes,
        ticking("painting masks") as tick,
        Stop(console.say_at_once).listening() as stop,
    ):
        if part := chosen(shard, 1):
            work = coco_preparation(
                source,
                out,
                name,
                check=stop.check,
                keep_unlabelled=keep,
                orientation=orientation,
                workers=processes,
            )
            prepared = share(work, out, part, stop.check, tick, json_output)
        else:
            with whole(out):
                prepared = prepare_coco(
                    source,
                    out,
                    name,
                    check=stop.check,
                    keep_unlabelled=keep,
                    orientation=orientation,
                    workers=processes,
                    tick=tick,
                    tick_sizes=tick_sizes,
                )
    report(prepared.dataset, out, json_output, any_preset(out), prepared.findings, prepared.lines, prepared.summary)


@app.command()
def folder(
    images: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    table: Annotated[
        Path | None, typer.Argument(metavar="LABELS.csv", help="CSV with the columns image and labels (cat|dog).")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="PNG masks of some images, for scoring: 001.png for 001.jpg.")
    ] = None,
    classes: Annotated[str, typer.Option(metavar="A,B,...", help="Classes in the order of mask values 1, 2, ...")] = "",
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Take the tag OLD as NEW; OLD= drops it. May be given several times."),
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(metavar="N", min=0.0, max=0.9, help="Share of masked images for validation.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**62 - 1, help="Seed of the validation draw.")] = 0,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the data set.")] = "",
    out: OutOption = None,
    workers: WorkersOption = 0,
    shard: ShardOption = "",
    json_output: JsonOption = False,
) -> None:
    """Your own photographs and image tags; no masks needed.

    \b
    wsss prepare folder photos/ labels.csv --out data/mine
    wsss prepare folder photos/ labels.csv --out data/mine --shard 3/16
    wsss prepare folder photos/ labels.csv --masks masks/ --classes cat,dog --out data/mine

    labels.csv begins with the line image,labels; then for example holiday/001.jpg,cat|person. In place of labels each
    class may have a column of 0 and 1. Columns are separated by comma, semicolon or tab; a column split (train or val)
    is optional. A list as JSON or Python write it is taken, too.

    In masks 0 is the background, 1, 2, ... are the classes, 255 is not scored. Photographs and masks are all looked at
    before anything is written. What cannot be used is left out and listed in findings.json: a photograph (exit code
    3), or a mask alone (its photograph stays, exit code 0).
    """
    from wsss_cli.data.sources.folder import FolderSettings, folder_preparation, prepare_folder
    from wsss_cli.data.sources.listed import FolderSource

    if table is None:
        raise UsageError(
            "no table of tags is named",
            f"{line('prepare', 'template', images)} writes one to fill in; with --from-folders, a tag for each folder",
        )
    if masks is None:
        refuse_useless(("--val-fraction", "--seed"), "for a draw of photographs with masks only", "add --masks DIR")
    name = name or (out.name if out else images.resolve().name)
    out = out or Path("data") / name
    names = _class_names(classes)
    source = FolderSource(images, table, masks, names, _renames(rename or []))
    settings = FolderSettings(name, val_fraction, seed)
    part = chosen(shard, 1)
    with ticking("checking images") as tick, Stop(console.say_at_once).listening() as stop:
        if part:
            work = folder_preparation(source, out, settings, check=stop.check, workers=workers or cores())
            prepared = share(work, out, part, stop.check, tick, json_output)
        else:
            with whole(out):
                prepared = prepare_folder(
                    source, out, settings, check=stop.check, workers=workers or cores(), tick=tick
                )
    after = line("run", "--preset", "folder-lite0", "--data", out, *short_schedule(prepared.dataset))
    left_out = [finding for finding in prepared.findings if finding["lost"] == "photograph"]
    masks_lost = [finding for finding in prepared.findings if finding["lost"] == "mask"]
    if masks_lost:
        console.complain(
            f"masks left out: {len(masks_lost)}, first: {masks_lost[0]['problem']}; see {out}/findings.json"
        )
    report(prepared.dataset, out, json_output, after, prepared.findings, prepared.lines, prepared.summary)
    if left_out:
        lost = DataError(
            f"photographs left out: {len(left_out)}, first: {left_out[0]['problem']}; all others are in",
            f"{out}/findings.json lists each with its fix; the data set can be used as it is",
        )
        if not json_output:
            raise lost
        console.complain(f"error: {lost}")  # raised, it would become a second JSON object
        raise typer.Exit(lost.exit_code)


def _class_names(text: str) -> tuple[str, ...]:
    """Names of --classes, A,B,...

    Raises:
        UsageError: one is empty, occurs twice (case aside), or is the background.
    """
    if not text.strip():
        return ()
    names = tuple(label.strip() for label in text.split(","))
    for at, label in enumerate(names):
        if not label:
            raise UsageError(
                f"--classes {text}: a name is empty", "write the names with one comma between two: cat,dog"
            )
        if label.casefold() == "background":
            raise UsageError(f"--classes {text}: the background is class 0 by itself", f"leave {label} out")
        if label.casefold() in {other.casefold() for other in names[:at]}:
            raise UsageError(f"--classes {text}: names {label!r} twice", "name each class once")
    return names


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    """OLD=NEW pairs of --rename.

    Raises:
        UsageError: one has no '=', no name before it or none of a class behind it, or two rename one tag.
    """
    renames: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not old.strip() or not equals:
            raise UsageError(f"--rename {pair}: not of the form OLD=NEW", "for example --rename Cat=cat")
        if renames.get(old.strip(), new.strip()) != new.strip():
            raise UsageError(f"--rename {pair}: {old.strip()!r} is renamed twice", "leave out one of them")
        if new.strip():
            _check_new(pair, old.strip(), new.strip())
        renames[old.strip()] = new.strip()
    return renames


def _check_new(pair: str, old: str, new: str) -> None:
    """Refuse a new name that no class can have, as what was asked for, not as what the table holds."""
    from wsss_cli.data.sources.tags import check_label

    try:
        check_label(new, "--rename")
    except DataError as error:
        why, drop = error.message.removeprefix("--rename: "), shlex.quote(f"{old}=")
        raise UsageError(f"--rename {pair}: {why}", f"name one class; --rename {drop} drops the tag") from error
