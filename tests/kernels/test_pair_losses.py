import math

import pytest
import torch
from compiling import compile_kernels

from wsss_cli.pseudo import affinity_loss
from wsss_cli.pseudo.affinity_loss import boundary_loss, feature_loss
from wsss_cli.pseudo.pairs import half_disc

MODULE = "wsss_cli.kernels.pair_losses"


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(affinity_loss, "usable", lambda check, where: True)


def inputs(device, batch, channels, height, width, dtype=torch.uint8):
    """Predictions, [B, D, H, W] or with D = 0 [B, H, W], and labels, one of six 255."""
    generator = torch.Generator().manual_seed(height)
    x = 2 * torch.randn(batch, max(channels, 1), height, width, generator=generator)
    labels = torch.randint(0, 3, (batch, height, width), generator=generator).to(dtype)
    labels[torch.rand(labels.shape, generator=generator) < 1 / 6] = 255
    return (x if channels else x[:, 0]).to(device), labels.to(device)


def with_gradient(loss, x, *args, **keywords):
    x = x.detach().requires_grad_()
    value = loss(x, *args, **keywords)
    return value.detach(), torch.autograd.grad(3 * value, x)[0]


def exact(plain, x, labels, offsets):
    """Loss and three times its gradient by the plain path in float64."""
    numbers = affinity_loss._numbers(labels, offsets).clamp(min=1)
    shares = torch.tensor(affinity_loss.WEIGHTS, dtype=torch.float64).to(x.device) / numbers
    value, gradient = plain(x.double(), labels=labels, offsets=offsets, shares=shares)
    return value, 3 * gradient


SHAPES = {  # batch, height, width; radius; labels
    "odd": ((2, 7, 9), 5, torch.uint8),
    "more than a tile": ((1, 11, 13), 3, torch.int64),
    "radius 10": ((1, 5, 12), 10, torch.uint8),
    "one row": ((1, 1, 17), 5, torch.uint8),
    "one column": ((3, 8, 1), 3, torch.uint8),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("loss", [boundary_loss, feature_loss])
def test_loss_and_gradient_are_those_of_float64(loss, name, device):
    (batch, height, width), radius, dtype = SHAPES[name]
    channels = 0 if loss is boundary_loss else 17 if name == "more than a tile" else 3  # of which a program has 16
    x, labels = inputs(device, batch, channels, height, width, dtype)
    offsets = half_disc(radius)
    value, gradient = with_gradient(loss, x, labels, offsets, kernels="fused")
    plain = affinity_loss._feature if channels else affinity_loss._boundary
    right = exact(plain, x, labels, offsets)
    assert value.item() == pytest.approx(right[0].item(), rel=1e-5)
    assert gradient.dtype == torch.float32
    assert ((gradient.double() - right[1]).norm() / right[1].norm()).item() < 1e-5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pairs_are_counted(dtype, device):
    module = pytest.importorskip(MODULE)
    _, labels = inputs(device, 2, 0, 9, 11, dtype)
    labels[1, :, :6] = 0
    counts = module.pair_numbers(labels, half_disc(5))
    assert counts.tolist() == affinity_loss._numbers(labels, half_disc(5)).tolist()
    assert min(counts.tolist()) > 0


@pytest.mark.parametrize("loss", [boundary_loss, feature_loss])
def test_where_no_pixel_has_a_label_there_is_no_loss(loss, device):
    x, labels = inputs(device, 1, 0 if loss is boundary_loss else 3, 4, 5)
    value, gradient = with_gradient(loss, x, labels.fill_(255), half_disc(3), kernels="fused")
    assert value.item() == 0.0 and not gradient.any()


def test_one_pair_by_hand(device):
    logits = torch.tensor([[[0.5, 2.0]]], device=device)
    a = 1 / (1 + math.exp(2.0))
    for labels, expected, slope in (
        ([0, 0], -0.25 * math.log(a + 1e-5), 0.25 / (a + 1e-5)),
        ([3, 3], -0.25 * math.log(a + 1e-5), 0.25 / (a + 1e-5)),
        ([0, 3], -0.5 * math.log(1 + 1e-5 - a), -0.5 / (1 + 1e-5 - a)),
    ):
        there = torch.tensor([[labels]], device=device)
        value, gradient = with_gradient(boundary_loss, logits, there, half_disc(2), kernels="fused")
        assert value.item() == pytest.approx(expected, rel=1e-5)
        assert gradient.flatten().tolist() == pytest.approx([0.0, 3 * slope * a * (1 - a)], rel=1e-5)


def test_of_pixels_that_are_equally_high_the_first_gets_the_gradient(device):
    labels = torch.zeros(1, 1, 2, dtype=torch.uint8, device=device)
    _, gradient = with_gradient(boundary_loss, torch.zeros(1, 1, 2, device=device), labels, half_disc(2), "fused")
    assert gradient.flatten().tolist() == pytest.approx([0.75 * 0.5, 0.0], rel=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("loss", [boundary_loss, feature_loss])
def test_what_is_not_a_number_shows(loss, place, device):
    x, labels = inputs(device, 1, 0 if loss is boundary_loss else 3, 4, 5)
    x.view(-1)[place] = math.nan
    assert math.isnan(loss(x, labels.fill_(1), half_disc(3), "fused").item())


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("loss", [boundary_loss, feature_loss])
def test_logits_far_away_are_finite(loss, device):
    x, labels = inputs(device, 1, 0 if loss is boundary_loss else 3, 4, 5)
    value, gradient = with_gradient(loss, 1000 * x, labels, half_disc(3), "fused")
    right = with_gradient(loss, 1000 * x, labels, half_disc(3))
    assert value.item() == pytest.approx(right[0].item(), rel=1e-5)
    torch.testing.assert_close(gradient, right[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", [boundary_loss, feature_loss])
def test_a_kernel_that_fails_its_trial_is_left_out(loss, device, monkeypatch):
    monkeypatch.setattr(affinity_loss, "usable", lambda check, where: False)
    for way in ("_fused_boundary", "_fused_feature", "_fused_numbers"):
        monkeypatch.setattr(affinity_loss, way, None)
    x, labels = inputs(device, 1, 0 if loss is boundary_loss else 3, 4, 5)
    assert torch.equal(loss(x, labels, half_disc(3), "fused"), loss(x, labels, half_disc(3)))


@pytest.mark.slow
def test_the_kernels_compile_and_keep_everything_in_registers():
    sizes = dict.fromkeys(("height", "width"), "i32")
    tile = {"PIXELS": 64, "CHANNELS": 16}
    ends = dict.fromkeys(tile, "constexpr")
    losses = {"shares": "*fp32", "slopes": "*fp32", "losses": "*fp32"}
    boundary = {"logits": "*fp32", "labels": "*i64", "table": "*i32", "begins": "*i32", "steps": "*i32"}
    boundary |= losses | {"slopes": "*i64", "offsets": "i32", **sizes, "scale": "fp32"}
    boundary |= {"GROUP": "constexpr", "PIXELS": "constexpr"}
    pairs = {"features": "*fp32", "labels": "*i64", "table": "*i32", **losses, "channels": "i32", **sizes, **ends}
    gradient = {"features": "*fp32", "table": "*i32", "slopes": "*fp32", "gradient": "*fp32"}
    gradient |= {"offsets": "i32", "channels": "i32", **sizes, **ends}
    counts = {"labels": "*i64", "table": "*i32", "counts": "*i32", "offsets": "i32", **sizes, "PIXELS": "constexpr"}
    jobs = [
        (MODULE, "boundary_pairs", boundary, {"GROUP": 19, "PIXELS": 128}, (), {}),
        (MODULE, "feature_pairs", pairs, tile, (), {}),
        (MODULE, "feature_gradient", gradient, tile, (), {}),
        (MODULE, "pair_counts", counts, {"PIXELS": 128}, (), {}),
    ]
    assert [made["spilled"] for made in compile_kernels(jobs)] == [0] * 4
