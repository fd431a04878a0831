"""Parameters and multiply-adds by module: by hand, and beside what torchvision publishes."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50, vit_b_16

from wsss_cli.bench.flops import bench_flops, count_modules
from wsss_cli.cli.bench_flops import preset_and_classes
from wsss_cli.config.load import load_preset
from wsss_cli.errors import UsageError
from wsss_cli.report.benchmarks import flops_table


class Small(nn.Module):
    """A convolution, a depthwise one inside a block, attention, and a layer that is not used."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False))
        self.linear = nn.Linear(8, 4)
        self.idle = nn.Linear(2, 5)

    def forward(self, x):
        tokens = self.linear(self.block(self.stem(x)).flatten(2).transpose(1, 2))[:, None]  # [1, 1, 30, 4]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_layers_by_hand():
    with torch.device("meta"):
        rows, total = count_modules(Small(), torch.empty(1, 3, 10, 12), 2)
    counted = {row["name"]: (row["type"], row["parameters"], row["multiply_adds"]) for row in rows}
    places = 5 * 6
    assert counted == {
        "stem": ("Conv2d", 8 * 3 * 9 + 8, places * 8 * 3 * 9),
        "block": ("Sequential", 16 + 8 * 9, places * 8 * 9),
        "block.0": ("BatchNorm2d", 16, 0),
        "block.1": ("Conv2d", 8 * 9, places * 8 * 9),
        "linear": ("Linear", 8 * 4 + 4, places * 8 * 4),
        "idle": ("Linear", 2 * 5 + 5, 0),
    }
    attention = 2 * places * places * 4  # queries by keys, then by values
    assert total == sum(row[2] for name, row in counted.items() if "." not in name) + attention


def test_a_depth_leaves_out_what_is_further_in():
    with torch.device("meta"):
        rows, _ = count_modules(Small(), torch.empty(1, 3, 10, 12), 1)
    assert [row["name"] for row in rows] == ["stem", "block", "linear", "idle"]


@pytest.mark.parametrize(("build", "figures"), [(resnet50, ResNet50_Weights.IMAGENET1K_V1.meta)])
def test_a_resnet_50_is_what_torchvision_says(build, figures):
    """4.089 GMAC (called GFLOPS there) and 25,557,032 parameters at 224 x 224."""
    with torch.device("meta"):
        model = build()
        _, total = count_modules(model, torch.empty(1, 3, 224, 224), 1)
    assert round(total / 1e9, 3) == figures["_ops"] == 4.089
    assert sum(parameter.numel() for parameter in model.parameters()) == figures["num_params"] == 25_557_032


def test_attention_of_a_vision_transformer_is_counted():
    """ViT-B/16 at 224: 12 blocks of 197 tokens x 768; its matrix products by hand."""
    with torch.device("meta"):
        _, total = count_modules(vit_b_16(), torch.empty(1, 3, 224, 224), 1)
    tokens, width = 197, 768
    block = tokens * width * width * (3 + 1 + 4 + 4) + 2 * tokens * tokens * width
    assert total == 196 * width * 3 * 16 * 16 + 12 * block + width * 1000


PRESETS = ["toy", "deeplabv3p-r101-voc-weak", "segformer-pvtv2b2-voc-weak", "upernet-convnext-t-voc-weak"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_of_a_preset_are_the_whole(name):
    result = bench_flops(load_preset(name), 21, size=(96, 128), depth=1)
    assert json.loads(json.dumps(result)) == result
    parts = {row["name"]: row for row in result["modules"]}
    assert {"backbone", "head"} <= parts.keys() <= {"backbone", "head", "aux"}
    assert sum(row["parameters"] for row in parts.values()) == result["parameters"] > 0
    assert sum(row["multiply_adds"] for row in parts.values()) == result["multiply_adds"] == result["flops"] // 2 > 0
    deeper = bench_flops(load_preset(name), 21, size=(96, 128), depth=4)
    assert deeper["multiply_adds"] == result["multiply_adds"] and len(deeper["modules"]) > 10
    assert sum(row["name"].startswith("head.") for row in deeper["modules"]) > 1


def test_a_list_of_layers_has_what_is_in_it():
    rows = {row["name"]: row for row in bench_flops(load_preset("toy"), 21, size=(64, 64), depth=3)["modules"]}
    branches = [row for name, row in rows.items() if name.startswith("head.aspp.")]
    assert rows["head.aspp"]["type"] == "ModuleList" and len(branches) == 4
    assert rows["head.aspp"]["multiply_adds"] == sum(row["multiply_adds"] for row in branches) > 0
    parts = [row["multiply_adds"] for name, row in rows.items() if name.startswith("head.") and name.count(".") == 1]
    assert sum(parts) == rows["head"]["multiply_adds"]


def test_twice_the_width_is_twice_the_work():
    one, two = (bench_flops(load_preset("toy"), 21, size=(96, side), depth=1) for side in (96, 192))
    convolutions = two["multiply_adds"] / one["multiply_adds"]
    assert 1.99 < convolutions <= 2.0  # the pooled branch of the head costs the same


def test_the_command_says_the_convention(wsss):
    done = wsss("bench", "flops", "--preset", "toy", "--num-classes", "6", "--height", "64", "--width", "96")
    assert done.returncode == 0, done.stderr
    assert "toy, 6 classes, 96x64" in done.stdout
    assert "each of which is two FLOPs" in done.stdout and "counted: convolutions" in done.stdout
    done = wsss("bench", "flops", "--preset", "toy", "--depth", "1", "--json")
    result = json.loads(done.stdout)
    assert (result["num_classes"], result["height"], result["width"], result["depth"]) == (21, 512, 512, 1)
    table = flops_table(result)
    assert [row[0] for row in table.rows] == [row["name"] for row in result["modules"]]
    assert table.footer[2] == f"{result['parameters']:,}"


def test_classes_of_a_run_are_its_own(tmp_path):
    for command in ("flops", "model"):
        with pytest.raises(UsageError, match="--num-classes goes with --preset"):
            preset_and_classes(tmp_path, "", 21, command)
    assert preset_and_classes(None, "toy", None, "flops") == ("toy", 21)
    assert preset_and_classes(None, "toy", 6, "flops") == ("toy", 6)


@pytest.mark.parametrize("words", [(), ("runs/x", "--preset", "toy"), ("--preset", "toy", "--depth", "0")])
def test_what_is_not_said_is_refused(wsss, words):
    done = wsss("bench", "flops", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert ("give a run, or --preset" in done.stderr) == ("--depth" not in words)
