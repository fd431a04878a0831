"""What a weight file is: as the meta.json beside it says, else by key names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor

from wsss_cli.config.heads import TITLES
from wsss_cli.errors import WeightsError
from wsss_cli.files import read_json
from wsss_cli.talk import counted
from wsss_cli.weights.load import efficientnet_lite_names
from wsss_cli.weights.tables import State, part, without_wrapper

Stem = Literal["", "7x7", "deep"]
BLOCKS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
"""Depth of a ResNet by whether its blocks are bottlenecks, and how many each stage has."""
LITE = tuple(f"tf_efficientnet_lite{number}" for number in range(5))
STEMS = frozenset(("conv_stem.weight", "_conv_stem.weight"))  # of an EfficientNet; transformers have blocks, too
DEEP_STEM = "a deep stem (three 3x3 convolutions)"
PLAIN_STEM = "a 7x7 stem (one convolution)"
KINDS = ("segmentor", "classifier", "affinity")
CLASSIFIER = "a CAM classifier of this program"
TAKES_IT = "wsss infer, eval and export take its directory"
ALONE = "wsss train --init FILE takes it; infer, eval and export take the folder of the run or import that it is of"


@dataclass(frozen=True)
class Resnet:
    """A ResNet by its keys.

    Attributes:
        depth: 18 ... 152; 0 where the blocks are of another number or width (ResNeXt, wide ResNet).
        stem: 'deep' is that of ResNet-C and D.
        pooled: the shortcuts pool before their convolution (ResNet-D).
        bands: channels of an image that the first convolution takes.
    """

    depth: int
    stem: Stem
    pooled: bool
    bands: int = 3

    @property
    def backbone(self) -> str:
        """The timm network that takes these weights; empty where this program knows none."""
        if not self.depth or not self.stem or self.bands != 3 or (self.pooled and self.stem == "7x7"):
            return ""
        return f"resnet{self.depth}{'' if self.stem == '7x7' else 'd' if self.pooled else 'c'}"

    @property
    def title(self) -> str:
        """For a message, for example 'ResNet-50 with a 7x7 stem (one convolution)'."""
        name = f"ResNet-{self.depth}" if self.depth else "a ResNet of another size"
        stem = {"": "no stem", "7x7": PLAIN_STEM, "deep": DEEP_STEM}[self.stem]
        images = "" if self.bands == 3 else f", for images of {counted(self.bands, 'channel')}"
        return f"{name} with {stem}{' and pooled shortcuts (v1d)' if self.pooled else ''}{images}"


@dataclass(frozen=True)
class Format:
    """What a state dict is.

    Attributes:
        kind: whose naming and which part of a network.
        title: in words.
        backbone: the timm backbone that takes these weights; empty: none known.
        head: kind of a segmentation network's head, where that is known.
        num_classes: outputs of its classifier, where it has one.
        aux: whether it has an auxiliary head.
        advice: what can be done with it.
        prefix: what all of its keys begin with beside 'module.' and 'model.'; passed over like these.
    """

    kind: Literal[
        "mmseg-segmentor",
        "mmseg-backbone",
        "resnet",
        "efficientnet-lite",
        "wsss-segmentor",
        "wsss-classifier",
        "wsss-affinity",
        "wsss-backbone",
        "unknown",
    ]
    title: str
    backbone: str = ""
    num_classes: int | None = None
    aux: bool = False
    advice: str = ""
    head: str = ""
    prefix: str = ""


def resnet(state: Mapping[str, Tensor]) -> Resnet | None:
    """The ResNet that a backbone's state dict is of, in timm's, torchvision's or MMSegmentation's naming; else None."""
    numbers: dict[str, set[int]] = {}
    for key in state:
        if match := re.match(r"layer([1-4])\.(\d+)\.", key):
            numbers.setdefault(match[1], set()).add(int(match[2]))
    if len(numbers) < 4 or "layer1.0.conv1.weight" not in state:
        return None
    counts = tuple(len(numbers[stage]) for stage in "1234")
    inner = state.get("layer1.0.conv2.weight")
    plain = inner is not None and list(inner.shape) == [64, 64, 3, 3]
    depth = BLOCKS.get(("layer1.0.conv3.weight" in state, counts), 0) if plain else 0
    first = state.get("conv1.weight")
    stem: Stem = ""
    if first is not None and list(first.shape[2:]) == [7, 7]:
        stem = "7x7"
    elif "stem.0.weight" in state or "conv1.0.weight" in state:
        stem = "deep"
    shortcut = state.get("layer2.0.downsample.1.weight")
    entry = next((state[key] for key in ("conv1.weight", "stem.0.weight", "conv1.0.weight") if key in state), None)
    bands = 3 if entry is None or entry.ndim != 4 else int(entry.shape[1])
    return Resnet(depth, stem, shortcut is not None and shortcut.ndim == 4, bands)


def recognise(state: Mapping[str, Tensor], holds: Mapping[str, Any] | None = None) -> Format:
    """What a state dict is.

    Args:
        state: 'module.' and 'model.' before all keys are passed over.
        holds: what the meta.json beside the file says (`read_holds`); without it, keys and shapes are looked at.
    """
    state = without_wrapper(state)
    if holds:
        return _said(holds)
    if any(key.startswith("backbone.net.") for key in state):
        return _own(state)
    if any(key.startswith("decode_head.") for key in state):
        return _segmentor(state)
    if any(key.startswith(("_blocks.", "blocks.")) for key in state) and not STEMS.isdisjoint(state):
        return _efficientnet(state)
    if any(key.startswith("backbone.") for key in state):
        return recognise(part(state, "backbone."))
    network = resnet(state)
    if network is None:
        return _unknown(state)
    fc = state.get("fc.weight")
    classes = int(fc.shape[0]) if fc is not None else None
    if "stem.0.weight" in state:
        title = f"MMSegmentation's backbone, {network.title}"
        return Format("mmseg-backbone", title, network.backbone, classes, advice=_advice(network))
    naming = "timm's naming" if network.stem == "deep" else "torchvision's and timm's naming"
    return Format("resnet", f"{network.title}, {naming}", network.backbone, classes, advice=_advice(network))


def _unknown(state: State) -> Format:
    """What is below a first name in the keys, where that is known: all of it, or parts that can be chosen."""
    heads = sorted({key.split(".")[0] for key in state})
    below = {head: recognise(inner) for head in heads if (inner := part(state, f"{head}."))}
    known = {head: inner_format for head, inner_format in below.items() if inner_format.kind != "unknown"}
    if len(heads) == len(known) == 1:
        ((head, inner_format),) = known.items()
        return replace(inner_format, prefix=f"{head}.{inner_format.prefix}")
    shown = ", ".join(heads[:6]) + (", ..." if len(heads) > 6 else "")
    title = f"of no network known here; its keys begin with {shown}"
    if not known:
        return Format("unknown", title)
    parts = "; ".join(f"under {head!r} is {inner_format.title}" for head, inner_format in known.items())
    ways = " or ".join(f"FILE:{head}" for head in known)
    return Format("unknown", f"{title}; {parts}", advice=f"choose a part of it: {ways}")


def _advice(network: Resnet) -> str:
    if not network.backbone:
        return "no backbone of this program takes it as it is"
    taken = f"takes --set train.backbone.name={network.backbone} --set train.backbone.weights=FILE"
    if network.stem == "7x7" and network.depth in (50, 101):
        return f"does not fit resnet{network.depth}c, whose stem is deep; {taken}"
    return taken


def read_holds(file: Path) -> dict[str, Any]:
    """What the meta.json beside the weights of a checkpoint, or of an imported or published network, says of them.

    Empty: nothing.
    """
    meta = file.with_name("meta.json")
    if file.suffix != ".safetensors" or not meta.is_file():
        return {}
    said = read_json(meta)
    if not isinstance(said, dict) or file.name not in said.get("sha256", ()):
        return {}
    return said if said.get("kind") in KINDS and isinstance(said.get("backbone"), str) else {}


def _said(holds: Mapping[str, Any]) -> Format:
    backbone, classes = str(holds["backbone"]), holds.get("num_classes")
    match holds["kind"]:
        case "segmentor":
            head = str(holds.get("head", "deeplabv3plus"))  # the only one at first
            aux = bool(holds.get("auxiliary_head"))
            title = f"a {TITLES.get(head, head)} of this program"
            return Format("wsss-segmentor", title, backbone, classes, aux, TAKES_IT, head)
        case "classifier":
            return Format("wsss-classifier", CLASSIFIER, backbone, classes, advice=_as_backbone(backbone))
        case _:
            networks = {"irn": "IRN's boundary network", "psa": "PSA's affinity network"}
            title = networks.get(str(holds.get("method")), "an affinity network")
            return Format("wsss-affinity", f"{title} of this program", backbone)


def _own(state: State) -> Format:
    """A network of this program without its meta.json, or from before that said what it is."""
    network = resnet(part(state, "backbone.net."))
    backbone = network.backbone if network else _lite(part(state, "backbone.net."))
    if "head.classifier.weight" in state:
        aux, classes = "aux.classifier.weight" in state, int(state["head.classifier.weight"].shape[0])
        pyramid = any(key.startswith("head.aspp.") for key in state)
        title = f"a {TITLES['deeplabv3plus'] if pyramid else 'segmentation network'} of this program"
        head = "deeplabv3plus" if pyramid else ""
        return Format("wsss-segmentor", title, backbone, classes, aux, ALONE, head)
    if "classifier.weight" in state:
        classes = int(state["classifier.weight"].shape[0])
        return Format("wsss-classifier", CLASSIFIER, backbone, classes, advice=_as_backbone(backbone))
    return Format("wsss-backbone", "a backbone of this program", backbone, advice=_as_backbone(backbone))


def _as_backbone(name: str) -> str:
    return f"takes --set train.backbone.name={name} --set train.backbone.weights=FILE" if name else ""


def _segmentor(state: State) -> Format:
    network = resnet(part(state, "backbone."))
    body = network.title if network else "another backbone"
    classifier = state.get("decode_head.conv_seg.weight")
    classes = int(classifier.shape[0]) if classifier is not None else None
    aux = any(key.startswith("auxiliary_head.") for key in state)
    name = network.backbone if network else ""
    v3plus = "decode_head.sep_bottleneck.0.depthwise_conv.conv.weight" in state
    if v3plus and network is not None and network.backbone in ("resnet50c", "resnet101c"):
        title = f"MMSegmentation's DeepLabV3+ on {body}"
        return Format("mmseg-segmentor", title, name, classes, aux, "wsss weights import-mmseg FILE --out DIR")
    what = "DeepLabV3+" if v3plus else "segmentor with another head"
    advice = "only DeepLabV3+ on ResNet-50 or -101 v1c can be imported"
    return Format("mmseg-segmentor", f"MMSegmentation's {what} on {body}", "", classes, aux, advice)


def _efficientnet(state: State) -> Format:
    name = _lite(state)
    if not name:
        return Format("unknown", "an EfficientNet or built like one, but none of EfficientNet-Lite0 to 4")
    head = state.get("classifier.weight", state.get("_fc.weight"))
    title = f"EfficientNet-Lite{name[-1]}, {'timm' if 'conv_stem.weight' in state else 'the original'}'s naming"
    classes = None if head is None else int(head.shape[0])
    return Format("efficientnet-lite", title, name, classes, advice=_as_backbone(name))


def _lite(state: Mapping[str, Tensor]) -> str:
    """The EfficientNet-Lite all of whose convolutions `state` has in their shapes; empty: none."""
    for name in LITE:
        named = dict(state)
        if any(key.startswith("_blocks.") for key in state):
            try:
                named = efficientnet_lite_names(state, block_names(name))
            except WeightsError:
                continue
        with torch.device("meta"):
            expected = {key: tensor for key, tensor in timm.create_model(name).state_dict().items() if _inner(key)}
        fits = all(
            key in named and named[key].shape == expected[key].shape for key in expected if "num_batches" not in key
        )
        if fits and {key for key in named if _inner(key)} <= expected.keys():
            return name
    return ""


def _inner(key: str) -> bool:
    return key.startswith(("conv_stem.", "blocks."))


@cache
def block_names(name: str) -> dict[int, str]:
    """timm's name `blocks.S.B` of each block of an EfficientNet, numbered through."""
    with torch.device("meta"):
        stages: Any = timm.create_model(name).blocks
    return dict(enumerate(f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b in range(len(stage))))
