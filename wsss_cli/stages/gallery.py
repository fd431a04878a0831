"""The photographs of a report: the worst, the best and some of all; without true masks, what tags can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.report.charts import bars, legend, percent
from wsss_cli.report.html import Html, join, node, picture, table
from wsss_cli.scoring.by_image import ImageAreas
from wsss_cli.stages.examples import Example, Sources, example, legend_of, shares, spread
from wsss_cli.stages.lineage import Link, find_stage

PRESENT = 0.01  # share of the pixels from which a class counts as predicted
WITHOUT_MASKS = 48  # photographs that are predicted where there are no true masks


@dataclass(frozen=True)
class Shown:
    """A run whose photographs are shown.

    Attributes:
        areas: what each image adds to its scores, where that is known.
    """

    name: str
    links: tuple[Link, ...]
    dataset: Dataset
    areas: ImageAreas | None

    @property
    def last(self) -> Link:
        return self.links[-1]

    @property
    def sources(self) -> Sources:
        cam, pseudo = (find_stage(list(self.links), stage) for stage in ("cam", "pseudo"))
        return Sources(cam.path if cam else None, pseudo.path if pseudo else None)

    def samples(self, which: str) -> Sequence[Sample]:
        """Of the split that the preset calls `train` or `val`; none where it is not there."""
        if self.last.preset is None:
            return []
        try:
            return self.dataset.split(getattr(self.last.preset.dataset, which))
        except DataError:
            return []


def gallery(runs: Sequence[Shown], ctx: Context, count: int) -> Html | None:
    """Pictures of photographs, `count` of each kind at most; None: there are none to show."""
    if not runs or not count:
        return None
    parts: list[Html | None] = []
    if runs[0].last.stage == "train":
        parts.append(_predictions(runs, ctx, count))
    for run in runs[:1]:
        if run.sources != Sources():
            parts.append(_training_photographs(run, ctx, count))
    shown = [part for part in parts if part is not None]
    return join(shown) if shown else None


def _training_photographs(run: Shown, ctx: Context, count: int) -> Html | None:
    samples = run.samples("train")
    if not samples:
        return None
    areas = run.areas if run.last.stage == "pseudo" else None
    parts = []
    for heading, group, notes in _groups(samples, areas, count):
        examples = []
        for sample, note in zip(group, notes, strict=True):
            ctx.stop.check()
            examples.append(example(sample, run.dataset, run.sources, note=note))
        parts.append(_shelf(f"Training photographs: {heading}", examples, run.dataset))
    return join(parts)


def _groups(
    samples: Sequence[Sample], areas: ImageAreas | None, count: int
) -> Iterator[tuple[str, list[Sample], list[str]]]:
    """(what they are, images, a note on each): the worst and the best where it is known which, and some of all."""
    if areas is not None and areas.names:
        scores = areas.mious()
        order = [place for place in np.argsort(scores, kind="stable") if np.isfinite(scores[place])]
        half = min(count, len(order) // 2)
        names = {areas.names[place] for place in (*order[:half], *order[len(order) - half :])}
        by_id = {sample.id: sample for sample in samples if sample.id in names}  # a list may have millions
        for heading, ends in (("the worst", order[:half]), ("the best", order[::-1][:half])):
            shown = [place for place in ends if areas.names[place] in by_id]
            if shown:
                notes = [f"mIoU of its classes {percent(float(scores[place]))}" for place in shown]
                yield heading, [by_id[areas.names[place]] for place in shown], notes
    few = spread(samples, count)
    yield "from all over the list", few, [""] * len(few)


def _predictions(runs: Sequence[Shown], ctx: Context, count: int) -> Html | None:
    first = runs[0]
    samples = [sample for sample in first.samples("val") if sample.mask is not None]
    if not samples:
        return _without_masks(first, ctx, count)
    groups = list(_groups(samples, first.areas, count)) if len(runs) == 1 else list(_apart(runs, samples, count))
    wanted = list({sample.id: sample for _, group, _ in groups for sample in group}.values())
    predicted = [_predict(run, wanted, ctx) for run in runs]
    parts: list[Html] = []
    for heading, group, notes in groups:
        examples = []
        for sample, note in zip(group, notes, strict=True):
            for run, labels in zip(runs, predicted, strict=True):
                shown = example(sample, first.dataset, Sources(), labels.get(sample.id), note)
                if len(runs) > 1:
                    shown.title = f"{sample.id}, {run.name}"
                examples.append(shown)
        parts.append(_shelf(f"Validation photographs: {heading}", examples, first.dataset))
    note = "Predictions at a single scale, made again for this page by the last checkpoint."
    return join((node("p", note, class_="soft"), *parts))


def _apart(
    runs: Sequence[Shown], samples: Sequence[Sample], count: int
) -> Iterator[tuple[str, list[Sample], list[str]]]:
    """Images on which the first two runs differ most."""
    first, second = runs[0].areas, runs[1].areas
    if first is None or second is None:
        few = spread(samples, count)
        yield "from all over the list", few, [""] * len(few)
        return
    a, b = dict(zip(first.names, first.mious(), strict=True)), dict(zip(second.names, second.mious(), strict=True))
    known = [sample for sample in samples if np.isfinite(a.get(sample.id, np.nan) - b.get(sample.id, np.nan))]
    order = sorted(known, key=lambda sample: b[sample.id] - a[sample.id])
    half = min(count, len(order) // 2)
    for heading, group in ((runs[0].name, order[:half]), (runs[1].name, order[::-1][:half])):
        if group:
            notes = [f"mIoU of its classes {percent(a[one.id])} and {percent(b[one.id])}" for one in group]
            yield f"{heading} is ahead", group, notes


def _predict(run: Shown, samples: Sequence[Sample], ctx: Context) -> dict[str, np.ndarray]:
    """Label maps by id, uint8 [H, W]; without those whose photograph cannot be read, empty without a network."""
    return {name: labels for name, labels, _ in _predicted(run, samples, ctx)}


def _predicted(run: Shown, samples: Sequence[Sample], ctx: Context) -> Iterator[tuple[str, np.ndarray, float]]:
    """What `predict_each` gives with the network of a run; nothing where it has none."""
    from wsss_cli.inference.network import load_network
    from wsss_cli.inference.predict import predict_each

    try:
        network = load_network(run.last.path, ctx)
    except (UsageError, WeightsError):
        return
    yield from predict_each(network, samples, ctx)


def _without_masks(run: Shown, ctx: Context, count: int) -> Html | None:
    """What can be told of a network without true masks: predictions against tags, areas, the least sure photographs."""
    samples = [sample for sample in spread(run.samples("train"), WITHOUT_MASKS) if sample.labels]
    if not samples:
        return None
    labels, area, sure = {}, np.zeros(run.dataset.num_classes), {}
    for name, mask, probability in _predicted(run, samples, ctx):
        part = shares(mask, run.dataset.num_classes)
        area += part
        labels[name], sure[name] = mask, probability
    seen = [sample for sample in samples if sample.id in labels]
    if not seen:
        return None
    there = {s.id: {i for i in range(1, run.dataset.num_classes) if _has(labels[s.id], i)} for s in seen}
    agreed = sum(there[sample.id] == set(sample.labels) for sample in seen)
    rows = []
    for index in range(1, run.dataset.num_classes):
        tagged = [sample for sample in seen if index in sample.labels]
        others = [sample for sample in seen if index not in sample.labels]
        hits, false = (sum(index in there[sample.id] for sample in group) for group in (tagged, others))
        rows.append((run.dataset.classes[index], f"{hits} of {len(tagged)}", f"{false} of {len(others)}"))
    said = (
        f"in {agreed} of {len(seen)} training photographs the network finds exactly the tagged classes "
        f"({100 * agreed / len(seen):.0f} %)"
    )
    ctx.ui.say(f"no true masks for validation; {said}")
    alike = node(
        "p",
        f"No true masks for validation. {said[0].upper()}{said[1:]}. "
        f"A class counts from {100 * PRESENT:.0f} % of the pixels on.",
    )
    empty = sum(not classes for classes in there.values())
    warning = None
    if empty > len(seen) // 2:
        nothing = f"in {empty} of {len(seen)} photographs it finds nothing but background"
        ctx.ui.say(nothing)
        warning = node("p", f"{nothing[0].upper()}{nothing[1:]}.", class_="warn")
    by_area = bars(run.dataset.classes, {"area": list(100 * area / len(seen))}, "share of the pixels, per cent")
    least = sorted(seen, key=lambda sample: sure[sample.id])[:count]
    examples = [
        example(one, run.dataset, run.sources, labels[one.id], f"mean probability {sure[one.id]:.2f}") for one in least
    ]
    return join(
        (
            node("h3", "Predictions and tags"),
            alike,
            warning,
            table(("class", "found where tagged", "found where not tagged"), rows),
            node("h3", "Area by class"),
            by_area,
            _shelf("The least sure photographs", examples, run.dataset),
        )
    )


def _has(mask: np.ndarray, index: int) -> bool:
    return bool((mask == index).mean() >= PRESENT)


def _shelf(heading: str, examples: Sequence[Example], dataset: Dataset) -> Html:
    """Examples below each other, their pictures side by side, the legend above."""
    parts = []
    for one in examples:
        shots = [node("div", picture(shot.rgb, f"{shot.title} of {one.title}"), shot.title) for shot in one.shots]
        missing = [node("p", line, class_="warn") for line in one.missing]
        head = node("div", node("b", one.title), f" {one.note}" if one.note else None)
        parts.append(node("div", head, node("div", *shots, class_="shots"), *missing, class_="example"))
    key = [(name, f"rgb({r},{g},{b})") for name, (r, g, b) in legend_of(dataset, examples)]
    return join((node("h3", heading), legend(key), *parts))
