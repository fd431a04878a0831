"""`wsss infer`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import console, sharded, stage
from wsss_cli.cli.following import line
from wsss_cli.cli.options import (
    RUNS,
    AddressOption,
    BestOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    LimitOption,
    ModeOption,
    MsFlipOption,
    NetworkArgument,
    RunsOption,
    ShardOption,
    WeightsOption,
)
from wsss_cli.errors import UsageError
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from wsss_cli.engine.shards import Shard
    from wsss_cli.inference.tiles import Tiles

TileOption = Annotated[
    int | None,
    typer.Option(
        min=32, max=65536, metavar="PIXELS", help="Cut photographs that are larger than this into squares of it."
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, metavar="PIXELS", help="That neighbouring squares share; an eighth of --tile if left out."
    ),
]
OverlaysOption = Annotated[bool, typer.Option(help="Write the masks over the photographs too.")]
ConfidenceOption = Annotated[
    bool, typer.Option("--confidence", help="Write how sure the network is, too: confidence/, grey, 255 = 1.")
]

NumbersOption = Annotated[
    bool, typer.Option("--numbers", help="Write class numbers without colours, too: numbers/, plain grey PNGs.")
]
ColorsOption = Annotated[
    bool, typer.Option("--colors", help="Write masks in the classes' colours, too: colors/, RGB PNGs.")
]
WEIGHT_ENDINGS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".onnx", ".h5")
KINDS = ("overlays", "confidence", "numbers", "colors", "soft", "geotiff")  # of what is written beside masks
SoftOption = Annotated[
    bool, typer.Option("--soft", help="Write the scores of every class, too: soft/, NumPy files, uint8, 255 = 1.")
]

GeotiffOption = Annotated[
    bool, typer.Option("--geotiff", help="Write masks of GeoTIFFs as such, too: geotiff/, in the same place on earth.")
]

EveryOption = Annotated[
    int | None, typer.Option(min=1, max=10**6, metavar="N", help="Of videos, the first of every N frames.")
]


def infer(
    run: NetworkArgument = None,
    images: Annotated[
        list[str] | None, typer.Argument(help="Images, folders, videos, or quoted glob patterns.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where masks/ and overlays/ go.")],
    ms_flip: MsFlipOption = False,
    mode: ModeOption = None,
    tile: TileOption = None,
    overlap: OverlapOption = None,
    overlays: OverlaysOption = True,
    confidence: ConfidenceOption = False,
    numbers: NumbersOption = False,
    colors: ColorsOption = False,
    soft: SoftOption = False,
    geotiff: GeotiffOption = False,
    best: BestOption = False,
    weights: WeightsOption = None,
    every: EveryOption = None,
    limit: LimitOption = 0,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    shard: ShardOption = "",
    engine: EngineOption = "local",
    address: AddressOption = "",
    json_output: JsonOption = False,
) -> None:
    """Segment photographs with a trained network: palette PNGs, and overlays to look at.

    \b
    wsss infer photos/ --out predicted    # by the newest training
    wsss infer runs/train-toy-1a2b3c4d photos/ --out predicted --ms-flip
    wsss infer runs/train-toy-1a2b3c4d large/ --out predicted --tile 1024 --overlap 128
    wsss infer runs/train-toy-1a2b3c4d large/ --out predicted --mode slide
    wsss infer runs/train-toy-1a2b3c4d 'photos/2024-*.jpg' --out predicted --no-overlays
    wsss infer runs/train-toy-1a2b3c4d photos/ --out predicted --numbers --colors --soft
    wsss infer runs/train-toy-1a2b3c4d aerial/ --out predicted --tile 1024 --geotiff
    wsss infer runs/train-toy-1a2b3c4d clip.mp4 --out predicted --every 5
    wsss infer runs/train-toy-1a2b3c4d photos/ --out predicted --gpus 4
    wsss infer runs/train-toy-1a2b3c4d photos/ --out predicted --shard 3/16
    wsss infer runs/train-toy-1a2b3c4d photos/ --out predicted --engine ray

    What is in the folder already from this network, with these settings and of the same photographs, is kept: run again
    to go on. A photograph that cannot be read is named, and the others go on. Folders within a folder are searched too;
    the mask of photos/trip/1.jpg is trip/1.png.

    Of a video, masks/clip/000001.png is that of the first frame of clip.mp4; its frames are decoded one after another.

    --tile is for photographs of many megapixels: each square is segmented as if it were a photograph, so memory is that
    of a square, and the photograph's pixels; where two overlap, the one whose centre is nearer decides. A photograph
    that is no larger is segmented whole.

    --mode slide takes less memory than whole photographs, and more than --tile: the network sees windows of eval.window
    pixels, eval.stride apart, and scores are averaged where they overlap, as in `wsss eval --mode slide`.
    """
    from wsss_cli.inference.network import Which
    from wsss_cli.stages.infer import run_infer
    from wsss_cli.stages.infer_all import infer_all

    run, images = run_and_photographs(run, images or [], runs)
    part = sharded.chosen(shard, gpus)
    tiles = tiles_of(tile, overlap)
    ray = stage.ray_address(engine, address, gpus, shard, device)
    paths, videos, limited = named(images, out, limit, every, alone=gpus == 1 and engine == "local")
    stage.on_ranks(gpus, device)
    with stage.working(device, run.parent, ray=ray) as ctx:
        network = stage.network_of(run, ctx, Which("best" if best else "latest", weights or ""))
        beside = list(compress(KINDS, (overlays, confidence, numbers, colors, soft, geotiff)))
        how: dict[str, Any] = {"ms_flip": ms_flip, "beside": beside, "mode": mode or "", "tiles": tiles, "shard": part}
        infer_these = partial(run_infer, network=network, out=out, ctx=ctx, **how)
        summary = infer_all(infer_these, paths, videos, ctx, every=every or 1, limit=limit)
    if json_output:
        console.result_json({**summary, "limit": limit} if limited else summary)
    else:
        _show(summary, limited)
    if part is not None:
        _say_missing(part, summary["missing"])
    stage.finish(str(out), False, summary["lost"], "", json_output)


def named(
    images: list[str], out: Path, limit: int, every: int | None, *, alone: bool
) -> tuple[Sequence[str], list[Path], str]:
    """Photographs and videos that a command line names, and a line that says where these are not all.

    Args:
        alone: one process does all the work.
    Raises:
        UsageError: there are none; --every without videos; videos and several processes.
    """
    from wsss_cli.stages.clips import videos_of
    from wsss_cli.stages.photographs import find_images

    videos, others = videos_of(images)
    if videos and not alone:
        raise UsageError(f"{videos[0]} is decoded by one process", "--shard 1/4 and so on divide its frames among jobs")
    if every is not None and not videos:
        raise UsageError(f"--every {every} is for videos, and none is named", "leave it out")
    paths = find_images(others, out, console.say) if others else []
    limited = f"limit {limit}: the first {limit} of {len(paths)} photographs" if 0 < limit < len(paths) else ""
    if limit and videos:
        limited = f"limit {limit}: the first {limit} frames of each video, and as many photographs"
    return (paths[:limit] if limited else paths), videos, limited


def _say_missing(part: Shard, counts: dict[str, int]) -> None:
    """Say of which shards masks are missing."""
    missing = ", ".join(f"{each} ({count})" for each, count in counts.items())
    console.say(f"shard {part}: {f'without a mask are photographs of {missing}' if missing else 'all masks are there'}")


def _show(summary: dict[str, Any], limited: str) -> None:
    """Print what was written, and where."""
    note = f" ({summary['kept']} were there already)" if summary["kept"] else ""
    console.result(f"{counted(summary['images'], 'mask')} in {summary['masks']}{note}")
    if limited:
        console.result(limited)
    for kind in (kind for kind in KINDS if summary.get(kind)):
        there = kind != "geotiff" or Path(summary[kind]).is_dir()
        console.result(f"{kind} in {summary[kind]}" if there else "geotiff: no photograph is a georeferenced TIFF")


def tiles_of(side: int | None, overlap: int | None) -> Tiles | None:
    """What --tile and --overlap mean; None: neither is given.

    Raises:
        UsageError: an overlap alone, or one that is no smaller than a tile.
    """
    from wsss_cli.inference.tiles import Tiles

    if side is None:
        if overlap is not None:
            raise UsageError(f"--overlap {overlap} is that of tiles, and there are none", "add --tile 1024")
        return None
    return Tiles(side, side // 8 if overlap is None else overlap)


def run_and_photographs(first: Path | None, others: list[str], runs: Path) -> tuple[Path, list[str]]:
    """The run and the photographs of a command line whose first word is either.

    Raises:
        UsageError: no photographs; photographs alone, and there is no finished training; or a weight file.
    """
    from wsss_cli.inference.network import is_network

    if first is None:
        raise UsageError("no photographs are named", "wsss infer photos/ --out DIR")
    if is_network(first):
        if not others:
            raise UsageError(f"no photographs are named after {first}", line("infer", first, "photos/", "--out", "DIR"))
        return first, others
    if first.suffix.lower() in WEIGHT_ENDINGS and first.is_file():
        raise UsageError(
            f"{first} is a weight file, neither a run nor a photograph",
            "name the folder of a run, of one of its checkpoints, or of an import; "
            f"{line('weights', 'inspect', first)}",
        )
    if others and not first.exists() and not first.suffix and not set(str(first)) & set("*?["):
        return first, others  # whoever opens it says what was meant
    return stage.newest_training(runs), [str(first), *others]
