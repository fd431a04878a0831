"""Networks on the kernels beside the same networks without."""

import copy

import pytest
import torch
from timm.models.resnet import Bottleneck, downsample_conv
from torch import nn

from wsss_cli.config.train import TrainConfig
from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.models.backbones import build_backbone
from wsss_cli.models.blocks import Separable
from wsss_cli.models.build import segmentor


def fused(model):
    model = copy.deepcopy(model)
    replaced = pytest.importorskip("wsss_cli.models.fused").fuse(model)
    return model, replaced


def small(device):
    """A stem, two residual blocks, a depthwise separable layer and a classifier; nothing starts at 0 or 1."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    blocks = nn.Sequential(Bottleneck(4, 2, downsample=downsample_conv(4, 8, 1)), Bottleneck(8, 2))
    model = nn.Sequential(stem, blocks, Separable(8, 6, dilation=2), nn.Conv2d(6, 3, 1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    return model.to(device, memory_format=torch.channels_last)


def batch(device):
    x = torch.randn(2, 3, 4, 5, device=device).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 3, (2, 8, 9), device=device)
    target[0, :2] = 255
    return x, target


@pytest.fixture
def depthwise():
    return pytest.importorskip("wsss_cli.kernels.depthwise")


def step(model, x, target, **options):
    loss = cross_entropy(model(x), target, **options)
    loss.backward()
    return loss.item(), {key: parameter.grad.double().cpu() for key, parameter in model.named_parameters()}


def test_loss_gradients_and_state_are_those_of_the_plain_network_in_float64(device):
    model = small(device)
    x, target = batch(device)
    mine, replaced = fused(model)
    assert replaced == 11  # ten batch norms and a convolution
    loss, grads = step(mine.train(), x, target, kernels="fused")
    exact = copy.deepcopy(model).double().cpu().train()
    expected, expected_grads = step(exact, x.double().cpu(), target.cpu())
    assert loss == pytest.approx(expected, rel=1e-5)
    assert list(grads) == list(expected_grads)
    for key, grad in grads.items():
        assert (grad - expected_grads[key]).norm() < 1e-4 * expected_grads[key].norm() + 1e-7, key
    state, expected_state = mine.state_dict(), exact.state_dict()
    assert list(state) == list(expected_state)
    for key, value in state.items():
        torch.testing.assert_close(value.double().cpu(), expected_state[key].double(), rtol=1e-5, atol=1e-5)
    kinds = {type(module).__name__ for module in mine.modules()}
    assert {"FusedBottleneck", "FusedBatchNorm2d", "DepthwiseConv3x3"} <= kinds
    assert not {"Bottleneck", "BatchNorm2d", "ReLU"} & kinds - {"FusedBottleneck"}


def test_in_evaluation_mode_only_dilated_depthwise_convolutions_have_kernels(device, depthwise, monkeypatch):
    model = small(device).eval()
    x, _ = batch(device)
    mine, _ = fused(model)
    torch.testing.assert_close(mine(x), model(x), rtol=1e-4, atol=1e-5)
    predicting = copy.deepcopy(model)
    dilated = sum(depthwise.fits(module) and module.dilation[0] > 1 for module in model.modules())
    assert pytest.importorskip("wsss_cli.models.fused").fuse_dilated(predicting) == dilated > 0
    assert torch.equal(predicting(x), mine(x))
    monkeypatch.setattr(depthwise.DepthwiseConv3x3, "forward", torch.nn.Conv2d.forward)
    assert torch.equal(mine(x), model(x))
    mine.load_state_dict(model.state_dict())


def test_a_deeplab_is_fused_whole_but_for_what_is_not_a_plain_resnet():
    backbone = build_backbone("resnet50c", output_stride=8, weights="none")
    model = segmentor(backbone, TrainConfig(), 21)
    keys = list(model.state_dict())
    mine, replaced = fused(model)
    assert list(mine.state_dict()) == keys
    norms = sum(type(module) is nn.BatchNorm2d for module in model.modules())
    assert replaced == norms + 5  # three branches of the pyramid, two layers of the decoder
    assert not any(type(module) in (Bottleneck, nn.BatchNorm2d, nn.ReLU) for module in mine.modules())
    shallow, _ = fused(build_backbone("resnet18", output_stride=8, weights="none"))
    left = [name for name, module in shallow.named_modules() if type(module) is nn.ReLU]
    assert left == [f"net.layer{stage}.{block}.act{act}" for stage in range(1, 5) for block in (0, 1) for act in (1, 2)]


# -- on a GPU ----------------------------------------------------------------------------------------------------------

STEPS, BATCH, CROP = 200, 16, 512


def curve(kernels, dropout_seed):
    """Losses of a ResNet-50 from the same weights on the same made-up images, in bf16."""
    torch.manual_seed(0)
    model = segmentor(build_backbone("resnet50c", output_stride=8, weights="none"), TrainConfig(), 21)
    model = model.to("cuda", memory_format=torch.channels_last)
    if kernels == "fused":
        model, _ = fused(model)
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    generator, losses = torch.Generator("cuda").manual_seed(1), []
    colours = torch.randn(21, 3, generator=generator, device="cuda")
    torch.manual_seed(dropout_seed)
    for _ in range(STEPS):
        cells = torch.randint(0, 21, (BATCH, CROP // 64, CROP // 64), generator=generator, device="cuda")
        target = cells.repeat_interleave(64, 1).repeat_interleave(64, 2)
        noise = torch.randn(BATCH, 3, CROP, CROP, generator=generator, device="cuda")
        x = (colours[target].permute(0, 3, 1, 2) + noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16):
            logits, aux = model(x, aux=True)
            loss = cross_entropy(logits, target, kernels=kernels)
            loss = loss + 0.4 * cross_entropy(aux, target, kernels=kernels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu().view(-1, 20).mean(1)


@pytest.mark.gpu
@pytest.mark.slow
def test_the_loss_curve_of_a_resnet50_stays_within_the_noise_of_dropout():
    plain, other, mine = curve("plain", 2), curve("plain", 3), curve("fused", 2)
    print("plain", plain.tolist(), "other seed", other.tolist(), "fused", mine.tolist(), sep="\n")
    assert plain[-1] < 0.8 * plain[0]  # it learns, so that there is a curve to follow
    noise = (plain - other).abs().max()
    assert (mine - plain).abs().max() <= 2 * noise + 0.02
