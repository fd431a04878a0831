"""Run on two ranks: what they make of a batch together, beside what one makes of all of it. Writes JSON to argv[1]."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from wsss_cli.config.loss import GatedCrfConfig, OhemConfig
from wsss_cli.config.noise import ConsistencyConfig
from wsss_cli.losses.collision import collision_cross_entropy
from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.losses.dice import dice_loss
from wsss_cli.losses.focal import focal_loss
from wsss_cli.losses.gated_crf import gated_crf_loss
from wsss_cli.losses.lovasz import lovasz_loss
from wsss_cli.losses.tags import multilabel_soft_margin
from wsss_cli.noise.consistency import Consistency
from wsss_cli.pseudo.affinity_loss import boundary_loss, feature_loss
from wsss_cli.pseudo.pairs import half_disc
from wsss_cli.ranks.group import Word, agree, joined, only_first
from wsss_cli.ranks.layers import spread
from wsss_cli.ranks.sums import concatenated, shares, total
from wsss_cli.ranks.who import by_itself, here

COUNT, CLASSES, SIDE = 5, 3, 12
draw = torch.Generator().manual_seed(0)
LOGITS = torch.randn(COUNT, CLASSES, SIDE, SIDE, generator=draw)
TARGET = torch.randint(0, CLASSES, (COUNT, SIDE, SIDE), generator=draw)
TARGET[:, :3] = 255
TARGET[3] = 255  # an image of the second rank without a label
WEIGHT = torch.rand(COUNT, SIDE, SIDE, generator=draw)
IMAGE = torch.randint(0, 256, (COUNT, SIDE, SIDE, 3), generator=draw, dtype=torch.uint8)
VALID = torch.ones(COUNT, SIDE, SIDE, dtype=torch.bool)
VALID[1, 6:] = False
TAGS = (torch.rand(COUNT, CLASSES, generator=draw) > 0.5).float()
PROBABILITY = (3 * LOGITS.flip(0)).softmax(1)
SIZE = torch.full((COUNT, 2), SIDE)
OFFSETS = half_disc(2)
BY_CLASS = [1.0, 2.0, 5.0]


def consistency(x, rows):
    """Half of its logits are those of mixed views, half those of features."""
    term = Consistency(ConsistencyConfig(threshold=0.5, cutmix=1.0), (CLASSES,))
    batch = {
        "image": IMAGE[rows],
        "draw": (0, 4, 1),
        "vouched": (TARGET[rows] == 0).to(torch.uint8),
        "size": SIZE[rows],
    }
    (factors,) = term.factors(batch)
    changed = x * factors[:, :, None, None]
    return term.loss(batch, PROBABILITY[rows], changed, lambda shown: x * (1 + shown.float().mean(3) / 255)[:, None])


LOSSES = {
    "cross-entropy, all": lambda x, rows: cross_entropy(x, TARGET[rows], "all"),
    "cross-entropy, valid": lambda x, rows: cross_entropy(x, TARGET[rows], "valid"),
    "cross-entropy, weight": lambda x, rows: cross_entropy(x, TARGET[rows], "valid", weight=WEIGHT[rows]),
    "cross-entropy, balance": lambda x, rows: cross_entropy(x, TARGET[rows], "all", balance="fg-bg"),
    "cross-entropy, class weights": lambda x, rows: cross_entropy(x, TARGET[rows], "valid", class_weights=BY_CLASS),
    "cross-entropy, hard ones": lambda x, rows: cross_entropy(x, TARGET[rows], ohem=OhemConfig(min_kept=20)),
    "cross-entropy, hard by class": lambda x, rows: cross_entropy(
        x, TARGET[rows], ohem=OhemConfig(min_kept=20), class_weights=BY_CLASS
    ),
    "cross-entropy, unsure ones": lambda x, rows: cross_entropy(
        x, TARGET[rows], ohem=OhemConfig(thresh=0.3, min_kept=30)
    ),
    "collision": lambda x, rows: collision_cross_entropy(x, TARGET[rows], WEIGHT[rows], TAGS[rows], "valid"),
    "focal": lambda x, rows: focal_loss(x, TARGET[rows], average="valid"),
    "dice": lambda x, rows: dice_loss(x, TARGET[rows]),
    "dice, by class": lambda x, rows: dice_loss(x, TARGET[rows], True, weight=WEIGHT[rows]),
    "lovasz": lambda x, rows: lovasz_loss(x, TARGET[rows]),
    "lovasz, by image": lambda x, rows: lovasz_loss(x, TARGET[rows], True),
    "gated crf": lambda x, rows: gated_crf_loss(x, IMAGE[rows], VALID[rows], GatedCrfConfig(stride=2, average="valid")),
    "tags": lambda x, rows: shares({"tags": multilabel_soft_margin(x.mean((2, 3)), TAGS[rows])}, len(x))["tags"],
    "consistency": consistency,
    "irn": lambda x, rows: boundary_loss(x[:, 0], TARGET[rows], OFFSETS),
    "psa": lambda x, rows: feature_loss(x, TARGET[rows], OFFSETS),
}


def network():
    torch.manual_seed(1)
    from timm.layers.norm_act import BatchNormAct2d

    return nn.Sequential(
        nn.Conv2d(CLASSES, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), BatchNormAct2d(4), nn.Dropout2d(0.5)
    ).train()


def compared(everything, mine, rows):
    """Largest differences of a loss and of its gradient."""
    whole, part = LOGITS.clone().requires_grad_(), LOGITS[rows].clone().requires_grad_()
    with by_itself():
        expected = everything(whole)
        expected.backward()
    result = mine(part)
    result.backward()
    return [
        float((total(result.detach()) - expected).abs().max()),
        float((part.grad - whole.grad[rows]).abs().max()),
        float(whole.grad.abs().max()),
    ]


def main():
    results = {}
    with joined(lambda: None, print):
        ranks = here()
        rows = slice(ranks.part(COUNT).start, ranks.part(COUNT).stop)
        for name, loss in LOSSES.items():
            results[name] = compared(partial(loss, rows=slice(None)), partial(loss, rows=rows), rows)
        one, two = network(), spread(network(), torch.device("cpu"), COUNT, sync_bn=True)

        def of(net, x, square):
            torch.manual_seed(7)
            return (net(x) * square).square().sum()

        square = torch.rand(COUNT, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
        results["network"] = compared(lambda x: of(one, x, square), lambda x: of(two, x, square[rows]), rows)
        results["statistics"] = [
            max(float((a.float() - b.float()).abs().max()) for a, b in zip(one.buffers(), two.buffers(), strict=True))
        ]
        results["keys"] = list(one.state_dict()) == list(two.state_dict())
        joint, at = concatenated(torch.arange(3 - ranks.rank)[:, None])
        results["concatenated"] = [joint.flatten().tolist(), [at.start, at.stop]]
        word = agree(Word(signal=15 * ranks.rank, labelled=ranks.rank == 0, lost=((f"s{ranks.rank}", "torn"),)), 0)
        results["word"] = [word.signal, word.labelled, [list(entry) for entry in word.lost]]
        results["first"] = only_first(lambda: f"by rank {ranks.rank}")
    Path(f"{sys.argv[1]}.{ranks.rank}").write_text(json.dumps(results))


main()
