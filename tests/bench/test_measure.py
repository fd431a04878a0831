import signal
import sys
from typing import Literal

import numpy as np
import pytest
import torch

from wsss_cli.bench import ceilings as bench_ceilings
from wsss_cli.bench import measure as bench_measure
from wsss_cli.bench.ceilings import add_share, count_flop, measured_ceilings
from wsss_cli.bench.inputs import edge_map, pictures, score_maps
from wsss_cli.bench.measure import (
    Case,
    Measured,
    added_memory,
    make_rows,
    measure,
    require_choice,
    require_cuda,
)
from wsss_cli.engine.context import Context
from wsss_cli.errors import Interrupted, UsageError


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path)


def raising(error):
    def prepare():
        raise error

    return prepare


def test_cases_are_timed_in_turn_after_a_warm_up(ctx, monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(bench_measure.time, "perf_counter", lambda: now[0])

    def taking(name, durations):
        left = iter(durations)

        def work():
            now[0] += next(left)
            order.append(name)
            return name

        return Case(name, lambda: work)

    cases = [taking("slow", [50, 4, 4, 2, 2, 6, 6]), taking("fast", [50, 1, 1, 1, 1, 1, 1])]
    slow, fast = measure(cases, ctx, repeats=3, calls=2, title="x")
    assert (slow.seconds, fast.seconds) == ([4, 2, 6], [1, 1, 1])
    assert order == ["slow", "fast", *["slow"] * 2, *["fast"] * 4, *["slow"] * 4, *["fast"] * 2]
    assert (slow.result, fast.reason) == ("slow", "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'peer'", name="peer"), "peer is not installed"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "out of memory"),
        (UsageError("needs a CUDA device", "hint"), "needs a CUDA device"),
        (ValueError("first line\nsecond"), "ValueError: first line"),
    ],
)
def test_a_case_that_fails_has_its_reason_and_the_others_go_on(ctx, error, reason):
    failed, good = measure([Case("a", raising(error)), Case("b", lambda: lambda: 7)], ctx, repeats=1, title="x")
    assert (failed.reason, failed.seconds) == (reason, [])
    assert (good.result, len(good.seconds)) == (7, 1)


def test_a_case_that_fails_in_a_later_turn_has_no_times(ctx):
    left = iter([1, 2, 3])
    (row,) = measure([Case("a", lambda: lambda: 1 / (3 - next(left)))], ctx, repeats=5, title="x")
    assert (row.seconds, row.reason) == ([], "ZeroDivisionError: division by zero")
    assert make_rows([row], units=1, unit="it_s", base="a") == [{"name": "a", "reason": row.reason}]


def test_a_stop_is_no_reason_of_a_row(ctx):
    def work():
        ctx.stop.signal = signal.SIGINT

    with pytest.raises(Interrupted):
        measure([Case("a", lambda: work), Case("b", raising(ValueError()))], ctx, repeats=2, title="x")


def test_rows_have_medians_rates_and_ratios():
    found = [
        Measured("plain", seconds=[0.5, 0.3, 0.4], memory_mib=12.0),
        Measured("peer", reason="peer is not installed"),
        Measured("quick", seconds=[0.1, 0.1, 0.7]),
    ]
    plain, peer, quick = make_rows(found, units=8, unit="images_s", base="plain")
    assert plain == {
        "name": "plain",
        "ms": 400.0,
        "ms_min": 300.0,
        "ms_max": 500.0,
        "images_s": 20.0,
        "ratio": 1.0,
        "memory_mib": 12.0,
    }
    assert peer == {"name": "peer", "reason": "peer is not installed"}
    assert (quick["ms"], quick["images_s"], quick["ratio"], quick["memory_mib"]) == (100.0, 80.0, 4.0, None)
    assert make_rows(found[1:], units=8, unit="images_s", base="plain")[1]["ratio"] is None


def test_a_share_is_the_amount_over_time_and_ceiling():
    row = {"name": "a", "ms": 20.0}
    add_share(row, 3e9, "fp32_gflop_s", {"fp32_gflop_s": 600.0})  # 3 GFLOP in 0.02 s are 150 GFLOP/s
    assert (row["reached"], row["share"], row["reached_of"]) == (150.0, 0.25, "fp32_gflop_s")
    for other in ({"name": "a", "reason": "x"}, {"name": "a", "ms": 20.0}):
        before = dict(other)
        add_share(other, 3e9, "bf16_gflop_s", {"bf16_gflop_s": None})
        assert other == before


def test_operations_are_counted_by_shapes():
    assert count_flop(lambda: torch.ones(2, 3) @ torch.ones(3, 4)) == 2 * 2 * 3 * 4


@pytest.mark.parametrize(
    "layer, products",  # of one image of 4 channels and 6x6 pixels
    [
        (torch.nn.Conv2d(4, 8, 3, padding=1), 36 * 8 * 4 * 9),
        (torch.nn.Conv2d(4, 4, 3, padding=1, groups=4), 36 * 4 * 9),
        (torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), 9 * 8 * 2 * 9),
        (torch.nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), 36 * 4 * 3 * 4),
    ],
    ids=["dense", "depthwise", "groups", "transposed"],
)
def test_each_gradient_of_a_convolution_takes_the_products_of_its_forward_pass(layer, products):
    x = torch.ones(1, 4, 6, 6, requires_grad=True)
    assert count_flop(lambda: layer(x)) == 2 * products
    assert count_flop(lambda: layer(x).sum().backward()) == 2 * products * 3


def test_ceilings_are_bytes_and_operations_over_the_best_time(ctx, monkeypatch):
    monkeypatch.setattr(bench_ceilings, "COPY_MIB", {"cpu": 1})
    monkeypatch.setattr(bench_ceilings, "MATRIX", {"cpu": 100})
    monkeypatch.setattr(bench_ceilings, "_best", lambda work, ctx: 0.001)
    monkeypatch.setattr(bench_ceilings, "bf16_serves", lambda device: True)
    found = measured_ceilings(ctx)  # 2 * 2^20 bytes and 2 * 100^3 operations in a millisecond
    assert found == {"copy_gb_s": 2.0972, "fp32_gflop_s": 2.0, "bf16_gflop_s": 2.0}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux alone")
def test_memory_is_what_a_call_adds_at_its_peak():
    def work():
        np.ones(80 * 2**17)  # 80 MiB, freed at once
        return 5

    result, added = added_memory(work, torch.device("cpu"))
    assert result == 5
    if added is None:
        pytest.skip("this system does not let a process reset its peak")
    assert 75 < added < 100


def test_what_a_function_takes_is_read_off_its_signature():
    def old(x): ...
    def new(x, backend: Literal["auto", "exact"] = "auto"): ...
    def free(x, backend: str = "auto"): ...

    require_choice(new, "backend", "exact")
    require_choice(free, "backend", "triton")
    with pytest.raises(UsageError, match="old has no backend"):
        require_choice(old, "backend", "exact")
    with pytest.raises(UsageError, match="new has no backend 'triton'"):
        require_choice(new, "backend", "triton")
    with pytest.raises(UsageError, match="CUDA"):
        require_cuda(torch.device("cpu"))
    require_cuda(torch.device("cuda"))


def test_inputs_depend_on_their_arguments_alone():
    first, again = (pictures(2, 48, 64, seed=3) for _ in range(2))
    assert [p.image.shape for p in first] == [(48, 64, 3)] * 2
    assert all((a.image == b.image).all() and (a.mask == b.mask).all() for a, b in zip(first, again, strict=True))
    assert (pictures(1, 48, 64, seed=4)[0].image != first[0].image).any()
    scores = score_maps(first[0].mask, 7, seed=0)
    assert scores.shape == (7, 48, 64)
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-5)
    inside = first[0].mask < 7
    assert (scores.argmax(0) == first[0].mask)[inside].mean() > 0.8


def test_edges_are_high_where_the_mask_changes():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    edge = edge_map(mask, 10, 10, seed=0)
    assert (edge.shape, edge.dtype) == ((10, 10), np.float32)
    assert edge[:, 4:6].min() > 0.5
    assert edge[:, [0, 1, 2, 7, 8, 9]].max() < 0.2
