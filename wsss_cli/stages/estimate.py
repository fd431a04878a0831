"""How long the steps of a plan take, as earlier runs took, and roughly how much they write. No torch here."""

from __future__ import annotations

import contextlib
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_cli.config.base import BackboneConfig, SgdConfig, TrainingConfig
from wsss_cli.config.cam import CamConfig, ReCamConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import RunRecord, find_runs, read_inputs
from wsss_cli.engine.rundir import read_metrics
from wsss_cli.engine.shards import read_shards
from wsss_cli.errors import DataError, ResourceError, UsageError
from wsss_cli.files import read_json
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.talk import duration, silent

MILLIONS = {"tf_efficientnet": 3, "resnet18": 12, "resnet34": 22, "resnet50": 26, "resnet101": 45, "resnet": 60}
OTHERS = 30  # millions of weights of a backbone of another name
HEAD = 18  # of a head of 512 channels
COPIES = 4  # checkpoints at most: the latest, the one before, the best, and the one that is being written
SHARE = {"cam": 0.3, "irn": 0.1, "psa": 0.1, "pseudo": 1.0, "relabel": 1.0}
"""What a stage writes of an image, as a share of the photograph's own file; walks write their scores besides."""
FEW = 5  # iterations, of which the first are slow; what took no more than that is no measure
ALIKE = 2  # times a crop at most, within which time goes by pixels: of small ones most is spent elsewhere
SAMPLE = 50  # photographs whose sizes are looked at


@dataclass(frozen=True)
class Took:
    """Seconds that a step is expected to take, and the run whose pace that is."""

    seconds: float
    run: Path
    device: str


# -- time --------------------------------------------------------------------------------------------------------------


def expected(exp: Experiment, step: Step, device: str) -> Took | None:
    """How long a step takes at the pace of the newest run of its kind with the same network or work; None: unknown.

    Args:
        device: its type, 'cpu' or 'cuda'; a finished run on the other is no measure.
    """
    for run, record in [*find_runs(exp.runs, step.kind)] if step.stage != "eval" else []:
        if record.device is not None and record.device.startswith("CPU") != (device == "cpu"):
            continue
        try:
            before = load_preset(str(run / "preset.lock.toml"), say=silent)
            seconds = _seconds(exp, step, run, record, before)
        except (DataError, UsageError, KeyError, TypeError, ZeroDivisionError):  # a record of another version
            continue
        if seconds is not None:
            return Took(seconds, run, record.device or "")
    return None


def _seconds(exp: Experiment, step: Step, run: Path, record: RunRecord, before: Preset) -> float | None:
    now, then = training_of(exp.preset, step.stage), training_of(before, step.stage)
    if now is None or then is None:
        work = _work(exp.preset, step.stage) / _work(before, step.stage)
        attempts = [*record.attempts, *(attempt for shard in read_shards(run) for attempt in shard.attempts)]
        took = [attempt.end - attempt.start for attempt in attempts if attempt.end is not None]
        return work * sum(took) if record.state == "done" and took and _alike(exp, step, run, before) else None
    (config, backbone), (earlier, its_backbone) = now, then
    if _network(backbone) != _network(its_backbone):
        return None
    if step.stage == "train" and _passes(exp.preset) != _passes(before):
        return None
    rows = [row for row in read_metrics(run) if row.get("kind") == "train" and row.get("img_s")]
    if not rows or rows[-1]["step"] < FEW or not 1 / ALIKE <= config.crop / earlier.crop <= ALIKE:
        return None
    paces = [row["img_s"] for row in rows]
    checkpoint = find_checkpoint(step.path / "checkpoints")
    done = read_json(checkpoint / "meta.json")["step"] if checkpoint else 0
    left = max(config.iters - done, 0) * config.batch
    return float(left / statistics.median(paces[-20:]) * (config.crop / earlier.crop) ** 2)


def _alike(exp: Experiment, step: Step, run: Path, before: Preset) -> bool:
    """Whether a run has done the same to the same images: imported scores are of kind cam, too, and have not."""
    inputs, now = read_inputs(run), exp.preset
    if inputs.dataset_fingerprint != exp.dataset.fingerprint:
        return False
    match step.stage:
        case "cam":
            network = _network(now.classifier.backbone) == _network(before.classifier.backbone)
            return bool(inputs.classifier_run or inputs.recam_run) and network and now.cam.method == before.cam.method
        case "relabel":
            network = _network(now.train.backbone) == _network(before.train.backbone)
            return bool(inputs.train_run) and network and now.relabel.steps == before.relabel.steps
        case "pseudo":
            return not inputs.train_run and now.pseudo.steps == before.pseudo.steps
    return True


def _network(backbone: BackboneConfig) -> tuple[str, int]:
    return backbone.name, backbone.output_stride


def training_of(preset: Preset, stage: str) -> tuple[TrainingConfig, BackboneConfig] | None:
    """What a stage that trains trains by; None: it does not."""
    match stage:
        case "classifier":
            return preset.classifier, preset.classifier.backbone
        case "recam" if isinstance(preset.cam.method, ReCamConfig):
            again = preset.classifier.model_copy(update={"iters": preset.cam.method.iters})
            return again, preset.classifier.backbone
        case "irn" if preset.affinity.irn is not None:
            return preset.affinity.irn, preset.affinity.irn.backbone
        case "psa" if preset.affinity.psa is not None:
            return preset.affinity.psa, preset.affinity.psa.backbone
        case "train":
            return preset.train, preset.train.backbone
    return None


def _passes(preset: Preset) -> tuple[int, bool]:
    """Strong views of each crop in the training of the network, and whether the head sees its features twice."""
    views = preset.train.noise.consistency
    return (views.views, views.features) if views else (0, False)


def _work(preset: Preset, stage: str) -> float:
    """Pixels that a network sees of an image, in images; 1 where that does not change the work."""

    def views(config: CamConfig) -> float:
        return sum(scale * scale for scale in config.scales) * (2 if config.flip else 1)

    if stage == "cam":
        return views(preset.cam)
    return sum(scale * scale for scale in preset.relabel.scales) if stage == "relabel" else 1.0


def in_words(seconds: float) -> str:
    """'about 40 s', 'about 12 min', 'about 3 h 30 min'."""
    return f"about {duration(max(seconds, 1.0))}"


# -- disk --------------------------------------------------------------------------------------------------------------


def bytes_to_write(exp: Experiment, todo: Sequence[Step]) -> int:
    """A rough estimate of what steps write: checkpoints by the size of the network, maps and masks by the images'."""
    samples: Sequence[Sample] = ()
    with contextlib.suppress(DataError):  # whoever reads the split says what is wrong with it
        samples = exp.dataset.split(exp.preset.dataset.train)
    shown = [sample.image for sample in samples[:: max(len(samples) // SAMPLE, 1)] if sample.image.is_file()]
    photographs = len(samples) * statistics.mean(file.stat().st_size for file in shown) if shown else 0.0
    total = 0.0
    for step in todo:
        walks = len(exp.preset.pseudo.score_steps) if step.stage == "pseudo" else 0
        total += photographs * (SHARE.get(step.stage, 0.0) + walks * SHARE["cam"])
        if (training := training_of(exp.preset, step.stage)) is not None:
            config, backbone = training
            copies = COPIES if step.stage == "train" else COPIES - 1
            tensors = 2 if isinstance(config.optim, SgdConfig) else 3  # the weights, and what the optimiser knows
            tensors += step.stage == "train" and exp.preset.train.ema > 0
            head = getattr(exp.preset.train.head, "aspp_channels", 0) or getattr(exp.preset.train.head, "channels", 0)
            millions = _millions(backbone.name) + (HEAD * (head / 512) ** 2 if step.stage == "train" else 1)
            total += copies * tensors * 4e6 * millions
    return int(total)


def _millions(name: str) -> int:
    return next((count for start, count in MILLIONS.items() if name.startswith(start)), OTHERS)


def free_bytes(runs: Path) -> int:
    """Room on the disk where a folder is, or will be."""
    place = Path(runs).absolute()
    while not place.is_dir():
        place = place.parent
    return shutil.disk_usage(place).free


def check_room(exp: Experiment, todo: Sequence[Step]) -> None:
    """Refuse to begin where a quarter of the estimate, which is generous, has no room.

    Raises:
        ResourceError: with both numbers.
    """
    wanted, free = bytes_to_write(exp, todo), free_bytes(exp.runs)
    if free < wanted / 4:
        raise ResourceError(
            f"about {gigabytes(wanted)} are to be written to {exp.runs}, and {gigabytes(free)} are free there",
            "free space, or give --runs a folder on another disk",
        )


def gigabytes(count: int) -> str:
    """'0.4 GB'."""
    return f"{count / 1e9:.1f} GB"
