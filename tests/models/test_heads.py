"""Heads against MMSegmentation's of the same name, with the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import rules
import torch
from make_heads import MAPS

from wsss_cli.models.heads.deeplab import DeepLabHead
from wsss_cli.models.heads.fcn import FcnHead
from wsss_cli.models.heads.segformer import SegFormerHead
from wsss_cli.models.heads.upernet import UPerNetHead, cell_means

GOLDEN = Path(__file__).parents[1] / "golden"
CLASSIFIER = ("conv_seg.", "classifier.")
HEADS = {
    "fcn": (FcnHead, {}, (("convs.", "conv."), ("conv_cat.", "joint."))),
    "aux": (FcnHead, {"level": 2, "convs": 1, "concat": False}, (("convs.0.", "conv."),)),
    "segformer": (SegFormerHead, {}, (("convs.", "levels."), ("fusion_conv.", "fuse."))),
    "upernet": (
        UPerNetHead,
        {},
        (
            *((f"psp_modules.{i}.1.", f"pools.{i}.") for i in range(4)),
            *(("lateral_convs.", "laterals."), ("fpn_convs.", "levels."), ("fpn_bottleneck.", "fuse.")),
        ),
    ),
}
"""Name of the golden file: the head, its arguments, and how its keys differ from MMSegmentation's."""


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_a_head_gives_the_logits_of_mmsegmentations(name):
    kind, settings, renamed = HEADS[name]
    with np.load(GOLDEN / f"heads_{name}.npz") as golden:
        theirs, expected = json.loads(str(golden["keys"])), golden["logits"]
        given = json.loads(str(golden["settings"]))
    head = kind([c for c, _, _ in MAPS], given["num_classes"], channels=given["channels"], **settings).eval()
    state = {}
    for key, shape in theirs.items():
        ours = key
        for old, new in (*renamed, CLASSIFIER):
            ours = new + ours.removeprefix(old) if ours.startswith(old) else ours
        state[ours] = torch.from_numpy(np.asarray(rules.weight(key, tuple(shape))))
    assert {key: list(tensor.shape) for key, tensor in head.state_dict().items()} == {
        key: list(tensor.shape) for key, tensor in state.items()
    }
    head.load_state_dict(state)
    maps = [torch.from_numpy(rules.network_input(5001 + i, (2, *shape))) for i, shape in enumerate(MAPS)]
    with torch.no_grad():
        logits = head(maps)
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_in_its_published_size_has_as_many_parameters_as_mmsegmentations(name):
    kind, settings, _ = HEADS[name]
    with np.load(GOLDEN / f"heads_{name}.npz") as golden:
        full, expected = json.loads(str(golden["full"])), int(golden["parameters"])
    inputs = full["in_channels"]
    if isinstance(inputs, int):  # the head sees one of the maps
        inputs = [inputs if i == full["in_index"] else 1 for i in range(4)]
    with torch.device("meta"):
        assert parameters(kind(inputs, full["num_classes"], channels=full["channels"], **settings)) == expected


@pytest.mark.parametrize(("size", "cells"), [((3, 4), 6), ((7, 5), 3), ((6, 6), 2), ((5, 9), 1)])
def test_means_over_a_grid_are_those_of_adaptive_pooling(size, cells):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cell_means(x, cells), torch.nn.functional.adaptive_avg_pool2d(x, cells))


@pytest.mark.parametrize("kind", [DeepLabHead, FcnHead, SegFormerHead, UPerNetHead])
def test_every_convolution_of_a_head_sees_the_layout_of_its_maps(kind):
    """A map that comes in another layout is copied within the convolution, and all that follows it."""
    torch.manual_seed(0)
    head = kind([4, 6, 8, 8], 3, channels=16).to(memory_format=torch.channels_last).train()
    maps = [
        torch.randn(2, channels, side, side + 2).contiguous(memory_format=torch.channels_last)
        for channels, side in ((4, 16), (6, 8), (8, 4), (8, 4))
    ]
    seen = {}

    def look(name):
        return lambda module, inputs: seen.__setitem__(name, inputs[0])

    for name, module in head.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(look(name))
    head(maps)
    assert len(seen) > 2
    others = [name for name, x in seen.items() if not x.is_contiguous(memory_format=torch.channels_last)]
    assert others == []
