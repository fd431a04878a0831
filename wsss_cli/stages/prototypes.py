"""Prototypes of LPCAM, class by class, from the images of the train split; kept in the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from wsss_cli.cam.lpcam import prototypes, split_features
from wsss_cli.config.base import Precision
from wsss_cli.config.cam import LpCamConfig
from wsss_cli.config.schema import Preset
from wsss_cli.data.batches import bucket_size, image_batch
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Batch, Lost, SweepOptions, sweep
from wsss_cli.errors import DataError
from wsss_cli.files import write_bytes
from wsss_cli.models.classifier import CamClassifier

Prototypes = dict[int, tuple[Tensor, Tensor]]


def class_prototypes(
    model: CamClassifier, samples: Sequence[Sample], preset: Preset, precision: Precision, run: RunDir, ctx: Context
) -> Prototypes:
    """(class prototypes, context prototypes) of every class that is a tag, by class, 0 .. C-1.

    What prototypes.safetensors in the run has is taken; the file is written anew after each class that it lacks.
    """
    config = preset.cam.method
    assert isinstance(config, LpCamConfig)
    by_class = _read(run)
    todo = sorted({label - 1 for sample in samples for label in sample.labels} - by_class.keys())
    drawn = [
        Drawn(sample.id, sample.image, index)
        for index in todo
        for sample in _drawn(samples, index, preset.seed, config.images_per_class)
    ]
    features: dict[int, list[tuple[Tensor, Tensor]]] = {index: [] for index in todo}

    def load(one: Drawn) -> tuple[int, np.ndarray]:
        return one.index, read_image(one.image)

    def compute(batch: list[tuple[int, np.ndarray]]) -> list[tuple[Tensor, Tensor]]:
        return [_local_features(model, image, index, config.tau, precision, ctx) for index, image in batch]

    def cluster(index: int) -> None:
        weight = model.classifier.weight.flatten(1).float()
        pairs = features.pop(index)
        inside, outside = (torch.cat([weight[:0], *(pair[side] for pair in pairs)]) for side in (0, 1))
        rng = np.random.default_rng((preset.seed, index))
        inner, outer = prototypes(inside, outside, weight, index, config, rng)
        by_class[index] = (inner.cpu(), outer.cpu())
        counts = [len(group) for group in by_class[index]]
        run.log(f"prototypes of class {index + 1}: {counts[0]}, of its context: {counts[1]}")
        _write(run, by_class)

    lost: Lost = []  # without prototypes from them the class has those of its other images
    options = SweepOptions("prototypes")
    here = replace(ctx, pool=None)  # in order: a class is done with its last image
    for one, pair in sweep([Batch([one]) for one in drawn], load, compute, _as_it_is, options, lost, here, run.log):
        for index in [index for index in features if index < one.index]:
            cluster(index)
        features[one.index].append(pair)
    for index in list(features):
        cluster(index)
    return by_class


def _as_it_is(features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return features


@dataclass(frozen=True)
class Drawn:
    """An image that is drawn for the prototypes of the class `index`."""

    id: str
    image: Path
    index: int


def _drawn(samples: Sequence[Sample], index: int, seed: int, count: int) -> list[Sample]:
    tagged = [sample for sample in samples if index + 1 in sample.labels]
    order = np.random.default_rng((seed, index)).permutation(len(tagged))[:count]
    return [tagged[i] for i in sorted(order)]


@torch.no_grad()
def _local_features(
    model: CamClassifier, image: np.ndarray, index: int, tau: float, precision: Precision, ctx: Context
) -> tuple[Tensor, Tensor]:
    """Features inside and outside a class in an image at scale 1."""
    x = image_batch([image], bucket_size(*image.shape[:2]), ctx.device)
    with ctx.autocast(precision):
        features = model.features(model.backbone.normalise(x))
        activation = model.classifier(features)[0, index]
    return split_features(features[0], activation.clamp(min=0), tau)


def _write(run: RunDir, by_class: Prototypes) -> None:
    state = {}
    for index, pair in by_class.items():
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
