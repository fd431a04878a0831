"""What takes long on one item looks at the stop flag within it: between views, windows, iterations and files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_cli.cam.lpcam import kmeans
from wsss_cli.cam.multiscale import multiscale_cam
from wsss_cli.cam.store import write_cam
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.crf import dense_crf
from wsss_cli.data.sources.instances import read_instances
from wsss_cli.data.sources.photographs import Photographs
from wsss_cli.data.sources.tags import annotation_tags, mask_tags
from wsss_cli.engine.context import Context
from wsss_cli.errors import Preempted
from wsss_cli.inference.predict import predict
from wsss_cli.processes import stopping_by
from wsss_cli.pseudo.pairs import half_disc
from wsss_cli.pseudo.par import par
from wsss_cli.pseudo.thresholds import score_histogram
from wsss_cli.pseudo.walk import random_walk
from wsss_cli.scoring.cams import cam_curve
from wsss_cli.scoring.masks import score_masks

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
CRF = {"gauss_sxy": 3.0, "gauss_compat": 3.0, "bilateral_sxy": 9.0, "bilateral_srgb": 5.0, "bilateral_compat": 4.0}


class Network:
    """Colours as maps; counts the views that it sees, and asks to stop where it is told to."""

    def __init__(self):
        self.views, self.ctx, self.training = 0, None, False
        self.backbone = self

    def normalise(self, x):
        return x.float() / 64 - 2

    def cam(self, x):
        self.views += 1
        if self.ctx is not None:
            self.ctx.stop.signal = 15
        return x.relu()

    __call__ = cam


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        Image.fromarray(np.ones((24, 32), np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
        write_cam(tmp_path / f"{name}.npz", np.ones((1, 6, 8), np.float32), (1,), (24, 32))
    listed = {"images": [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 4} for i in range(4)]}
    (tmp_path / "coco.json").write_text(json.dumps({**listed, "categories": [{"id": 1, "name": "cat"}]}))
    return tmp_path


def exact(backend):
    return dense_crf(IMAGE, np.zeros((2, 24, 32), np.float32), **CRF, iterations=5, backend=backend)


def walk():
    offsets = half_disc(3)
    return random_walk(torch.ones(1, 8, 8), torch.zeros(len(offsets), 8, 8), offsets, 5)


def refined():
    image, planes = torch.zeros(1, 3, 8, 8), torch.ones(1, 2, 8, 8)
    return par(image, planes, dilations=(1,), iterations=5, w1=0.3, w2=0.01)


WORK = {
    "views of CAMs": lambda _: multiscale_cam(Network(), [IMAGE], (0.5, 1.0, 1.5), False, torch.device("cpu")),
    "CRF, lattice": lambda _: exact("lattice"),
    "CRF, exact": lambda _: exact("exact"),
    "random walk": lambda _: walk(),
    "PAR": lambda _: refined(),
    "k-means": lambda _: kmeans(torch.rand(30, 2), 4, np.random.default_rng(0)),
    "masks that are scored": lambda folder: score_masks(folder, folder, 2, check=lambda: None),
    "CAMs that are scored": lambda folder: cam_curve(
        [(folder / f"{name}.npz", folder / f"{name}.png") for name in "abc"], 2, check=lambda: None
    ),
    "histograms of scores": lambda folder: score_histogram(sorted(folder.glob("*.npz")), 2),
    "tags of annotations": lambda folder: annotation_tags(folder, ["a", "b", "c"], ["cat"]),
    "tags of masks": lambda folder: mask_tags({name: folder / f"{name}.png" for name in "abc"}, ["cat"]),
    "photographs of a folder": lambda folder: Photographs(folder, folder),
    "instances of COCO": lambda folder: read_instances(folder / "coco.json"),
}


@pytest.mark.parametrize("work", WORK)
def test_long_work_on_one_item_is_left_when_a_stop_is_asked_for(work, folder):
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 2:
            raise Preempted("stopped")

    WORK[work](folder)
    with stopping_by(check), pytest.raises(Preempted):
        WORK[work](folder)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_a_prediction_is_left_between_views_and_windows(mode, tmp_path):
    config = EvalConfig(scales=(0.5, 1.0, 2.0), mode=mode, window=16, stride=16)
    network, ctx = Network(), Context(torch.device("cpu"), tmp_path)
    predict(network, [IMAGE], config, ctx, "fp32", ms_flip=True)
    views, network.views, network.ctx = network.views, 0, ctx
    with pytest.raises(Preempted):
        predict(network, [IMAGE], config, ctx, "fp32", ms_flip=True)
    assert network.views == 1 < views
