"""The segmentation network: a backbone, a head, and an auxiliary head that is used in training only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from wsss_cli.models.backbones import Backbone


class Segmentor(nn.Module):
    """Segmentation network of any backbone and head.

    Attributes:
        num_classes: K, background included.

    Args:
        backbone: gives the feature maps; comes with its own weights or initialisation.
        head: makes logits of the list of all maps, at a stride of its own; its last layer is its `classifier`,
            and its `kind` that of the preset.
        aux: another head, whose logits have a loss of their own in training; None: there is none.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, aux: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.head, self.aux = backbone, head, aux
        classifier: Any = head.classifier
        self.num_classes: int = classifier.out_channels

    def forward(self, x: Tensor, *, aux: bool = False, factors: Sequence[Tensor] | None = None) -> Any:
        """Logits of normalised images.

        Args:
            x: float [B, 3, H, W], as `backbone.normalise` gives them.
            aux: for training: also give the auxiliary logits.
            factors: with `aux`: also give the head's logits of the features times these, [B, C] for each map.
        Returns:
            Logits [B, K, h, w] at the stride of the head (sizes rounded up). With `aux` a pair of them and the
            auxiliary logits, at the stride of that head, which are None where there is no such head; with `factors` a
            triple.
        """
        features = self.backbone(x)
        logits = self.head(features)
        if not aux:
            return logits
        side = None if self.aux is None else self.aux(features)
        if factors is None:
            return logits, side
        changed = [
            map_ * factor[:, :, None, None].to(map_.dtype) for map_, factor in zip(features, factors, strict=True)
        ]
        return logits, side, self.head(changed)

    @property
    def holds(self) -> dict[str, Any]:
        """What meta.json says of a checkpoint of it: 'kind', 'head', 'auxiliary_head', 'backbone', 'num_classes'."""
        return {
            "kind": "segmentor",
            "head": self.head.kind,
            "auxiliary_head": self.aux is not None,
            "backbone": self.backbone.name,
            "num_classes": self.num_classes,
        }

    def classifier_keys(self) -> frozenset[str]:
        """Keys of the state dict that depend on the classes: the classifiers of the head and of the auxiliary head."""
        parts = ("head.classifier.", "aux.classifier.")
        return frozenset(key for key in self.state_dict() if key.startswith(parts))
