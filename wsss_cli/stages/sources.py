"""What a stage reads beside its lists and settings, photographs, masks and weight files, known again. No torch here.

`sources.json` of a run: of each such file its size, its time and the SHA-256 of its content. Where size and time are
the same it is taken for the same file; else the content decides, so that a copy or a `touch` changes nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsss_cli.config.base import BackboneConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.schema import Preset
from wsss_cli.data.trusted import read_trusted
from wsss_cli.engine.pointers import weight_file
from wsss_cli.engine.records import is_run, read_inputs
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import DataError, UsageError, WeightsError, WsssError
from wsss_cli.files import read_json, sha256_file, write_text
from wsss_cli.stages.paths import mask_files
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.talk import shell_word, silent
from wsss_cli.weights.choice import split_choice

FILE = "sources.json"
STAGES = ("classifier", "cam", "irn", "psa", "train")
PHOTOGRAPHS = 1000  # of a list that are looked at, evenly spaced: all of a million would take minutes on a file server


def backbones(preset: Preset, todo: Sequence[Step]) -> dict[str, BackboneConfig]:
    """The backbones that steps load weights into, by dotted key."""
    wanted: dict[str, BackboneConfig] = {}
    for stage in dict.fromkeys(step.stage for step in todo):
        match stage:
            case "classifier":
                wanted["classifier.backbone"] = preset.classifier.backbone
            case "irn" if preset.affinity.irn is not None:
                wanted["affinity.irn.backbone"] = preset.affinity.irn.backbone
            case "psa" if preset.affinity.psa is not None:
                wanted["affinity.psa.backbone"] = preset.affinity.psa.backbone
            case "train" if not preset.train.init:
                wanted["train.backbone"] = preset.train.backbone
    return wanted


def masks_read(step: Step, exp: Experiment) -> dict[str, Path]:
    """The masks that a step of stage train learns from, by image; those of a pseudo run may not be there.

    A run that is there says itself which pseudo run it was made from.
    """
    if step.stage != "train":
        return {}
    inputs = read_inputs(step.path) if is_run(step.path) else None
    samples = exp.dataset.split(exp.preset.dataset.train)
    if exp.preset.train.supervision == "partial" and not step.reads:
        trusted = read_trusted(exp.dataset.root)
        return {name: trusted.file(name) for name in samples.names() if name in trusted.entries}
    if exp.preset.train.supervision == "full":
        same = inputs is None or inputs.dataset == str(exp.dataset.root)
        return {sample.id: sample.mask for sample in samples if same and sample.mask is not None}
    pseudo = Path(inputs.pseudo_run) if inputs and inputs.pseudo_run else None
    if pseudo is None or not pseudo.is_dir():
        pseudo = step.reads[0].path if step.reads else None
    if pseudo is None:
        return {}
    masks = mask_files(pseudo)
    return {name: masks.of(name) for name in samples.names()}


def weights_read(step: Step, preset: Preset) -> dict[str, Path]:
    """The weight files that a step begins from, by dotted key; those of a package or of a hub are not looked at."""
    files = {
        f"{key}.weights": split_choice(backbone.weights)[0]
        for key, backbone in backbones(preset, [step]).items()
        if backbone.weights not in ("none", "imagenet")
    }
    if step.stage == "train" and preset.train.init:
        with contextlib.suppress(WeightsError):  # it is gone, which matters to a training alone that is to begin
            files["train.init"] = split_choice(weight_file(Path(preset.train.init)))[0]
    return files


def photographs_read(step: Step, exp: Experiment) -> dict[str, Path]:
    """Of the photographs that a step reads, by image: all, or `PHOTOGRAPHS` of them; none of those behind a URL.

    A run that is there may be of another data set, which is where it says: its photographs are not looked at. If it is
    not, it was moved.
    """
    inputs = read_inputs(step.path) if is_run(step.path) else None
    if inputs is not None and inputs.dataset != str(exp.dataset.root) and Path(inputs.dataset).exists():
        return {}
    samples = exp.dataset.split(exp.preset.dataset.train)
    count, last = min(len(samples), PHOTOGRAPHS), len(samples) - 1
    places = (place * last // max(count - 1, 1) for place in range(count))
    return {sample.id: sample.image for sample in map(samples.__getitem__, places)}


def hold_to_sources(run: RunDir, step: Step, exp: Experiment, check: Callable[[], object]) -> None:
    """Note what a stage begins from, or, where it goes on, refuse what has changed since it began.

    Args:
        run: open, and not done.
        check: called after each file; what it raises ends the work.
    Raises:
        DataError: a photograph or a mask has changed.
        WeightsError: a weight file has changed.
    """
    if (run.path / FILE).is_file():
        if fault := changed_sources(run.path, step, exp, check):
            raise fault
        return
    prints: dict[str, dict[str, Any]] = {"masks": {}, "weights": {}, "photographs": {}}
    read = (masks_read(step, exp), weights_read(step, exp.preset), photographs_read(step, exp))
    for kind, files in zip(prints, read, strict=True):
        for name, file in files.items():
            if file.is_file():
                prints[kind][name] = [*_stamp(file), sha256_file(file)]
                check()
    if any(prints.values()):
        write_text(run.path / FILE, json.dumps(prints) + "\n")


def changed_sources(
    run: Path, step: Step, exp: Experiment, check: Callable[[], object] = lambda: None
) -> WsssError | None:
    """Why a run cannot stand for one from these photographs, masks and weight files; None: it can, or is not known.

    A file that is gone is no other file: what was made from it may stay. A run that was given may have other settings
    than the experiment: its own ones say what it has read.

    Args:
        run: the run directory of `step`.
        check: called after each file whose content is looked at; what it raises ends the work.
    """
    if not (run / FILE).is_file():
        return None
    try:
        prints = read_json(run / FILE)
        exp = replace(exp, preset=load_preset(str(run / "preset.lock.toml"), say=silent))
        weights = _changed(prints.get("weights", {}), weights_read(step, exp.preset), check)
        masks = _changed(prints.get("masks", {}), masks_read(step, exp) if prints.get("masks") else {}, check)
        shown = prints.get("photographs", {})
        photographs = _changed(shown, photographs_read(step, exp) if shown else {}, check)
    except (DataError, UsageError, AttributeError, TypeError, ValueError):  # a damaged record knows nothing
        return None
    hint = f"put back what was there, or move {run} away: then it is made anew"
    if weights:
        key, file = next(iter(weights.items()))
        return WeightsError(f"{run} was begun from {file} ({key}), whose content (SHA-256) is another one now", hint)
    if masks:
        first = next(iter(masks.values()))
        count = f"{len(masks)} of {len(prints['masks'])} masks"
        fault = f"{run} was trained on masks whose content (SHA-256) is another one now: {count}, first {first}"
        return DataError(fault, hint)
    if photographs:
        first, word = next(iter(photographs.values())), "made from" if step.stage == "cam" else "trained on"
        count = f"{len(photographs)} of {len(shown)} that were compared, first {first}"
        fault = f"{run} was {word} photographs whose content (SHA-256) is another one now: {count}"
        anew = shell_word(f"{run.parent}-2")
        return DataError(fault, f"put back what was there, or have all runs made anew: --runs {anew}")
    return None


def compared(run: Path) -> str:
    """What is compared before a run is taken for done, in words."""
    words = "settings, lists of the data set (SHA-256), its own files (size)"
    try:
        prints = read_json(run / FILE) if (run / FILE).is_file() else {}
        kinds = [kind for kind in ("photographs", "masks", "weights") if prints.get(kind)]
    except (DataError, AttributeError):
        return words
    named = {"weights": "weight files", "photographs": f"{PHOTOGRAPHS:,} photographs at most"}
    files = ", ".join(named.get(kind, kind) for kind in kinds)
    return words + (f", {files} (size and time, else SHA-256)" if kinds else "")


def _changed(
    prints: Mapping[str, Sequence[Any]], files: Mapping[str, Path], check: Callable[[], object]
) -> dict[str, Path]:
    changed = {}
    for name, (size, time, content) in prints.items():
        file = files.get(name)
        if file is None or not file.is_file() or _stamp(file) == [size, time]:
            continue
        if sha256_file(file) != content:
            changed[name] = file
        check()
    return changed


def _stamp(file: Path) -> list[int]:
    entry = file.stat()
    return [entry.st_size, entry.st_mtime_ns]
