"""A data set's own labels, that a training learns from: which stages have them, what is said of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from wsss_cli.config.schema import Preset
from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.trusted import FOLDER, INDEX, TrustedLabels, read_trusted
from wsss_cli.errors import DataError
from wsss_cli.talk import say, shell_word

if TYPE_CHECKING:
    import numpy as np  # which planning does without

STAGES = {"mixed": ("pseudo", "relabel"), "partial": ("train", "relabel")}
"""Those that read the labels, by supervision; a training that reads masks finds them there."""


def trusted_by(preset: Preset, dataset: Dataset, stage: str) -> str:
    """Fingerprint of the labels that a stage reads; empty: none.

    Raises:
        DataError: the stage reads labels, and the data set has none.
    """
    if stage not in STAGES.get(preset.train.supervision, ()) or not dataset.classes:
        return ""
    return own_labels(dataset).fingerprint


def trusted_labels(preset: Preset, dataset: Dataset, stage: str) -> TrustedLabels | None:
    """The labels that a stage reads, or a training finds in the masks that it reads; None: there are none in it."""
    stages = STAGES.get(preset.train.supervision, ())
    return own_labels(dataset) if stage in stages or (stages and stage == "train") else None


def own_labels(dataset: Dataset) -> TrustedLabels:
    """The labels of a data set.

    Raises:
        DataError: it has none, or their index is damaged.
    """
    file = dataset.root / FOLDER / INDEX
    try:
        stamp = file.stat().st_mtime_ns
    except OSError:
        stamp = 0
    trusted = _read(dataset.root, stamp)
    if not trusted.entries:
        raise DataError(
            f"{dataset.root} has no labels of its own to train on",
            f"wsss prepare labels {shell_word(dataset.root)} SOURCE adds them; "
            "--set train.supervision=weak does without",
        )
    return trusted


@lru_cache(maxsize=2)
def _read(root: Path, stamp: int) -> TrustedLabels:
    return read_trusted(root)


def whole_masks(trusted: TrustedLabels | None, samples: Sequence[Sample]) -> np.ndarray:
    """Which photographs have a whole mask, bool [N]."""
    import numpy as np

    if trusted is None:
        return np.zeros(len(samples), bool)
    entries = trusted.entries
    names = names_of(samples)
    return np.fromiter((name in entries and entries[name].kind == "mask" for name in names), bool, len(samples))


def check_whole(whole: np.ndarray, hint: str = "") -> None:
    """Refuse `train.trusted_share` where no photograph has a whole mask.

    Args:
        whole: which have, as `whole_masks` gives it.
        hint: what helps, too.
    Raises:
        DataError: none has.
    """
    if not whole.any():
        raise DataError(
            "train.trusted_share asks for whole masks, and no training photograph has one",
            f"{hint}wsss prepare labels DATASET MASKS --kind mask adds some, or --set train.trusted_share=0",
        )


def check_told(samples: Sequence[Sample], trusted: TrustedLabels, classes: Sequence[str]) -> None:
    """Refuse labels that are all of one class, and name the classes of which they have no pixel.

    They are read until every class has been seen; one that cannot be read is the matter of whoever trains on it.

    Args:
        classes: names, background first.
    Raises:
        DataError: there is nothing in them to be told apart.
    """
    import numpy as np

    untold = set(range(len(classes)))
    for name in names_of(samples):
        with contextlib.suppress(DataError):
            untold.difference_update(np.unique(trusted.of(name).read()).tolist())  # type: ignore[union-attr]
        if not untold:
            return
    said = [name for number, name in enumerate(classes) if number not in untold]
    if len(said) < 2:
        raise DataError(
            f"the labels in {trusted.folder} hold {said[0] if said else 'no class'} alone: nothing tells classes apart",
            "boxes tell of their inside with --box-fill crf; --set train.supervision=mixed adds pseudo masks",
        )
    missing = ", ".join(classes[number] for number in sorted(untold))
    say(f"warning: no label of a pixel is {missing}: the network will not know it (train.supervision=partial)")


def in_words(trusted: TrustedLabels, dataset: Dataset, split: str) -> str:
    """How many photographs of a split have which labels, and where these come from."""
    listed = set(dataset.split(split).names())
    there = [entry for name, entry in trusted.entries.items() if name in listed]
    kinds = Counter[str](entry.kind for entry in there)
    sources = ", ".join(sorted({entry.source for entry in there if entry.source})[:4])
    words = {"mask": "whole masks", "partial": "partial label maps"}
    parts = [f"{kinds[kind]:,} {name}" for kind, name in words.items() if kinds[kind]]
    named = f" ({sources})" if sources else ""
    return f"{' and '.join(parts) or 'no labels'} of {len(listed):,} photographs{named}"
