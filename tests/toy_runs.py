"""Runs of the toy data set as their stages leave them, with a stand-in for the trained network."""

import shutil

import numpy as np
import torch
from torch import nn

from wsss_cli.cam.store import write_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.files import write_json
from wsss_cli.inference import network as networks
from wsss_cli.scoring.by_image import class_areas, image_areas, write_areas
from wsss_cli.scoring.counts import Counts
from wsss_cli.stages.paths import cam_path, mask_path


class Blue(nn.Module):
    """A network that takes the bluest pixels for class 1."""

    @property
    def backbone(self):
        return self

    def normalise(self, x):
        return x.float() / 64 - 2

    def forward(self, x):
        return torch.cat([-x[:, 2:], x[:, 2:], x.new_full((len(x), 4, *x.shape[2:]), -9.0)], 1)


def make_home(folder):
    """A data set, and the runs cam <- pseudo <- train of two seeds, as their stages leave them."""
    prepare_toy(folder / "toy", images=6, val=4, size=48)
    dataset = open_dataset(folder / "toy")
    preset = load_preset("toy", [f'dataset.path="{folder / "toy"}"'])
    cam = folder / "runs/cam-toy-1"
    with open_run(cam, "cam", preset, "1", inputs_of(dataset)) as run:
        for sample in dataset.split("train"):
            maps = np.linspace(0, 1, len(sample.labels) * 48 * 48, dtype=np.float32).reshape(-1, 48, 48)
            write_cam(cam_path(cam, sample.id), maps, sample.labels, (48, 48))
        curve = {"thresholds": [0.1, 0.5], "miou": [20.0, 31.25], "fp": [1.0, 2.0], "fn": [3.0, 4.0]}
        write_json(cam / "eval.json", {**curve, "best_threshold": 0.5, "best": {"miou": 31.25}, "protocol": "on train"})
        run.finish()
    pseudo = folder / "runs/pseudo-toy-2"
    with open_run(pseudo, "pseudo", preset, "2", inputs_of(dataset, cam_run=str(cam))) as run:
        for sample in dataset.split("train"):
            write_mask(mask_path(pseudo, sample.id), read_mask(sample.mask), dataset.colors)
        run.finish(lost=[{"id": "train_000003", "reason": "unreadable <b>"}])
    for number, right in ((3, 0.5), (4, 0.9)):
        trained(folder, dataset, preset.model_copy(update={"seed": number}), number, right, pseudo)


def trained(folder, dataset, preset, number, right, pseudo):
    path = folder / f"runs/train-toy-{number}"
    with open_run(path, "train", preset, f"{number}", inputs_of(dataset, pseudo_run=str(pseudo))) as run:
        for step in range(1, 6):
            run.metric({"kind": "train", "step": step, "loss": 1.0 / step, "memory_gib": 2.5})
        run.metric({"kind": "val", "step": 5, "miou": 44.5})
        total, images = Counts(6), []
        generator = np.random.default_rng(0)
        for sample in dataset.split("val"):
            truth, one = read_mask(sample.mask), Counts(6)
            one.add(np.where(generator.random(truth.shape) < right, truth % 255, 5).astype(np.uint8), truth)
            images.append((sample.id, class_areas(one.confusion.matrix)))
            total.merge(one)
        write_areas(path / "eval.images.npz", image_areas(images))
        scores = total.scores(dataset.classes)
        write_json(path / "eval.json", {"single": scores, "classes": list(dataset.classes), "protocol": ["on val"]})
        run.finish()


def inputs_of(dataset, **runs):
    return Inputs(dataset=str(dataset.root), classes=dataset.classes, colors=dataset.colors, dataset_name="toy", **runs)


def blue(monkeypatch):
    """Let every training run have the network `Blue`."""

    def load_network(run, ctx, pointer="latest"):
        return networks.Network(Blue(), load_preset("toy"), ("background",) * 6, (), 5, "", "")

    monkeypatch.setattr(networks, "load_network", load_network)


def copy_without_masks(home, folder):
    """Copy a home; in its copy no list names a mask, and the training train-toy-3 has no scores."""
    shutil.copytree(home, folder)
    for file in (folder / "toy/splits").iterdir():
        lines = [line.split(",") for line in file.read_text().splitlines()]
        rows = [",".join([row[0], row[1], "" if number else row[2], *row[3:]]) for number, row in enumerate(lines)]
        file.write_text("\n".join(rows) + "\n")
    record = folder / "runs/train-toy-3/inputs.json"
    record.write_text(record.read_text().replace(str(home), str(folder)))
    (folder / "runs/train-toy-3/eval.json").unlink()
