import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss_cli.cam.consistency import SeamCam
from wsss_cli.cam.gradcam import GradCam
from wsss_cli.cam.lpcam import LpCam
from wsss_cli.cam.multiscale import multiscale_cam, normalise_cam
from wsss_cli.data.batches import bucket_size
from wsss_cli.models.classifier import CamClassifier, SeamClassifier

CPU = torch.device("cpu")


class Redness:
    """A model without weights: how red, and how bright, at stride 4. Remembers the sizes that it saw."""

    def __init__(self):
        self.sizes = []

    def normalise(self, x):
        return x.float() / 255

    def cam(self, x):
        self.sizes.append(tuple(x.shape))
        maps = torch.stack([x[:, 0] - x[:, 2], x.mean(1)], 1)
        return F.relu(F.avg_pool2d(maps, 4))


class Lopsided(Redness):
    """A model that sees more on the left of its input."""

    def cam(self, x):
        return super().cam(x) * torch.linspace(1, 0.1, x.shape[3] // 4)


def images(count=2, size=(64, 96), seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, size[0] // 8, size[1] // 8, 3), np.uint8)
    return list(small.repeat(8, axis=1).repeat(8, axis=2))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((64, 96), (64, 96)), ((375, 500), (384, 512)), ((79, 81), (64, 96)), ((5, 3), (32, 32)), ((1, 333), (32, 320))],
)
def test_a_bucket_is_the_nearest_multiple_of_32(size, bucket):
    assert bucket_size(*size) == bucket


def test_one_scale_of_a_known_model_by_hand():
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = (255, 0, 0)
    found = multiscale_cam(Redness(), [image], (1.0,), False, CPU)
    assert found.dtype == torch.float32
    assert found.shape == (1, 2, 16, 24)
    expected = torch.zeros(16, 24)
    expected[:, 12:] = 1.0
    assert torch.allclose(found[0, 0], expected)
    assert torch.allclose(found[0, 1], expected / 3)


def test_the_output_is_at_stride_4_of_the_bucket():
    assert multiscale_cam(Redness(), images(1, (72, 104)), (1.0, 0.5), True, CPU).shape == (1, 2, 16, 24)


def test_scales_and_mirrored_views_are_summed():
    image = np.full((64, 96, 3), (255, 0, 0), np.uint8)
    model = Redness()
    found = multiscale_cam(model, [image] * 3, (1.0, 0.5, 1.5), True, CPU)
    assert torch.allclose(found[:, 0], torch.full((3, 16, 24), 6.0))
    assert model.sizes == [(6, 3, 64, 96), (6, 3, 32, 48), (6, 3, 96, 144)]


def test_an_image_does_not_depend_on_its_batch():
    batch = images(3)
    together = multiscale_cam(Redness(), batch, (1.0, 0.5), True, CPU)
    for index, image in enumerate(batch):
        alone = multiscale_cam(Redness(), [image], (1.0, 0.5), True, CPU)
        assert torch.allclose(together[index : index + 1], alone, atol=1e-6)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5, 1.5, 2.0)])
def test_a_mirrored_image_gives_mirrored_maps(scales):
    batch = images()
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in batch]
    straight = multiscale_cam(Lopsided(), batch, scales, True, CPU)
    turned = multiscale_cam(Lopsided(), mirrored, scales, True, CPU)
    assert torch.allclose(turned.flip(3), straight, atol=0.02 * len(scales))  # cv2 resizes in 8 bits
    without = multiscale_cam(Lopsided(), mirrored, scales, False, CPU).flip(3)
    assert not torch.allclose(without, multiscale_cam(Lopsided(), batch, scales, False, CPU), atol=0.1)


def test_no_gradient_is_kept():
    model = Lopsided()
    weight = torch.ones((), requires_grad=True)
    model.normalise = lambda x: x.float() / 255 * weight
    assert not multiscale_cam(model, images(1), (1.0,), False, CPU).requires_grad


def test_normalise_divides_each_map_by_its_own_maximum():
    cam = np.array([[[0.0, 2.0], [1.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.25, 0.5], [0.5, 0.5]]], np.float32)
    found = normalise_cam(cam)
    np.testing.assert_allclose(found[0], [[0, 0.5], [0.25, 1]], atol=1e-5)
    assert not found[1].any()
    np.testing.assert_allclose(found[2], [[0.5, 1], [1, 1]], atol=5e-5)
    assert found.max() < 1
    assert normalise_cam(np.zeros((0, 3, 3), np.float32)).shape == (0, 3, 3)


def methods(tiny):
    """A way to make CAMs by each method, of two images with tags."""
    tags = [[0, 2], [1]]
    torch.manual_seed(4)
    model = CamClassifier(tiny, 4).eval().requires_grad_(False)
    seam = SeamClassifier(tiny, 4, 6).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    prototypes = {
        index: (torch.rand(2, 5, generator=generator), torch.rand(1, 5, generator=generator)) for index in (0, 1, 2)
    }
    return {
        "gradcam": GradCam(model, tags),
        "gradcam, a layer": GradCam(model, tags, "conv1"),
        "lpcam": LpCam(model, prototypes),
        "seam": SeamCam(seam, tags),
    }


@pytest.mark.parametrize("name", ["gradcam", "gradcam, a layer", "lpcam", "seam"])
def test_every_method_works_in_bfloat16(tiny, name):
    images = [np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8) for number in range(2)]
    plain = multiscale_cam(methods(tiny)[name], images, (1.0, 0.5), True, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        halved = multiscale_cam(methods(tiny)[name], images, (1.0, 0.5), True, CPU)
    assert halved.dtype == torch.float32
    assert plain.max() > 0
    assert (halved - plain).abs().max() < 0.05 * plain.max()
