"""Writes heads_*.npz: logits of MMSegmentation's decode heads with weights drawn by name, and their sizes in full.

    pip install mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0
    python tests/golden/make_heads.py

Inputs are `rules.network_input(seed, shape)` for the maps of `MAPS`, weights `rules.weight(key, shape)`. A file has
'logits', 'settings' and 'keys' (JSON: the head's arguments; shapes by name), and of the head in its published sizes
'full' (JSON: its arguments) and 'parameters'.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import rules
import torch

MAPS = [(6, 17, 25), (10, 9, 13), (12, 5, 7), (14, 3, 4)]
"""Channels, height and width of the four maps; two images."""

NORM = {"norm_cfg": {"type": "BN", "requires_grad": True}, "align_corners": False}
COMMON = {"num_classes": 5, "channels": 8, **NORM}
EVERY = {"in_channels": [channels for channels, _, _ in MAPS], "in_index": [0, 1, 2, 3]}
R50 = {"in_channels": 2048, "in_index": 3, "channels": 512, "num_classes": 21}
AUX = {"num_convs": 1, "concat_input": False}
CASES = {
    "fcn": ("FCNHead", {"in_channels": 14, "in_index": 3}, R50),
    "aux": (
        "FCNHead",
        {"in_channels": 12, "in_index": 2, **AUX},
        {**R50, "in_channels": 1024, "in_index": 2, "channels": 256, **AUX},
    ),
    "segformer": (
        "SegformerHead",
        EVERY,
        {"in_channels": [64, 128, 320, 512], "in_index": [0, 1, 2, 3], "channels": 256, "num_classes": 21},
    ),
    "upernet": (
        "UPerHead",
        {**EVERY, "pool_scales": (1, 2, 3, 6)},
        {"in_channels": [96, 192, 384, 768], "in_index": [0, 1, 2, 3], "channels": 512, "num_classes": 21},
    ),
}
"""Name of the file, class of theirs, its arguments beside `COMMON`, and those of the head as published."""


class Missing(types.ModuleType):
    """mmcv-lite has no compiled operations; these heads use none of them, but MMSegmentation imports their names."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def main():
    sys.modules["mmcv.ops"] = Missing("mmcv.ops")
    from mmseg.models import decode_heads

    maps = [torch.from_numpy(rules.network_input(5001 + i, (2, *shape))) for i, shape in enumerate(MAPS)]
    for name, (kind, settings, full) in CASES.items():
        settings = COMMON | settings
        head = getattr(decode_heads, kind)(**settings).eval()
        shapes = {key: tuple(tensor.shape) for key, tensor in head.state_dict().items()}
        head.load_state_dict(
            {key: torch.from_numpy(np.asarray(rules.weight(key, shape))) for key, shape in shapes.items()}
        )
        with torch.no_grad():
            logits = head(maps)
        whole = getattr(decode_heads, kind)(**NORM | full)
        np.savez_compressed(
            Path(__file__).with_name(f"heads_{name}.npz"),
            logits=logits.numpy(),
            settings=json.dumps(settings),
            keys=json.dumps(shapes),
            full=json.dumps(full),
            parameters=sum(parameter.numel() for parameter in whole.parameters()),
        )
        print(name, tuple(logits.shape), float(logits.std()), sum(p.numel() for p in whole.parameters()))


if __name__ == "__main__":
    main()
