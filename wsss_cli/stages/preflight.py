"""What can be known to fail before any work: data set, masks, weights of all stages, device, disk. Nothing loads torch.

What a network itself says of its weights (another architecture) needs torch, and is asked in `pipeline.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from wsss_cli.config.loss import CrossEntropyConfig
from wsss_cli.config.schema import DatasetConfig, Preset
from wsss_cli.config.thresholds import CurveThreshold
from wsss_cli.config.train import TrainConfig
from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import HIGHER, Dataset, Sample, first_ones
from wsss_cli.data.remote import is_there
from wsss_cli.data.trusted import FOLDER, TrustedLabels, read_trusted
from wsss_cli.engine.devices import check_device, check_share, device_type
from wsss_cli.engine.folders import check_folder
from wsss_cli.engine.pointers import weight_file
from wsss_cli.engine.records import refuse_limited
from wsss_cli.errors import DataError, UsageError, WeightsError, WsssError
from wsss_cli.ranks.who import here
from wsss_cli.rows import Rows
from wsss_cli.stages.estimate import check_room, training_of
from wsss_cli.stages.kernel_choice import check_fused, check_kernels
from wsss_cli.stages.paths import cam_files
from wsss_cli.stages.plan import Experiment, Plan, Step, planned_experiment, split_of
from wsss_cli.stages.sources import STAGES, backbones, changed_sources
from wsss_cli.stages.trusted import check_told, check_whole, whole_masks
from wsss_cli.talk import counted, say, shell_word
from wsss_cli.weights.sources import PACKAGED, missing_weights, unreadable

GIVE_THRESHOLDS = "--set {0}.threshold.kind=fixed --set {0}.threshold.fg=0.4 --set {0}.threshold.bg=0.2"


def planned(preset: Preset, plan: Plan, runs: Path) -> tuple[Experiment, list[Step], list[WsssError]]:
    """The experiment of a preset, its steps, and what keeps them from being known in full.

    Where there is no data set, or no classifier where one is given, the steps are those that there would be without.

    Raises:
        WsssError: runs that are given cannot be taken, so that there is no plan.
    """
    exp, fault = planned_experiment(preset, runs)
    faults: list[WsssError] = [fault] if fault else []
    try:
        return exp, plan(exp), faults
    except WeightsError as error:
        trained = preset.classifier.model_copy(update={"weights": ""})
        steps = plan(replace(exp, preset=preset.model_copy(update={"classifier": trained})))
        return exp, [step for step in steps if step.stage != "classifier"], [*faults, error]


def problems(exp: Experiment, steps: Sequence[Step], device: str, ranks: int = 1) -> list[WsssError]:
    """All that would make a step fail that is still to be done, as far as it can be known now.

    Also what a finished training was made from, where that is another one now.

    Args:
        device: the word for it: 'auto', 'cpu', 'cuda', 'cuda:N'.
        ranks: that are to be started; those that are there count, too.
    """
    todo = [step for step in steps if not step.done]
    checks = [*_weights(exp.preset, todo), *_sources(exp, steps)]
    if todo and exp.dataset.classes:
        checks += _data(exp, todo)
    return [*checks, *_machine(exp, todo, device, max(ranks, here().world))]


# -- data --------------------------------------------------------------------------------------------------------------


def _data(exp: Experiment, todo: Sequence[Step]) -> Iterator[WsssError]:
    preset, dataset = exp.preset, exp.dataset
    stages = {step.stage for step in todo}
    samples: Sequence[Sample] = ()
    higher = HIGHER if dataset.limit else ""
    try:
        samples = dataset.split(preset.dataset.train) if stages != {"eval"} else []
        if samples and not any(is_there(sample.image) for sample in samples):
            raise DataError(
                f"none of the images of split {preset.dataset.train!r} is there, first: {samples[0].image}",
                "put them back, or run `wsss prepare` again",
            )
        if "classifier" in stages and not any(sample.labels for sample in samples):
            raise DataError(
                f"no image of split {preset.dataset.train!r} of {dataset.root}{first_ones(dataset.limit)} has a tag to "
                "learn from",
                higher or "give tags to `wsss prepare`",
            )
        if "classifier" in stages and dataset.limit:
            _say_unseen(dataset, samples)
        if "train" in stages and preset.train.supervision == "full":
            check_true_masks(samples)
        supervision = preset.train.supervision
        if "train" in stages and (supervision == "partial" or (supervision == "mixed" and not dataset.limit)):
            trusted = read_trusted(dataset.root)
            labelled = check_labelled(samples, trusted, higher)
            if supervision == "partial":
                check_told(labelled, trusted, dataset.classes)
        if "train" in stages and preset.train.trusted_share:
            check_whole(whole_masks(read_trusted(dataset.root), samples), f"{higher}; " if higher else "")
        if "train" in stages and preset.train.supervision in ("weak", "full"):
            _say_unused(dataset, samples, preset.train.supervision)
        if "relabel" in stages and not any(sample.labels for sample in samples):
            raise DataError(
                f"masks of a further round keep to the tags, and no image of split {preset.dataset.train!r} of "
                f"{dataset.root}{first_ones(dataset.limit)} has one",
                f"{higher or 'give tags to `wsss prepare`'}, or --set rounds=1",
            )
    except DataError as error:
        yield error
    for step in todo:
        if step.stage == "pseudo" and samples and (fault := _other_list(step.reads[0], samples, preset.dataset.train)):
            yield fault
        key = "pseudo" if step.stage == "pseudo" else f"affinity.{step.stage}"
        section = preset.pseudo if step.stage == "pseudo" else preset.affinity.irn if step.stage == "irn" else None
        if section is not None and isinstance(section.threshold, CurveThreshold) and not _curve(exp, step, samples):
            other = f"find them from the scores: --set {key}.threshold.kind=self; or " if key == "pseudo" else ""
            yield DataError(
                f"{key}.threshold is of kind train-curve, and {why_no_seeds(preset.dataset, dataset)}",
                f"{other}give thresholds: {GIVE_THRESHOLDS.format(key)}",
            )
    if "train" in stages:
        try:
            check_class_weights(preset.train, dataset.num_classes)
        except UsageError as error:
            yield error


def _other_list(cams: Step, samples: Sequence[Sample], train: str) -> DataError | None:
    """Why a cam run of another list than the train split gives no scores; None: it has some, or is to be made."""
    if not cams.done or (other := split_of(cams.path)) == train or cam_files(cams.path).there(samples).any():
        return None
    return DataError(
        f"{cams.path} has no CAM of a photograph of split {train!r}: it is of split {other!r}",
        f"--set dataset.train={other}, or name another cam run",
    )


def _say_unseen(dataset: Dataset, samples: Sequence[Sample]) -> None:
    """Name the classes that a trial sees nothing of: lists are often in the order of class folders."""
    seen = {label for sample in samples for label in sample.labels}
    unseen = [name for number, name in enumerate(dataset.classes) if number and number not in seen]
    if unseen:
        say(
            f"limit {dataset.limit}: the first {counted(len(samples), 'training image')} show nothing of "
            f"{', '.join(unseen)}; a higher limit does, or a list in another order"
        )


def _say_unused(dataset: Dataset, samples: Sequence[Sample], supervision: str) -> None:
    """Say that there are labels of one's own which a training is about to pass over."""
    with contextlib.suppress(DataError):  # a damaged index matters to those alone that read it
        entries = read_trusted(dataset.root).entries
        if count := sum(name in entries for name in names_of(samples)):
            way = "mixed" if any(sample.labels for sample in samples) else "partial"
            say(
                f"labels of your own of {counted(count, 'photograph')} ({dataset.root / FOLDER}) are not read: "
                f"train.supervision is {supervision}; --set train.supervision={way} takes them"
            )


def _curve(exp: Experiment, step: Step, listed: Sequence[Sample]) -> bool:
    """Whether seeds have been scored, or can be; `listed`: what CAMs are of, empty where that cannot be read."""
    split, cams = exp.preset.dataset.score, step.reads[0]
    walked = step.stage == "pseudo" and exp.preset.pseudo.score_steps  # other scores than those of the curve
    if cams.done and not walked and (cams.path / "eval.json").is_file():
        return True
    same = split == exp.preset.dataset.train
    if split not in exp.dataset.split_sha256:
        return False
    try:
        scored = exp.dataset.split(split)
    except DataError:
        return same  # what is wrong with that one is said already
    if same or not listed:
        return any(scored.masked)
    names = set(names_of(listed))
    return any(there and name in names for there, name in zip(scored.masked, names_of(scored), strict=True))


def why_no_seeds(lists: DatasetConfig, dataset: Dataset) -> str:
    """Why no seeds can be scored: CAMs are of the train split, true masks those of the score split."""
    where = f"{dataset.root}{first_ones(dataset.limit)}"
    if lists.score == lists.train:
        return f"split {lists.score!r} of {where} has no masks to score seeds on"
    return (
        f"no photograph of split {lists.train!r} of {where} has a mask in split {lists.score!r} to score its seeds on"
    )


def check_true_masks(samples: Sequence[Sample]) -> None:
    """Refuse samples of which one has no mask that full supervision could learn from.

    Raises:
        DataError: with the first.
    """
    if missing := [sample.id for sample in samples if sample.mask is None]:
        raise DataError(
            f"{len(missing)} of {len(samples)} training images have no mask, first: {missing[0]}",
            "full supervision needs masks; train on pseudo masks with --set train.supervision=weak",
        )


def check_labelled(samples: Sequence[Sample], trusted: TrustedLabels, hint: str = "") -> Rows[Sample]:
    """The samples that have labels of the data set.

    Args:
        hint: what helps where none has, in place of more labels.
    Raises:
        DataError: none has.
    """
    labelled = Rows(samples, [place for place, name in enumerate(names_of(samples)) if name in trusted.entries])
    if not labelled:
        raise DataError(
            f"none of the {len(samples):,} training images has labels in {trusted.folder}",
            hint
            or f"wsss prepare labels {shell_word(trusted.folder.parent)} SOURCE adds some; of which list, --split says",
        )
    return labelled


def check_class_weights(config: TrainConfig, num_classes: int) -> None:
    """Refuse class weights of another number of classes.

    Raises:
        UsageError: with both numbers.
    """
    for number, term in enumerate(config.loss):
        if isinstance(term, CrossEntropyConfig) and len(term.class_weights) not in (0, num_classes):
            raise UsageError(
                f"train.loss.{number}: class_weights has {len(term.class_weights)} numbers, and the data set "
                f"{num_classes} classes, background included"
            )


# -- weights -----------------------------------------------------------------------------------------------------------


def _weights(preset: Preset, todo: Sequence[Step]) -> Iterator[WsssError]:
    first: dict[str, tuple[str, str]] = {}  # the key and the name of the backbone that a file was first given to
    for key, backbone in backbones(preset, todo).items():
        if fault := missing_weights(backbone.name, backbone.weights, key):
            yield fault
            continue
        if backbone.weights == "none" and (unknown := _unknown(backbone.name, key)):
            yield unknown
        before, name = first.setdefault(backbone.weights, (key, backbone.name))
        if backbone.weights not in ("imagenet", "none") and name != backbone.name:
            yield WeightsError(
                f"{key}.weights: {backbone.weights} cannot be of {backbone.name} and, as {before}.weights says, of "
                f"{name}",
                f"--set {key}.weights=FILE",
            )
    if preset.train.init and any(step.stage == "train" for step in todo):
        try:
            refuse_limited(Path(preset.train.init), preset.dataset.limit)
        except UsageError as error:
            yield UsageError(f"train.init: {error.message}", error.hint)
        try:
            if reason := unreadable(weight_file(Path(preset.train.init))):
                hint = "--init (train.init) takes a train run, a checkpoint folder, an imported directory or a file"
                yield WeightsError(f"train.init: {reason}", hint)
        except WeightsError as error:
            yield WeightsError(f"train.init: {error.message}", error.hint)


def _unknown(name: str, key: str) -> UsageError | None:
    if name == PACKAGED:
        return None
    from wsss_cli.models.backbones import check_name  # here: it loads torch

    try:
        check_name(name)
    except UsageError as error:
        return UsageError(f"{key}.name: {error.message}", error.hint)
    return None


def _sources(exp: Experiment, steps: Sequence[Step]) -> Iterator[WsssError]:
    """What finished trainings were made from and is another one now; masks that are to be made are not looked at."""
    if not exp.dataset.classes:
        return
    todo = {step.path for step in steps if not step.done}
    for step in steps:
        known = step.done and step.stage in STAGES and todo.isdisjoint(read.path for read in step.reads)
        if known and (fault := changed_sources(step.path, step, exp)):
            yield fault


# -- the machine -------------------------------------------------------------------------------------------------------


def _machine(exp: Experiment, todo: Sequence[Step], device: str, ranks: int) -> Iterator[WsssError]:
    try:
        check_device(device)  # where nothing is left to do, too: the next command would be given it
        if not todo:
            return
        kind = device_type(device)
        for stage in dict.fromkeys(step.stage for step in todo):
            if trained := training_of(exp.preset, stage):
                check_share(stage, trained[0].batch // trained[0].accumulate, ranks)
        if any(step.stage == "train" for step in todo):
            check_kernels(exp.preset.train, kind, ranks)
            check_ranks(exp.preset.train, ranks)
        for name in ("irn", "psa"):
            table = getattr(exp.preset.affinity, name)
            if table and any(step.stage == name for step in todo):
                check_fused(f"affinity.{name}.kernels", table.kernels, kind)
    except UsageError as error:
        yield error
    try:
        check_folder(exp.runs)
        check_room(exp, todo)
    except WsssError as error:
        yield error


def usable_device(device: str) -> str:
    """The type of a device, 'cpu' or 'cuda'; 'cpu' where the word names none."""
    try:
        return device_type(device)
    except UsageError:
        return "cpu"


def check_ranks(config: TrainConfig, ranks: int = 0) -> None:
    """Refuse ranks that have one image at a time, where a batch norm of their own needs two.

    Args:
        ranks: that there will be; 0: those that there are.
    Raises:
        UsageError: with the batch that works.
    """
    ranks = ranks or here().world
    if ranks > 1 and not config.sync_bn and config.head.pools and config.batch // config.accumulate // ranks < 2:
        raise UsageError(
            f"train.sync_bn is false, and {ranks} ranks have fewer than 2 images at a time of a batch of"
            f" {config.batch}: batch norm of the pooled branch of {config.head.kind} needs 2",
            f"--set train.batch={2 * config.accumulate * ranks}, or fewer ranks, or --set train.sync_bn=true",
        )
