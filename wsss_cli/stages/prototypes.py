"""Prototypes of LPCAM, class by class, from the images of the train split; kept in the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from wsss_cli.cam.lpcam import prototypes, split_features
from wsss_cli.config.cam import LpCamConfig
from wsss_cli.config.schema import Preset
from wsss_cli.data.batches import bucket_size, image_batch
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import DataError, WriteError
from wsss_cli.files import write_bytes
from wsss_cli.models.classifier import CamClassifier

Prototypes = dict[int, tuple[Tensor, Tensor]]


def class_prototypes(
    model: CamClassifier, samples: Sequence[Sample], preset: Preset, run: RunDir, ctx: Context
) -> Prototypes:
    """(class prototypes, context prototypes) of every class that is a tag, by class, 0 .. C-1.

    What prototypes.safetensors in the run has is taken; the file is written anew after each class that it lacks.
    """
    config = preset.cam.method
    assert isinstance(config, LpCamConfig)
    found = _read(run)
    todo = sorted({label - 1 for sample in samples for label in sample.labels} - found.keys())
    images = {index: _drawn(samples, index, preset.seed, config.images_per_class) for index in todo}
    with ctx.ui.progress(sum(map(len, images.values())), "prototypes") as bar:
        for index in todo:
            inside, outside = [], []
            for sample in images[index]:
                ctx.stop.check()
                for features in _local_features(model, sample, index, config.tau, preset, run, ctx):
                    inside.append(features[0])
                    outside.append(features[1])
                bar.advance(1)
            weight = model.classifier.weight.flatten(1).float()
            none = weight[:0]
            rng = np.random.default_rng((preset.seed, index))
            own, context = prototypes(
                torch.cat([none, *inside]), torch.cat([none, *outside]), weight, index, config, rng
            )
            run.log(f"prototypes of class {index + 1}: {len(own)}, of its context: {len(context)}")
            found[index] = own, context
            _write(run, found)
    return found


def _drawn(samples: Sequence[Sample], index: int, seed: int, count: int) -> list[Sample]:
    tagged = [sample for sample in samples if index + 1 in sample.labels]
    order = np.random.default_rng((seed, index)).permutation(len(tagged))[:count]
    return [tagged[i] for i in sorted(order)]


@torch.no_grad()
def _local_features(
    model: CamClassifier, sample: Sample, index: int, tau: float, preset: Preset, run: RunDir, ctx: Context
) -> list[tuple[Tensor, Tensor]]:
    """Features inside and outside a class in an image at scale 1; nothing where the image cannot be read."""
    try:
        image = read_image(sample.image)
    except WriteError:
        raise
    except DataError as error:
        run.log(f"no prototypes from {sample.id}: {error.message}")
        return []
    x = image_batch([image], bucket_size(*image.shape[:2]), ctx.device)
    with ctx.autocast(preset.classifier.precision):
        features = model.features(model.backbone.normalise(x))
        activation = model.classifier(features)[0, index]
    return [split_features(features[0], activation.clamp(min=0), tau)]


def _write(run: RunDir, found: Prototypes) -> None:
    state = {}
    for index, pair in found.items():
        for name, tensor in zip(("class", "context"), pair, strict=True):
            state[f"{index + 1}.{name}"] = tensor.cpu().contiguous()
    write_bytes(run.path / "prototypes.safetensors", safetensors.torch.save(state))


def _read(run: RunDir) -> Prototypes:
    file = run.path / "prototypes.safetensors"
    if not file.is_file():
        return {}
    try:
        state = safetensors.torch.load_file(file)
    except Exception as error:  # safetensors raises its own Rust error type
        raise DataError(f"{file} is damaged: {error}", "remove it and run again") from error
    indices = sorted({int(key.split(".")[0]) for key in state})
    return {index - 1: (state[f"{index}.class"], state[f"{index}.context"]) for index in indices}
