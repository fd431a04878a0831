"""The irn and psa stages: confident labels from CAMs, then a network that says which pixels belong together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_cli.config.affinity import IrnConfig, PsaConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.schema import Preset
from wsss_cli.config.thresholds import FixedThreshold
from wsss_cli.crf.dense import backend_for
from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.data.transforms import affinity_sample
from wsss_cli.engine.checkpoint import load_weights
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import Task
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep_items
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.kernels.choice import chosen_kernels
from wsss_cli.labels import IGNORE
from wsss_cli.models.affinity import AffinityNet, BoundaryNet
from wsss_cli.models.build import build_affinity
from wsss_cli.pseudo.affinity_labels import LabelJob, make_label
from wsss_cli.pseudo.affinity_loss import boundary_loss, feature_loss
from wsss_cli.pseudo.pairs import half_disc
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import cores_here
from wsss_cli.rows import Each, Rows
from wsss_cli.scoring.stored import read_scores
from wsss_cli.stages.examples import evenly
from wsss_cli.stages.kernel_choice import check_fused
from wsss_cli.stages.opening import agreed, open_step
from wsss_cli.stages.paths import Files, cam_files, label_files
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.sources import hold_to_sources
from wsss_cli.stages.thresholds import around
from wsss_cli.stages.training import train_network
from wsss_cli.talk import counted

TITLE = {"irn": "boundary network", "psa": "AffinityNet"}
STRIDE = {"irn": 4, "psa": 8}  # image pixels a pixel of the network's grid
LOOKED_AT = 100  # labels, evenly spaced, whose shares are said


class AffinityTask(Task):
    """Boundaries, or features, that tell pairs of pixels of one label from pairs of two."""

    model: BoundaryNet | AffinityNet

    def __init__(self, model: BoundaryNet | AffinityNet, config: IrnConfig | PsaConfig, device: torch.device) -> None:
        self.model, self.offsets = model, half_disc(config.radius)
        self.kernels = chosen_kernels(config.kernels, device.type)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        prediction = self.model(self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2)))
        loss = boundary_loss if isinstance(self.model, BoundaryNet) else feature_loss
        return {"affinity": loss(prediction, batch["label"], self.offsets, self.kernels)}


def run_affinity(step: Step, exp: Experiment, ctx: Context) -> None:
    """Make the confident labels of the train split, and train IRN's or PSA's network on them.

    Writes labels/<id>.png and checkpoints into a run directory of its own. Resumes where it stopped.

    Args:
        step: of stage irn or psa, whose table, `[affinity.irn]` or `[affinity.psa]`, the preset must have; reads a cam
            run, from whose CAMs the labels are made.
    Raises:
        UsageError: the preset lacks the table, or kernels cannot run here.
        DataError: the cam run has no CAM of any image, or no threshold curve where the preset asks for it.
    """
    preset, kind = exp.preset, step.stage
    config = affinity_config(preset, kind)
    check_fused(f"affinity.{kind}.kernels", config.kernels, ctx.device.type)
    samples = exp.dataset.split(preset.dataset.train)
    with open_step(step, exp) as run:
        only_first(lambda: hold_to_sources(run, step, exp, ctx.stop.check))
        lost = _make_labels(samples, exp.dataset, config, step.reads[0].path, run, ctx)
        labels = label_files(run.path)
        labelled = agreed(samples, lambda: labels.with_file(samples).numbers)
        if not labelled:
            first = f"first: {lost[0]['reason']}" if lost else ""  # the first rank knows
            raise DataError(f"no image of split {preset.dataset.train!r} has a label", first)
        only_first(lambda: ctx.ui.say(_in_words([labels.of(labelled[n].id) for n in evenly(len(labelled), LOOKED_AT)])))
        torch.manual_seed(preset.seed)  # the new layers' first weights
        task = AffinityTask(build_affinity(config, ctx.device), config, ctx.device)
        make = partial(_item, labels=labels, config=config, stride=STRIDE[kind])
        train_network(task, config, labelled, make, run, ctx, seed=preset.seed, title=TITLE[kind], target="label")
        run.finish(lost=lost, device=ctx.device_name)


def affinity_config(preset: Preset, kind: str) -> IrnConfig | PsaConfig:
    """The table of a preset that says how a network is trained.

    Raises:
        UsageError: it is left out.
    """
    config = preset.affinity.irn if kind == "irn" else preset.affinity.psa
    if config is None:
        raise UsageError(
            f"preset {preset.name} has no table [affinity.{kind}]", f"add it, or --set affinity.{kind}.iters=1000"
        )
    return config


def load_affinity(run: Path, kind: str, ctx: Context) -> BoundaryNet | AffinityNet:
    """The network of a finished irn or psa run, in evaluation mode.

    Raises:
        WeightsError: there is no checkpoint, or it is damaged.
    """
    checkpoint = find_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise WeightsError(f"{run} has no checkpoint", "run its command again to finish it")
    config = affinity_config(load_preset(str(run / "preset.lock.toml")), kind)
    model = build_affinity(config, ctx.device, weights=False)
    model.load_state_dict(load_weights(checkpoint)[0])
    return model.eval()


def _make_labels(
    samples: Sequence[Sample],
    dataset: Dataset,
    config: IrnConfig | PsaConfig,
    cam_run: Path,
    run: RunDir,
    ctx: Context,
) -> Lost:
    fg, bg = _thresholds(config, cam_run) if isinstance(config, IrnConfig) else (0.0, 0.0)
    crf = backend_for(ctx.device.type)
    cams, labels = cam_files(cam_run), label_files(run.path)
    with_cam = cams.there(samples)
    without = Rows(samples, np.flatnonzero(~with_cam))
    lost: Lost = [{"id": name, "reason": f"{cam_run} has no CAM of it"} for name in names_of(without)]

    def job(sample: Sample) -> LabelJob:
        cam, label = cams.of(sample.id), labels.of(sample.id)
        return LabelJob(sample.id, sample.image, cam, label, config, fg, bg, dataset.colors, crf)

    jobs = Each(agreed(samples, lambda: np.flatnonzero(with_cam & ~labels.there(samples))), job)
    options = SweepOptions("affinity labels", workers=config.label_workers or cores_here(), processes=crf != "triton")
    for _ in sweep_items(jobs, make_label, options, lost, ctx, run.log):
        pass  # they are on disk
    return lost


def _in_words(labels: Sequence[Path]) -> str:
    """What labels say, by which thresholds or exponents that do not go with the CAMs are seen before the training."""
    shares = []
    for file in labels:
        with contextlib.suppress(DataError):  # the training says which cannot be read
            label = read_mask(file)
            shares.append(((label == 0).mean(), (label == IGNORE).mean()))
    if not shares:
        return "no label can be read"
    background, undecided = 100 * np.mean(shares, axis=0)
    said = f"background {background:.0f} %, classes {100 - background - undecided:.0f} %, undecided {undecided:.0f} %"
    return f"labels of {counted(len(shares), 'photograph')}: {said}"


def _thresholds(config: IrnConfig, cam_run: Path) -> tuple[float, float]:
    if isinstance(config.threshold, FixedThreshold):
        return config.threshold.fg, config.threshold.bg
    if "best_threshold" not in (stored := read_scores(cam_run)):
        raise DataError(
            f"{cam_run} has no threshold curve, as there were no masks to score seeds on",
            "give thresholds: --set affinity.irn.threshold.kind=fixed --set affinity.irn.threshold.fg=0.4 "
            "--set affinity.irn.threshold.bg=0.2",
        )
    return around(stored["best_threshold"], config.threshold)


def _item(
    sample: Sample, rng: np.random.Generator, *, labels: Files, config: IrnConfig | PsaConfig, stride: int
) -> dict[str, np.ndarray]:
    image, label = read_image(sample.image), read_mask(labels.of(sample.id))
    crop, target = affinity_sample(image, label, rng, config.crop, config.resize_min, config.resize_max, stride)
    return {"image": crop, "label": target}
