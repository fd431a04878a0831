"""Which runs an experiment is made of, in what order, and which of them are done. Nothing here loads torch.

    classifier -> (recam) -> cam -> (irn, psa) -> pseudo -> train -> (relabel -> train) ... -> eval

A run is known by its identity, whatever the name of the preset that it was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsss_cli.config.affinity import needs
from wsss_cli.config.cam import ReCamConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import Stage, identity, weights_identity
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, open_dataset
from wsss_cli.engine.outputs import is_whole
from wsss_cli.engine.pointers import checkpoint_named, find_checkpoint
from wsss_cli.engine.records import (
    find_runs,
    is_run,
    read_inputs,
    read_record,
    read_run,
    refuse_limited,
    refuse_other_classes,
)
from wsss_cli.engine.rundir import run_path
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.files import sha256_file
from wsss_cli.scoring.results import finished_eval
from wsss_cli.scoring.stored import masks_changed
from wsss_cli.stages.trusted import trusted_by
from wsss_cli.talk import silent
from wsss_cli.weights.choice import split_choice

Say = Callable[[str], None]
TRAININGS = ("classifier", "recam", "irn", "psa", "train")  # all ranks do them together


@dataclass(frozen=True)
class Experiment:
    """A preset on its data set, and the folder of its runs."""

    preset: Preset
    dataset: Dataset
    runs: Path


@dataclass(frozen=True)
class Step:
    """A run of an experiment.

    Attributes:
        stage: what makes it.
        path: its directory; of a classifier that was given as a file, that file.
        reads: the runs that it is made from.
        done: nothing is left to do.
    """

    stage: Stage | str
    path: Path
    identity: str
    reads: tuple[Step, ...] = ()
    done: bool = False

    @property
    def kind(self) -> str:
        """The stage in run.json and in the directory's name: masks are of one kind, whatever they were made from."""
        return "pseudo" if self.stage == "relabel" else self.stage


Plan = Callable[[Experiment], list[Step]]


def open_experiment(preset: Preset, runs: Path) -> Experiment:
    """The experiment of a preset.

    Raises:
        DataError: there is no data set where the preset says, or it cannot be taken.
    """
    return Experiment(preset, open_dataset(preset.dataset.path, limit=preset.dataset.limit), Path(runs))


def planned_experiment(preset: Preset, runs: Path) -> tuple[Experiment, DataError | None]:
    """The experiment of a preset, and why its data set cannot be had; None: it can."""
    try:
        return open_experiment(preset, runs), None
    except DataError as error:
        return Experiment(preset, Dataset(Path(preset.dataset.path), "", (), (), (), {}, ""), Path(runs)), error


# -- the runs ----------------------------------------------------------------------------------------------------------


def plan_cam(exp: Experiment) -> list[Step]:
    """What `wsss cam` does: the classifier, and the CAMs that are made with it."""
    return in_order([_again(_cam(exp))])


def plan_pseudo(exp: Experiment, cams: Path | None, say: Say) -> list[Step]:
    """What `wsss pseudo` does.

    Args:
        cams: the cam run to read.
        say: told which run is taken.
    """
    return in_order([_again(_pseudo(exp, _cams(exp, cams, say)))])


def plan_relabel(exp: Experiment, trained: Path, cams: Path | None = None) -> list[Step]:
    """What `wsss pseudo --network` does: masks by the network of a finished training.

    Args:
        cams: the cam run that is mixed in, in place of the first round's scores.
    Raises:
        UsageError: no finished training run, no cam run, or one of other classes; CAMs have no share, or no threshold.
    """
    reads = [_given(exp, "train", trained)]
    if cams is None:
        return in_order([_again(_step(exp, "relabel", *reads))])
    threshold = exp.preset.pseudo.threshold
    if not exp.preset.relabel.cam_weight:
        fix = "--set relabel.cam_weight=0.7, or leave out --cams"
        raise UsageError("--cams beside --network has no share: relabel.cam_weight is 0", fix)
    if threshold.kind == "complement":
        fix = "--set pseudo.threshold.kind=self"
        raise UsageError("--cams beside --network needs a background threshold, and complement has none", fix)
    reads.append(_given(exp, "cam", cams))
    return in_order([_again(_step(exp, "relabel", *reads, also=threshold.model_dump_json()))])


def plan_train(exp: Experiment, masks: Path | None, say: Say) -> list[Step]:
    """What `wsss train` does: masks where there are none that fit, then all rounds of training.

    Args:
        masks: the pseudo run to train on.
        say: told which run is taken.
    Raises:
        UsageError: masks for a training on true ones, or further rounds mix in CAMs that are not there.
    """
    if exp.preset.train.on_pseudo_masks:
        return in_order(_rounds(exp, _masks(exp, masks, say)))
    if masks is not None:
        raise UsageError(
            "--masks is for weak supervision; this preset trains on the data set's own masks",
            "leave --masks out, or --set train.supervision=weak",
        )
    if exp.preset.train.supervision == "partial":
        share = exp.preset.relabel.cam_weight
        if share and exp.preset.rounds > 1:
            raise UsageError(
                f"relabel.cam_weight {share:g}: a network of labels alone has no CAMs behind it to be mixed in",
                "--set relabel.cam_weight=0, or --set rounds=1",
            )
        return in_order(_rounds(exp))
    if exp.preset.rounds > 1:
        say("full supervision: true masks need no further round, so there is one")
    return in_order([_again(_step(exp, "train"))])


def plan_run(exp: Experiment, say: Say) -> list[Step]:
    """What `wsss run` does: every stage with this preset's own settings, and the evaluation where there are masks."""
    if exp.preset.train.on_pseudo_masks:
        pseudo = _again(_pseudo(exp, _again(_cam(exp))))
        targets = [pseudo.reads[0], pseudo, *_rounds(exp, pseudo)]
    else:
        targets = plan_train(exp, None, say)
    val, splits, trained = exp.preset.dataset.val, exp.dataset.split_sha256, targets[-1]
    if splits and not exp.dataset.has_masks(val):
        say(f"split {val!r} {'has no masks' if val in splits else 'is not there'} to score against: eval is left out")
    else:
        asked = exp.preset.eval  # a training does not depend on it: the run may have been scored in another way
        done, now = trained.done, str(exp.dataset.root)
        scores = finished_eval(trained.path, ms_flip=True, config=asked, moved=now) if done else None
        if scores and masks_changed(trained.path / "eval.json", scores, exp.dataset.split(val) if splits else ()):
            say(f"true masks of split {val!r} have changed since {trained.path} was scored: it is scored anew")
            scores = None
        targets.append(Step("eval", trained.path, "", (trained,), scores is not None))
    return in_order(targets)


def in_order(targets: Sequence[Step]) -> list[Step]:
    """The targets and what is to be made before them, each once. What a done run was made from does not matter."""

    def needed(step: Step) -> Iterator[Step]:
        if not step.done:
            for read in step.reads:
                yield from needed(read)
        yield step

    steps: dict[tuple[str, Path], Step] = {}
    for target in targets:
        for step in needed(target):
            steps.setdefault((step.stage, step.path), step)
    return list(steps.values())


def _step(exp: Experiment, stage: Stage, *reads: Step, also: str = "") -> Step:
    """The run of a stage with exactly this preset's settings: its own directory, or a finished one that is the same.

    Args:
        also: what it depends on that is no setting of its stage.
    """
    trusted = trusted_by(exp.preset, exp.dataset, stage)
    upstream = " ".join(filter(None, [*(read.identity for read in reads), trusted, also]))
    step = Step(stage, Path(), identity(exp.preset, stage, exp.dataset.fingerprint, upstream), reads)
    limit = exp.preset.dataset.limit
    name = f"{exp.preset.name}-limit{limit}" if limit else exp.preset.name
    path = run_path(exp.runs, step.kind, name, step.identity)
    if is_run(path):
        return replace(step, path=path, done=is_whole(path))
    for same, record in find_runs(exp.runs, step.kind):
        if record.identity == step.identity and is_whole(same):
            return replace(step, path=same, done=True)
    return replace(step, path=path)


def _again(step: Step) -> Step:
    """A run that was asked for: with lost items it is not done, as the same command tries them again."""
    return replace(step, done=step.done and not read_record(step.path).lost)


def _classifier(exp: Experiment) -> Step:
    if weights := exp.preset.classifier.weights:
        step = given_classifier(exp.preset, Path(weights))
        refuse_limited(step.path, exp.preset.dataset.limit)
        refuse_other_classes(step.path, exp.dataset.classes)
        return step
    return _step(exp, "classifier")


def given_classifier(preset: Preset, path: Path) -> Step:
    """A classifier that is there.

    Args:
        path: a classifier run, a run that was made with one, a checkpoint folder, or a weight file, also FILE:PART.
    Returns:
        A step that is done. A run has its own identity, a file that of its content and of the network it is put into.
    Raises:
        WeightsError: there is nothing to load.
    """
    path = checkpoint_named(path)
    while is_run(path) and not (path / "checkpoints").is_dir():  # a cam run, whose CAMs another run's network made
        inputs = read_inputs(path)
        before = inputs.classifier_run or inputs.recam_run
        if before is None:
            break
        path = Path(before)
    if is_run(path):
        record = read_record(path)
        if record.stage == "recam":  # its first phase is what can be given
            return given_classifier(preset, Path(read_inputs(path).classifier_run or ""))
        if record.stage in ("irn", "psa", "train"):
            raise WeightsError(f"{path} is a {record.stage} run, no classifier", "name a classifier run, or a cam run")
        if find_checkpoint(path / "checkpoints") is not None:
            return Step("classifier", path, record.identity, done=True)
    places = [path, find_checkpoint(path), find_checkpoint(path / "checkpoints")] if path.is_dir() else []
    folder = next((place for place in places if place and (place / "meta.json").is_file()), None)
    if path.is_dir() and folder is None:
        raise WeightsError(
            f"{path} holds no checkpoint of a classifier",
            "name a classifier run, a folder in its checkpoints/, or a weight file",
        )
    file, part = (folder / "model.safetensors", "") if folder else split_choice(path)
    if not file.is_file():
        raise WeightsError(
            f"classifier.weights: there is no {file}",
            "name a classifier run or a weight file: --weights of wsss cam, --set classifier.weights=... of the others",
        )
    content = f"{sha256_file(file)}:{part}" if part else sha256_file(file)
    return Step("classifier", folder or path, weights_identity(preset.classifier, content), done=True)


def _cam(exp: Experiment) -> Step:
    classifier = _classifier(exp)
    if isinstance(exp.preset.cam.method, ReCamConfig):
        return _step(exp, "cam", _step(exp, "recam", classifier))
    return _step(exp, "cam", classifier)


def _pseudo(exp: Experiment, cam: Step) -> Step:
    networks = dict.fromkeys(needs(step) for step in exp.preset.pseudo.walks)
    judges = [replace(_given(exp, "cam", Path(run)), stage="judge") for run in exp.preset.pseudo.judges]
    return _step(exp, "pseudo", cam, *(_step(exp, network, cam) for network in networks), *judges)


def _rounds(exp: Experiment, *pseudo: Step) -> list[Step]:
    """The trainings, and the masks of each but the first; these are made by the network before."""
    steps = [_again(_step(exp, "train", *pseudo))]
    for _ in range(exp.preset.rounds - 1):
        relabel = _again(_step(exp, "relabel", steps[-1]))
        steps += [relabel, _again(_step(exp, "train", relabel))]
    return steps


def _cams(exp: Experiment, run: Path | None, say: Say) -> Step:
    exact = _cam(exp)
    return _taken(exp, exact, run, say) or exact


def _masks(exp: Experiment, run: Path | None, say: Say) -> Step:
    return _taken(exp, _pseudo(exp, _cam(exp)), run, say) or _pseudo(exp, _cams(exp, None, say))


def _taken(exp: Experiment, exact: Step, run: Path | None, say: Say) -> Step | None:
    """The finished run that is read: the one given, else the one with exactly this preset's settings, else the newest
    one on the same data set; None where it is to be made."""
    if run is not None:
        return _given(exp, exact.kind, run)
    if exact.done:
        say(f"{exact.kind} run: {exact.path}")
        return exact
    if is_run(exact.path):
        return None  # begun with these settings: it is to be finished rather than replaced by another
    trusted = trusted_by(exp.preset, exp.dataset, exact.kind)
    for path, record in find_runs(exp.runs, exact.kind):
        inputs = read_inputs(path)
        fits = inputs.dataset_fingerprint == exp.dataset.fingerprint and inputs.trusted == trusted
        if fits and is_whole(path) and split_of(path) == exp.preset.dataset.train:
            name = exp.preset.name
            say(f"{exact.kind} run: {path} (the newest on this data set; made with other settings than {name}'s)")
            return Step(exact.kind, path, record.identity, done=True)
    say(f"no finished {exact.kind} run fits: it is made first")
    return None


def split_of(run: Path) -> str:
    """The list whose photographs a run is of."""
    return load_preset(str(run / "preset.lock.toml"), say=silent).dataset.train


def _given(exp: Experiment, kind: str, path: Path) -> Step:
    record = read_run(path, kind)
    if exp.dataset.classes and read_inputs(path).classes != exp.dataset.classes:
        raise UsageError(
            f"{path} was made with other classes than the data set {exp.dataset.root} has",
            "name a run of this data set, or none: what is missing is made",
        )
    refuse_limited(path, exp.preset.dataset.limit)
    if kind == "pseudo" and read_inputs(path).trusted != (wanted := trusted_by(exp.preset, exp.dataset, kind)):
        raise UsageError(
            f"{path} was made {'without the' if wanted else 'with'} labels of {exp.dataset.root}/trusted",
            f"--set train.supervision={'weak' if wanted else 'mixed'}, or leave out --masks",
        )
    return Step(kind, path, record.identity, done=True)
