"""A network as an ONNX file in 8 bits, and what that costs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.images import IMAGE_ENDINGS, read_image
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import is_hidden, names_below, refuse_unwritable
from wsss_cli.inference.network import Network
from wsss_cli.inference.onnx_file import OnnxSegmentor, as_segmentor
from wsss_cli.inference.predict import predict, view_size
from wsss_cli.interchange.export import converted, record_there, require_onnx, settings_of, write_exported
from wsss_cli.interchange.portable import Output
from wsss_cli.interchange.quantise import quantise
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.scoring.counts import Counts
from wsss_cli.stages.network_scores import ScoreOptions, score_network
from wsss_cli.stages.protocol import check_classes
from wsss_cli.talk import counted

IMAGES = 64  # to calibrate with, at most


@dataclass(frozen=True)
class Photographs:
    """What to calibrate with, and what to compare on.

    Attributes:
        calibrate: files.
        compare: other files, where `scored` is empty.
        scored: samples with true masks of `dataset`.
        words: what is compared on.
    """

    calibrate: Sequence[Path]
    compare: Sequence[Path]
    words: str
    scored: Sequence[Sample] = ()
    dataset: Dataset | None = None


def run_int8(network: Network, out: Path, output: Output, source: Path, ctx: Context, run: str = "") -> dict[str, Any]:
    """Write a network as an ONNX file whose convolutions and matrix products are computed in 8 bits.

    The file is what `run_export` writes but for that. It is scored beside the one in 32 bits, both in onnxruntime, at a
    single scale: on the val split where it has true masks, else by how far they agree. FILE.json has the figures.

    Args:
        network: on the CPU; not to be used afterwards.
        source: a data set, whose train split is calibrated with, or a folder of photographs: every second one is.
        run: where the network comes from, for the record.
    Returns:
        {'out', 'output', 'classes', 'int8': figures, 'kept'}. Figures are 'calibrated_on', 'images' (how many),
        'compared_on', 'bytes', 'float_bytes', and either 'float_miou', 'int8_miou' and their difference, 'loss'; or
        'agreement', the mIoU of the int8 file with the labels of the other as the truth, and 'same_pixels', per cent.
    Raises:
        UsageError: packages for ONNX are missing, another file is there, or there are too few photographs.
        DataError: none of the photographs can be read, or the data set has other classes.
        WeightsError: the network cannot be exported or quantised.
        WriteError: the file cannot be written.
    """
    refuse_unwritable(out)
    require_onnx()
    photographs = _photographs(source, network, Path(run))
    settings = settings_of(network, "onnx", output) | {"int8": _digest(photographs)}
    result = {"out": str(out), "output": output, "classes": list(network.classes)}
    if out.is_file():
        return {**result, "int8": record_there(out, settings)["int8"], "kept": True}
    preset, trained_on = network.preset, network.dataset
    data, checked = converted(network, "onnx", output)
    ctx.ui.say(f"calibrating with {counted(len(photographs.calibrate), 'photograph')}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wsss-") as folder:
        small = quantise(data, _inputs(photographs.calibrate, preset, ctx), Path(folder))
    figures: dict[str, Any] = {"calibrated_on": str(source), "images": len(photographs.calibrate)}
    figures |= {"compared_on": photographs.words, "bytes": len(small), "float_bytes": len(data)}
    figures |= _compared(OnnxSegmentor(data), OnnxSegmentor(small), photographs, preset, ctx)
    record = {"run": run, "dataset": trained_on, "settings": settings, "checked": checked, "int8": figures}
    write_exported(out, small, record)
    return {**result, "int8": figures, "kept": False}


def _photographs(source: Path, network: Network, run: Path) -> Photographs:
    """Which photographs of a data set or a folder are for what.

    Raises:
        UsageError: there is none for one of both.
        DataError: the data set has other classes, or cannot be read.
    """
    if not (source / "dataset.json").is_file():
        if not source.is_dir():
            raise UsageError(f"--calibrate {source} is no data set and no folder", "name one with photographs")
        below = (name for name in names_below(source) if not is_hidden(name))
        files = sorted(source / name for name in below if Path(name).suffix.lower() in IMAGE_ENDINGS)
        if len(files) < 2:
            raise UsageError(f"--calibrate {source} has {counted(len(files), 'photograph')}", "two are needed")
        words = f"the other half of {source}, the float file's labels as the truth"
        return Photographs(_some(files[::2]), _some(files[1::2]), words)
    dataset, names = open_dataset(source), network.preset.dataset
    check_classes(dataset, network.classes, run, "--calibrate")
    train = _some([sample.image for sample in dataset.split(names.train)])
    val = dataset.split(names.val) if names.val in dataset.split_sha256 else []
    scored = [sample for sample in val if sample.mask is not None]
    where = f"{dataset.name}/{names.val}"
    if scored:
        words = f"{where}, {counted(len(scored), 'image')} with true masks"
        return Photographs(train, (), words, scored, dataset)
    if not val:
        raise UsageError(f"{source} has no split {names.val!r} to compare the files on", "give --calibrate photographs")
    return Photographs(train, _some([one.image for one in val]), f"{where}, the float file's labels as the truth")


def _some(files: Sequence[Path]) -> list[Path]:
    """At most `IMAGES` of them, from all over."""
    count = min(IMAGES, len(files))
    return [files[number * len(files) // count] for number in range(count)]


def _digest(photographs: Photographs) -> str:
    """Of the names of the files that are calibrated with."""
    return hashlib.sha256(json.dumps([str(path) for path in photographs.calibrate]).encode()).hexdigest()[:16]


def _inputs(files: Sequence[Path], preset: Preset, ctx: Context) -> Iterator[np.ndarray]:
    """Photographs as the file sees them at a single scale, uint8 [1, 3, H, W]; those that cannot be read are named.

    Raises:
        DataError: none can be read.
    """
    read = 0
    with ctx.ui.progress(len(files), "calibrate") as bar:
        for file in files:
            ctx.stop.check()
            bar.advance()
            try:
                image = read_image(file)
            except DataError as error:
                ctx.ui.say(f"passed over: {error.message}")
                continue
            read += 1
            height, width = view_size(image.shape[0], image.shape[1], 1.0, preset.eval)
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            yield np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    if not read:
        raise DataError("none of the photographs to calibrate with can be read", "give others to --calibrate")


def _compared(
    plain: OnnxSegmentor, small: OnnxSegmentor, photographs: Photographs, preset: Preset, ctx: Context
) -> dict[str, Any]:
    """The scores of both files, or how far they agree."""
    preset = preset.model_copy(update={"train": preset.train.model_copy(update={"precision": "fp32"})})
    if photographs.dataset is not None:
        mious = [_miou(as_segmentor(model), photographs, preset, ctx) for model in (plain, small)]
        loss = None if None in mious else round(mious[0] - mious[1], 2)
        return {"float_miou": mious[0], "int8_miou": mious[1], "loss": loss}
    counts, models = Counts(len(plain.classes)), (as_segmentor(plain), as_segmentor(small))
    with ctx.ui.progress(len(photographs.compare), "compare") as bar:
        for file in photographs.compare:
            ctx.stop.check()
            bar.advance()
            try:
                image = read_image(file)
            except DataError as error:
                ctx.ui.say(f"passed over: {error.message}")
                continue
            maps = [predict(model, [image], preset.eval, ctx, "fp32")["single"][0] for model in models]
            counts.add(maps[1], maps[0])
    scores = counts.scores(plain.classes)
    return {"agreement": scores["miou"], "same_pixels": scores["aacc"]}


def _miou(model: Segmentor, photographs: Photographs, preset: Preset, ctx: Context) -> Any:
    assert photographs.dataset is not None
    scores, _ = score_network(
        model, photographs.scored, photographs.dataset, preset, ctx, options=ScoreOptions(), title="eval"
    )
    return scores["single"]["miou"]
