"""The card of a published network: a page of Markdown for those who find the folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from wsss_cli.config.heads import TITLES
from wsss_cli.escapes import one_line

SUPERVISION = {
    "weak": "image tags; nobody drew a mask of what it was trained on",
    "mixed": "image tags, and drawn labels of some photographs",
    "partial": "drawn labels of parts of the photographs",
    "full": "true masks",
}
LICENSE = "not stated here: whoever publishes the weights writes it into this line"


def card_text(meta: Mapping[str, Any], file: str, folder: str) -> str:
    """README.md of a published network.

    Args:
        meta: its meta.json.
        file: of the weights.
        folder: name of the directory, for the commands.
    """
    preset = meta["preset"]
    size = f"{preset['train']['crop']} pixels"
    rows = [
        ("classes", f"{len(meta['classes'])}: {', '.join(meta['classes'])}"),
        ("network", f"{TITLES.get(meta['head'], meta['head'])} on {meta['backbone']}"),
        ("data set", _data(meta["data"])),
        ("supervision", SUPERVISION.get(preset["train"]["supervision"], preset["train"]["supervision"])),
        *([("teacher", meta["teacher"])] if meta["teacher"] else []),
        ("training", f"preset {preset['name']}, crops of {size}: {meta['origin']}"),
        ("file", f"`{file}`"),
        ("SHA-256", f"`{meta['sha256'][file]}`"),
        ("written by", meta["published_by"]),
        ("license", LICENSE),
    ]
    name = shlex.quote(folder)
    return "\n".join(
        [
            f"# {one_line(preset['name'])}",
            "",
            "A semantic segmentation network: a photograph in, a class for each pixel out.",
            "",
            *_table(("", ""), rows),
            "",
            "## Scores",
            "",
            *_scores(meta["scores"]),
            "",
            "## Use",
            "",
            "With `wsss` installed, beside this folder:",
            "",
            f"    wsss infer {name} photos/ --out predicted",
            f"    wsss eval {name} --data DATASET",
            f"    wsss export {name} --out network.onnx",
            "",
            "```python",
            "from wsss_cli import load_segmentor",
            "",
            f"segmentor = load_segmentor({folder!r})",
            "mask = segmentor.predict(image)  # RGB uint8 [H, W, 3] -> uint8 [H, W], an index of segmentor.classes",
            "```",
            "",
        ]
    )


def _data(data: Mapping[str, Any]) -> str:
    counts = [
        f"{name}: {split['images']:,} images, {split['with_masks']:,} with masks"
        for name, split in data["splits"].items()
    ]
    return f"{data['name']} ({'; '.join(counts) if counts else 'its lists were not there to be counted'})"


def _scores(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each split and way of looking; below them the protocol of each split, and IoU by class of the first."""
    if not scores:
        return ["None are recorded."]
    rows = [(score["split"], score["views"], _number(score["miou"])) for score in scores]
    lines = _table(("split", "views", "mIoU, %"), rows)
    for score in scores:
        if score["split"] not in (before["split"] for before in scores[: scores.index(score)]):
            lines += ["", f"Protocol, {one_line(score['split'])}:", ""]
            lines += [f"- {one_line(line)}" for line in score["protocol"]]
    first = scores[0]
    lines += ["", f"By class ({one_line(first['split'])}, {first['views']}):", ""]
    return lines + _table(("class", "IoU, %"), [(name, _number(iou)) for name, iou in first["iou"].items()])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(one_line(str(cell)).replace('|', '&#124;') for cell in cells)} |"
