"""A kernel at its first use: tried once, and left out, with a word, where it is wrong."""

import pytest
import torch

from wsss_cli.config.load import load_preset
from wsss_cli.crf import dense, mean_field
from wsss_cli.kernels import backend, trials
from wsss_cli.stages import train
from wsss_cli.stages.train import on_usable_kernels

CPU = torch.device("cpu")


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(trials, "say", lines.append)
    monkeypatch.setattr(trials, "_usable", {})
    return lines


def check(error, calls, kernel="a"):
    def pairs(device, numbers):
        calls.append(device)
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        return [(torch.full((2,), 1.0 + error), torch.ones(2))]

    return trials.Check(kernel, 0.1, pairs)


def test_a_kernel_is_tried_once_and_left_out_where_it_is_wrong(said, monkeypatch):
    good, bad = [], []
    right, wrong = check(0.05, good), check(0.5, bad, "b")
    for _ in range(3):
        with torch.no_grad(), torch.autocast("cpu"):
            assert trials.usable(right, CPU) and not trials.usable(wrong, CPU)
    assert good == bad == [CPU]
    (line,) = said
    assert line.startswith("kernel b is not used on this device: its results differ by 5.0e-01")


def test_the_plain_way_is_taken_where_a_kernel_fails(said, monkeypatch):
    class OnGpu:
        is_cuda, dtype, device = True, torch.float32, CPU

    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    wrong = check(0.5, [], "b")
    assert backend.takes_triton("auto", OnGpu, check(0.0, []))
    assert not backend.takes_triton("auto", OnGpu, wrong)
    assert backend.takes_triton("triton", OnGpu, wrong)  # who names it gets it


@pytest.mark.parametrize(("error", "chosen"), [(0.0, "triton"), (0.5, "lattice")])
def test_the_crf_goes_back_to_the_lattice(said, monkeypatch, error, chosen):
    monkeypatch.setattr(dense, "gpu_can", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(mean_field, "TRIAL", check(error, []))
    assert dense.backend_for("cuda") == chosen and dense.backend_for("cpu") == "lattice"
    assert len(said) == (chosen == "lattice")


def test_a_training_goes_on_without_kernels_that_fail(said, monkeypatch):
    config = load_preset("toy", ["train.kernels=fused"]).train
    monkeypatch.setattr(train, "TRAINING", (check(0.0, []), check(0.0, [], "b")))
    assert on_usable_kernels(config, CPU) == config
    assert on_usable_kernels(load_preset("toy").train, CPU).kernels == "plain"  # auto, and a CPU
    monkeypatch.setattr(train, "TRAINING", (check(0.0, []), check(0.5, [], "c")))
    assert on_usable_kernels(config, CPU) == config.model_copy(update={"kernels": "plain"})
    assert len(said) == 1 and "kernel c" in said[0]
