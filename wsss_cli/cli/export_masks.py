"""`wsss export-masks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.following import line, refuse_useless
from wsss_cli.cli.options import JsonOption
from wsss_cli.errors import UsageError
from wsss_cli.talk import counted


def export_masks(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            autocompletion=completion.runs("pseudo"),
            help="A pseudo run, or a folder that wsss infer wrote.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder that is not there yet.")],
    form: Annotated[
        Literal["png", "coco", "label-studio", "cvat"], typer.Option("--format", help="What the tool reads.")
    ] = "png",
    count: Annotated[int, typer.Option(metavar="N", min=0, max=10**9, help="The first N photographs; 0: all.")] = 0,
    share: Annotated[
        float, typer.Option(metavar="F", min=0.0, max=1.0, help="In place of --count: share of the photographs.")
    ] = 1.0,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data set directory; a pseudo run knows its own.")
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="The list of the photographs; if left out, that of the run, or train.")
    ] = "",
    prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="With label-studio: what it finds photographs under.")
    ] = "/data/local-files/?d=",
    photographs: Annotated[
        bool,
        typer.Option("--photographs", help="Copy the photographs, too: photographs/, named as the export has them."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Write masks for annotators to correct, the dearest mistakes first.

    order.csv has of each photograph the share of its pixels that is expected to be wrong, and what these are expected
    to take from the mean IoU of all masks, by which the order goes. Photographs that have a whole mask in
    DATASET/trusted are left out. What is corrected comes back by `wsss prepare labels`.

    \b
    wsss export-masks runs/pseudo-mine-1a2b3c4d --format cvat --count 50 --photographs --out to-correct
    wsss export-masks runs/pseudo-mine-1a2b3c4d --format label-studio --share 0.05 --out to-correct
    wsss export-masks predicted/ --data data/mine --out to-correct
    """
    from wsss_cli.stages.export_masks import masks_of_run, rank, refuse_taken, write_export

    if count and share < 1:
        raise UsageError("--count and --share both say how many photographs", "give one of them")
    if form != "label-studio":
        refuse_useless(("--prefix",), "for --format label-studio only")
    refuse_taken(out)
    with stage.working("cpu", run.parent) as ctx:
        source = masks_of_run(run, data, split, console.say)
        ranked = rank(source, ctx)
        total = len(ranked.samples)
        wanted = min(count or round(share * total), total)
        if not wanted:
            raise UsageError(f"--share {share:g} of {counted(total, 'photograph')} is none", "a larger share")
        files = write_export(source, ranked, wanted, form, out, ctx, prefix, photographs=photographs)
    known, calibration = ranked.wrong[:wanted], ranked.calibration
    wrong = None if known[0] is None else sum(one or 0.0 for one in known) / wanted
    if json_output:
        object_ = {"out": str(out), "format": form, "photographs": wanted, "of": total, "corrected": ranked.corrected}
        ece = None if calibration is None else calibration.error
        console.result_json({**object_, "files": [str(file) for file in files], "wrong": wrong, "ece": ece})
        return
    console.result(f"{counted(wanted, 'mask')} of {total:,} in {', '.join(map(str, files))}")
    if ranked.corrected:
        console.result(f"left out: {counted(ranked.corrected, 'photograph')} with a whole mask in trusted/")
    if wrong is None:
        console.result("no confidence is known of these masks: they are in the order of the list")
    else:
        console.result(f"expected share of wrong pixels in them: {100 * wrong:.1f} %")
        console.result(
            "confidence as it was given, held against no true masks"
            if calibration is None
            else f"confidence held against {counted(calibration.images, 'true mask')}: expected calibration error "
            f"{100 * calibration.error:.1f} %"
        )
    console.say(f"next: {line('prepare', 'labels', source.dataset.root, 'CORRECTED')}")
