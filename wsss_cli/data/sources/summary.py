"""What a user should see of a data set that was just made: classes and tags in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.sources.table import show_some
from wsss_cli.talk import counted

Finding = dict[str, str]


@dataclass
class Prepared:
    """The data set written, and what was found on the way.

    Attributes:
        findings: photographs (`lost` is photograph) and masks (`lost` is mask) that are left out, each with its fix.
        summary: the numbers of `summarise`.
        lines: summary, table and masks in words.
    """

    dataset: Dataset
    findings: list[Finding] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def summarise(samples: Iterable[Sample], classes: Sequence[str]) -> dict[str, Any]:
    """Numbers of the tags.

    Args:
        classes: names, background first.
    Returns:
        `images`, their number by class; `untagged`, ids without a tag; `in_every_image` and `alone`, classes that are
        in each image, and that never stand beside another one.
    """
    images, beside = Counter[int](), set[int]()
    untagged, count = [], 0
    for sample in samples:
        count += 1
        images.update(sample.labels)
        if not sample.labels:
            untagged.append(sample.id)
        beside.update(sample.labels if len(sample.labels) > 1 else ())
    numbers = range(1, len(classes))
    return {
        "images": {classes[index]: images[index] for index in numbers},
        "untagged": untagged,
        "in_every_image": [classes[index] for index in numbers if count and images[index] == count],
        "alone": [classes[index] for index in numbers if images[index] and index not in beside],
    }


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary in words."""
    images: dict[str, int] = summary["images"]
    lines = [f"images per class: {', '.join(f'{name} {count:,}' for name, count in images.items())}"]
    if untagged := summary["untagged"]:
        lines.append(f"{counted(len(untagged), 'image')} without a tag: {show_some(untagged)}")
    if unseen := [name for name, count in images.items() if not count]:
        lines.append(f"in no image: {', '.join(unseen)}")
    if everywhere := summary["in_every_image"]:
        lines.append(f"in every image: {', '.join(everywhere)}; nothing tells the class from the background")
    if alone := summary["alone"]:
        seen = sum(1 for count in images.values() if count)
        named = "no image has two classes" if len(alone) == seen else f"alone in every image: {', '.join(alone)}"
        lines += [named] if seen > 1 else []
    return lines
