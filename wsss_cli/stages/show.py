"""Sheets of pictures: what a run made of photographs, features of a layer, samples as training sees them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from torch import nn

from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.loader import Make
from wsss_cli.data.transforms import train_sample
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, Interrupted, Preempted, UsageError
from wsss_cli.report.pictures import write_picture
from wsss_cli.stages.examples import (
    Shot,
    Sources,
    evenly,
    example,
    examples_sheet,
    photograph,
    spread,
    titled,
)
from wsss_cli.stages.features import layer_output, principal_colors
from wsss_cli.stages.gallery import Shown
from wsss_cli.stages.lineage import Link, is_there, read_link, tell
from wsss_cli.stages.paths import cam_path, confidence_files, mask_path
from wsss_cli.stages.plan import Experiment, plan_train
from wsss_cli.stages.training_data import training_item, training_samples
from wsss_cli.stages.trusted import trusted_labels
from wsss_cli.talk import shell_word, silent

SHEET = "examples.jpg"  # what a run leaves
EPOCHS = 3  # of which an augmented sample is shown


@dataclass(frozen=True)
class Choice:
    """Which photographs: those of `ids`, else `count` from all over the split; '': the one that suits the run."""

    count: int = 8
    ids: tuple[str, ...] = ()
    split: str = ""


def show_run(run: Path, choice: Choice, ctx: Context) -> np.ndarray:
    """A sheet of what a run, and those it was made from, have of photographs; of a training what it predicts.

    Returns:
        RGB, uint8 [H, W, 3].
    Raises:
        UsageError: no run directory, one of a stage that makes no picture, no such split or photograph.
        DataError: its records, its data set or all of its pictures cannot be read.
        WeightsError: the checkpoint of a training is damaged.
    """
    shown = _opened(run)
    stage, labels = shown.last.stage, {}
    if stage not in ("cam", "pseudo", "train"):
        raise UsageError(
            f"{run} is a {stage} run, which makes no picture of a photograph",
            "show the CAMs or masks that were made with it, or what a layer of it sees: --layer NAME",
        )
    samples = _chosen(shown, choice)
    if stage == "train":
        from wsss_cli.inference.network import load_network
        from wsss_cli.inference.predict import predict_each

        network = load_network(run, ctx)
        labels = {name: mask for name, mask, _ in predict_each(network, samples, ctx)}
    examples = []
    for sample in samples:
        ctx.stop.check()
        sources = _sources(shown, sample, choice)
        examples.append(example(sample, shown.dataset, sources, labels.get(sample.id)))
    return examples_sheet(examples, shown.dataset)


def leave_sheet(run: Path, ctx: Context) -> None:
    """Write examples.jpg into a run that is done; where that fails it is said, and the run is done all the same."""
    try:
        write_picture(run / SHEET, show_run(run, Choice(), ctx))
    except (Preempted, Interrupted):
        raise
    except Exception as error:  # a picture that cannot be drawn is never worth a run
        ctx.ui.say(f"no {SHEET} of {run}: {' '.join(str(error).split())[:200]}")


def show_layer(run: Path, layer: str, choice: Choice, ctx: Context) -> np.ndarray:
    """A sheet of what a layer of a run's network gives for photographs, its main directions as colours.

    Returns:
        RGB, uint8 [H, W, 3].
    Raises:
        UsageError: no run directory, or none with a network; no such layer, split or photograph.
        DataError: its records or its data set cannot be read, or no photograph.
        WeightsError: its checkpoint is damaged.
    """
    shown = _opened(run)
    model = _network(shown.last, shown.dataset.num_classes, ctx)
    examples, maps = [], []
    for sample in _chosen(shown, choice):
        ctx.stop.check()
        examples.append(titled(sample, shown.dataset))
        if photograph(sample, examples[-1]) is not None:
            maps.append(layer_output(model, layer, read_image(sample.image), ctx))
    with_picture = [one for one in examples if one.shots]
    for one, colors, features in zip(with_picture, principal_colors(maps) if maps else (), maps, strict=True):
        height, width = one.shots[0].rgb.shape[:2]
        rgb = cv2.resize(colors, (width, height), interpolation=cv2.INTER_NEAREST)
        one.shots.append(Shot("features", rgb))
        one.note = f"{layer}: {features.shape[0]} features, {features.shape[1]}x{features.shape[2]}"
        one.classes.clear()  # none is drawn
    return examples_sheet(examples, shown.dataset)


def show_training(exp: Experiment, masks: Path | None, choice: Choice, ctx: Context) -> np.ndarray:
    """A sheet of photographs as the train stage of a preset sees them: cut, mirrored and coloured, with their labels.

    Each is shown as in the first three epochs, by the random numbers of the training itself.

    Args:
        masks: the pseudo run whose masks are shown; None: the one that training would take. Where there is none yet
            photographs are shown without labels, and that is said.
    Returns:
        RGB, uint8 [H, W, 3].
    Raises:
        DataError: there is no data set, or nothing of it can be read.
        UsageError: no such run or photograph; a split is named, where training has its own.
    """
    if choice.split:
        raise UsageError("--split is for runs", "training samples come from the preset's dataset.train")
    samples, make = _training(exp, masks, ctx)
    places = _places(samples, choice.ids) if choice.ids else evenly(len(samples), choice.count)
    examples = []
    for place in places:
        ctx.stop.check()
        one = titled(samples[place], exp.dataset)
        examples.append(one)
        if photograph(samples[place], one) is None:
            continue
        for epoch in range(EPOCHS):
            try:
                item = make(samples[place], np.random.default_rng((exp.preset.seed, epoch, place)))
            except DataError as error:
                one.missing.append(error.message)
                break
            one.add("training", item["image"], item["mask"], exp.dataset, f"epoch {epoch + 1}")
    return examples_sheet(examples, exp.dataset)


def _training(exp: Experiment, masks: Path | None, ctx: Context) -> tuple[Sequence[Sample], Make]:
    """The samples of the train stage, and how one is made."""
    preset, listed = exp.preset, exp.dataset.split(exp.preset.dataset.train)
    step = next(step for step in plan_train(exp, masks, silent) if step.stage == "train")
    source = step.reads[0] if step.reads else None
    if source is not None and not source.done:
        ctx.ui.say("there are no pseudo masks yet, so labels are left out: wsss pseudo makes them")
        return listed, partial(_unlabelled, exp=exp)
    run = source.path if source else None
    if source is not None:
        ctx.ui.say(f"masks: {source.path}")
    samples = training_samples(listed, preset.train, run, trusted_labels(preset, exp.dataset, "train"))
    trust = confidence_files(run) if run else None
    make = partial(training_item, config=preset.train, num_classes=exp.dataset.num_classes, confidence=trust)
    return samples, make


def _unlabelled(sample: Sample, rng: np.random.Generator, *, exp: Experiment) -> dict[str, np.ndarray]:
    image, train = read_image(sample.image), exp.preset.train
    crop = train_sample(image, np.zeros(image.shape[:2], np.uint8), rng, train.augment, train.crop)
    return {"image": crop.image, "mask": crop.mask}


def _opened(run: Path) -> Shown:
    """A run with its lineage and its data set."""
    told = tell(run)
    if told.dataset is None:
        place = told.last.inputs.dataset if told.last.inputs else "OLD"
        raise DataError(
            f"the data set of {run} cannot be read: {told.why_no_data}",
            f"put it back; one that was moved can be linked: ln -s /ITS/NEW/PLACE {shell_word(place)}",
        )
    return Shown(run.name, told.links, told.dataset, None)


def _sources(shown: Shown, sample: Sample, choice: Choice) -> Sources:
    """The runs that have files of a photograph; in the train split all should."""
    every = shown.sources
    if not choice.ids:
        return every if _split(shown, choice) == "train" else Sources()
    cam = every.cam if every.cam and cam_path(every.cam, sample.id).is_file() else None
    return Sources(cam, every.pseudo if every.pseudo and mask_path(every.pseudo, sample.id).is_file() else None)


def _split(shown: Shown, choice: Choice) -> str:
    """'train', or 'val': of a training where there is one."""
    if choice.split:
        return choice.split
    return "val" if shown.last.stage == "train" and shown.samples("val") else "train"


def _chosen(shown: Shown, choice: Choice) -> list[Sample]:
    splits = [choice.split] if choice.split or not choice.ids else ["train", "val"]
    if not choice.ids:
        samples = shown.samples(_split(shown, choice))
        if not samples:
            raise UsageError(f"{shown.dataset.root} has no photographs in the {_split(shown, choice)} split")
        return spread(samples, choice.count)
    samples = [sample for split in splits for sample in shown.samples(split)]
    return [samples[place] for place in _places(samples, choice.ids)]


def _places(samples: Sequence[Sample], ids: Sequence[str]) -> list[int]:
    """Where photographs stand in a list.

    Raises:
        UsageError: one does not; the nearest names are in the hint.
    """
    wanted: dict[str, int | None] = dict.fromkeys(ids)
    for place, sample in enumerate(samples):
        if sample.id in wanted and wanted[sample.id] is None:
            wanted[sample.id] = place
    places = []
    for name, at in wanted.items():
        if at is None:
            near = difflib.get_close_matches(name, (sample.id for sample in samples), 3, 0.5)
            raise UsageError(
                f"there is no photograph {name!r} in the list", f"near it: {', '.join(near)}" if near else ""
            )
        places.append(at)
    return places


def _network(link: Link, num_classes: int, ctx: Context) -> nn.Module:
    """The network of a run; of CAMs their classifier."""
    from wsss_cli.inference.network import load_network
    from wsss_cli.stages.affinity import load_affinity
    from wsss_cli.stages.classifier import classifier_of

    match link.stage:
        case "train":
            return load_network(link.path, ctx).model
        case "irn" | "psa" as kind:
            return load_affinity(link.path, kind, ctx)
        case "classifier":
            return classifier_of(link.path, num_classes, ctx)
        case "cam" | "recam" if link.inputs and (before := link.inputs.classifier_run or link.inputs.recam_run):
            return _network(read_link(is_there(before, link.path)), num_classes, ctx)
    raise UsageError(f"{link.path} is a {link.stage} run, which has no network", "name the run of a network")
