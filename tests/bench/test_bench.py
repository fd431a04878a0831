"""Benchmarks at tiny sizes: what they print hangs together."""

import json
import sys

import pytest
import torch

from wsss_cli.bench import ceilings as bench_ceilings
from wsss_cli.bench.cam import bench_cam
from wsss_cli.bench.crf import bench_crf
from wsss_cli.bench.data import bench_data
from wsss_cli.bench.evaluation import bench_eval
from wsss_cli.bench.train import bench_train
from wsss_cli.bench.walk import bench_walk
from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, UsageError
from wsss_cli.report.benchmarks import bench_table

SMALL = ["train.head.aspp_channels=16", "train.precision=fp32", "classifier.precision=fp32"]
SMALL += ["cam.scales=[1.0]", "eval.scales=[1.0]"]


@pytest.fixture
def ctx(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_ceilings, "COPY_MIB", {"cpu": 1})
    monkeypatch.setattr(bench_ceilings, "MATRIX", {"cpu": 64})
    return Context(torch.device("cpu"), tmp_path)


@pytest.fixture(scope="module")
def toy():
    return load_preset("toy", SMALL)


def rows_of(found, kind, unit, units):
    """Rows by name, after what holds for all benchmarks."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["bench"], found["versions"]["torch"], found["device"][:3]) == (kind, torch.__version__, "CPU")
    for row in found["rows"]:
        assert ("reason" in row) != ("ms" in row)
        if "ms" in row:
            assert 0 < row["ms_min"] <= row["ms"] <= row["ms_max"]
        if unit in row:
            assert row[unit] == pytest.approx(1000 * units / row["ms"], rel=1e-3)
        if row.get("share"):
            assert row["share"] == pytest.approx(row["reached"] / found["ceilings"][row["reached_of"]], rel=1e-3)
    table = bench_table(found)
    assert [row[0] for row in table.rows] == [row["name"] for row in found["rows"]]
    return {row["name"]: row for row in found["rows"]}


def check_ratios(rows, base, names):
    for name in names:
        assert rows[name]["ratio"] == pytest.approx(rows[base]["ms"] / rows[name]["ms"], rel=1e-3)


def test_crf(ctx):
    found = bench_crf(ctx, size=(20, 24), labels=4, iterations=2, repeats=2)
    rows = rows_of(found, "crf", "images_s", 1)
    assert list(rows) == ["lattice", "pydensecrf2", "exact", "triton"]
    assert rows["lattice"]["ratio"] == 1
    assert rows["pydensecrf2"]["same_as_lattice"] >= 0.999
    assert "reason" in rows["triton"]
    if "ms" in rows["exact"]:
        check_ratios(rows, "lattice", ["exact"])
        assert rows["exact"]["same_as_lattice"] > 0.8
    assert found["settings"]["parameters"] == "irn"
    assert found["versions"]["pydensecrf2"]


def test_too_many_pairs_are_a_row_with_a_reason_and_no_backend_is_refused(ctx):
    found = bench_crf(ctx, size=(375, 500), labels=2, iterations=1, repeats=1, backends=["exact"])
    (exact,) = found["rows"]
    assert "too many for a CPU" in exact["reason"] or "has no backend" in exact["reason"]
    assert [row[-1] for row in bench_table(found).rows] == [exact["reason"]]
    with pytest.raises(UsageError, match="there is no backend 'guess'") as caught:
        bench_crf(ctx, backends=["lattice", "guess"])
    assert caught.value.hint == "choose from lattice, pydensecrf2, exact, triton"


def test_walk_and_par_agree_with_the_published_ways(ctx):
    found = bench_walk(ctx, height=48, width=56, iterations=6, repeats=1)
    rows = rows_of(found, "walk", "images_s", 1)
    check_ratios(rows, "walk: torch", ["walk: dense power"])
    check_ratios(rows, "PAR: torch", ["PAR: dilated convolutions"])
    assert rows["walk: dense power"]["max_difference"] < 1e-4
    assert rows["PAR: dilated convolutions"]["max_difference"] < 1e-4
    assert "reason" in rows["walk: triton"]
    assert "reason" in rows["PAR: triton"]
    # 6 steps on 12 x 14 pixels: 69 weights, 3 maps in, 3 maps out, 4 bytes each
    size = 6 * 12 * 14 * (69 + 6) * 4
    row = rows["walk: torch"]
    assert row["reached"] == pytest.approx(size / 1e6 / row["ms"], rel=1e-3)


def test_a_dense_power_that_would_take_long_is_left_out(ctx, monkeypatch):
    slow = {"copy_gb_s": 1.0, "fp32_gflop_s": 1e-4, "bf16_gflop_s": None}
    monkeypatch.setattr("wsss_cli.bench.walk.measured_ceilings", lambda ctx: slow)
    monkeypatch.setattr("wsss_cli.bench.walk._par_rows", lambda *given: [])
    rows = rows_of(bench_walk(ctx, height=48, width=56, iterations=4, repeats=1), "walk", "images_s", 1)
    seconds = 2 * (12 * 14) ** 3 * 2 / 1e5  # two squarings
    assert f"about {seconds:.0f} s" in rows["walk: dense power"]["reason"]


def test_cam_with_a_missing_peer(ctx, toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    rows = rows_of(bench_cam(toy, ctx, images=2, height=32, width=48, repeats=1), "cam", "images_s", 2)
    one, stage = "one view at a time", "batched, with files: the stage"
    check_ratios(rows, f"{one}, computing", ["batched, computing", "batched Grad-CAM, computing"])
    check_ratios(rows, f"{one}, with files", [stage])
    assert rows["grad-cam package, computing"]["reason"] == "pytorch_grad_cam is not installed"
    assert rows["batched, computing"]["reached"] > 0


def test_training_rows_start_from_the_same_loss(ctx, toy):
    found = bench_train(toy, ctx, num_classes=6, crop=32, batch=2, steps=1, repeats=1, variants=["fp32", "bf16"])
    rows = rows_of(found, "train", "it_s", 1)
    check_ratios(rows, "fp32", ["bf16"])
    assert rows["bf16"]["loss_first"] == pytest.approx(rows["fp32"]["loss_first"], rel=0.02)
    assert rows["fp32"]["loss_last"] != rows["fp32"]["loss_first"]
    with pytest.raises(UsageError, match="'fp8'"):
        bench_train(toy, ctx, variants=["fp8"])


def test_a_switch_that_training_has_not_is_a_row_with_a_reason(ctx, toy, monkeypatch):
    monkeypatch.setattr("wsss_cli.bench.train.VARIANTS", {"fp32": {}, "new": {"no_such_switch": True}})
    found = bench_train(toy, ctx, num_classes=6, crop=32, batch=2, steps=1, repeats=1, variants=["new"])
    assert found["rows"] == [{"name": "new", "reason": "this version has no train.no_such_switch"}]


def test_eval_batched_says_what_single_views_say(ctx, toy):
    found = bench_eval(toy, ctx, num_classes=6, images=2, height=32, width=48, repeats=1)
    rows = rows_of(found, "eval", "images_s", 2)
    check_ratios(rows, "one view at a time", ["batched", "one view at a time, metric", "batched, metric"])
    assert min(row["same_as_one_view"] for row in rows.values()) > 0.98


def test_data_by_worker_count(ctx, toy, tmp_path):
    prepare_toy(tmp_path / "toy", images=3, size=48)
    small = toy.model_copy(update={"train": toy.train.model_copy(update={"batch": 2, "crop": 32})})
    found = bench_data(small, ctx, images=3, workers=[0, 1], batches=2, repeats=1, data=str(tmp_path / "toy"))
    rows = rows_of(found, "data", "batches_s", 2)
    assert list(rows) == ["both", "reading", "augmenting", "0 workers", "1 workers"]
    check_ratios(rows, "0 workers", ["0 workers", "1 workers"])
    assert rows["reading"]["part"] == pytest.approx(rows["reading"]["ms"] / rows["both"]["ms"], rel=1e-3)
    assert rows["1 workers"]["images_s"] == pytest.approx(2 * rows["1 workers"]["batches_s"], rel=1e-3)
    assert found["feeds_it_s"] == max(row["batches_s"] for row in (rows["0 workers"], rows["1 workers"]))


def test_data_without_masks_cannot_be_trained_on(ctx, toy, tmp_path):
    prepare_toy(tmp_path / "toy", images=2, size=48)
    split = tmp_path / "toy/splits/train.csv"
    lines = [line.split(",") for line in split.read_text().splitlines()]
    split.write_text("".join(",".join([a, b, c if n == 0 else "", *d]) + "\n" for n, (a, b, c, *d) in enumerate(lines)))
    with pytest.raises(DataError, match="has no mask"):
        bench_data(toy, ctx, images=2, data=str(tmp_path / "toy"))
