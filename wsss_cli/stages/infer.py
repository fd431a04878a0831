"""The infer stage: palette masks and overlays of a user's photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.data.images import IMAGE_ENDINGS, image_size, read_image
from wsss_cli.data.masks import write_mask
from wsss_cli.engine.context import Context
from wsss_cli.engine.sweep import Lost, prefetch
from wsss_cli.errors import DataError, UsageError
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import by_size, predict
from wsss_cli.report.pictures import overlay, write_png


def find_images(given: Sequence[str]) -> list[Path]:
    """Image files named by files, folders (not searched further down) and glob patterns, in order, each once.

    Raises:
        UsageError: something given names no image.
    """
    found: dict[Path, None] = {}
    for name in given:
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
        elif path.is_file():
            matches = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = path.relative_to(anchor).as_posix() if path.is_absolute() else name
            matches = sorted(p for p in anchor.glob(pattern) if p.suffix.lower() in IMAGE_ENDINGS)
        if not matches:
            raise UsageError(
                f"{name} names no image", f"give files, a folder or a pattern of {', '.join(IMAGE_ENDINGS)}"
            )
        found.update(dict.fromkeys(matches))
    names = [path.stem for path in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"two images are named {twice}; their masks would overwrite each other", "run once for each folder"
        )
    return list(found)


def run_infer(
    network: Network, images: Sequence[Path], out: Path, ctx: Context, *, ms_flip: bool, overlays: bool = True
) -> dict[str, Any]:
    """Write out/masks/<name>.png (palette) and out/overlays/<name>.png for each image; what is there already is kept.

    Returns:
        {'masks': folder, 'overlays': folder, 'images': written now, 'kept': already there, 'lost': [{'id', 'reason'}]}.
    """

    def ends(path: Path) -> list[Path]:
        return [out / "masks" / f"{path.stem}.png", *([out / "overlays" / f"{path.stem}.png"] if overlays else [])]

    pending = [path for path in images if not all(end.is_file() for end in ends(path))]
    lost: Lost = []
    sized: list[tuple[Path, tuple[int, int]]] = []
    for path in pending:
        try:
            sized.append((path, image_size(path)))
        except DataError as error:
            lost.append({"id": str(path), "reason": error.message})
    batches = by_size(sized, lambda pair: pair[1], ctx.device)
    key = "ms_flip" if ms_flip else "single"
    with ctx.ui.progress(len(pending), "infer") as bar:
        bar.advance(len(lost))
        for read in prefetch(batches, lambda batch: [_read(path) for path, _ in batch], 2, 4):
            ctx.stop.check()
            lost += [{"id": str(path), "reason": why} for path, _, why in read if why]
            good = [(path, image) for path, image, why in read if image is not None]
            if good:
                stack = [image for _, image in good]
                masks = predict(
                    network.model,
                    stack,
                    network.preset.eval,
                    ctx,
                    network.preset.train.precision,
                    single=not ms_flip,
                    ms_flip=ms_flip,
                )[key]
                for (path, image), mask in zip(good, masks, strict=True):
                    if overlays:
                        write_png(out / "overlays" / f"{path.stem}.png", overlay(image, mask, network.colors))
                    write_mask(out / "masks" / f"{path.stem}.png", mask, network.colors)
            bar.advance(len(read))
    return {
        "masks": str(out / "masks"),
        "overlays": str(out / "overlays") if overlays else None,
        "images": len(pending) - len(lost),
        "kept": len(images) - len(pending),
        "lost": lost,
    }


def _read(path: Path) -> tuple[Path, np.ndarray | None, str]:
    try:
        return path, read_image(path), ""
    except DataError as error:
        return path, None, error.message
