"""Time wsss beside MMSegmentation: forward, training step, data pipeline, metric. Prints one JSON object.

Not a dependency. In an environment that has wsss:

    pip install --no-deps mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0
    pip install ftfy regex addict yapf termcolor terminaltables prettytable matplotlib scipy
    python benchmarks/beside_mmseg.py --rounds 3

The two are timed in turn, in one process, with random weights and a drawn photograph of 500x375 pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from wsss_cli.config.load import load_preset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import draw
from wsss_cli.data.transforms import train_sample
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import build_optimiser
from wsss_cli.labels import voc_palette
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.scores import summary
from wsss_cli.models.build import build_segmentor
from wsss_cli.processes import cores
from wsss_cli.stages.segmentation import SegmentationTask

K = 21


class _Missing(types.ModuleType):
    """mmcv-lite has no compiled operations; DeepLabV3+ uses none of them, but MMSegmentation imports their names."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def mmseg_network() -> Any:
    """Their DeepLabV3+ R-50-D8 as in the configuration of the zoo, batch norm in place of its synchronised kind."""
    sys.modules["mmcv.ops"] = _Missing("mmcv.ops")
    from mmseg.models import build_segmentor as build

    norm = {"type": "BN", "requires_grad": True}
    head = {"num_classes": K, "norm_cfg": norm, "align_corners": False, "dropout_ratio": 0.1}
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False}
    return build(
        {
            "type": "EncoderDecoder",
            "data_preprocessor": None,
            "backbone": {
                "type": "ResNetV1c",
                "depth": 50,
                "num_stages": 4,
                "out_indices": (0, 1, 2, 3),
                "dilations": (1, 1, 2, 4),
                "strides": (1, 2, 1, 1),
                "norm_cfg": norm,
                "norm_eval": False,
                "style": "pytorch",
                "contract_dilation": True,
            },
            "decode_head": {
                "type": "DepthwiseSeparableASPPHead",
                "in_channels": 2048,
                "in_index": 3,
                "channels": 512,
                "dilations": (1, 12, 24, 36),
                "c1_in_channels": 256,
                "c1_channels": 48,
                "loss_decode": {**loss, "loss_weight": 1.0},
                **head,
            },
            "auxiliary_head": {
                "type": "FCNHead",
                "in_channels": 1024,
                "in_index": 2,
                "channels": 256,
                "num_convs": 1,
                "concat_input": False,
                "loss_decode": {**loss, "loss_weight": 0.4},
                **head,
            },
            "train_cfg": {},
            "test_cfg": {"mode": "whole"},
        }
    )


def forward_pair(ours: Any, theirs: Any, ctx: Context) -> dict[str, Callable[[], object]]:
    x = torch.randn(1, 3, 512, 512)
    plain = x.contiguous(memory_format=torch.channels_last)

    def run(bf16: bool) -> object:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.interpolate(ours(plain).float(), (512, 512), mode="bilinear", align_corners=False)

    def other() -> object:
        with torch.no_grad():
            return theirs.encode_decode(x, [{"img_shape": (512, 512), "ori_shape": (512, 512)}])

    return {"mmseg": other, "wsss fp32": lambda: run(False), "wsss": lambda: run(True)}


def training_pair(ours: Any, theirs: Any, ctx: Context) -> dict[str, Callable[[], object]]:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    image = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    mask = torch.randint(0, K, (2, 256, 256), dtype=torch.uint8)
    x = torch.randn(2, 3, 256, 256)
    samples = []
    for each in mask:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=each.long()[None])
        sample.set_metainfo({"img_shape": (256, 256), "ori_shape": (256, 256)})
        samples.append(sample)
    preset = load_preset("deeplabv3p-r50-voc-full")
    task = SegmentationTask(ours, preset.train, None)
    own = build_optimiser(task, preset.train.optim, ctx.device)
    other = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def run(bf16: bool) -> None:
        ours.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.stack(list(task.losses({"image": image, "mask": mask}).values())).sum()
        own.zero_grad(set_to_none=True)
        loss.backward()
        own.step()

    def peer() -> None:
        theirs.train()
        losses = theirs.loss(x, samples)
        loss = sum(value for key, value in losses.items() if "loss" in key)
        other.zero_grad(set_to_none=True)
        loss.backward()
        other.step()

    return {"mmseg": peer, "wsss fp32": lambda: run(False), "wsss": lambda: run(True)}


def pipeline_pair(folder: Path) -> dict[str, Callable[[], object]]:
    from mmcv.transforms import Compose
    from mmengine.registry import init_default_scope
    from mmseg.datasets.transforms import PackSegInputs  # noqa: F401  (registers their transforms)

    init_default_scope("mmseg")
    image, mask = folder / "photo.jpg", folder / "mask.png"
    drawing = draw(0, "train", 0, 500)
    cv2.imwrite(str(image), cv2.cvtColor(drawing.image[:375], cv2.COLOR_RGB2BGR))
    write_mask(mask, drawing.mask[:375], voc_palette(K))
    theirs = Compose(
        [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomResize", "scale": (2048, 512), "ratio_range": (0.5, 2.0), "keep_ratio": True},
            {"type": "RandomCrop", "crop_size": (512, 512), "cat_max_ratio": 0.75},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PhotoMetricDistortion"},
            {"type": "Pad", "size": (512, 512)},
            {"type": "PackSegInputs"},
        ]
    )
    augment = load_preset("deeplabv3p-r50-voc-full").train.augment
    rng = np.random.default_rng(0)

    def other() -> object:
        return theirs({"img_path": str(image), "seg_map_path": str(mask), "reduce_zero_label": False, "seg_fields": []})

    return {"mmseg": other, "wsss": lambda: train_sample(read_image(image), read_mask(mask), rng, augment, 512)}


def metric_pair() -> dict[str, Callable[[], object]]:
    from mmseg.evaluation.metrics import IoUMetric

    draws = np.random.default_rng(0)
    pairs = []
    for _ in range(50):
        blocks = draws.integers(0, K, (2, 15, 20))
        pred, truth = (np.kron(block, np.ones((25, 25))).astype(np.uint8) for block in blocks)
        truth[draws.random(truth.shape) < 0.03] = 255
        pairs.append((pred, truth))
    tensors = [(torch.from_numpy(pred).long(), torch.from_numpy(truth).long()) for pred, truth in pairs]

    def other() -> object:
        metric = IoUMetric()
        metric.dataset_meta = {"classes": [str(index) for index in range(K)]}
        metric.results = [IoUMetric.intersect_and_union(pred, truth, K, 255) for pred, truth in tensors]
        return metric.compute_metrics(metric.results)

    def run() -> object:
        confusion = Confusion(K)
        for pred, truth in pairs:
            confusion.add(pred, truth)
        return summary(confusion.areas())

    return {"mmseg": other, "wsss": run}


def compare(pair: dict[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of a call of each, the two timed in turn."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    for work in pair.values():
        work()
    for _ in range(rounds):
        for name, work in pair.items():
            begin = time.perf_counter()
            for _ in range(calls):
                work()
            times[name].append(1000 * (time.perf_counter() - begin) / calls)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3, help="turns of each")
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(cores())
    ctx = Context(torch.device("cpu"), Path("runs"))
    theirs = mmseg_network().eval()
    ours = build_segmentor(load_preset("deeplabv3p-r50-voc-full").train, K, ctx.device, weights=False)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "forward 1x3x512x512": compare(forward_pair(ours, theirs, ctx), 1, rounds),
            "training step 2x3x256x256": compare(training_pair(ours, theirs, ctx), 1, rounds),
            "pipeline, one 500x375 JPEG": compare(pipeline_pair(Path(folder)), 30, rounds),
            "metric, 50 masks of 500x375": compare(metric_pair(), 1, rounds),
        }
    print(json.dumps({"milliseconds": found, "threads": torch.get_num_threads(), "torch": torch.__version__}, indent=2))


if __name__ == "__main__":
    main()
