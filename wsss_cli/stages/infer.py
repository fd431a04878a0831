"""The infer stage: palette masks and overlays of a user's photographs."""

from __future__ import annotations

import contextlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.data.images import read_image
from wsss_cli.engine.context import Context
from wsss_cli.engine.shards import FOLDER, Shard, shard_of, shards_at_work
from wsss_cli.engine.sweep import Batch, Lost, SweepOptions, sweep
from wsss_cli.errors import BusyError, UsageError, WriteError
from wsss_cli.files import is_cut_off, remove_temporaries, why_not_made
from wsss_cli.inference.journal import Journal, gather_shards, weights_digest
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import image_batches, largest_batch
from wsss_cli.inference.tiles import SMALLEST, Tiles, segment
from wsss_cli.locks import locked
from wsss_cli.models.folding import folded
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import works_alone
from wsss_cli.rows import Each, Rows
from wsss_cli.stages.clips import Clip, Frame
from wsss_cli.stages.opening import agreed, held_by_first
from wsss_cli.stages.photographs import KINDS, LATER, Photograph, file_of, photograph
from wsss_cli.stages.predictions import Outputs, Predicted
from wsss_cli.stages.waiting import awaited
from wsss_cli.talk import counted

OTHER = "of another network, other settings or other photographs, or not noted before a kill: made anew"
SIZES_AHEAD = 4096  # photographs whose headers are read before the first of them is segmented


def run_infer(
    network: Network,
    images: Sequence[str | Path] | Clip,
    out: Path,
    ctx: Context,
    *,
    ms_flip: bool,
    beside: Collection[str] = ("overlays",),
    mode: str = "",
    tiles: Tiles | None = None,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """Write out/masks/<name>.png (palette), and what is wanted beside it, for each image.

    What is there already from this network, with these settings and of the same photograph, is kept: see `Journal`.

    Args:
        images: see `photograph`; or the frames of a video.
        beside: 'overlays', pictures to look at; 'confidence', the probability of what was predicted, 8-bit
            grey, 255 = 1; 'numbers', class numbers as grey PNG; 'colors', RGB in the classes' colours; 'soft', the
            scores of all classes, see `Segmented`; 'geotiff', of georeferenced photographs, a TIFF with their place.
        mode: 'whole' or 'slide', in place of the preset's `eval.mode`.
        tiles: that photographs larger than one are cut into.
        shard: the part of the images that is made here, by the SHA-256 of the mask's name; None: all.
    Returns:
        {'masks': folder, 'overlays': folder, 'images': written now, 'kept': already there, 'lost': [{'id', 'reason'}]};
        of a shard 'missing', images without a mask by shard.
    Raises:
        BusyError: another process writes to `out`, or to this shard of it.
        UsageError: shards of another number are at work there, a file that is no prediction has the name of one, or
            there are tiles and windows.
        WriteError: `out` cannot be written.
    """
    config = EvalConfig.model_validate({**network.preset.eval.model_dump(), **({"mode": mode} if mode else {})})
    if tiles and config.mode == "slide":
        raise UsageError(
            "--tile goes with mode whole, and windows are asked for", "--tile with --mode whole, or neither"
        )
    with held_by_first(_writing(out, shard, ctx), lambda _: None):
        outputs = Outputs(out, frozenset(beside), network.classes, network.colors)
        summary = _infer(network, images, outputs, config, ctx, ms_flip=ms_flip, tiles=tiles, shard=shard)
        return only_first(lambda: summary)


@contextlib.contextmanager
def _writing(out: Path, shard: Shard | None, ctx: Context) -> Iterator[None]:
    """Hold a folder of predictions, or a shard of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = why_not_made(out, error)
        raise WriteError(f"cannot create {out}: {why}", "choose another place with --out") from error
    lock, busy = out / ".infer.lock", f"{out} is being written to"
    with contextlib.ExitStack() as stack:
        with locked(lock, busy) if shard is None else awaited(lock, busy, ctx):
            others = [other for other in shards_at_work(out) if other != shard]
            if shard is not None:
                if divided := [other for other in others if other.of != shard.of]:
                    raise UsageError(f"--shard {shard}: shard {divided[0]} is at work in {out}", "wait for it")
                (out / FOLDER).mkdir(exist_ok=True)
                stack.enter_context(locked(shard.file(out, "lock"), f"shard {shard} of {out} is in use"))
            elif others:
                raise BusyError(f"shards of {out} are at work: {', '.join(map(str, others))}", "wait for them")
            if not others:
                remove_temporaries(out)
                gather_shards(out)
            if shard is None:
                yield
                remove_temporaries(out)  # of workers that were killed, and started again, meanwhile
        if shard is not None:
            yield


def _infer(
    network: Network,
    images: Sequence[str | Path] | Clip,
    outputs: Outputs,
    config: EvalConfig,
    ctx: Context,
    *,
    ms_flip: bool,
    tiles: Tiles | None,
    shard: Shard | None,
) -> dict[str, Any]:
    out, overlays = outputs.folder, "overlays" in outputs.beside
    every = images.photographs if isinstance(images, Clip) else Each(images, photograph)
    photographs = every if shard is None else _part(every, shard)
    settings = _settings(network, config, ms_flip=ms_flip, tiles=tiles)
    journal = Journal(out, settings, shard, outputs.beside.intersection(LATER), network.classes)
    others_files = [*(() if journal.begun else KINDS), *(kind for kind in journal.also if kind not in journal.kinds)]

    def choose() -> array[int]:
        numbers, others, damaged, nowhere = array("I"), 0, 0, 0
        for number, photo in enumerate(photographs):
            files = outputs.files(photo)
            nowhere += len(files) <= len(outputs.beside)  # without a GeoTIFF
            cut = (there := all(file.is_file() for file in files)) and any(map(is_cut_off, files))
            _refuse_foreign(file_of(out, kind, photo.name) for kind in others_files)
            if not there or cut or not journal.has(photo.name, photo.image, overlay=overlays):
                numbers.append(number)
                others += there and not cut
                damaged += cut
        for line in _notes(out, damaged, nowhere if nowhere < len(photographs) else 0):
            ctx.ui.say(line)
        if others:
            pending = Rows(photographs, numbers)
            journal.forget(photo.name for photo in pending)
            for file in (file for photo in pending for file in outputs.files(photo)):
                file.unlink(missing_ok=True)
            ctx.ui.say(f"{counted(others, 'mask')} in {out} {OTHER}")
        journal.begin()
        return numbers

    pending = agreed(photographs, choose)
    network = _for_predictions(network, ctx) if pending else network
    lost: Lost = []
    how = _less_memory(config, ctx, ms_flip=ms_flip, tiles=tiles)
    options = SweepOptions("infer", how, size_of=lambda loaded: loaded[1].shape[:2], total=len(pending))
    batches = _batches(pending, images, config, lost, ctx, ms_flip=ms_flip)

    def compute(batch: list[tuple[Photograph, np.ndarray]]) -> Iterator[Predicted]:
        results = segment(
            network, [image for _, image in batch], config, ctx, outputs.beside, ms_flip=ms_flip, tiles=tiles
        )
        for (photo, image), result in zip(batch, results, strict=True):
            yield photo, image, result

    store = partial(outputs.store, before=journal.kinds.union(["confidence"]))
    alone = works_alone() and ctx.pool is None  # else results come to the first rank, which notes them

    def store_and_note(predicted: Predicted) -> None:
        store(predicted)
        journal.add(predicted[0].name, predicted[0].image, overlay=overlays)

    written = 0
    for photo, _ in sweep(batches, _load, compute, store_and_note if alone else store, options, lost, ctx):
        written += 1
        if not alone:
            journal.add(photo.name, photo.image, overlay=overlays)
    if isinstance(images, Clip) and written + len(lost) < len(pending):
        lost.append(_ended_early(str(images.video.path)))
    summary: dict[str, Any] = {
        "masks": str(out / "masks"),
        "overlays": None,
        **{kind: str(out / kind) for kind in sorted(outputs.beside)},
        "images": written,
        "kept": len(photographs) - len(pending),
        "lost": lost,
    }
    if shard is not None:
        now = Journal(out, settings, shard)
        summary["missing"] = _missing(shard.of, (p for p in every if not now.has(p.name, p.image, overlay=overlays)))
    return summary


def _for_predictions(network: Network, ctx: Context) -> Network:
    """A network that gives the same scores faster, in float32 on a CPU: nobody has seen the fold win elsewhere."""
    seen = ctx.device.type == "cpu" and not ctx.in_bf16(network.preset.train.precision)
    return replace(network, model=folded(network.model)) if seen else network


def _ended_early(video: str) -> dict[str, str]:
    return {"id": video, "reason": f"video {video} ended earlier than when its frames were counted"}


def _notes(out: Path, damaged: int, nowhere: int) -> Iterator[str]:
    """What is said of photographs whose files are cut off, and of those that have no GeoTIFF."""
    if damaged:
        yield f"{counted(damaged, 'photograph')} with files in {out} that are cut off: made anew"
    if nowhere:
        yield f"geotiff: {counted(nowhere, 'photograph')} without: no georeferenced TIFF, or turned by EXIF"


def _settings(network: Network, config: EvalConfig, *, ms_flip: bool, tiles: Tiles | None) -> dict[str, Any]:
    """All that a mask depends on besides its photograph."""
    return {
        "network": network.origin,
        "weights": weights_digest(network.model),
        "eval": config.model_dump(mode="json"),
        "ms_flip": ms_flip,
        "precision": network.preset.train.precision,
        **({"tiles": asdict(tiles)} if tiles else {}),  # masks that were made before there were tiles are kept
    }


def _refuse_foreign(files: Iterable[Path]) -> None:
    """Refuse to write over a file of a folder in which nothing has been predicted yet."""
    if foreign := next((file for file in files if file.exists()), None):
        raise UsageError(
            f"{foreign} is there, and nothing says that it was predicted", "choose another --out, or move it elsewhere"
        )


def _part(photographs: Sequence[Photograph], shard: Shard) -> Rows[Photograph]:
    return Rows(photographs, array("I", (number for number, photo in enumerate(photographs) if shard.has(photo.name))))


def _batches(
    pending: Sequence[Photograph],
    images: Sequence[str | Path] | Clip,
    config: EvalConfig,
    lost: Lost,
    ctx: Context,
    *,
    ms_flip: bool,
) -> Iterator[Batch[Photograph]]:
    """What is computed together; sizes are read, and videos decoded, as it is asked for."""
    if isinstance(images, Clip):
        count = largest_batch(images.video.size, config, ctx, ms_flip=ms_flip)
        yield from images.batches(pending, count, lost, ctx.stop.check)
        return
    for start in range(0, len(pending), SIZES_AHEAD):
        yield from image_batches(pending[start : start + SIZES_AHEAD], config, lost, ctx, ms_flip=ms_flip)


def _load(photo: Photograph) -> tuple[Photograph, np.ndarray]:
    return photo, photo.pixels if isinstance(photo, Frame) else read_image(photo.image)


def _missing(of: int, photographs: Iterable[Photograph]) -> dict[str, int]:
    """How many photographs of each shard there are."""
    counts = Counter(shard_of(photo.name, of) for photo in photographs)
    return {str(Shard(number, of)): count for number, count in sorted(counts.items())}


def _less_memory(config: EvalConfig, ctx: Context, *, ms_flip: bool, tiles: Tiles | None) -> str:
    ways = [
        *([f"--tile {tiles.side // 2}"] if tiles and tiles.side >= 2 * SMALLEST else []),
        *(["--tile 1024 or --mode slide"] if config.mode == "whole" and not tiles else []),
        *(["no --ms-flip"] if ms_flip else []),
        *(["--device cpu"] if ctx.device.type != "cpu" else []),
    ]
    return ", ".join(ways) or "a smaller photograph"
