"""Weight files of others: what a file is, and a directory of ours from a checkpoint of MMSegmentation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from wsss_cli.config.base import BackboneConfig
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.heads import AuxConfig, DeepLabConfig
from wsss_cli.config.schema import DatasetConfig, Preset
from wsss_cli.config.train import TrainConfig
from wsss_cli.data.sources.devkit import CLASSES
from wsss_cli.engine.checkpoint import LAYOUT
from wsss_cli.engine.pointers import weight_file
from wsss_cli.engine.records import is_run, read_record
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.files import read_json, sha256_file, write_bytes, write_json
from wsss_cli.labels import voc_palette
from wsss_cli.models.backbones import build_backbone
from wsss_cli.models.build import build_segmentor
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.talk import shell_word
from wsss_cli.weights.choice import split_choice, with_file
from wsss_cli.weights.formats import Format, read_holds, recognise, resnet
from wsss_cli.weights.load import (
    Checkpoint,
    check_finite,
    differences,
    import_mmseg,
    mmseg_key_map,
    not_finite,
    read_checkpoint,
)
from wsss_cli.weights.mmseg_config import DILATIONS, SHORT, about, otherwise, read_config, said, trained_stride
from wsss_cli.weights.tables import State, without_wrapper

OWN_FILES = re.compile(r"model\.safetensors|meta\.json|eval.*\.json|.*\.part")
HEADS = ("backbone.", "decode_head.", "auxiliary_head.")


def run_inspect(path: Path) -> dict[str, Any]:
    """Say what a weight file, a run, a checkpoint folder or an imported directory is.

    Returns:
        {'file', 'sha256', 'kind', 'title', 'head', 'backbone', 'num_classes', 'auxiliary_head', 'advice', 'tensors',
        'parameters', 'dtypes', 'where': the key in the file under which they are, 'prefix': passed over in their names,
        'not_finite': names of tensors, 'classes', 'objects', 'keys': the first and last names}; 'run' of a directory.
    Raises:
        WeightsError: missing, damaged, or refused.
    """
    file = weight_file(path)
    checkpoint = read_checkpoint(file)
    file_format = recognise(checkpoint.state, read_holds(file))
    names = list(checkpoint.state)
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.state.values())
    return {
        "file": str(file),
        "sha256": sha256_file(split_choice(file)[0]),
        "kind": file_format.kind,
        "title": file_format.title,
        "head": file_format.head,
        "backbone": file_format.backbone,
        "num_classes": file_format.num_classes,
        "auxiliary_head": file_format.aux,
        "advice": with_file(file_format.advice, file),
        "tensors": len(names),
        "parameters": sum(tensor.numel() for tensor in checkpoint.state.values()),
        "dtypes": dict(dtypes),
        "where": checkpoint.where,
        "prefix": file_format.prefix,
        "not_finite": not_finite(checkpoint.state),
        "classes": list(_class_names(checkpoint)),
        "objects": list(checkpoint.objects),
        "keys": [*names[:3], *names[-1:]],
        **_directory(path),
    }


def _directory(path: Path) -> dict[str, Any]:
    if is_run(path):
        record = read_record(path)
        return {"run": f"{record.stage} run of preset {record.preset}, {record.state}"}
    if (path / "meta.json").is_file():
        meta = read_json(path / "meta.json")
        if "published_by" in meta:
            return {"run": f"published, {meta.get('origin')}", "classes": meta.get("classes", [])}
        if "source" in meta:
            return {"run": f"imported from {meta['source'].get('file')}", "classes": meta.get("classes", [])}
        return {"run": f"checkpoint at step {meta.get('step')}"}
    return {}


# -- import ------------------------------------------------------------------------------------------------------------


def run_import(
    file: Path, out: Path, *, num_classes: int | None = None, reset_head: bool = False, output_stride: int = 8
) -> dict[str, Any]:
    """Turn an MMSegmentation checkpoint into a directory that `load_network` opens.

    A whole DeepLabV3+ on ResNet-50 or -101 v1c gives out/model.safetensors under our names; a bare v1c backbone gives
    it under timm's, for `train.backbone.weights`. out/meta.json says what it is.

    Args:
        num_classes: K that is expected; by default that of the file.
        reset_head: draw the classifiers anew (seed 0), for `num_classes` classes if given.
        output_stride: 8 or 16 as the network was trained, which only a config in the file tells.
    Returns:
        What meta.json holds beside the preset: {'kind', 'backbone', 'num_classes', 'source', 'keys', 'otherwise': what
        the config in the file says that is not so here, ...}.
    Raises:
        WeightsError: another architecture or class count, a single output, an unknown prefix, a damaged or
            refused file.
        UsageError: `out` holds other files; the config in the file says another output stride.
    """
    if out.exists() and not (out.is_dir() and all(OWN_FILES.fullmatch(path.name) for path in out.iterdir())):
        raise UsageError(f"{out} is there already and is no imported directory", "choose another --out")
    checkpoint = read_checkpoint(file)
    check_finite(checkpoint.state, file)
    state = without_wrapper(checkpoint.state)
    file_format = recognise(state)
    wrapper = next(iter(checkpoint.state)).removesuffix(next(iter(state)))
    common = {
        "source": {"file": str(file), "sha256": sha256_file(split_choice(file)[0]), **about(_meta(checkpoint))},
        "prefix": wrapper,
        "objects": list(checkpoint.objects),
    }
    if file_format.kind == "mmseg-backbone":
        if num_classes is not None or reset_head:
            raise UsageError(f"{file} is {file_format.title}; --classes and --reset-head are for whole networks")
        tensors, report = _backbone(file, state, file_format)
    elif any(key.startswith("decode_head.") for key in state):
        tensors, report = _segmentor(file, checkpoint, state, file_format, num_classes, reset_head, output_stride)
    else:
        raise _stranger(file, state, file_format)
    meta = {**report, **common}
    _write(out, tensors, meta)
    return {"out": str(out), **{key: value for key, value in meta.items() if key != "preset"}}


def _stranger(file: Path, state: State, file_format: Format) -> WeightsError:
    """The error for a file that is neither a segmentor nor a v1c backbone of MMSegmentation."""
    first = {key.split(".")[0] for key in state}
    inner = {key.split(".")[1] for key in state if "." in key}
    if len(first) == 1 and inner & {"backbone", "decode_head", "stem"}:
        head = first.pop()
        return WeightsError(
            f"{file}: every key begins with {head!r}, e.g. {next(iter(state))}; only 'module.' and 'model.' are "
            "stripped",
            f"name it: {with_file(f'FILE:{head}', file)}",
        )
    shown = ", ".join(list(state)[:3])
    hint = (
        f"as a backbone it needs no import; it {with_file(file_format.advice, file)}"
        if file_format.backbone
        else f"wsss weights inspect {shell_word(file)}"
    )
    return WeightsError(
        f"{file} is no segmentor of MMSegmentation (decode_head.*) and no v1c backbone (stem.*): it is "
        f"{file_format.title}; first keys: {shown}",
        hint,
    )


def _backbone(file: Path, state: State, file_format: Format) -> tuple[State, dict[str, Any]]:
    if not file_format.backbone:
        raise WeightsError(
            f"{file} is {file_format.title}; {file_format.advice}", f"wsss weights inspect {shell_word(file)}"
        )
    with torch.device("meta"):  # names and shapes are all that is needed
        net_state = build_backbone(file_format.backbone, output_stride=32, weights="none").net.state_dict()
    names = {_v1c_name(key): key for key in net_state}
    inside = {key: tensor for key, tensor in state.items() if key.startswith(("stem.", "layer"))}
    wrong = differences({theirs: net_state[ours] for theirs, ours in names.items()}, inside)
    if wrong:
        raise WeightsError(f"{file} is no whole {file_format.title}: {'; '.join(wrong)}")
    report = {"kind": "backbone", "backbone": file_format.backbone, "keys": _keys(names, inside, state)}
    return {names[key]: tensor for key, tensor in inside.items()}, report


def _v1c_name(key: str) -> str:
    if key.startswith("bn1."):
        return "stem.7." + key.removeprefix("bn1.")
    return "stem." + key.removeprefix("conv1.") if key.startswith("conv1.") else key


def _keys(names: Mapping[str, str], used: Mapping[str, Tensor], state: State) -> dict[str, Any]:
    """The key report: {'used': theirs -> ours, 'missing': theirs, 'left_over': theirs}."""
    return {
        "used": {theirs: ours for theirs, ours in names.items() if theirs in used},
        "missing": [theirs for theirs in names if theirs not in used],
        "left_over": [key for key in state if key not in used],
    }


def _segmentor(
    file: Path,
    checkpoint: Checkpoint,
    state: State,
    file_format: Format,
    expected: int | None,
    reset_head: bool,
    output_stride: int,
) -> tuple[State, dict[str, Any]]:
    body = resnet({key.removeprefix("backbone."): t for key, t in state.items() if key.startswith("backbone.")})
    name = file_format.backbone or ("resnet101c" if body is not None and body.depth == 101 else "resnet50c")
    there = file_format.num_classes or expected or 21
    if there == 1 and not reset_head:
        raise WeightsError(
            f"{file} has one output, which is held against a threshold; here the largest of several counts",
            "--reset-head --classes 2 keeps everything but the classifiers and draws those anew, to train them",
        )
    config = read_config(_meta(checkpoint))
    if (trained := trained_stride(config)) not in (None, output_stride):
        raise UsageError(
            f"{file} has the output stride {trained}: so say the dilations in its config", f"--output-stride {trained}"
        )
    preset = _preset(name, file_format.aux, output_stride)
    with torch.device("meta"):  # names and shapes are all that is needed
        model = build_segmentor(preset.train, there, torch.device("meta"), weights=False)
    model_state = model.state_dict()
    names = {theirs: ours for ours, theirs in mmseg_key_map(model).items()}
    inside = {key: tensor for key, tensor in state.items() if key.startswith(HEADS)}
    wrong = differences({theirs: model_state[ours] for theirs, ours in names.items()}, inside)
    if wrong:
        raise WeightsError(
            f"{file} is no DeepLabV3+ on ResNet-{name[6:-1]} v1c but {file_format.title}: {'; '.join(wrong)}",
            "only DeepLabV3+ (sep_aspp) on ResNet-50 or -101 v1c can be imported",
        )
    tensors = import_mmseg(inside, model)
    num_classes = there if expected is None else expected
    fresh: list[str] = []
    if reset_head:
        fresh = _redraw(tensors, model, num_classes)
    elif num_classes != there:
        raise WeightsError(
            f"{file} has {there} classes, not {num_classes}: {_class_shapes(state, num_classes)}",
            "--reset-head keeps everything but the classifiers and draws those anew",
        )
    classes, origin = _names(checkpoint, num_classes, reset_head)
    used = {key: tensor for key, tensor in inside.items() if names[key] not in fresh}
    report = {
        "kind": "segmentor",
        "head": preset.train.head.kind,
        "backbone": name,
        "output_stride": output_stride,
        "num_classes": num_classes,
        "classes": list(classes),
        "classes_from": origin,
        "colors": [list(color) for color in _palette(checkpoint, num_classes, origin)],
        "auxiliary_head": file_format.aux,
        "fresh": fresh,
        "otherwise": otherwise(config),
        "keys": _keys(names, used, state),
        "preset": preset.model_dump(mode="json"),
    }
    counters = {key: torch.tensor(0) for key in model_state if key.endswith("num_batches_tracked")}
    return counters | tensors, report


def _preset(name: str, aux: bool, output_stride: int) -> Preset:
    """How MMSegmentation builds, trains and scores such a network."""
    stride: Literal[8, 16] = 16 if output_stride == 16 else 8
    head, weight = DeepLabConfig(dilations=DILATIONS[stride]), 0.4 if aux else 0.0
    backbone = BackboneConfig(name=name, weights="none", output_stride=stride, freeze_bn=False)
    return Preset(
        name=f"mmseg-{name}",
        dataset=DatasetConfig(path="data/voc-aug"),
        train=TrainConfig(supervision="full", backbone=backbone, head=head, aux=AuxConfig(weight=weight)),
        eval=EvalConfig(base="short", short_side=SHORT),
    )


def _class_shapes(state: State, num_classes: int) -> str:
    wrong = []
    for key in (f"{head}.conv_seg.{kind}" for head in ("decode_head", "auxiliary_head") for kind in ("weight", "bias")):
        if key in state:
            shape = list(state[key].shape)
            wrong.append(f"{key} is {shape}, not {[num_classes, *shape[1:]]}")
    return ", ".join(wrong)


def _redraw(tensors: State, model: Segmentor, num_classes: int) -> list[str]:
    """Give both heads a new classifier, drawn as the network draws it, with seed 0; the keys of the new tensors."""
    generator = torch.Generator().manual_seed(0)
    fresh = [key for key in tensors if key in model.classifier_keys()]
    for key in fresh:
        shape = (num_classes, *tensors[key].shape[1:])
        bias = key.endswith("bias")
        tensors[key] = torch.zeros(shape) if bias else 0.01 * torch.randn(shape, generator=generator)
    return fresh


def _meta(checkpoint: Checkpoint) -> dict[str, Any]:
    meta = checkpoint.around.get("meta")
    return meta if isinstance(meta, dict) else {}


def _class_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The class names in a checkpoint; empty where none."""
    names = said(_meta(checkpoint), "classes")
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _names(checkpoint: Checkpoint, num_classes: int, fresh: bool) -> tuple[tuple[str, ...], str]:
    """(names, where they come from)."""
    names = () if fresh else _class_names(checkpoint)
    if len(names) == num_classes:
        return names, "the file"
    if num_classes == len(CLASSES) + 1 and not fresh and not names:
        return ("background", *CLASSES), "VOC, by their number"
    numbered = ("background", *(f"class {index}" for index in range(1, num_classes)))
    return numbered, f"numbered, as the file names {len(names)}" if names else "numbered"


def _palette(checkpoint: Checkpoint, num_classes: int, origin: str) -> tuple[tuple[int, int, int], ...]:
    palette = said(_meta(checkpoint), "palette")
    if origin == "the file" and isinstance(palette, (list, tuple)) and len(palette) == num_classes:
        try:
            colors = tuple((int(r), int(g), int(b)) for r, g, b in palette)
        except (TypeError, ValueError):
            return voc_palette(num_classes)
        if all(0 <= value <= 255 for color in colors for value in color):
            return colors
    return voc_palette(num_classes)


def _write(out: Path, tensors: State, meta: dict[str, Any]) -> None:
    plain = {key: _plain(tensor) for key, tensor in tensors.items()}
    write_bytes(out / "model.safetensors", safetensors.torch.save(plain))
    hashes = {"model.safetensors": sha256_file(out / "model.safetensors")}
    write_json(out / "meta.json", {"layout": LAYOUT, "step": 0, "sha256": hashes, **meta})


def _plain(tensor: Tensor) -> Tensor:
    """A copy of its own, contiguous; any floating-point type becomes float32."""
    copy = tensor.detach().contiguous().clone()
    return copy.float() if copy.is_floating_point() else copy
