"""Weight files: safe reading, strict loading with errors that name the keys, and MMSegmentation's naming."""

from __future__ import annotations

import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wsss_cli.errors import WeightsError
from wsss_cli.files import how_to_read
from wsss_cli.kinds import LOOKED_AT, UNTOLD, ZIP, kind_of_file
from wsss_cli.weights.beside import check_file
from wsss_cli.weights.choice import split_choice
from wsss_cli.weights.tables import OF_ARRAYS, RESAVE, State, choose
from wsss_cli.weights.unpickle import RefusedError, read_inert

OF_RUN = "name the run or the checkpoint that it was made from; of ONNX, wsss eval takes the file, too"
OTHER_CHECKPOINT = "remove this checkpoint folder and run its training again: it goes on from the one before, or anew"
UNPACK = "unpack it and name the weight file that is in it"
FEW = 9  # bytes that do not tell what a file was to be: of safetensors they are the length of its head
ONLY_STATE = "if you trust its origin, re-save only its state_dict with safetensors.torch.save_file"


@dataclass(frozen=True)
class Checkpoint:
    """A weight file that was read.

    Attributes:
        state: tensors on the CPU by name.
        around: what else the file's outermost dict holds (`meta` of an MMSegmentation checkpoint, say).
        where: the key under which they were in the file; empty: they are the whole.
        objects: names of classes and functions in the file that are neither weights nor plain values; not touched.
    """

    state: State
    around: dict[str, Any]
    objects: tuple[str, ...] = ()
    where: str = ""


def load_state(path: str | Path) -> State:
    """Read a weight file to use it, without running anything that is in it; see `read_checkpoint`.

    Returns:
        Tensors on the CPU by name.
    Raises:
        WeightsError: as there, and for numbers that are not finite.
    """
    state = read_checkpoint(path).state
    check_finite(state, path)
    return state


def check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights with numbers that are not finite.

    Raises:
        WeightsError: names the first tensors.
    """
    if wrong := not_finite(state):
        shown = f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}"
        raise WeightsError(
            f"weights {path} hold numbers that are not finite, in {len(wrong)} of {len(state)} tensors: {shown}",
            "the training that made them diverged, or the file is damaged: take an earlier one",
        )


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with NaN or infinite numbers."""
    return [name for name, tensor in state.items() if tensor.is_floating_point() and not _finite(tensor)]


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float()).all())


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a weight file without running anything that is in it.

    Args:
        path: a safetensors or a torch file, whatever its name, the latter read with `weights_only=True`. Weights that
            are under a key ('state_dict', 'model', 'teacher', ...) are found; where there are several networks,
            FILE:KEY says which. A training checkpoint with objects of other packages is read too: nothing takes the
            place of those.
    Raises:
        WeightsError: missing, truncated, refused because it names what weights have no use for, without a tensor,
            with several networks of which none is chosen, or with tensors that are not plain (sparse, quantised, meta).
    """
    path, chosen = split_choice(path)
    check_file(path)
    value, objects = _read(path)
    state, where = choose(value, chosen, path, objects)
    _check_plain(state, path)
    outer = value if where else {}
    around = {str(key): item for key, item in outer.items() if key != where.split("/")[0]}
    return Checkpoint(state, around, tuple(objects), where)


def _check_plain(state: Mapping[str, Tensor], path: Path) -> None:
    wrong = {name: form for name, tensor in state.items() if (form := _form(tensor))}
    if wrong:
        (name, form), *_ = wrong.items()
        raise WeightsError(
            f"weights {path} hold {len(wrong)} of {len(state)} tensors in a form that cannot be used: {name} is {form}",
            "save plain tensors of the network before it was converted: 32- or 16-bit floating point",
        )


def _form(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "a shape without numbers (on the device meta)"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})"
    return "" if tensor.layout == torch.strided else f"sparse ({str(tensor.layout).removeprefix('torch.')})"


def _read(path: Path) -> tuple[Any, list[str]]:
    try:
        if _is_safetensors(path):
            return load_file(path, device="cpu"), []
        if other := _other_form(path):
            hints = {"export": OF_RUN, "archive": UNPACK, "NumPy": OF_ARRAYS}
            hint = next((hint for word, hint in hints.items() if word in other), RESAVE)
            raise WeightsError(f"weights {path} are {other}, not a state dict", hint)
        try:
            with path.open("rb") as file:  # of a path torch believes the suffix
                return torch.load(file, map_location="cpu", weights_only=True), []
        except pickle.UnpicklingError:
            if not zipfile.is_zipfile(path):
                raise
            return read_inert(path)
    except WeightsError:
        raise
    except RefusedError as error:
        raise WeightsError(f"weights {path} refused: {error}, and nothing in it was run", ONLY_STATE) from error
    except pickle.UnpicklingError as error:
        if "unsupported global" in str(error).lower() or _calls(path):
            raise WeightsError(
                f"weights {path} refused: the file holds code or objects besides weights, and none of it was run",
                ONLY_STATE,
            ) from error
        raise _damaged(path, "damaged or not a weight file", RESAVE) from error
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}", how_to_read(error)) from error
    except Exception as error:  # a damaged pickle can fail in any way: safetensors, zip, type, key, value errors
        hint = OTHER_CHECKPOINT if (path.parent / "meta.json").is_file() else RESAVE
        raise _damaged(path, f"truncated or damaged: {_first_line(error)}", hint) from error


def _is_safetensors(path: Path) -> bool:
    """By content, and by name where the content is of neither form."""
    with path.open("rb") as file:
        head = file.read(9)
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return True
    return path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80"))


def _other_form(path: Path) -> str:
    """What a file is that holds a network in another form, or an archive of something else, in words; else nothing."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # the fields ir_version and producer_name
        return "a network as ONNX, as `wsss export` writes"
    if head == b"\x89HDF\r\n\x1a\n":
        return "HDF5, as Keras writes"
    if tarfile.is_tarfile(path):
        return "a tar archive"
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        return "a network as TorchScript, as `wsss export` writes"
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy (.npz)"
    return "" if any(name.endswith(".pkl") for name in names) else "a zip archive that torch has not written"


def _damaged(path: Path, how: str, hint: str) -> WeightsError:
    """The error for a file that cannot be read: by its first bytes it may be no weight file at all."""
    with path.open("rb") as file:
        head = file.read(LOOKED_AT)
    kind = kind_of_file(head)
    if kind in (ZIP, UNTOLD) or 0 < len(head) < FEW:  # as torch writes them, or the beginning of one
        return WeightsError(f"weights {path} are {how}", hint)
    return WeightsError(f"{path} is no weight file: it is {kind}", hint)


def _calls(path: Path) -> bool:
    """Whether a bare pickle names something to be called; reads its opcodes and runs none of them."""
    try:
        with path.open("rb") as file:
            return any(opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST") for opcode, _, _ in pickletools.genops(file))
    except ValueError:  # not a pickle, or cut short
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`, strictly: every key, every shape. BN batch counters may be missing.

    Args:
        module: takes the weights; unchanged if they do not fit.
        state: tensors by the module's own key names.
        what: the origin of the weights, for the error message.
    Raises:
        WeightsError: names the first differing keys and shapes.
    """
    faults = differences(module.state_dict(), state)
    if faults:
        raise WeightsError(
            f"weights {what} do not fit the network of these settings: {'; '.join(faults)}",
            "use the preset (backbone, channels, classes) with which they were made",
        )
    module.load_state_dict(dict(state), strict=False)


def differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being loaded for `expected`, a phrase for each kind; empty where it fits.

    Batch counters (num_batches_tracked) may be missing. Floating point of any width is taken for floating point; whole
    numbers are not: those of a quantised network mean nothing without their scales.
    """
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unknown = [k for k in state if k not in expected]
    other = [
        f"{k} is {list(state[k].shape)}, not {list(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    numbers = [
        f"{k} is {str(state[k].dtype).removeprefix('torch.')}"
        for k in expected
        if k in state and expected[k].is_floating_point() and not state[k].is_floating_point()
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", other), ("not floating point", numbers))
    return [
        f"{len(names)} {title} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for title, names in kinds
        if names
    ]


# Ours -> MMSegmentation's, tried in this order; the first that matches the start of a key is taken.
_MMSEG_PREFIXES = (
    ("backbone.net.conv1.", "backbone.stem."),
    ("backbone.net.bn1.", "backbone.stem.7."),
    ("backbone.net.layer", "backbone.layer"),
    ("head.image_pool.", "decode_head.image_pool.1."),
    ("head.aspp.", "decode_head.aspp_modules."),
    ("head.bottleneck.", "decode_head.bottleneck."),
    ("head.low.", "decode_head.c1_bottleneck."),
    ("head.fuse.", "decode_head.sep_bottleneck."),
    ("head.classifier.", "decode_head.conv_seg."),
    ("aux.conv.", "auxiliary_head.convs.0."),
    ("aux.classifier.", "auxiliary_head.conv_seg."),
)


def mmseg_key_map(model: nn.Module) -> dict[str, str]:
    """Key names of a DeepLabV3+ on a ResNet-C backbone: ours -> MMSegmentation's.

    Raises:
        WeightsError: a key has no counterpart, i.e. the backbone is not of that family.
    Source: DepthwiseSeparableASPPHead and ResNetV1c of MMSegmentation 1.2.2 (names only).
    """
    return {key: _mmseg_name(key) for key in model.state_dict()}


def _mmseg_name(key: str) -> str:
    for ours, theirs in _MMSEG_PREFIXES:
        if key.startswith(ours):
            renamed = theirs + key[len(ours) :]
            return re.sub(r"\.(depthwise|pointwise)\.", r".\1_conv.", renamed)
    raise WeightsError(f"{key} has no name in MMSegmentation", "use a backbone resnet50c or resnet101c")


def import_mmseg(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """The tensors of an MMSegmentation checkpoint of the same network under the names of `model`; for `load_into`.

    Args:
        state: MMSegmentation's state dict; a missing `auxiliary_head` is an error only if `model` has one.
        model: DeepLabV3+ on resnet50c or resnet101c.
    """
    names = mmseg_key_map(model)
    renamed = {ours: state[theirs] for ours, theirs in names.items() if theirs in state}
    known = {*names.values()}
    extra = {key: tensor for key, tensor in state.items() if key not in known}
    if not any(key.startswith("aux.") for key in names):
        extra = {key: tensor for key, tensor in extra.items() if not key.startswith("auxiliary_head.")}
    return renamed | extra


def efficientnet_lite_names(state: Mapping[str, Tensor], blocks: Mapping[int, str]) -> State:
    """Rename an EfficientNet-Lite state dict from `_blocks.N._expand_conv` style names to timm's.

    Args:
        state: `_conv_stem, _bn0, _blocks.N.{_expand_conv,_bn0,_depthwise_conv,_bn1,_project_conv,_bn2},
            _conv_head, _bn1, _fc`.
        blocks: timm's `blocks.S.B` for each running number N.
    Raises:
        WeightsError: a key has no place, or two keys have the same.
    """
    renamed: State = {}
    for key, tensor in state.items():
        name = _efficientnet_lite_name(key, blocks, state)
        if name is None or name in renamed:
            raise WeightsError(f"EfficientNet-Lite weights: no place for {key}", "reinstall the package of the weights")
        renamed[name] = tensor
    return renamed


_LITE_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _efficientnet_lite_name(key: str, blocks: Mapping[int, str], state: Mapping[str, Tensor]) -> str | None:
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if inner is None:
        module, _, rest = key.partition(".")
        return f"{_LITE_OUTER[module]}.{rest}" if module in _LITE_OUTER else None
    number, module, rest = int(inner[1]), inner[2], inner[3]
    expands = f"_blocks.{number}._expand_conv.weight" in state
    table = _LITE_INVERTED if expands else _LITE_SEPARABLE  # a block of expansion 1 has no first convolution
    if number not in blocks or module not in table:
        return None
    return f"{blocks[number]}.{table[module]}.{rest}"
