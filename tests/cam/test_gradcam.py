import numpy as np
import pytest
import torch
from references.gradcam import by_chain_rule

from wsss_cli.cam.gradcam import GradCam, check_layer, find_layer, grad_cam
from wsss_cli.cam.multiscale import multiscale_cam
from wsss_cli.errors import UsageError
from wsss_cli.models.backbones import build_backbone
from wsss_cli.models.classifier import CamClassifier

TAGS = [[0, 2], [1], []]


@pytest.fixture
def model(tiny):
    return CamClassifier(tiny, 4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(1)
    backbone = build_backbone("vit_tiny_patch16_224", output_stride=16, weights="none", tokens="one map")
    return CamClassifier(backbone, 4).eval().requires_grad_(False)


def images(count=3, size=(32, 48)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


def test_on_the_last_map_it_is_the_cam_over_the_number_of_pixels(model):
    x = images()
    plain, found = model.cam(x), grad_cam(model, x, TAGS)
    assert found.shape == plain.shape == (3, 3, 4, 6)
    for row, classes in enumerate(TAGS):
        for index in range(3):
            expected = plain[row, index] / 24 if index in classes else torch.zeros(4, 6)
            torch.testing.assert_close(found[row, index], expected)
    assert found[0, 0].max() > 0 or found[0, 2].max() > 0


def test_by_hand():
    """Two channels, two pixels, logit = 3 * mean(a) - 1 * mean(b): the map is relu(1.5 a - 0.5 b)."""

    class Two(torch.nn.Module):
        channels = (2,)

        def forward(self, x):
            return [x[:, :2]]

    model = CamClassifier(Two(), 2).eval().requires_grad_(False)
    model.classifier.weight.data = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
    x = torch.tensor([[[[1.0, 2.0]], [[5.0, 4.0]], [[0.0, 0.0]]]])
    torch.testing.assert_close(grad_cam(model, x, [[0]]), torch.tensor([[[[0.0, 1.0]]]]))


def slopes(model, layer, x, index, patches=None):
    """relu of the map by finite differences: at a pixel, how the score grows as all pixels move towards its feature."""
    model = model.double()
    x = x.double()
    seen = {}
    handle = layer.register_forward_hook(lambda m, i, output: seen.update(maps=output.clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    maps = seen["maps"]
    pixels = maps.flatten(2).transpose(1, 2)[0] if maps.ndim == 4 else maps[0, -patches:]
    found = []
    for feature in pixels:
        scores = []
        for step in (1e-5, -1e-5):

            def moved(module, inputs, output, step=step, feature=feature):
                output = output.clone()
                if output.ndim == 4:
                    return output + step * feature[None, :, None, None]
                output[:, -patches:] += step * feature
                return output

            handle = layer.register_forward_hook(moved)
            with torch.no_grad():
                scores.append(float(model(x)[0, index]))
            handle.remove()
        found.append((scores[0] - scores[1]) / 2e-5 / len(pixels))
    return np.maximum(found, 0)


@pytest.mark.parametrize(("name", "layer"), [("conv1", "first"), ("conv2", "second"), ("", "last")])
def test_every_layer_against_derivatives_that_are_written_out(model, name, layer):
    x, net = images(2), model.backbone.net
    found = grad_cam(model, x, [[0, 1, 2]] * 2, find_layer(net, name) if name else None)
    kernels = [conv.weight.double().numpy() for conv in (net.conv1, net.conv2)]
    biases = [conv.bias.double().numpy() for conv in (net.conv1, net.conv2)]
    weight = model.classifier.weight.flatten(1).double().numpy()
    for image in range(2):
        expected = by_chain_rule(x[image].numpy(), kernels, biases, [(4, 0), (2, 0)], weight, layer)
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-4, atol=1e-7)
    assert found.any()


@pytest.mark.parametrize("name", ["conv1", "conv2"])
def test_an_inner_layer_against_finite_differences(model, name):
    x = images(1)
    layer = find_layer(model.backbone.net, name)
    for index in range(3):
        found = grad_cam(model.float(), x, [[index]], layer)[0, index]
        expected = slopes(model, layer, x, index).reshape(found.shape)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-6)
    assert found.shape == ((8, 12) if name == "conv1" else (4, 6))


def test_tokens_of_a_transformer_against_finite_differences(vit):
    x = images(1, (32, 48))
    layer = find_layer(vit.backbone.net, "blocks.10.norm1")
    found = torch.cat([grad_cam(vit.float(), x, [[index]], layer)[0, index] for index in (0, 1)])
    expected = np.concatenate([slopes(vit, layer, x, index, 6) for index in (0, 1)])
    vit.float()
    assert expected.any()
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 48), (80, 33)])
def test_a_transformer_takes_any_size(vit, size):
    x = images(1, size)
    found = grad_cam(vit, x, [[0, 1, 2]])
    assert found.shape == (1, 3, -(-size[0] // 16), -(-size[1] // 16))
    torch.testing.assert_close(found, vit.cam(x) / found[0, 0].numel(), atol=1e-6, rtol=1e-4)


class Plain:
    def __init__(self, model):
        self.normalise, self.cam = model.backbone.normalise, model.cam


@pytest.mark.parametrize("layer", ["", "conv1"])
def test_a_mirrored_image_gives_mirrored_maps(model, layer):
    rng = np.random.default_rng(0)
    batch = list(rng.integers(0, 256, (2, 64, 96, 3), np.uint8))
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in batch]
    view = GradCam(model, [[0, 1], [2]], layer)
    straight = multiscale_cam(view, batch, (1.0, 0.5), True, torch.device("cpu"))
    turned = multiscale_cam(view, mirrored, (1.0, 0.5), True, torch.device("cpu"))
    assert straight[0, :2].max() > 0
    assert not straight[0, 2].any()
    torch.testing.assert_close(turned.flip(3), straight, atol=1e-4, rtol=1e-4)
    if not layer:
        plain = multiscale_cam(Plain(model), batch, (1.0, 0.5), True, torch.device("cpu"))
        torch.testing.assert_close(straight[0, :2], plain[0, :2], atol=1e-4, rtol=1e-4)


def test_the_layers_of_timm_are_found_by_their_own_names(model, vit):
    assert find_layer(vit.backbone.net, "blocks.3.norm1") is vit.backbone.net.model.blocks[3].norm1
    with pytest.raises(UsageError, match="no module 'conv3'") as caught:
        GradCam(model, [[0]], "conv3")
    assert "conv1" in caught.value.hint


def test_a_layer_that_the_score_does_not_depend_on_is_refused(model):
    with pytest.raises(UsageError, match="do not depend"):
        grad_cam(model, images(1), [[0]], torch.nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize("layer", ["patch_embed", "blocks.3.attn.q_norm"])
def test_what_has_as_many_axes_and_is_no_map_is_refused(vit, layer):
    """Channels last, and heads of attention."""
    with pytest.raises(UsageError, match=rf"{layer} gives \[1, .*\] where the last map has 4 x 6 pixels"):
        check_layer(vit, layer)


def test_tokens_of_an_earlier_stage_are_refused():
    class Stages(torch.nn.Module):
        """Tokens at stride 4, then a map at stride 8."""

        channels = (3,)

        def __init__(self):
            super().__init__()
            self.early = torch.nn.Linear(3, 3)
            self.net = self

        def forward(self, x):
            height, width = (side // 4 for side in x.shape[-2:])
            tokens = self.early(torch.nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2))
            return [torch.nn.functional.avg_pool2d(tokens.transpose(1, 2).unflatten(2, (height, width)), 2)]

    model = CamClassifier(Stages(), 3)
    model.backbone.net = torch.nn.ModuleDict({"early": model.backbone.early})
    with pytest.raises(UsageError, match=r"early gives \[1, 384, 3\] where the last map has 8 x 12 pixels"):
        check_layer(model, "early")
    assert model.training


@pytest.mark.parametrize("layer", ["blocks.3", "blocks.3.attn.qkv", "patch_embed.proj", "norm"])
def test_maps_and_tokens_pass(vit, model, layer):
    check_layer(vit, layer)
    check_layer(model, "conv1")


def test_the_hook_is_gone_afterwards(model):
    x = images(1)
    before = model(x)
    grad_cam(model, x, [[0]], find_layer(model.backbone.net, "conv1"))
    assert torch.equal(model(x), before)
    assert not model(x).requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["", "conv1"])
def test_cpu_and_gpu_agree(model, name):
    x = images()
    here = GradCam(model, TAGS, name).cam(x)
    there = GradCam(model.cuda(), TAGS, name).cam(x.cuda()).cpu()
    torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-3)
