"""What the train stage learns from: images and masks, augmented, in batches; what cannot be read is named."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsss_cli.config.train import TrainConfig
from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.loader import Make
from wsss_cli.data.masks import check_values, read_mask
from wsss_cli.data.transforms import train_sample
from wsss_cli.data.trusted import TrustedLabels
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.noise.targets import wanted
from wsss_cli.rows import Each, Rows
from wsss_cli.scoring.pieces import check_same_size
from wsss_cli.stages.paths import Files, confidence_files, mask_files
from wsss_cli.stages.preflight import check_labelled, check_true_masks
from wsss_cli.stages.trusted import check_whole, whole_masks
from wsss_cli.talk import counted, sides


def training_samples(
    samples: Sequence[Sample], config: TrainConfig, pseudo_run: Path | None, trusted: TrustedLabels | None = None
) -> Sequence[Sample]:
    """The samples that have masks to train on.

    Args:
        pseudo_run: whose masks take the place of true ones; None: full supervision, or partial.
        trusted: the data set's own labels. Of mixed supervision photographs with whole masks are repeated until they
            are `config.trusted_share` of the samples; of partial supervision, without a pseudo run, those with labels
            are all there is.
    Raises:
        DataError: there are no pseudo masks of them, or none of their confidence where it is asked for; with full
            supervision, not all have a true mask; with partial supervision, none has labels, or these are others than
            their index says.
    """
    if pseudo_run is None and config.supervision == "partial" and trusted is not None:
        return _labelled(samples, trusted)
    if pseudo_run is None:
        check_true_masks(samples)
        return samples
    files = mask_files(pseudo_run)
    masks = Each(files.with_file(samples), lambda sample: replace(sample, mask=files.of(sample.id)))
    if not masks:
        raise DataError(
            f"{pseudo_run} has no mask of any image of the train split",
            "--masks names a pseudo run of this data set; wsss pseudo makes one",
        )
    if config.noise.confidence != "none":
        check_confidence(pseudo_run, masks.base)
    whole = whole_masks(trusted, masks) if config.trusted_share else None
    if whole is None:
        return masks
    check_whole(whole)
    return Rows(masks, repeated(whole, config.trusted_share))


def _labelled(samples: Sequence[Sample], trusted: TrustedLabels) -> Sequence[Sample]:
    """The samples that have labels of the data set, with these as their masks."""
    labelled = check_labelled(samples, trusted)
    for name in names_of(labelled):
        trusted.entries[name].verify(trusted.file(name))
    return Each(labelled, lambda sample: replace(sample, mask=trusted.file(sample.id)))


def repeated(trusted: np.ndarray, share: float) -> np.ndarray:
    """Places of samples, those that are trusted as often as makes them `share` of all at least.

    Args:
        trusted: bool [N], some of them true.
        share: in 0..1; 1 leaves the others out.
    Returns:
        Places, int64 [M], each sample by itself first.
    """
    count = int(trusted.sum())
    others = np.flatnonzero(~trusted)
    if share >= 1 or not len(others):
        return np.flatnonzero(trusted)
    wanted = max(count, math.ceil(round(share / (1 - share) * len(others), 6)))
    more = np.resize(np.flatnonzero(trusted), wanted - count)
    return np.concatenate([np.arange(len(trusted)), more])


def training_item(
    sample: Sample,
    rng: np.random.Generator,
    *,
    config: TrainConfig,
    num_classes: int,
    confidence: Files | None,
    trusted: TrustedLabels | None = None,
) -> dict[str, np.ndarray]:
    """A sample, augmented, with what the losses of `config` need of it.

    Args:
        rng: the only source of chance.
        confidence: maps of pseudo masks.
        trusted: the data set's own labels, which the masks have.
    Returns:
        'image': RGB, uint8 [crop, crop, 3]; 'mask': uint8 [crop, crop]; as needed 'confidence': uint8 [crop, crop];
        'vouched': 1 where a label is one of the data set's own, uint8 [crop, crop];
        'size': of what is not padding, [2]; 'tags': background and the image's classes, 0 or 1, uint8 [K].
    Raises:
        DataError: the mask has another size than the image, or a value that is no class; labels of the data set are
            gone, or others than their index says.
    """
    assert sample.mask is not None
    image, mask = read_image(sample.image), read_mask(sample.mask)
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"{sample.mask} is {sides(mask.shape)}, its image is {sides(image.shape[:2])}",
            "masks have the size of their photographs as shown (EXIF applied): wsss verify names all that have not",
        )
    wrong = mask[(mask >= num_classes) & (mask != 255)]
    if wrong.size:
        raise DataError(
            f"{sample.mask} has the value {int(wrong[0])}, which is no class: they are 0..{num_classes - 1} (and 255)",
            "wsss verify names all such masks; 255 is what is not to be learned",
        )
    needs, trust, vouched = wanted(config), None, None
    if "confidence" in needs:
        assert confidence is not None
        trust = read_mask(confidence.of(sample.id))
    if "vouched" in needs:
        labels = trusted.of(sample.id) if trusted else None
        vouched = np.zeros_like(mask) if labels is None else (labels.read() != IGNORE).astype(np.uint8)
    crop = train_sample(image, mask, rng, config.augment, config.crop, trust, vouched)
    item = {"image": crop.image, "mask": crop.mask}
    if crop.confidence is not None:
        item["confidence"] = crop.confidence
    if crop.vouched is not None:
        item["vouched"] = crop.vouched
    if "size" in needs:
        item["size"] = np.asarray(crop.size)
    if "tags" in needs:
        drawn = np.unique(mask) if config.supervision == "partial" else ()  # which may be all that is known of it
        item["tags"] = np.isin(np.arange(num_classes), (0, *sample.labels, *drawn)).astype(np.uint8)
    return item


def still_lost(samples: Sequence[Sample], make: Make, ctx: Context, run: RunDir) -> list[dict[str, str]]:
    """Of what a finished training has lost, that which cannot be used even now."""
    before, left, usable = {entry["id"] for entry in run.lost}, [], []
    for sample in samples:
        if sample.id in before:
            try:
                make(sample, np.random.default_rng(0))
                usable.append(sample.id)
            except DataError as error:
                left.append({"id": sample.id, "reason": error.message})
    if usable:
        ctx.ui.say(
            f"{run.path} was trained without {counted(len(usable), 'image')} that can be used now, first {usable[0]}: "
            "remove it to train anew"
        )
    return left


def unusable(
    samples: Sequence[Sample], num_classes: int, names: Collection[str] | None = None
) -> Iterator[dict[str, str]]:
    """Of samples with masks those that cannot be scored: the photograph or the mask cannot be read, or do not fit.

    Args:
        names: of samples to look at; None: all.
    """
    for sample in samples:
        if sample.mask is None or (names is not None and sample.id not in names):
            continue
        try:
            mask = read_mask(sample.mask)
            check_values(mask, num_classes, sample.mask)
            check_same_size(read_image(sample.image).shape[:2], sample.image, mask.shape, sample.mask)
        except DataError as error:
            yield {"id": sample.id, "reason": error.message}


def check_confidence(pseudo_run: Path, samples: Sequence[Sample]) -> None:
    """Refuse a pseudo run that lacks confidence maps.

    Raises:
        DataError: with the first image that has none.
    """
    if without := confidence_files(pseudo_run).without_file(samples):
        raise DataError(
            f"{pseudo_run} has no confidence map of {len(without)} of {len(samples)} images, first: {without[0].id}",
            "make the masks with `wsss pseudo`, or train with --set train.noise.confidence=none",
        )
