"""A trained segmentation network and all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wsss_cli.config.base import Precision
from wsss_cli.config.load import load_preset
from wsss_cli.config.renames import renamed
from wsss_cli.config.schema import Preset
from wsss_cli.engine.checkpoint import AVERAGE, MODEL, load_weights
from wsss_cli.engine.context import Context
from wsss_cli.engine.pointers import POINTERS, checkpoint_named, find_checkpoint, weights_in
from wsss_cli.engine.records import is_run, read_inputs, read_record, those_beside
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.kernels.choice import why_no_kernels
from wsss_cli.kernels.trials import DEPTHWISE, usable
from wsss_cli.models.build import build_segmentor
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.talk import shell_word

TRIAL = 64  # side, pixels, of the image that a network is tried on


@dataclass(frozen=True)
class Which:
    """Which weights of a run.

    Attributes:
        checkpoint: 'latest' or 'best'.
        weights: 'ema', their moving average, 'raw', or '': the average where the training has one.
    """

    checkpoint: str = "latest"
    weights: str = ""


LATEST = Which()


@dataclass
class Network:
    """A trained segmentation network, its classes and the preset that made it.

    Attributes:
        dataset: directory of the data set that it was trained on; of an imported network the preset's.
        origin: how it was made, for the protocol.
        weights: 'ema' or 'raw' where the training has an average of its weights, else empty.
        split_sha256: of the lists that it was trained on and validated with; empty where that is not known.
    """

    model: Segmentor
    preset: Preset
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    step: int
    dataset: str
    origin: str
    split_sha256: dict[str, str] = field(default_factory=dict)
    weights: str = ""


def load_network(run: Path, ctx: Context, which: Which = LATEST) -> Network:
    """The network of a training run, of one of its checkpoints, or of a directory that `wsss weights` has written.

    Args:
        run: a run directory, a folder in its checkpoints/, or an imported or published directory.
        which: its checkpoint is that of a run directory.
    Raises:
        UsageError: no training run there, one without a checkpoint, or one without a best one, or without averaged
            weights, where those are asked for.
        WeightsError: the checkpoint is damaged, or the network gives scores that are not finite.
    """
    run = checkpoint_named(Path(run))
    if not is_run(run) and (run / "meta.json").is_file():
        checkpoints = run.resolve().parent
        above = checkpoints.parent
        if checkpoints.name == "checkpoints" and is_run(above):
            return _trained(above, run, ctx, Which(run.name, which.weights))
        if which.weights == "ema":
            raise UsageError(f"{run} has no averaged weights", "leave out --weights ema")
        return _imported(run, ctx)
    if run.name in POINTERS and run.parent.name == "checkpoints" and is_run(run.parent.parent):  # none has it yet
        run, which = run.parent.parent, Which(run.name, which.weights)
    _check_stage(run)
    checkpoint = find_checkpoint(run / "checkpoints", which.checkpoint)
    if checkpoint is None and which.checkpoint == "best" and find_checkpoint(run / "checkpoints") is not None:
        raise UsageError(
            f"{run} has no best checkpoint, as no validation has scored one",
            "leave out --best, or name the run, for the last; validations need train.val_interval > 0 and masks in val",
        )
    if checkpoint is None:
        raise UsageError(f"{run} has no checkpoint yet", "finish its training first: run `wsss train` again")
    return _trained(run, checkpoint, ctx, which)


def is_network(path: Path) -> bool:
    """Whether a path is a run, a checkpoint or an imported or published directory, whole or not."""
    path = checkpoint_named(path)
    files = ("meta.json", MODEL)
    return is_run(path) or (path / "checkpoints").is_dir() or any((path / name).is_file() for name in files)


def _check_stage(run: Path) -> None:
    if (stage := read_record(run).stage) != "train":
        raise UsageError(f"{run} is a {stage} run; a train run is needed here", those_beside(run))


def _trained(run: Path, checkpoint: Path, ctx: Context, which: Which) -> Network:
    _check_stage(run)
    preset = load_preset(str(run / "preset.lock.toml"))
    inputs = read_inputs(run)
    decay = preset.train.ema
    if which.weights == "ema" and not decay:
        raise UsageError(f"{run} has no averaged weights: train.ema is 0", "leave out --weights ema")
    averaged = bool(decay) and which.weights != "raw"
    state, meta = load_weights(checkpoint, AVERAGE if averaged else MODEL)
    model = _filled(preset, len(inputs.classes), state, ctx, f"{checkpoint} does not fit the network of {run}")
    taught = f" by masks of {inputs.teacher}" if inputs.teacher else ""
    taught += f", {inputs.trusted_words} given" if inputs.trusted_words else ""
    origin = (
        f"{preset.train.supervision} supervision{taught}, {meta['step']} iterations ({which.checkpoint} checkpoint)"
    )
    if decay:
        origin += f", {f'weights averaged (EMA {decay:g})' if averaged else 'weights not averaged'}"
    weights = ("ema" if averaged else "raw") if decay else ""
    known = inputs.split_sha256
    return Network(model, preset, inputs.classes, inputs.colors, meta["step"], inputs.dataset, origin, known, weights)


HINT = "name a training run, one of its checkpoints, or what wsss weights import-mmseg or publish has written"


def _imported(folder: Path, ctx: Context) -> Network:
    try:
        state, meta = load_weights(folder, weights_in(folder).name)
    except WeightsError as error:  # of no run, so no training goes on from the checkpoint before
        raise WeightsError(error.message, "copy, import or publish it again") from error
    if meta.get("kind") != "segmentor":
        setting = shell_word(f"train.backbone.weights={folder}/model.safetensors")
        raise UsageError(
            f"{folder} holds no segmentation network", f"--set {setting}" if meta.get("kind") == "backbone" else HINT
        )
    if "preset" not in meta:
        raise WeightsError(
            f"{folder} has weights, and not what its network is: that stands in the run of a checkpoint",
            "copy the whole run, and name that; of an imported or published directory, import or publish it again",
        )
    try:
        settings, _ = renamed(meta["preset"], {}, "meta.json")
        preset = Preset.model_validate_json(json.dumps(settings))
        classes, colors, step = tuple(meta["classes"]), _colors(meta["colors"]), int(meta["step"])
        if "published_by" in meta:
            origin, dataset, weights = (str(meta[key]) for key in ("origin", "dataset", "weights"))
            lists = dict(meta["split_sha256"])
        else:
            origin = f"imported from {Path(meta['source']['file']).name}"
            dataset, weights, lists = preset.dataset.path, "", {}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder}/meta.json is damaged: {error}", "import or publish it again") from error
    model = _filled(preset, len(classes), state, ctx, f"{folder} does not fit its own meta.json")
    return Network(model, preset, classes, colors, step, dataset, origin, lists, weights)


UNFIT = "are the settings beside it edited, or those of another network? copy it again, whole"


def _filled(preset: Preset, num_classes: int, state: dict[str, Tensor], ctx: Context, fault: str) -> Segmentor:
    model = build_segmentor(preset.train, num_classes, ctx.device, weights=False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(f"{fault}: {lines[min(1, len(lines) - 1)].strip()}", UNFIT) from error
    wanted = preset.train.kernels != "plain" and not why_no_kernels(ctx.device.type)
    if wanted and usable(DEPTHWISE, ctx.device):
        from wsss_cli.models.fused import fuse_dilated  # here, as not every machine has Triton

        fuse_dilated(model)
    _check_scores(model, preset.train.precision, ctx, fault.split(" does not fit ")[0])
    return model


@torch.no_grad()
def _check_scores(model: Segmentor, precision: Precision, ctx: Context, name: str) -> None:
    """Refuse a network whose scores of an image are not finite: argmax would make a class of them, without a word."""
    ramp = torch.linspace(0.0, 255.0, 3 * TRIAL * TRIAL, device=ctx.device).view(1, 3, TRIAL, TRIAL)
    with ctx.autocast(precision):
        scores = model.eval()(model.backbone.normalise(ramp))
    if not torch.isfinite(scores).all():
        raise WeightsError(
            f"the network of {name} gives scores that are not finite (computed in {precision})",
            "its training diverged, or its numbers leave the range of this precision: take an earlier checkpoint",
        )


def _colors(palette: Sequence[Sequence[int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(r), int(g), int(b)) for r, g, b in palette)
