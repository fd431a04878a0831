"""`wsss bench crf`, `cam` and `walk`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.following import refuse_useless
from wsss_cli.cli.options import RUNS, DeviceOption, JsonOption, SetOption

BenchPreset = Annotated[
    str,
    typer.Option(
        "--preset",
        "-p",
        metavar="NAME",
        autocompletion=completion.presets,
        help="Preset; by default R-50 on a GPU, toy on a CPU.",
    ),
]
DataDir = Annotated[str, typer.Option("--data", metavar="DIR", help="Data set whose images to take, not drawn ones.")]
Repeats = Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Turns of every row; the median counts.")]
AS_THEY_ARE = (("--height", "--width"), "for photographs that are drawn only; those of --data are taken as they are")
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**62 - 1, help="Seed of images, scores and weights.")]
Height = Annotated[
    int, typer.Option(metavar="N", min=0, max=16384, help="Of the images, pixels; 0: 375 on a GPU, less on a CPU.")
]
Width = Annotated[
    int, typer.Option(metavar="N", min=0, max=16384, help="Of the images, pixels; 0: 500 on a GPU, less on a CPU.")
]
Images = Annotated[
    int, typer.Option(metavar="N", min=0, max=10**6, help="Images in a call; 0: as many as suit the device.")
]


def crf(
    height: Height = 0,
    width: Width = 0,
    labels: Annotated[int, typer.Option(metavar="N", min=2, max=255, help="Labels, background included.")] = 21,
    parameters: Annotated[
        Literal["irn", "psa", "deeplab", "toco"], typer.Option(help="Published set of kernel parameters.")
    ] = "irn",
    iterations: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Mean-field iterations.")] = 10,
    backends: Annotated[
        str, typer.Option(metavar="A,B,...", help="Rows, separated by commas.")
    ] = "lattice,exact,triton",
    repeats: Repeats = 3,
    seed: Seed = 0,
    data: DataDir = "",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Dense CRF: milliseconds an image, backend by backend, and whether they give the same labels.

    \b
    wsss bench crf
    wsss bench crf --parameters deeplab --labels 21 --height 375 --width 500
    wsss bench crf --backends lattice,exact --height 64 --width 64 --json

    lattice and pydensecrf2 run on one core; exact computes all pairs of pixels with torch; triton does so with a kernel
    of its own on a GPU. A call goes from arrays to arrays.
    """
    from wsss_cli.bench.crf import bench_crf

    names = [name.strip() for name in backends.split(",") if name.strip()]
    with stage.working(device, RUNS) as ctx:
        measured = bench_crf(
            ctx,
            size=(height, width),
            labels=labels,
            parameters=parameters,
            iterations=iterations,
            backends=names,
            repeats=repeats,
            seed=seed,
            data=data,
        )
    show(measured, json_output)


def cam(
    preset: BenchPreset = "",
    overrides: SetOption = None,
    images: Images = 0,
    height: Height = 0,
    width: Width = 0,
    repeats: Repeats = 3,
    seed: Seed = 0,
    data: DataDir = "",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """CAMs over all scales and mirrored views: images a second, batched and one view at a time.

    \b
    wsss bench cam
    wsss bench cam --preset deeplabv3p-r50-voc-weak --data data/voc-aug --images 128
    wsss bench cam --preset toy --set cam.scales=[1.0,2.0] --images 4 --json

    Random weights. Computing alone, and with files: decoding the photographs and writing the CAMs, as `wsss cam` does.
    The package grad-cam has a row where it is installed.
    """
    if data:
        refuse_useless(*AS_THEY_ARE)
    from wsss_cli.bench.cam import bench_cam

    with stage.working(device, RUNS) as ctx:
        resolved = stage.resolve(preset or default_preset(ctx), overrides)
        measured = bench_cam(
            resolved, ctx, images=images, height=height, width=width, repeats=repeats, seed=seed, data=data
        )
    show(measured, json_output)


def walk(
    height: Height = 0,
    width: Width = 0,
    classes: Annotated[int, typer.Option(metavar="N", min=1, max=255, help="Maps that walk.")] = 3,
    radius: Annotated[
        int, typer.Option(metavar="N", min=2, max=32, help="Steps of the walk are shorter than this.")
    ] = 5,
    iterations: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Steps of the walk.")] = 256,
    repeats: Repeats = 3,
    seed: Seed = 0,
    data: DataDir = "",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Random walk (stride 4) and PAR (half size): milliseconds an image, and the largest difference of results.

    \b
    wsss bench walk
    wsss bench walk --height 375 --width 500 --classes 2
    wsss bench walk --height 128 --width 160 --json

    The plain torch paths, the Triton kernels on a GPU, and the published ways: the walk as a power of one dense matrix
    (left out where it would take long), PAR with all neighbours gathered by dilated convolutions.
    """
    from wsss_cli.bench.walk import bench_walk

    with stage.working(device, RUNS) as ctx:
        measured = bench_walk(
            ctx,
            height=height,
            width=width,
            classes=classes,
            radius=radius,
            iterations=iterations,
            repeats=repeats,
            seed=seed,
            data=data,
        )
    show(measured, json_output)


def default_preset(ctx: Any) -> str:
    """The preset that suits a device."""
    return "toy" if ctx.device.type == "cpu" else "deeplabv3p-r50-voc-weak"


def show(measured: dict[str, Any], json_output: bool) -> None:
    """A benchmark as one JSON object, or as a table."""
    if json_output:
        console.result_json(measured)
        return
    from wsss_cli.report.benchmarks import bench_table

    console.table(bench_table(measured))
