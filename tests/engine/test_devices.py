import ctypes

import pytest

from wsss_cli.engine import devices
from wsss_cli.engine.devices import check_ranks, device_type
from wsss_cli.errors import UsageError


@pytest.mark.parametrize(("word", "count", "kind"), [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu")])
def test_a_word_means_a_device(monkeypatch, word, count, kind):
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    assert device_type(word) == kind


@pytest.mark.parametrize(
    ("word", "count", "fault"),
    [("gpu", 1, "no such device"), ("cuda", 0, "no usable CUDA device"), ("cuda:2", 2, "has 2 CUDA devices")],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, word, count, fault):
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    with pytest.raises(UsageError, match=fault):
        device_type(word)


@pytest.mark.parametrize(
    ("ranks", "word", "count", "fault"),
    [
        (3, "auto", 2, "has 2 CUDA devices"),
        (3, "cuda", 2, "has 2 CUDA devices"),
        (2, "cuda:1", 2, "a device of its own"),
    ],
)
def test_ranks_without_a_device_each_are_refused(monkeypatch, ranks, word, count, fault):
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    with pytest.raises(UsageError, match=fault):
        check_ranks(ranks, word)


@pytest.mark.parametrize(("ranks", "word", "count"), [(2, "auto", 2), (4, "cpu", 2), (4, "auto", 0)])
def test_ranks_have_a_device_each_or_are_processes(monkeypatch, ranks, word, count):
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    check_ranks(ranks, word)


def test_the_driver_counts_gpus_unless_torch_has_no_use_for_them(monkeypatch):
    class Driver:
        def cuInit(self, flags):
            return 0

        def cuDeviceGetCount(self, number):
            number._obj.value = 3
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda library: Driver())
    monkeypatch.setattr(devices, "version", lambda package: "2.9.0")
    assert devices.cuda_devices() == 3
    monkeypatch.setattr(devices, "version", lambda package: "2.9.0+cpu")
    assert devices.cuda_devices() == 0


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def none(library):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert devices.cuda_devices() == 0
