"""Random walks over a data set: CAMs and a trained affinity network in, spread scores out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from wsss_cli.cam.store import read_cam, upsample, write_cam
from wsss_cli.config.affinity import IrnWalk, PsaWalk, needs
from wsss_cli.config.schema import Preset
from wsss_cli.data.batches import bucket_size, images_per_batch, resized_batch
from wsss_cli.data.columns import sizes_of
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import image_size, read_image
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Lost, SweepOptions, grouped, sweep
from wsss_cli.models.affinity import AffinityNet, BoundaryNet
from wsss_cli.pseudo.walk import irn_walk, psa_walk
from wsss_cli.stages.affinity import affinity_config, load_affinity
from wsss_cli.stages.opening import not_there
from wsss_cli.stages.paths import Files

Cam = tuple[np.ndarray, tuple[int, ...], tuple[int, int]]
SampleCam = tuple[Sample, np.ndarray, Cam]


def run_walk(
    step: IrnWalk | PsaWalk,
    preset: Preset,
    ctx: Context,
    samples: Sequence[Sample],
    cams: Files,
    affinity_run: Path,
    run: RunDir,
    out: Files,
) -> Lost:
    """Spread the CAMs of samples by a random walk. What is there already is left as it is.

    Args:
        samples: images; CAMs are read from `cams` and written to `out`.
        affinity_run: finished run of the kind that `needs(step)` names.
        run: the run that the walk is a part of; its log names lost items.
    Returns:
        Every lost item: {'id', 'reason'}.
    Raises:
        WeightsError: the affinity run has no sound checkpoint.
    """
    pending = not_there(samples, out)
    if not pending:
        return []
    kind = needs(step)
    model = load_affinity(affinity_run, kind, ctx)
    precision = affinity_config(preset, kind).precision
    lost: Lost = []
    batches = grouped(
        pending,
        sizes_of,
        lambda sample: image_size(sample.image),
        lambda size: bucket_size(*size),
        lambda size: images_per_batch(size, 2 * size[0] * size[1], ctx.device),
        lost,
        ctx,
        run.log,
    )

    def load(sample: Sample) -> SampleCam:
        return sample, read_image(sample.image), read_cam(cams.of(sample.id))

    def compute(batch: list[SampleCam]) -> Iterator[tuple[Sample, Cam]]:
        with ctx.autocast(precision):
            predictions = predict_affinity(model, [image for _, image, _ in batch], ctx.device)
        for (sample, _, (cam, classes, size)), plane in zip(batch, predictions, strict=True):
            ctx.stop.check()
            yield sample, (_walk(step, cam, plane), classes, size)

    def store(result: tuple[Sample, Cam]) -> None:
        sample, walked = result
        write_cam(out.of(sample.id), *walked)

    options = SweepOptions(f"random walk ({kind})", size_of=lambda loaded: bucket_size(*loaded[1].shape[:2]))
    for _ in sweep(batches, load, compute, store, options, lost, ctx, run.log):
        pass  # they are on disk
    return lost


@torch.no_grad()
def predict_affinity(model: BoundaryNet | AffinityNet, images: list[np.ndarray], device: torch.device) -> Tensor:
    """What a walk needs to know of images.

    Args:
        images: RGB, uint8 [H, W, 3], all of one size bucket.
    Returns:
        Of a boundary network the probability of a boundary, the sigmoid of the mean of both mirror views' logits,
        float32 [B, h, w] at stride 4 of the bucket's size; of AffinityNet the features, float32 [B, D, h, w] at
        stride 8.
    Source: IRN, `misc/indexing.py` and `step/make_sem_seg_labels.py`; PSA, `infer_aff.py` (no mirror view).
    """
    height, width = bucket_size(*images[0].shape[:2])
    normal = model.backbone.normalise(resized_batch(images, (height, width), device, cv2.INTER_LINEAR))
    if isinstance(model, AffinityNet):
        out: Tensor = model(normal).float()
        return out
    plain, mirrored = model(torch.cat([normal, normal.flip(3)])).float().chunk(2)
    return torch.sigmoid((plain + mirrored.flip(2)) / 2)


def _walk(step: IrnWalk | PsaWalk, cam: np.ndarray, prediction: Tensor) -> np.ndarray:
    """Walked scores, float32 [C, h, w], of one image's CAMs, which are brought to the grid of the network first."""
    factor = 1 if isinstance(step, IrnWalk) else 2
    size = (factor * prediction.shape[-2], factor * prediction.shape[-1])
    maps = torch.from_numpy(upsample(cam, size)).to(prediction.device)
    walked = irn_walk(maps, prediction, step) if isinstance(step, IrnWalk) else psa_walk(maps, prediction, step)
    return walked.cpu().numpy()
