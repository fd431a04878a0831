import json

import cv2
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.models import backbones
from wsss_cli.models.backbones import PACKAGED, _packaged_state, build_backbone
from wsss_cli.models.classifier import CamClassifier
from wsss_cli.weights.load import load_into


@pytest.mark.parametrize(("output_stride", "strides"), [(8, (4, 8, 8, 8)), (16, (4, 8, 16, 16)), (32, (4, 8, 16, 32))])
def test_efficientnet_lite_gives_features_at_its_strides(output_stride, strides):
    backbone = build_backbone("tf_efficientnet_lite0", output_stride=output_stride, weights="none").eval()
    assert backbone.channels == (24, 40, 112, 320)
    assert backbone.strides == strides
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 70, 97))
    assert [tuple(m.shape) for m in maps] == [
        (1, c, -(-70 // s), -(-97 // s)) for c, s in zip(backbone.channels, strides, strict=True)
    ]


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_other_timm_networks_work(name):
    backbone = build_backbone(name, output_stride=16, weights="none").eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 4]
    assert tuple(m.shape[1] for m in maps) == backbone.channels


SMALL = {  # what makes a small network of each family, and the channels of its maps
    "swin_tiny_patch4_window7_224": (
        {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)},
        (8, 16, 32, 64),
    ),
    "pvt_v2_b0": ({"embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 4)}, (8, 16, 24, 32)),
    "convnext_atto": ({"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, (8, 16, 24, 32)),
    "mambaout_femto": ({"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, (8, 16, 24, 32)),
    "vit_tiny_patch16_224": ({"embed_dim": 16, "depth": 2, "num_heads": 2}, (4, 8, 16, 16)),
}


@pytest.fixture
def small_networks(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **SMALL[name][0], **options))


@pytest.mark.parametrize("name", SMALL)
def test_every_family_gives_a_pyramid_of_images_of_any_size(name, small_networks):
    torch.manual_seed(0)
    backbone = build_backbone(name, output_stride=32, weights="none", tokens="pyramid").eval()
    assert (backbone.channels, backbone.strides) == (SMALL[name][1], (4, 8, 16, 32))
    x = torch.randn(1, 3, 70, 97)
    with torch.no_grad():
        maps = backbone(x)
        padded = backbone(torch.nn.functional.pad(x, (0, 31, 0, 26)))
    sizes = [(18, 25), (9, 13), (5, 7), (3, 4)]
    assert [tuple(m.shape) for m in maps] == [(1, c, *s) for c, s in zip(backbone.channels, sizes, strict=True)]
    if backbone.pad:  # what is cut off are the maps of what was added
        for ours, whole in zip(maps, padded, strict=True):
            torch.testing.assert_close(ours, whole[..., : ours.shape[2], : ours.shape[3]])
    assert backbone.pad == (name not in ("pvt_v2_b0", "mambaout_femto"))


def test_channels_come_second_whatever_the_network_does(small_networks):
    backbone = build_backbone("mambaout_femto", output_stride=32, weights="none").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(backbone(x), backbone.net(x), strict=True):
            assert torch.equal(ours, theirs.permute(0, 3, 1, 2))


def test_a_pyramid_is_made_of_the_last_map_and_only_that_has_weights_in_a_file(small_networks, tmp_path):
    name = "vit_tiny_patch16_224"
    whole = timm.create_model(name, dynamic_img_size=True)
    save_file(whole.state_dict(), tmp_path / "vit.safetensors")
    weights = str(tmp_path / "vit.safetensors")
    one = build_backbone(name, output_stride=32, weights=weights, tokens="one map").eval()
    four = build_backbone(name, output_stride=32, weights=weights, tokens="pyramid").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        (map_,), (_, up8, same, half) = one(x), four(x)
    assert torch.equal(same, map_)
    torch.testing.assert_close(half, map_.unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax((3, 5)))
    kernel = four.net.up8.weight  # one place of the map makes 2 x 2 places
    expected = torch.einsum("c,cdij->dij", map_[0, :, 1, 2], kernel) + four.net.up8.bias[:, None, None]
    torch.testing.assert_close(up8[0, :, 2:4, 4:6], expected)


@pytest.mark.parametrize(
    ("name", "stride", "words"),
    [
        ("vit_tiny_patch16_224", 16, "at strides .4, 8, 16, 32.; 4 at first and 16 at last"),
        ("swin_tiny_patch4_window7_224", 8, "cannot give features at output stride 8"),
        ("vit_small_patch14_dinov2", 32, "patches of 16 pixels, and this one has some of 14"),
        ("maxvit_pico_rw_256", 32, "does not take images of any size"),
    ],
)
def test_a_backbone_that_gives_no_such_pyramid_is_refused(name, stride, words):
    with pytest.raises(UsageError, match=words) as caught:
        build_backbone(name, output_stride=stride, weights="none", tokens="pyramid")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "helps"), [("densenet121", True), ("maxvit_pico_rw_256", False), ("xcit_nano_12_p16_224", False)]
)
def test_no_other_stride_is_named_at_which_the_backbone_is_refused_too(name, helps):
    with pytest.raises(UsageError, match="cannot give features at output stride 16") as caught:
        build_backbone(name, output_stride=16, weights="none", tokens="pyramid")
    assert ("--set train.backbone.output_stride=32" in caught.value.hint) == helps
    assert "choose another backbone" in caught.value.hint


def test_normalise_takes_bytes_and_floats():
    backbone = build_backbone("tf_efficientnet_lite0", output_stride=32, weights="none")
    assert backbone.mean == backbone.std == (127.5, 127.5, 127.5)
    x = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-1.0, 1.0, -0.6]).view(1, 3, 1, 1)
    torch.testing.assert_close(backbone.normalise(x), expected)
    torch.testing.assert_close(backbone.normalise(x.float()), expected)
    assert not any("mean" in key and "running" not in key for key in backbone.state_dict())
    resnet = build_backbone("resnet18", output_stride=32, weights="none")
    assert resnet.mean == pytest.approx((123.675, 116.28, 103.53))
    assert resnet.std == pytest.approx((58.395, 57.12, 57.375))


def test_packaged_imagenet_weights_fill_every_tensor():
    backbone = build_backbone("tf_efficientnet_lite0", output_stride=16, weights="imagenet")
    random = build_backbone("tf_efficientnet_lite0", output_stride=16, weights="none")
    again = build_backbone("tf_efficientnet_lite0", output_stride=16, weights="imagenet").state_dict()
    same = [
        key
        for key, value in backbone.state_dict().items()
        if torch.equal(value, random.state_dict()[key]) and not key.endswith("num_batches_tracked")
    ]
    assert same == []
    assert all(torch.equal(value, again[key]) for key, value in backbone.state_dict().items())


def drawn_clock():
    image = np.full((224, 224, 3), (90, 140, 220), np.uint8)
    cv2.circle(image, (112, 112), 90, (255, 255, 255), -1)
    cv2.circle(image, (112, 112), 90, (0, 0, 0), 6)
    for angle in np.arange(12) * np.pi / 6:
        inner, outer = ((int(112 + r * np.cos(angle)), int(112 + r * np.sin(angle))) for r in (70, 84))
        cv2.line(image, inner, outer, (0, 0, 0), 4)
    for hand in ((112, 50), (150, 130)):
        cv2.line(image, (112, 112), hand, (0, 0, 0), 6)
    return image


def drawn_honeycomb():
    image = np.full((224, 224, 3), (200, 150, 20), np.uint8)
    for row in range(12):
        for x in range(0, 240, 24):
            cv2.circle(image, (x + row % 2 * 12, 21 * row), 9, (60, 30, 0), -1)
    return image


@pytest.mark.parametrize(
    ("drawing", "classes"), [(drawn_clock, (409, 892)), (drawn_honeycomb, (599,))], ids=["clock", "honeycomb"]
)
def test_packaged_weights_recognise_drawings(drawing, classes):
    """A wrong key map or normalisation gives a guess; ImageNet: 409 and 892 are clocks, 599 is honeycomb."""
    network = timm.create_model(PACKAGED).eval()
    load_into(network, _packaged_state(PACKAGED), "package")
    x = torch.from_numpy(drawing()).permute(2, 0, 1)[None]
    x = build_backbone(PACKAGED, output_stride=32, weights="none").normalise(x)
    with torch.no_grad():
        probabilities = network(x).softmax(1)[0]
    assert probabilities[list(classes)].sum() > 0.8


def test_freeze_bn_keeps_statistics_and_trains_the_rest():
    frozen = build_backbone("resnet18", output_stride=32, weights="none", freeze_bn=True)
    free = build_backbone("resnet18", output_stride=32, weights="none")
    for backbone, stays in ((frozen, True), (free, False)):
        backbone.train()
        before = backbone.net.bn1.running_mean.clone()
        backbone(torch.randn(2, 3, 64, 64))[-1].sum().backward()
        assert torch.equal(before, backbone.net.bn1.running_mean) is stays
        assert backbone.training
        assert backbone.net.bn1.weight.grad is not None
    wrapped = torch.nn.Sequential(frozen).train()
    assert not frozen.net.bn1.training and wrapped.training


def test_a_file_in_timms_own_naming_is_loaded(tmp_path):
    network = timm.create_model("resnet18")
    save_file(network.state_dict(), tmp_path / "r18.safetensors")
    backbone = build_backbone("resnet18", output_stride=16, weights=str(tmp_path / "r18.safetensors"))
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("config.json", {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}, 1),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}, 1),
        ("config.json", {"pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}, 0),
        ("config.json", ["mean"], 0),
    ],
)
def test_another_normalisation_beside_a_file_is_said(tmp_path, capsys, name, config, said):
    net = timm.create_model("resnet18", features_only=True, out_indices=(-4, -3, -2, -1))
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / name).write_text(json.dumps(config))
    build_backbone("resnet18", output_stride=32, weights=str(tmp_path / "model.safetensors"))
    heard = capsys.readouterr().err.splitlines()
    assert len(heard) == said
    assert all("has mean and std 0.5, 0.5, 0.5, 0.5, 0.5, 0.5 for these weights" in line for line in heard)


def test_a_file_of_a_network_with_renamed_stages_is_loaded(tmp_path):
    network = timm.create_model("convnext_atto")
    save_file(network.state_dict(), tmp_path / "c.safetensors")
    backbone = build_backbone("convnext_atto", output_stride=32, weights=str(tmp_path / "c.safetensors"))
    assert torch.equal(
        backbone.net.state_dict()["stages_1.blocks.0.conv_dw.weight"],
        network.state_dict()["stages.1.blocks.0.conv_dw.weight"],
    )


@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_a_resnet_v1c_of_mmsegmentation_is_loaded(tmp_path, prefix):
    own = build_backbone("resnet50c", output_stride=32, weights="none").net.state_dict()
    theirs = {}
    for key, value in own.items():
        name = key.replace("conv1.", "stem.", 1) if key.startswith("conv1.") else key
        name = "stem.7." + key[len("bn1.") :] if key.startswith("bn1.") else name
        theirs[prefix + name] = value
    if not prefix:
        theirs["fc.weight"] = torch.zeros(1000, 2048)
    torch.save({"state_dict": theirs, "meta": {}}, tmp_path / "v1c.pth")
    loaded = build_backbone("resnet50c", output_stride=8, weights=str(tmp_path / "v1c.pth")).net.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in own.items())


def test_a_checkpoint_of_ours_gives_its_backbone(tmp_path):
    classifier = CamClassifier(build_backbone("resnet18", output_stride=32, weights="none"), 5)
    save_file(classifier.state_dict(), tmp_path / "model.safetensors")
    backbone = build_backbone("resnet18", output_stride=16, weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(backbone.net.conv1.weight, classifier.backbone.net.conv1.weight)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "r34.safetensors")
    with pytest.raises(WeightsError, match=r"are those of ResNet-34 with a 7x7 stem .*; resnet18 is ResNet-18"):
        build_backbone("resnet18", output_stride=32, weights=str(tmp_path / "r34.safetensors"))
    with pytest.raises(WeightsError, match=r"\d+ missing"):
        build_backbone("tf_efficientnet_lite0", output_stride=32, weights=str(tmp_path / "r34.safetensors"))


def test_an_unknown_backbone_is_named_with_its_neighbours():
    with pytest.raises(UsageError, match="resnet5o") as caught:
        build_backbone("resnet5o", output_stride=16, weights="none")
    assert "resnet50" in caught.value.hint


@pytest.mark.parametrize(("name", "stride"), [("vit_tiny_patch16_224", 16), ("swin_tiny_patch4_window7_224", 16)])
def test_a_backbone_without_such_features_is_refused(name, stride):
    with pytest.raises(UsageError, match=name) as caught:
        build_backbone(name, output_stride=stride, weights="none", key="classifier.backbone")
    named = "--set classifier.backbone.output_stride=32; or " if name.startswith("swin") else ""
    assert caught.value.hint.startswith(f"{named}choose another backbone")


def test_a_reason_without_words_is_told_by_its_kind():
    with pytest.raises(UsageError, match="at output stride 16: AssertionError"):
        build_backbone("vgg11", output_stride=16, weights="none")


def test_a_download_that_fails_is_a_weights_error_that_says_what_to_do(monkeypatch):
    build = timm.create_model

    def broken(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("the transfer\nended early")
        return build(name, pretrained=False, **options)

    monkeypatch.setattr(backbones, "missing_weights", lambda *_: None)  # the server answers
    monkeypatch.setattr(backbones.timm, "create_model", broken)
    with pytest.raises(WeightsError, match="resnet18 could not be fetched: the transfer ended early") as caught:
        build_backbone("resnet18", output_stride=32, weights="imagenet", key="affinity.psa.backbone")
    assert "--set affinity.psa.backbone.weights=FILE" in caught.value.hint


def test_weights_in_the_cache_are_taken_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        build_backbone("vit_tiny_patch16_224", output_stride=16, weights="imagenet", tokens="one map")
    snapshot = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k/snapshots/1a2b"
    snapshot.mkdir(parents=True)
    torch.manual_seed(5)
    whole = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file(whole, snapshot / "model.safetensors")
    backbone = build_backbone("vit_tiny_patch16_224", output_stride=16, weights="imagenet", tokens="one map")
    loaded = {key.removeprefix("model."): tensor for key, tensor in backbone.net.state_dict().items()}
    assert torch.equal(loaded["blocks.3.attn.qkv.weight"], whole["blocks.3.attn.qkv.weight"])


def test_classifier_scores_are_the_mean_of_its_maps_before_the_relu():
    torch.manual_seed(0)
    model = CamClassifier(build_backbone("resnet18", output_stride=16, weights="none"), 4).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        logits, cam = model(x), model.cam(x)
        maps = model.classifier(model.backbone(x)[-1])
    assert logits.shape == (2, 3) and cam.shape == (2, 3, 4, 6)
    torch.testing.assert_close(logits, maps.mean((2, 3)))
    assert torch.equal(cam, maps.clamp(min=0)) and (maps < 0).any() and (cam > 0).any()
    assert model.classifier.bias is None


def test_a_plain_transformer_has_one_map_and_takes_its_weights_from_a_file(tmp_path):
    torch.manual_seed(3)
    whole = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, depth=2).eval()
    save_file(whole.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match="missing"):  # two blocks of twelve
        build_backbone(
            "vit_tiny_patch16_224", output_stride=16, weights=str(tmp_path / "vit.safetensors"), tokens="one map"
        )
    full = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    save_file(full.state_dict(), tmp_path / "vit.safetensors")
    backbone = build_backbone(
        "vit_tiny_patch16_224", output_stride=16, weights=str(tmp_path / "vit.safetensors"), tokens="one map"
    ).eval()
    assert (backbone.channels, backbone.strides) == ((192,), (16,))
    x = torch.rand(1, 3, 48, 80)
    with torch.no_grad():
        (found,) = backbone(x)
        tokens = full.forward_features(x)[:, 1:]
    assert found.shape == (1, 192, 3, 5)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens, atol=1e-4, rtol=1e-4)
