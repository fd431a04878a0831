"""Networks from their preset sections."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from wsss_cli.config.affinity import IrnConfig, PsaConfig
from wsss_cli.config.base import BackboneConfig
from wsss_cli.config.classifier import ClassifierConfig, SeamConfig
from wsss_cli.config.heads import DeepLabConfig, FcnConfig, SegFormerConfig, UPerNetConfig
from wsss_cli.config.train import TrainConfig
from wsss_cli.errors import UsageError
from wsss_cli.models.affinity import AffinityNet, BoundaryNet
from wsss_cli.models.backbones import Backbone, Tokens, build_backbone
from wsss_cli.models.classifier import CamClassifier, SeamClassifier
from wsss_cli.models.depthwise import speed_up_depthwise
from wsss_cli.models.heads.deeplab import DeepLabHead
from wsss_cli.models.heads.fcn import FcnHead
from wsss_cli.models.heads.segformer import SegFormerHead
from wsss_cli.models.heads.upernet import UPerNetHead
from wsss_cli.models.segmentor import Segmentor

Net = TypeVar("Net", bound=nn.Module)


def build_classifier(
    config: ClassifierConfig, num_classes: int, device: torch.device, *, weights: bool = True
) -> CamClassifier:
    """The CAM classifier of a preset on `device`, in evaluation mode; `weights` as for `build_segmentor`.

    Raises:
        UsageError: SEAM with a backbone of one map, or a backbone that cannot be had.
    """
    settings = config.backbone if weights else config.backbone.model_copy(update={"weights": "none"})
    backbone = _backbone(settings, "classifier.backbone", tokens="one map")
    match config.consistency:
        case SeamConfig():
            network: CamClassifier = SeamClassifier(backbone, num_classes, config.consistency.channels)
        case _:
            network = CamClassifier(backbone, num_classes)
    return _place(network, device, channels_last=True)


def build_segmentor(config: TrainConfig, num_classes: int, device: torch.device, *, weights: bool = True) -> Segmentor:
    """The segmentation network of a preset on `device`, in evaluation mode.

    Args:
        weights: load the backbone's weights as the preset says; False where a checkpoint is loaded over them.
    """
    section = config.backbone if weights else config.backbone.model_copy(update={"weights": "none"})
    network = segmentor(_backbone(section, "train.backbone", tokens="pyramid"), config, num_classes)
    return _place(network, device, channels_last=config.channels_last)


def segmentor(backbone: Backbone, config: TrainConfig, num_classes: int) -> Segmentor:
    """The heads of a preset on a backbone, with new weights."""
    channels = backbone.channels
    match config.head:
        case DeepLabConfig() as c:
            head: nn.Module = DeepLabHead(
                channels,
                num_classes,
                channels=c.aspp_channels,
                low_channels=c.low_channels,
                dilations=c.dilations,
                dropout=c.dropout,
            )
        case FcnConfig() as c:
            head = FcnHead(
                channels, num_classes, channels=c.channels, convs=c.convs, concat=c.concat, dropout=c.dropout
            )
        case SegFormerConfig() as c:
            head = SegFormerHead(channels, num_classes, channels=c.channels, dropout=c.dropout)
        case UPerNetConfig() as c:
            head = UPerNetHead(channels, num_classes, channels=c.channels, pool_scales=c.pool_scales, dropout=c.dropout)
    if config.aux.weight == 0:
        return Segmentor(backbone, head)
    # by default a quarter of the map's channels: the 256 of MMSegmentation on the 1024 of a ResNet-50
    width = config.aux.channels or max(channels[-2] // 4, 64)
    aux = FcnHead(channels, num_classes, level=-2, channels=width, convs=1, concat=False, dropout=config.head.dropout)
    return Segmentor(backbone, head, aux)


def build_affinity(
    config: IrnConfig | PsaConfig, device: torch.device, *, weights: bool = True
) -> BoundaryNet | AffinityNet:
    """IRN's or PSA's network of a preset on `device`, in evaluation mode; `weights` as for `build_segmentor`."""
    backbone = config.backbone if weights else config.backbone.model_copy(update={"weights": "none"})
    if isinstance(config, IrnConfig):
        network: BoundaryNet | AffinityNet = BoundaryNet(_backbone(backbone, "affinity.irn.backbone"))
    else:
        network = AffinityNet(_backbone(backbone, "affinity.psa.backbone"))
    return _place(network, device, channels_last=True)


def _backbone(config: BackboneConfig, key: str, *, tokens: Tokens = "refuse") -> Backbone:
    backbone = build_backbone(
        config.name,
        output_stride=config.output_stride,
        weights=config.weights,
        freeze_bn=config.freeze_bn,
        tokens=tokens,
        key=key,
    )
    if config.frozen_stages and not hasattr(backbone.net.feature_info, "module_name"):
        raise UsageError(
            f"backbone {config.name} has no stages: frozen_stages {config.frozen_stages} means nothing",
            f"--set {key}.frozen_stages=0",
        )
    if config.frozen_stages:
        _freeze(backbone, config.frozen_stages)
    return backbone


def _freeze(backbone: Backbone, stages: int) -> None:
    """Take everything up to the feature map `stages` (1: stride 4) out of training; timm registers layers in order."""
    info: Any = backbone.net.feature_info
    last = str(info.module_name()[stages - 1]).replace(".", "_")  # an index would count levels before stride 4, too
    parameters = dict(backbone.net.named_parameters())
    ends = [i for i, key in enumerate(parameters) if key.replace(".", "_").startswith(last + "_")]
    if not ends:  # a network with other names, such as one whose layers are not registered in order
        raise UsageError(f"frozen_stages {stages}: this backbone has no parameters under {last}", "set it to 0")
    for parameter in list(parameters.values())[: ends[-1] + 1]:
        parameter.requires_grad_(False)


def _place(network: Net, device: torch.device, *, channels_last: bool) -> Net:
    if device.type == "cpu":
        speed_up_depthwise(network)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return network.eval()
