"""A trained network on photographs: single scale and ms+flip, batched over images of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.data.batches import images_per_batch, resized_batch
from wsss_cli.data.columns import sizes_of
from wsss_cli.data.images import image_size, read_image
from wsss_cli.data.transforms import keep_ratio_size
from wsss_cli.engine.context import Context
from wsss_cli.engine.sweep import Grouped, Lost, grouped
from wsss_cli.errors import DataError
from wsss_cli.inference.network import Network
from wsss_cli.losses.tags import within_tags
from wsss_cli.models.segmentor import Segmentor

SMALLER = "smaller eval.scales, eval.mode=slide (--mode slide), or --device cpu"  # what makes an image need less memory


class HasImage(Protocol):
    """A sample, or whatever else has a photograph."""

    @property
    def id(self) -> str: ...
    @property
    def image(self) -> Path: ...


Photograph = TypeVar("Photograph", bound=HasImage)


def predict(
    model: Segmentor,
    images: Sequence[np.ndarray],
    config: EvalConfig,
    ctx: Context,
    precision: str,
    *,
    single: bool = True,
    ms_flip: bool = False,
    probabilities: bool = False,
    allowed: Tensor | None = None,
) -> dict[str, np.ndarray]:
    """Label maps of images of one size, as arrays: see `predict_tensors`, which makes them.

    Returns:
        'single' and 'ms_flip' as asked for: uint8 [B, H, W]; 'ms_flip_confidence' with the latter: float32 [B, H, W];
        'single_probabilities' and 'ms_flip_probabilities': float32 [B, K, H, W].
    """
    tensors = predict_tensors(
        model,
        images,
        config,
        ctx,
        precision,
        single=single,
        ms_flip=ms_flip,
        probabilities=probabilities,
        allowed=allowed,
    )
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def predict_each(
    network: Network, samples: Iterable[HasImage], ctx: Context, *, ms_flip: bool = False
) -> Iterator[tuple[str, np.ndarray, float]]:
    """(id, label map uint8 [H, W], mean probability of what was predicted) of each image that can be read, in turn.

    Args:
        ms_flip: at all scales and mirrored, in place of a single scale.
    """
    mode = "ms_flip" if ms_flip else "single"
    settings, precision = network.preset.eval, network.preset.train.precision
    for sample in samples:
        ctx.stop.check()
        try:
            image = read_image(sample.image)
        except DataError:
            continue
        maps = predict(
            network.model, [image], settings, ctx, precision, single=not ms_flip, ms_flip=ms_flip, probabilities=True
        )
        yield sample.id, maps[mode][0], float(maps[f"{mode}_probabilities"][0].max(axis=0).mean())


@torch.no_grad()
def predict_tensors(
    model: Segmentor,
    images: Sequence[np.ndarray],
    config: EvalConfig,
    ctx: Context,
    precision: str,
    *,
    single: bool = True,
    ms_flip: bool = False,
    probabilities: bool = False,
    allowed: Tensor | None = None,
) -> dict[str, Tensor]:
    """Label maps of images of one size, on the device; nothing waits for it.

    Single scale: logits at stride 4, resized to the input and then to the original size, argmax. ms+flip: every view's
    logits at original size, un-flipped, softmax, mean over all views, argmax. An image and its mirrored view, of all
    images, are one forward.

    Args:
        images: RGB, uint8 [H, W, 3], all of one size.
        probabilities: also return the class probabilities, for a CRF.
        allowed: classes that an image may have, bool [B, K]; others get probability 0 in every view. All by default.
    Returns:
        As `predict`.

    Source: MMSegmentation 1.2 `EncoderDecoder.whole_inference` and `slide_inference`, `SegTTAModel`.
    """
    if model.training:  # eval() walks through all modules, which takes longer than a small batch should
        model.eval()
    height, width = images[0].shape[:2]
    maps: dict[str, Tensor] = {}
    total: Tensor | None = None
    scales = sorted({1.0, *config.scales}) if ms_flip else [1.0]
    for scale in scales:
        ctx.stop.check()
        size = view_size(height, width, scale, config)
        x = model.backbone.normalise(resized_batch(images, size, ctx.device, cv2.INTER_LINEAR))
        in_total = ms_flip and scale in config.scales
        views = torch.cat([x, x.flip(3)]) if in_total else x
        with ctx.autocast(precision):
            logits = slide(model, views, config, ctx.stop.check) if config.mode == "slide" else upsampled(model, views)
        if logits.shape[2:] != (height, width):
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        if allowed is not None:
            logits = within_tags(logits, allowed.repeat(len(logits) // len(images), 1).to(logits.device))
        if scale == 1.0 and single:
            maps["single"] = logits[: len(images)].argmax(1).to(torch.uint8)
            if probabilities:
                maps["single_probabilities"] = logits[: len(images)].softmax(1)
        if in_total:
            plain, mirrored = logits.softmax(1).chunk(2)
            both = plain + mirrored.flip(3)
            total = both if total is None else total.add_(both)
    if total is not None:
        mean = total / (2 * len(set(config.scales)))
        confidence, labels = mean.max(1)
        if probabilities:
            maps["ms_flip_probabilities"] = mean
        maps["ms_flip"] = labels.to(torch.uint8)
        maps["ms_flip_confidence"] = confidence
    return maps


def upsampled(model: Segmentor, x: Tensor) -> Tensor:
    """Logits of whole images [B, 3, h, w] at their size, float32 [B, K, h, w]."""
    return F.interpolate(model(x).float(), x.shape[2:], mode="bilinear", align_corners=False)


def slide(model: Segmentor, x: Tensor, config: EvalConfig, check: Callable[[], object]) -> Tensor:
    """Logits of images [B, 3, h, w] from overlapping windows, float32 [B, K, h, w]: the mean where windows overlap.

    Args:
        check: called before each window; what it raises ends the work.

    Source: MMSegmentation 1.2 `EncoderDecoder.slide_inference`; a window at the edge is moved inwards, not cut.
    """
    height, width = x.shape[2:]
    boxes = [
        (top, top + side_h, left, left + side_w)
        for top, side_h in window_starts(height, config.window, config.stride)
        for left, side_w in window_starts(width, config.window, config.stride)
    ]
    total: Tensor | None = None
    count = torch.zeros((1, 1, height, width), device=x.device)
    for top, bottom, left, right in boxes:
        check()
        logits = upsampled(model, x[:, :, top:bottom, left:right])
        if total is None:
            total = logits.new_zeros((len(x), logits.shape[1], height, width))
        total[:, :, top:bottom, left:right] += logits
        count[:, :, top:bottom, left:right] += 1
    assert total is not None
    return total / count


def window_starts(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, side) of the windows along a side of `length` pixels; the last one ends with the image."""
    side = min(window, length)
    steps = max(length - window + stride - 1, 0) // stride + 1
    return [(min(step * stride, length - side), side) for step in range(steps)]


def view_size(height: int, width: int, scale: float, config: EvalConfig) -> tuple[int, int]:
    """(height, width) of a test view: `scale` times the original image, or times the image at `short_side`."""
    if config.base == "image":
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
    return keep_ratio_size(height, width, int(4 * config.short_side * scale), int(config.short_side * scale))


def image_batches(
    items: Sequence[Photograph],
    config: EvalConfig,
    lost: Lost,
    ctx: Context,
    log: Callable[[str], object] = str,
    *,
    ms_flip: bool,
) -> Grouped[Photograph]:
    """Batches of photographs of one size, as large as the device takes; what cannot be read is added to `lost`."""
    count = partial(largest_batch, config=config, ctx=ctx, ms_flip=ms_flip)
    return grouped(items, sizes_of, lambda item: image_size(item.image), lambda size: size, count, lost, ctx, log)


def largest_batch(size: tuple[int, int], config: EvalConfig, ctx: Context, *, ms_flip: bool) -> int:
    """How many images of a size (height, width) go through the network together."""
    height, width = view_size(*size, max(1.0, *config.scales) if ms_flip else 1.0, config)
    return images_per_batch(size, height * width * (2 if ms_flip else 1), ctx.device)
