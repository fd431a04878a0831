"""The cam stage: store the CAMs of a classifier for the tagged classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from wsss_cli.cam.consistency import SeamCam
from wsss_cli.cam.gradcam import GradCam, check_layer
from wsss_cli.cam.lpcam import LpCam
from wsss_cli.cam.multiscale import CamModel, multiscale_cam, normalise_cam
from wsss_cli.cam.store import write_cam
from wsss_cli.config.base import Precision
from wsss_cli.config.cam import CamConfig, GradCamConfig, LpCamConfig
from wsss_cli.config.schema import Preset
from wsss_cli.data.batches import bucket_size, images_per_batch
from wsss_cli.data.columns import sizes_of
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import image_size, read_image
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Grouped, Log, Lost, SweepOptions, grouped, sweep
from wsss_cli.models.classifier import CamClassifier, SeamClassifier
from wsss_cli.ranks.group import only_first
from wsss_cli.stages.classifier import load_classifier
from wsss_cli.stages.opening import not_there, open_step
from wsss_cli.stages.paths import cam_files
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.prototypes import class_prototypes
from wsss_cli.stages.scored import score_seeds
from wsss_cli.stages.sources import hold_to_sources

View = Callable[[Sequence[Sequence[int]]], CamModel]
ImageCams = tuple[Sample, np.ndarray, tuple[int, int]]  # of an image its tagged maps, and its size


def run_cam(step: Step, exp: Experiment, ctx: Context) -> None:
    """Make the CAMs of the train split, and score them where there are masks.

    Writes cams/<id>.npz and eval.json (the threshold curve) into the run directory, prototypes.safetensors where the
    method has them. Resumes where it stopped.

    Args:
        step: reads a classifier, or a second one of ReCAM.
    """
    preset = exp.preset
    with open_step(step, exp) as run:
        only_first(lambda: hold_to_sources(run, step, exp, ctx.stop.check))
        lost = cams_of(exp.dataset.split(preset.dataset.train), step, exp, run, ctx)
        only_first(lambda: score_seeds(exp.dataset, preset, run, ctx, partial(_how, preset)))
        run.finish(lost=lost, device=ctx.device_name)


def cams_of(samples: Sequence[Sample], step: Step, exp: Experiment, run: RunDir, ctx: Context) -> Lost:
    """Make the CAMs of images of the train split, all or some, that are not there yet; the lost ones."""
    model, view, precision = _network(step, exp, run, ctx)
    return make_cams(model, view, samples, exp.preset.cam, precision, run, ctx)


def prepare_cams(step: Step, exp: Experiment, run: RunDir, ctx: Context) -> None:
    """Make what the CAMs of every image need and only one process may make: prototypes."""
    if isinstance(exp.preset.cam.method, LpCamConfig):
        _network(step, exp, run, ctx)


def _network(step: Step, exp: Experiment, run: RunDir, ctx: Context) -> tuple[CamClassifier, View, Precision]:
    model, precision = load_classifier(step.reads[0], exp, ctx)
    model.requires_grad_(False)
    samples = exp.dataset.split(exp.preset.dataset.train)
    return model, _view(model, samples, exp.preset, precision, run, ctx), precision


def _view(
    model: CamClassifier, samples: Sequence[Sample], preset: Preset, precision: Precision, run: RunDir, ctx: Context
) -> View:
    """From the tags of a batch to what makes its CAMs."""
    match preset.cam.method:
        case GradCamConfig(layer=layer):
            if layer:
                check_layer(model, layer)
            return lambda tags: GradCam(model, tags, layer)
        case LpCamConfig():
            lpcam = LpCam(model, only_first(lambda: class_prototypes(model, samples, preset, precision, run, ctx)))
            return lambda tags: lpcam
    if isinstance(model, SeamClassifier):
        return lambda tags: SeamCam(model, tags)
    plain = PlainCam(model)
    return lambda tags: plain


def make_cams(
    model: CamClassifier,
    view: View,
    samples: Sequence[Sample],
    config: CamConfig,
    precision: Precision,
    run: RunDir,
    ctx: Context,
) -> Lost:
    files = cam_files(run.path)
    pending = not_there(samples, files)
    lost: Lost = []
    telling: list[bool] = []  # of each photograph: whether one of its maps is above 0 somewhere
    batches = cam_batches(pending, config, lost, ctx, run.log)
    multiple = side_multiple(model)

    def load(sample: Sample) -> tuple[Sample, np.ndarray]:
        return sample, read_image(sample.image)

    def compute(batch: list[tuple[Sample, np.ndarray]]) -> Iterator[ImageCams]:
        tags = [[label - 1 for label in sample.labels] for sample, _ in batch]
        images = [image for _, image in batch]
        with ctx.autocast(precision):
            maps = multiscale_cam(view(tags), images, config.scales, config.flip, ctx.device, multiple)
        chosen = [
            planes[classes] for planes, classes in zip(maps, tags, strict=True)
        ]  # only the tagged ones leave the device
        flat = torch.cat([planes.flatten() for planes in chosen]).cpu().numpy()
        ends = np.cumsum([planes.numel() for planes in chosen])
        for (sample, image), classes, part in zip(batch, tags, np.split(flat, ends[:-1]), strict=True):
            yield sample, part.reshape(len(classes), *maps.shape[2:]), (image.shape[0], image.shape[1])

    def store(cams: ImageCams) -> None:
        sample, planes, size = cams
        maps = normalise_cam(planes)
        write_cam(files.of(sample.id), maps, sample.labels, size)
        if len(maps):  # those without a tag have no map
            telling.append(bool(maps.max() * 255 >= 0.5))  # else it is stored as 0

    options = SweepOptions(
        "CAMs",
        less_memory="smaller cam.scales, cam.flip=false, or --device cpu",
        size_of=lambda loaded: bucket_size(*loaded[1].shape[:2]),
    )
    for _ in sweep(batches, load, compute, store, options, lost, ctx, run.log):
        pass  # they are on disk
    blank = telling.count(False)
    if blank and 2 * blank >= len(telling):
        ctx.ui.say(f"warning: all CAMs of {blank:,} of {len(telling):,} photographs are 0: is the classifier trained?")
    return lost


def side_multiple(model: CamClassifier) -> int:
    """What the sides of scaled images are multiples of: 16, or the patch of a network of patches."""
    stride = model.backbone.strides[-1]
    return stride if 16 % stride and stride % 16 else 16


class PlainCam:
    """The classifier together with its backbone's normalisation."""

    def __init__(self, model: CamClassifier) -> None:
        self.normalise, self.cam = model.backbone.normalise, model.cam


def cam_batches(
    samples: Sequence[Sample], config: CamConfig, lost: Lost, ctx: Context, log: Log = str
) -> Grouped[Sample]:
    """Batches of images of one size bucket; those whose header cannot be read are added to `lost`."""

    def count(size: tuple[int, int]) -> int:
        largest = max(config.scales) ** 2 * (2 if config.flip else 1)
        return images_per_batch(size, round(largest * size[0] * size[1]), ctx.device)

    return grouped(
        samples,
        sizes_of,
        lambda sample: image_size(sample.image),
        lambda size: bucket_size(*size),
        count,
        lost,
        ctx,
        log,
    )


def _how(preset: Preset, what: str) -> str:
    scales = ", ".join(f"{scale:g}" for scale in preset.cam.scales)
    return (
        f"seeds ({preset.cam.method.kind}) on {what}, scales {scales}{' + flip' if preset.cam.flip else ''}, no CRF; "
        "background threshold chosen on this split; 255 in the truth ignored"
    )
