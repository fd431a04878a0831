"""The eval stage for networks: mIoU on the val split, single scale and ms+flip in one pass."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.schema import Preset
from wsss_cli.crf.dense import backend_for
from wsss_cli.data.dataset import HIGHER, Dataset, Sample, first_ones, open_dataset
from wsss_cli.engine.context import Context
from wsss_cli.engine.pointers import checkpoint_named, weights_in
from wsss_cli.engine.shards import shards_at_work
from wsss_cli.engine.sweep import Lost
from wsss_cli.errors import BusyError, DataError, UsageError
from wsss_cli.files import refuse_unwritable, write_json
from wsss_cli.inference.network import LATEST, Network, Which, load_network
from wsss_cli.inference.onnx_file import is_onnx, open_onnx
from wsss_cli.locks import locked
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import here
from wsss_cli.scoring.by_image import MOST
from wsss_cli.scoring.counts import Counts
from wsss_cli.scoring.partial import PartialCounts
from wsss_cli.scoring.renumbered import renumbered
from wsss_cli.scoring.stored import VIEWS, masks_stamp, read_scores_in
from wsss_cli.stages.network_scores import ScoreOptions, count_network, scores_of
from wsss_cli.stages.protocol import changed_list, check_classes, counted, further_lines, views_in_words
from wsss_cli.talk import shell_word


@dataclass(frozen=True)
class ScoredOn:
    """The images that a network is scored on.

    Attributes:
        split: of the data set; empty: the preset's val split.
        data: another data set directory, with the same classes; empty: the run's.
        moved: where the run's lies now; empty: where its record says.
        limit: the first images of the split alone, a trial whose scores are not stored; 0: all. A run with a limit
            has that one.
    """

    split: str = ""
    data: str = ""
    limit: int = 0
    moved: str = ""


NO_MASKS = "give `wsss prepare` masks of some photographs, or look at what the network predicts: wsss infer, wsss show"
OWN_SPLIT = ScoredOn()


@dataclass(frozen=True)
class Evaluation:
    """A network, what it is scored on, and where the scores go.

    Attributes:
        run: as it was named.
        samples: with a mask.
        preset: with the views that were asked for.
        file: of the scores, in the run.
        key: all that the counts depend on but `options.modes`.
        stored: the fields of the scores that are known before.
        changed: protocol lines of a list that is another one than at the training's time.
        trial: nothing of it is stored.
    """

    run: Path
    network: Network
    dataset: Dataset
    samples: Sequence[Sample]
    preset: Preset
    options: ScoreOptions
    file: Path
    key: dict[str, Any]
    stored: dict[str, Any]
    changed: tuple[str, ...] = ()
    trial: bool = False

    @property
    def id(self) -> str:
        """Of network, list and settings, 16 hexadecimal digits; eval.json has that of its scores."""
        text = json.dumps([self.key, self.options.modes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def counted_key(self) -> dict[str, Any]:
        """All that counts which are stored depend on, the true masks among it."""
        return {**self.key, "masks": self.stored["masks_stamp"]}

    @property
    def counted_as(self) -> str:
        """Of `counted_key`, 16 hexadecimal digits: scores of other views that have the same one stay beside these."""
        return hashlib.sha256(json.dumps(self.counted_key, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def place(self) -> Path:
        """The folder whose `shards` are those of this evaluation."""
        return self.file.with_suffix("") / self.id

    @property
    def lock(self) -> Path:
        """Held by a shard while it begins, and while what shards have counted is added up or taken away."""
        return self.run / ".eval.lock"

    @property
    def by_image(self) -> bool:
        """Whether what single images add is written."""
        return len(self.samples) <= MOST

    def all_lost(self, lost: Lost) -> bool:
        """Whether there is nothing to score."""
        return len(lost) == len(self.samples)

    def write(self, total: dict[str, Counts], lost: Lost, ctx: Context) -> dict[str, Any]:
        """Write the scores of all samples, and what single images add, but for a trial; the scores.

        Raises:
            DataError: no sample could be read; scores that are there stay.
        """
        if self.all_lost(lost):
            raise DataError(
                f"none of the images of split {self.stored['split']!r} of {self.dataset.root} could be scored, "
                f"first: {lost[0]['reason']}",
                "put them back, or run `wsss prepare` again; scores that are there stay as they are",
            )
        config, others = self.preset.eval, self._other_views(total, lost, ctx)
        images = self.file.with_suffix(".images.npz") if self.by_image and not self.trial else None
        views = {*total, *others}
        crf = any(view.endswith("_crf") for view in views)
        further = {"ms_flip": "ms_flip" in views, "crf": crf, "boundary": self.options.boundary}
        result = {
            **scores_of(total, self.samples, self.dataset, images),
            **others,
            **self.stored,
            "counted_as": self.counted_as,
            "evaluation": self.id,
            "protocol": [
                f"{self.dataset.name}/{self.stored['split']} ({counted(len(self.samples), len(lost))}), "
                f"{self.network.origin}; {views_in_words(config)}; 255 ignored",
                *further_lines(config, backend_for(ctx.device.type), **further),
                *self.changed,
                *self.dataset.protocol,
            ],
            "lost": lost,
            "device": ctx.device_name,
        }
        if warning := renumbered(result["single"]):
            ctx.ui.say(warning)
        if not self.trial:
            write_json(self.file, result)
        return result

    def _other_views(self, total: Mapping[str, Counts], lost: Lost, ctx: Context) -> dict[str, Any]:
        """Scores of other views of the same network, masks and settings, which an evaluation before has left."""
        if self.trial or not self.file.is_file():
            return {}
        before = {"counted_as": self.counted_as, "lost": lost, "device": ctx.device_name}
        try:
            stored = read_scores_in(self.file)
        except DataError:  # damaged: written anew
            return {}
        if not before.items() <= stored.items():
            return {}
        return {view: stored[view] for view in VIEWS if view in stored and view not in total}


def open_evaluation(
    run: Path,
    ctx: Context,
    *,
    ms_flip: bool,
    crf: bool = False,
    boundary: bool = False,
    which: Which = LATEST,
    views: dict[str, Any] | None = None,
    on: ScoredOn = OWN_SPLIT,
) -> Evaluation:
    """The network of a training run and what it is to be scored on.

    Args:
        run: also a checkpoint folder or an imported directory, see `load_network`, or an exported ONNX file.
        ms_flip, crf, boundary: see `ScoreOptions`.
        which: weights of the run.
        views: fields of the preset's eval section to change.
        on: what to score on.
    Raises:
        DataError: the split has no masks, or the data set other classes.
        UsageError: a file of labels is asked for what needs scores, or it is not known what to score it on.
        UsageError, WriteError: the scores cannot be written.
    """
    run = checkpoint_named(run)
    network = load_network(run, ctx, which) if not is_onnx(run) else _of_file(run, ms_flip or crf)
    split, data, place = on.split, on.data, on.moved or network.dataset
    if not data and not place:
        raise UsageError(f"nothing says which data set {run} was trained on", "name one with --data")
    trial = on.limit not in (0, network.preset.dataset.limit)
    if not data and not Path(place).exists():
        raise DataError(
            f"the data set that {run} was trained on is gone: {place}",
            "put it back, or name the place that it was moved to: --data DIR",
        )
    dataset = open_dataset(data or place, limit=on.limit or network.preset.dataset.limit)
    split = split or network.preset.dataset.val
    if not on.split and split not in dataset.split_sha256:
        raise DataError(f"{dataset.root} has no split {split!r} with masks to score against", NO_MASKS)
    samples = [s for s in dataset.split(split) if s.mask is not None]
    if not samples:
        where = f"split {split!r} of {dataset.root}{first_ones(dataset.limit)}"
        raise DataError(f"{where} has no masks to score against", HIGHER if dataset.limit else NO_MASKS)
    check_classes(dataset, network.classes, run)
    changed = [] if data else changed_list(network, dataset, split, ctx)
    config = EvalConfig.model_validate({**network.preset.eval.model_dump(), **(views or {})})
    preset = network.preset.model_copy(update={"eval": config})
    name = "eval.json" if split == preset.dataset.val else f"eval-{split}.json"
    file = run.with_name(f"{run.name}.{name}") if is_onnx(run) else run / name
    if not trial:
        refuse_unwritable(file, f"score a copy of it: cp -r {shell_word(run)} DIR")
    key = _key(network, dataset, split, config, run, boundary, ctx)
    stored = {
        "run": str(run),
        "file": "" if trial else str(file),
        "dataset": data or place,
        "split": split,
        "split_sha256": dataset.split_sha256[split],
        "masks_stamp": masks_stamp(samples),
        "eval": config.model_dump(mode="json"),
        "checkpoint": which.checkpoint,
        **({"weights": network.weights} if network.weights else {}),
        "step": network.step,
        "classes": list(dataset.classes),
        **({"limit": dataset.limit} if dataset.limit else {}),
    }
    options = ScoreOptions(ms_flip, crf, boundary)
    return Evaluation(run, network, dataset, samples, preset, options, file, key, stored, tuple(changed), trial)


def _of_file(file: Path, scores: bool) -> Network:
    """An ONNX file as a network; `scores`: those of all classes are needed."""
    network = open_onnx(file)
    model: Any = network.model
    if scores and model.output == "labels":
        raise UsageError(
            f"{file} gives labels; --ms-flip and --crf need the scores of all classes",
            f"export it with --output logits, or leave them out: wsss eval {shell_word(file)}",
        )
    return network


def run_eval(run: Path, ctx: Context, **asked: Any) -> dict[str, Any]:
    """Score a training run on its val split; the result goes to the run's eval.json.

    Args:
        run, asked: as for `open_evaluation`.
    Returns:
        As `score`.
    """
    return score(open_evaluation(run, ctx, **asked), ctx)


def score(evaluation: Evaluation, ctx: Context) -> dict[str, Any]:
    """Score a network, on all ranks; the result goes to eval.json, that on another split to eval-SPLIT.json.

    Scores that are there of other views (ms+flip, CRF) stay, where network, masks, settings and device are the same.
    Stopped or killed, the same call goes on where it stood.

    Returns:
        {'single': summary, 'ms_flip': summary, 'classes', 'protocol', 'lost', ...}.
    Raises:
        DataError: a true mask has a value that is no class, or no image could be read.
    """
    if evaluation.trial:
        total, lost = count_evaluation(evaluation, evaluation.samples, None, ctx)
        return only_first(lambda: evaluation.write(total, lost, ctx))
    partial = PartialCounts(evaluation.file.with_suffix(".part.json"), evaluation.counted_key)
    total, lost = count_evaluation(evaluation, evaluation.samples, partial, ctx)
    if evaluation.all_lost(lost):
        partial.remove()  # they are to be tried again
    result = only_first(lambda: evaluation.write(total, lost, ctx))
    partial.remove()
    if here().rank == 0 and evaluation.place.exists():
        with contextlib.suppress(BusyError), locked(evaluation.lock, f"an evaluation of {evaluation.run} begins"):
            forget_shards(evaluation)
    return result


def forget_shards(evaluation: Evaluation) -> None:
    """Take away what shards have counted, the scores being there; while one is at work it stays. Holds the lock."""
    if not shards_at_work(evaluation.place):
        shutil.rmtree(evaluation.place, ignore_errors=True)
        with contextlib.suppress(OSError):  # another evaluation is under way, or there are no shards
            evaluation.place.parent.rmdir()


def count_evaluation(
    evaluation: Evaluation, samples: Sequence[Sample], partial: PartialCounts | None, ctx: Context
) -> tuple[dict[str, Counts], Lost]:
    """Count some of the samples of an evaluation, or all; see `count_network`."""
    return count_network(
        evaluation.network.model,
        samples,
        evaluation.dataset,
        evaluation.preset,
        ctx,
        options=evaluation.options,
        title="eval, ms+flip" if evaluation.options.ms_flip else "eval",
        partial=partial,
        by_image=evaluation.by_image,
    )


def _key(
    network: Network, dataset: Dataset, split: str, config: EvalConfig, run: Path, boundary: bool, ctx: Context
) -> dict[str, Any]:
    """All that the counts of an evaluation depend on."""
    weights = run if is_onnx(run) else weights_in(run)  # of an imported network, which has no steps
    return {
        "dataset": dataset.fingerprint,
        "split": split,
        "origin": network.origin,
        "step": network.step,
        "weights_changed": weights.stat().st_mtime_ns if weights.is_file() else None,
        "eval": config.model_dump(mode="json"),
        "boundary": boundary,
        "device": ctx.device.type,
    }
