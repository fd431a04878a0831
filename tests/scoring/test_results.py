import json

import pytest
import torch

from wsss_cli.bench.model import bench_network
from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import to_toml
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError
from wsss_cli.files import write_json, write_text
from wsss_cli.report.tables import results_table
from wsss_cli.scoring.results import backbone_name, find_rows, run_row


def finished(folder, preset="deeplabv3p-r101-voc-full", overrides=(), *, scored=True, state="done", created=1.0):
    chosen = load_preset(preset, list(overrides))
    write_text(folder / "preset.lock.toml", to_toml(chosen))
    write_json(folder / "run.json", {"stage": "train", "state": state, "created": created, "device": "H"})
    write_json(folder / "inputs.json", {"dataset": "data/voc-aug", "classes": [], "colors": []})
    rows = [{"kind": "train", "step": step, "memory_gib": value} for step, value in ((1, 6.5), (2, 7.25), (3, 7.0))]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if scored:
        write_json(folder / "eval.json", {"single": {"miou": 78.5}, "ms_flip": {"miou": 79.4}, "protocol": ["val"]})
    return folder


def test_a_row_has_the_figures_of_its_run_and_the_published_ones(tmp_path):
    row = run_row(finished(tmp_path / "train-a", overrides=["train.iters=40000"]))
    assert (row["method"], row["backbone"], row["crop"], row["iters"]) == ("DeepLabV3+", "R-101-D8", 512, 40000)
    assert (row["supervision"], row["data"], row["device"]) == ("full", "voc-aug", "H")
    assert (row["memory_gib"], row["fps"], row["miou"], row["miou_ms_flip"]) == (7.25, None, 78.5, 79.4)
    assert (row["reference"]["miou"], row["reference"]["miou_ms_flip"]) == (78.62, 79.53)
    assert row["protocol"] == ["val", f"fps not measured yet: wsss bench model {tmp_path}/train-a"]
    write_json(tmp_path / "train-a/eval.json", {"single": {"miou": 70.0}, "dataset": "data/elsewhere"})
    assert run_row(tmp_path / "train-a")["data"] == "elsewhere"  # the data that the score is of


def test_another_number_of_iterations_has_no_reference_and_missing_figures_are_said(tmp_path):
    folder = finished(tmp_path / "train-b", overrides=["train.iters=123"], scored=False)
    write_json(folder / "bench.json", {"fps": 21.5, "device": "V100"})
    row = run_row(folder)
    assert row["reference"] is None
    assert (row["miou"], row["fps"], row["device"]) == (None, 21.5, "V100")
    assert row["protocol"] == [f"not scored yet: wsss eval {folder} --ms-flip"]
    prepare_toy(tmp_path / "toy", images=2, val=2, size=32)
    for name in ("train", "val"):
        file = tmp_path / f"toy/splits/{name}.csv"
        rows = [line.split(",") for line in file.read_text().splitlines()]
        file.write_text(
            "".join(",".join([*row[:2], "" if row[0] != "id" else "mask", *row[3:]]) + "\n" for row in rows)
        )
    write_json(folder / "inputs.json", {"dataset": str(tmp_path / "toy"), "classes": [], "colors": []})
    report = folder / "report.html"
    assert run_row(folder)["protocol"] == [f"not scored: the data set has no masks in a split val; see {report}"]
    table = results_table([row])
    assert table.columns[:8] == (
        *("method", "backbone", "crop", "lr schedule", "supervision"),
        *("data", "mem (GiB)", "fps"),
    )
    assert table.rows[0][1:] == (
        *("R-101-D8", "512x512", "123", "full", "voc-aug", "7.25", "21.50", "V100"),
        *("-", "-", "-", "-"),
    )
    assert table.to_csv().splitlines()[1].startswith("DeepLabV3+,R-101-D8,512x512,123,")


def test_all_finished_trainings_are_found_oldest_first(tmp_path):
    finished(tmp_path / "train-new", created=3.0)
    finished(tmp_path / "train-old", created=2.0)
    finished(tmp_path / "train-stopped", state="preempted", created=1.0)
    assert [row["run"] for row in find_rows([], tmp_path)] == [f"{tmp_path}/train-old", f"{tmp_path}/train-new"]
    with pytest.raises(UsageError, match="not finished"):
        find_rows([tmp_path / "train-stopped"], tmp_path)
    with pytest.raises(UsageError, match="no finished train run"):
        find_rows([], tmp_path / "elsewhere")


def test_backbones_are_named_as_in_the_tables():
    assert backbone_name(load_preset("deeplabv3p-r50-voc-full")) == "R-50-D8"
    assert backbone_name(load_preset("toy")) == "tf_efficientnet_lite0-D16"


def test_a_network_is_measured(tmp_path):
    small = ["train.batch=2", "train.head.aspp_channels=16", "train.precision=fp32"]
    ctx = Context(torch.device("cpu"), tmp_path)
    found = bench_network(load_preset("toy", small), 3, ctx, crop=32, steps=2)
    assert found["fps"] == pytest.approx(1000 / found["ms_per_image"], rel=0.01)
    assert found["train_img_s"] == pytest.approx(2 * found["train_it_s"], rel=0.05)
    assert 0.05 < found["inference_memory_gib"] <= found["train_memory_gib"]
    assert (found["crop"], found["batch"], found["num_classes"]) == (32, 2, 3)
    alone = bench_network(load_preset("toy", small), 3, ctx, crop=32, steps=1, train=False)
    assert "train_it_s" not in alone
