"""`wsss show`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.following import refuse_useless
from wsss_cli.cli.options import RUNS, DataOption, DeviceOption, JsonOption, RunsOption, SetOption, written_file
from wsss_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from wsss_cli.engine.context import Context
    from wsss_cli.stages.show import Choice

DATA = "data"  # in place of a run: training samples


def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|data",
            autocompletion=completion.runs("cam", "pseudo", "train"),
            help="A run; data: training samples of a preset. If left out, the newest training.",
        ),
    ] = "",
    photographs: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="How many, from all over the list.")
    ] = 8,
    image: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Show this photograph in place of those; repeatable.")
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="train|val", help="Of a run; if left out val for trainings, else train.")
    ] = "",
    layer: Annotated[
        str, typer.Option(metavar="NAME", help="Show what a layer of the run's network gives, as colours.")
    ] = "",
    preset: Annotated[
        str,
        typer.Option(
            "--preset", "-p", metavar="NAME", autocompletion=completion.presets, help="With data: whose samples."
        ),
    ] = "",
    overrides: SetOption = None,
    data: DataOption = "",
    masks: Annotated[
        Path | None, typer.Option(metavar="RUN", help="With data: the pseudo run whose masks are shown.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=written_file, help="The picture, .png or .jpg; if left out, in the run."),
    ] = None,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Show CAMs, pseudo masks, predictions, features or training samples: one sheet, a photograph a row.

    \b
    wsss show    # predictions of the newest training
    wsss show runs/pseudo-toy-1a2b3c4d --photographs 12
    wsss show runs/train-toy-1a2b3c4d --image train_000003 --out three.png
    wsss show runs/train-toy-1a2b3c4d --layer backbone.net.layer4
    wsss show data --preset toy --out samples.png

    Terminals that can (kitty, Ghostty, WezTerm, iTerm2) show the sheet at once. The legend names the classes; errors
    are blue where an object is missed, orange where there is none, pink where it is of another class.
    """
    _refuse_mixtures(what, split, layer, preset, overrides, data, masks)
    if image:
        refuse_useless(("--photographs",), "--image names those that are shown", "give one of them")
    out = picture_file(out)
    if split not in ("", "train", "val"):
        raise UsageError(f"--split {split}: it is train or val")
    resolved = stage.resolve(preset, overrides, data) if what == DATA else None
    with stage.working(device, runs) as ctx:
        from wsss_cli.report.pictures import encoded, write_picture
        from wsss_cli.stages.show import Choice, show_training

        choice = Choice(photographs, tuple(image or ()), split)
        if resolved is not None:
            from wsss_cli.stages.plan import open_experiment

            picture = show_training(open_experiment(resolved, runs), masks, choice, ctx)
            path = out or Path("samples.png")
        else:
            run, picture = _of_run(what, layer, choice, ctx)
            path = out or run / (f"features.{layer}.png" if layer else "show.png")
        write_picture(path, picture)
    if json_output:
        console.result_json({"picture": str(path), "height": picture.shape[0], "width": picture.shape[1]})
        return
    console.picture(encoded(picture))
    console.result(f"picture: {path}")


def picture_file(out: Path | None) -> Path | None:
    """The file that --out names.

    Raises:
        UsageError: it is a folder, or no name of a picture.
        WriteError: its folder cannot be made or written.
    """
    from wsss_cli.files import refuse_unwritable

    if out is not None:
        refuse_unwritable(out)
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise UsageError(f"--out {out}: the picture ends in .png or .jpg", shlex.join(["--out", f"{out}.png"]))
    return out


def _of_run(what: str, layer: str, choice: Choice, ctx: Context) -> tuple[Path, np.ndarray]:
    from wsss_cli.engine.records import is_run
    from wsss_cli.scoring.results import newest_run
    from wsss_cli.stages.show import show_layer, show_run

    run = Path(what) if what else newest_run(ctx.runs)
    if not is_run(run) and is_run(ctx.runs / what):
        run = ctx.runs / what
    return run, show_layer(run, layer, choice, ctx) if layer else show_run(run, choice, ctx)


def _refuse_mixtures(
    what: str,
    split: str,
    layer: str,
    preset: str,
    overrides: list[str] | None,
    data: str,
    masks: Path | None,
) -> None:
    """Refuse options that say nothing of what is shown."""
    of_data = {"--preset": preset, "--set": overrides, "--data": data, "--masks": masks}
    of_run = {"--layer": layer, "--split": split}
    others = [name for name, value in (of_run if what == DATA else of_data).items() if value]
    if others:
        kind = "a run" if what == DATA else "wsss show data"
        raise UsageError(f"{', '.join(others)}: for {kind} only", "see wsss show --help")
    if what == DATA and not preset:
        raise UsageError("wsss show data needs a preset", "wsss show data --preset toy; wsss presets list names them")
