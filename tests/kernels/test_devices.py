"""Where tensors lie when the device is a GPU, on a machine without one: fake tensors have a device and no values.

A tensor that stayed on the CPU is refused by the operation that meets it, as on a GPU; kernels are not run, but their
arguments are looked at. Backward passes are not made: they need a driver.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.affinity import IrnWalk
from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.metrics.on_device import DeviceConfusion
from wsss_cli.models.build import build_segmentor
from wsss_cli.pseudo.walk import irn_walk
from wsss_cli.stages.predict import predict_tensors
from wsss_cli.stages.train import SegmentationTask, put_on_kernels

GPU = torch.device("cuda")
SIDE = 64
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU itself says where its tensors lie")


def moved(module, device=None, **kwargs):
    """`Module.to`, which cannot change the device of a fake parameter in place."""
    for part in module.modules():
        for name, tensor in part._parameters.items():
            if tensor is not None:
                part._parameters[name] = nn.Parameter(tensor.detach().to(device), requires_grad=tensor.requires_grad)
        for name, tensor in part._buffers.items():
            if tensor is not None:
                part._buffers[name] = tensor.to(device)
    return module


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched."""
    walk = pytest.importorskip("wsss_cli.kernels.walk")
    from torch._subclasses.fake_tensor import FakeTensorMode
    from triton.runtime.interpreter import InterpretedFunction

    names = set()

    def run(kernel, *args, grid, warmup, **kwargs):
        assert {argument.device.type for argument in args if isinstance(argument, torch.Tensor)} == {"cuda"}
        names.add(kernel.fn.__name__)

    monkeypatch.setattr(InterpretedFunction, "run", run)
    monkeypatch.setattr(nn.Module, "to", moved)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: nullcontext())
    monkeypatch.setattr(walk, "_replayed", walk._launched)  # a CUDA graph needs a driver
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield names


def network(overrides=()):
    preset = load_preset("toy", list(overrides))
    return preset, build_segmentor(preset.train, 6, GPU, weights=False)


def batch():
    def plane(*shape):
        return torch.zeros(2, *shape, dtype=torch.uint8, device=GPU)

    return {
        "image": plane(SIDE, SIDE, 3),
        "mask": plane(SIDE, SIDE),
        "confidence": plane(SIDE, SIDE),
        "labels": torch.ones(2, 5, device=GPU),
        "size": torch.full((2, 2), SIDE, device=GPU),
    }


@pytest.mark.parametrize(
    "setting",
    [
        "train.kernels='plain'",
        "train.kernels='fused'",
        "train.noise.balance='fg-bg'",
        "train.noise.confidence='weight'",
        "train.noise.confidence='ignore'",
        "train.noise.gated_crf={}",
        "train.noise.teacher={}",
    ],
)
def test_a_training_step_has_everything_on_the_gpu(launched, setting):
    preset, model = network([setting])
    put_on_kernels(model, preset.train)
    losses = SegmentationTask(model.train(), preset.train, None).losses(batch())
    assert {loss.device.type for loss in losses.values()} == {"cuda"}
    assert bool(launched) == ("fused" in setting)


def test_predictions_are_made_and_counted_on_the_gpu(launched, tmp_path):
    preset, model = network()
    images = [np.zeros((SIDE, SIDE + 16, 3), np.uint8)] * 2
    allowed = torch.ones(2, 6, dtype=torch.bool)
    found = predict_tensors(
        model, images, preset.eval, Context(GPU, tmp_path), "fp32", ms_flip=True, probabilities=True, allowed=allowed
    )
    assert {made.device.type for made in found.values()} == {"cuda"}
    confusion = DeviceConfusion(6, GPU)
    confusion.add(found["single"], torch.zeros(2, SIDE, SIDE + 16, dtype=torch.uint8, device=GPU))
    assert confusion.cells.device.type == "cuda"


def test_a_walk_is_the_kernel_s_on_a_gpu(launched):
    walked = irn_walk(torch.rand(3, 20, 24, device=GPU), torch.rand(20, 24, device=GPU), IrnWalk())
    assert (walked.shape, walked.device.type) == ((3, 20, 24), "cuda")
    assert launched == {"walk_degrees", "walk_step"}


def test_what_stayed_on_the_cpu_is_found(launched):
    preset, model = network()
    with pytest.raises(Exception, match="same device"):
        SegmentationTask(model.train(), preset.train, None).losses(
            {**batch(), "mask": torch.zeros(2, SIDE, SIDE).byte()}
        )
